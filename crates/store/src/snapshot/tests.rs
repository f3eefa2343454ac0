//! Whole ways of a snapshot, from one engine to another, on both kinds of engine.

mod damage;
mod transfer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base::{Epoch, KeyRange, Peer, PeerId, Prng, Region, RegionId, StoreId};
use bytes::Bytes;
use raft::{ConfState, LogPos};
use storage::disk::{MemoryDisk, RealDisk};
use storage::engine::{
    Cf, Engine, EngineError, GarbageRule, GarbageWalk, IterOptions, MemoryEngine, RocksEngine,
    RocksOptions, Snapshot, WriteBatch,
};
use storage::keys;
use tempfile::TempDir;

use super::*;

const PEER: PeerId = PeerId(33);
const POS: LogPos = LogPos { index: 100, term: 6 };

/// All keys of the families of data.
type Contents = BTreeMap<(Cf, Vec<u8>), Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Rocks,
}

const KINDS: [Kind; 2] = [Kind::Memory, Kind::Rocks];

/// One store's engine and folder of snapshots.
struct Site {
    engine: Arc<dyn Engine>,
    folder: SnapshotFolder,
    dir: TempDir,
}

impl Site {
    fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = RocksOptions { write_buffer_bytes: 1 << 20, ..RocksOptions::default() };
        let engine: Arc<dyn Engine> = match kind {
            Kind::Memory => Arc::new(MemoryEngine::new()),
            Kind::Rocks => {
                let place = dir.path().join("engine");
                Arc::new(RocksEngine::open(&place, &options).expect("it opens"))
            }
        };
        let folder = open_folder(dir.path(), &[]);
        Self { engine, folder, dir }
    }

    fn put(&self, rows: &[(Cf, &str, &[u8])]) {
        let mut batch = WriteBatch::new();
        rows.iter().for_each(|(cf, key, value)| batch.put(*cf, key.as_bytes(), value));
        self.engine.write(&batch).expect("written");
    }

    fn contents(&self) -> Contents {
        contents(&*self.engine.snapshot())
    }

    fn build(&self, region: &Region) -> SnapshotFiles {
        let job = BuildSnapshot {
            region: Arc::new(region.clone()),
            absorbed: Arc::default(),
            to: PEER,
            pos: POS,
            conf: ConfState::of_voters([PeerId(31), PeerId(32), PEER]),
            snapshot: self.engine.snapshot(),
        };
        job.run(&*self.engine, &self.folder).expect("it is built")
    }

    /// What the transport does.
    fn send(&self, files: &SnapshotFiles, to: &Site) -> SnapshotKey {
        let SnapshotFiles { key, to: peer, snapshot, .. } = files;
        let mut reader = self.folder.reader(key.region, *peer, snapshot).expect("files");
        let mut writer = to.folder.writer(key.region, snapshot).expect("room");
        assert_eq!(reader.left(), files.size);
        while let Some(chunk) = reader.next_chunk().expect("a chunk") {
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_BYTES_MAX);
            writer.write(&chunk).expect("written");
        }
        assert_eq!(reader.left(), 0);
        writer.finish().expect("all is here")
    }

    fn install(&self, region: &Region) -> Result<(), SnapshotError> {
        installation(region).run(&*self.engine, &self.folder)
    }

    /// Names of the files of snapshots.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path().join("snap"))
            .expect("a folder")
            .map(|item| item.expect("an item").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

fn open_folder(dir: &Path, keep: &[SnapshotKey]) -> SnapshotFolder {
    SnapshotFolder::open(Arc::new(RealDisk::new()), &dir.join("snap"), keep).expect("a folder")
}

fn installation(region: &Region) -> InstallSnapshot {
    let key = SnapshotKey::new(region.id, POS);
    InstallSnapshot { region: Arc::new(region.clone()), key, old_range: None }
}

fn contents(snapshot: &dyn Snapshot) -> Contents {
    let mut found = Contents::new();
    for cf in Cf::DATA {
        let mut cursor = snapshot.iter(cf, IterOptions::default()).expect("a cursor");
        let mut valid = cursor.seek_to_first().expect("readable");
        while valid {
            found.insert((cf, cursor.key().to_vec()), cursor.value().to_vec());
            valid = cursor.next().expect("readable");
        }
    }
    found
}

fn region(id: u64, start: &'static str, end: &'static str) -> Region {
    let peers = vec![Peer::voter(PeerId(31), StoreId(1)), Peer::voter(PEER, StoreId(3))];
    let epoch = Epoch { conf_ver: 4, version: 9 };
    let range = KeyRange::new(start, end);
    Region { id: RegionId(id), range, epoch, peers, flashback: None }
}

/// What `target` must hold after it took `region` from `source`.
fn expected(source: &Contents, target: &Contents, region: &Region) -> Contents {
    let (start, end) = keys::data_range(region.id, &region.range);
    let range = KeyRange::new(start, end);
    let inside = |(_, key): &(Cf, Vec<u8>)| range.contains(key);
    let taken = source.iter().filter(|(place, _)| inside(place));
    let left = target.iter().filter(|(place, _)| !inside(place));
    taken.chain(left).map(|(place, value)| (place.clone(), value.clone())).collect()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut prng = Prng::new(seed);
    (0..len).map(|_| prng.next_u64() as u8).collect()
}

/// Source and target with rows of all families in and around `[b, y)`.
fn two_sites(kind: Kind) -> (Site, Site) {
    let (source, target) = (Site::new(kind), Site::new(kind));
    source.put(&[
        (Cf::Default, "zc", b"1"),
        (Cf::Default, "zgone", b"deleted below"),
        (Cf::Lock, "zc", b"a lock"),
        (Cf::Write, "zc", b"a commit"),
        (Cf::Write, "zx", b""),
        (Cf::Default, "zz", b"another region's"),
    ]);
    let mut batch = WriteBatch::new();
    batch.delete(Cf::Default, b"zgone");
    source.engine.write(&batch).expect("written");
    target.put(&[
        (Cf::Default, "zc", b"old"),
        (Cf::Default, "zgone", b"still here"),
        (Cf::Lock, "zold", b"a lock that was released long ago"),
        (Cf::Default, "za", b"before"),
        (Cf::Write, "zy", b"behind"),
        (Cf::Lock, "sc", b"the system's"),
    ]);
    target.engine.flush().expect("flushed");
    (source, target)
}

/// How far a store collected, and what it heard of others.
#[derive(Debug)]
struct Collects(&'static [u8], Mutex<Vec<Bytes>>);

impl GarbageRule for Collects {
    fn compaction(&self) -> Option<Box<dyn GarbageWalk>> {
        None
    }

    fn horizon(&self) -> Bytes {
        Bytes::new()
    }

    fn beyond(&self, _: &[u8], _: &KeyRange) -> Option<Box<dyn GarbageWalk>> {
        None
    }

    fn collected(&self) -> Bytes {
        Bytes::from_static(self.0)
    }

    fn take_over(&self, collected: &[u8], engine: &dyn Engine) -> Result<(), EngineError> {
        assert!(contents(&*engine.snapshot()).is_empty(), "before there is any of it");
        self.1.lock().expect("one thread").push(Bytes::copy_from_slice(collected));
        Ok(())
    }
}

#[test]
fn how_far_garbage_was_collected_moves_with_a_region() {
    for far in [&b"far"[..], b""] {
        let rules = [far, b"near"].map(|far| Arc::new(Collects(far, Mutex::default())));
        let sites = rules.clone().map(|rule| Site {
            engine: Arc::new(MemoryEngine::new().with_garbage(rule)),
            ..Site::new(Kind::Memory)
        });
        sites[0].put(&[(Cf::Write, "zc", b"a commit")]);
        let region = region(2, "b", "y");
        let files = sites[0].build(&region);
        sites[0].send(&files, &sites[1]);
        sites[1].install(&region).expect("installed");
        assert_eq!(*rules[1].1.lock().expect("one thread"), [far]);
        assert_eq!(sites[1].contents(), sites[0].contents());
    }
}

#[test]
fn a_region_moves_from_engine_to_engine() {
    for kind in KINDS {
        let (source, target) = two_sites(kind);
        let big = noise(1, 2 * CHUNK_BYTES_MAX + CHUNK_BYTES_MAX / 2);
        source.put(&[(Cf::Default, "zbig", &big), (Cf::Default, "zc2", b"after the big one")]);
        let region = region(2, "b", "y");
        let after = expected(&source.contents(), &target.contents(), &region);
        let files = source.build(&region);
        assert!(files.size > big.len() as u64);
        assert_eq!(files.snapshot.pos, POS);
        assert_eq!(files.snapshot.conf, ConfState::of_voters([PeerId(31), PeerId(32), PEER]));
        let data = SnapshotData::decode(region.id, &files.snapshot.data).expect("ours");
        assert_eq!(data.region, region);
        assert_eq!(data.files.iter().map(|file| file.cf).collect::<Vec<_>>(), Cf::DATA);
        // What comes later is not part of it.
        source.put(&[(Cf::Default, "zlater", b"no")]);

        let key = source.send(&files, &target);
        assert_eq!(target.folder.data(key), Ok(data));
        target.install(&region).expect("installed");
        assert_eq!(target.contents(), after, "{kind:?}");
        assert_eq!(source.files(), [""; 0], "sent files are gone");
        assert_eq!(target.files().len(), 4, "received ones stay until they are discarded");
        DiscardSnapshot(SnapshotName::Received(key)).run(&target.folder).expect("discarded");
        assert_eq!(target.files(), [""; 0]);
        assert_eq!(target.contents(), after, "the engine has files of its own");
    }
}

#[test]
fn an_empty_region_has_no_files_and_empties_the_target() {
    for kind in KINDS {
        let (source, target) = two_sites(kind);
        let region = region(2, "d", "w");
        let files = source.build(&region);
        assert_eq!((files.size, source.files().len()), (0, 0));
        let before = target.contents();
        let key = source.send(&files, &target);
        assert_eq!(target.files().len(), 1);
        target.install(&region).expect("installed");
        let after = expected(&Contents::new(), &before, &region);
        assert_eq!(target.contents(), after, "{kind:?}");
        assert!(after.len() < before.len());
        assert_eq!(target.folder.received(), Ok(vec![key]));
    }
}

#[test]
fn borders_belong_to_whom_they_should() {
    for kind in KINDS {
        for (start, end, taken) in
            [("b", "d", &["b", "c"][..]), ("", "b", &["", "a"]), ("d", "", &["d", "\u{7f}"])]
        {
            let (source, target) = (Site::new(kind), Site::new(kind));
            for key in ["", "a", "b", "c", "d", "\u{7f}"] {
                let (theirs, ours) = (format!("z{key}"), format!("z{key}"));
                source.put(&[(Cf::Write, &theirs, b"source")]);
                target.put(&[(Cf::Write, &ours, b"target")]);
            }
            // Right before and right behind the prefix.
            target.put(&[(Cf::Write, "y\u{7f}", b"target"), (Cf::Write, "{", b"target")]);
            source.put(&[(Cf::Write, "y\u{7f}", b"source"), (Cf::Write, "{", b"source")]);
            let region = region(2, start, end);
            source.send(&source.build(&region), &target);
            target.install(&region).expect("installed");
            let of_source = target.contents().into_iter().filter(|(_, value)| value == b"source");
            let keys: Vec<_> = of_source.map(|((_, key), _)| key[1..].to_vec()).collect();
            assert_eq!(keys, taken.iter().map(|key| key.as_bytes()).collect::<Vec<_>>());
            assert_eq!(target.contents().len(), 8, "{kind:?} {start}..{end}");
        }
    }
}

#[test]
fn the_system_region_has_its_own_keys() {
    for kind in KINDS {
        let (source, target) = two_sites(kind);
        source.put(&[(Cf::Default, "sx", b"a row"), (Cf::Default, "s", b"the first row")]);
        let region = Region { id: RegionId::SYSTEM, ..region(2, "", "") };
        let after = expected(&source.contents(), &target.contents(), &region);
        assert!(!after.contains_key(&(Cf::Lock, b"sc".to_vec())));
        source.send(&source.build(&region), &target);
        target.install(&region).expect("installed");
        assert_eq!(target.contents(), after, "{kind:?}");
    }
}

#[test]
fn installing_twice_is_installing_once() {
    for kind in KINDS {
        let (source, target) = two_sites(kind);
        let region = region(2, "b", "y");
        let after = expected(&source.contents(), &target.contents(), &region);
        source.send(&source.build(&region), &target);
        target.install(&region).expect("installed");
        target.put(&[(Cf::Default, "zm", b"as if the first run had stopped half way")]);
        target.install(&region).expect("installed again");
        assert_eq!(target.contents(), after, "{kind:?}");
    }
}

#[test]
fn a_power_loss_at_any_moment_is_made_good_by_another_run() {
    for seed in 0..100 {
        let mut prng = Prng::new(seed);
        let (source, mut target) = two_sites(Kind::Memory);
        let (disk, engine) = in_memory(&mut target);
        target.put(&[(Cf::Default, "zd", b"old"), (Cf::Default, "zz", b"not ours")]);
        engine.sync().expect("synced");
        let region = region(2, "b", "y");
        let after = expected(&source.contents(), &target.contents(), &region);
        let key = source.send(&source.build(&region), &target);
        for _ in 0..prng.below(3) {
            target.install(&region).expect("installed");
            engine.power_loss(&mut prng);
            disk.power_loss(&mut prng);
            target.folder = transfer::memory_folder(&disk, &[key]);
        }
        target.install(&region).expect("installed again");
        engine.sync().expect("synced");
        target.folder.remove(SnapshotName::Received(key)).expect("removed");
        engine.power_loss(&mut prng);
        disk.power_loss(&mut prng);
        assert_eq!(target.contents(), after, "seed {seed}");
        let folder = transfer::memory_folder(&disk, &[]);
        assert_eq!(folder.received(), Ok(vec![]), "what is installed is swept");
    }
}

/// Puts an engine and a disk under the site that can lose what was not synced.
fn in_memory(site: &mut Site) -> (MemoryDisk, MemoryEngine) {
    let disk = MemoryDisk::new();
    let engine = MemoryEngine::with_disk(Arc::new(disk.clone()));
    site.engine = Arc::new(engine.clone());
    site.folder = transfer::memory_folder(&disk, &[]);
    (disk, engine)
}

#[test]
fn what_the_replica_held_beyond_goes_too() {
    for kind in KINDS {
        let (source, target) = two_sites(kind);
        let wide = region(2, "", "y");
        let narrow = region(2, "b", "y");
        let after = expected(&Contents::new(), &target.contents(), &wide);
        let after = expected(&source.contents(), &after, &narrow);
        source.send(&source.build(&narrow), &target);
        let job = InstallSnapshot { old_range: Some(wide.range), ..installation(&narrow) };
        job.run(&*target.engine, &target.folder).expect("installed");
        assert_eq!(target.contents(), after, "{kind:?}");
    }
}

#[test]
fn a_scan_that_began_before_sees_what_was() {
    for kind in KINDS {
        let (source, target) = (two_sites(kind).0, Site::new(kind));
        let region = region(2, "b", "y");
        // The engine has files now, on its lowest level, with keys of the region alone.
        let key = source.send(&source.build(&region), &target);
        target.install(&region).expect("installed");
        target.folder.remove(SnapshotName::Received(key)).expect("removed");
        let before = target.contents();
        let scan = target.engine.snapshot();
        source.put(&[(Cf::Default, "zc", b"2"), (Cf::Write, "zd", b"new")]);
        source.send(&source.build(&region), &target);
        target.install(&region).expect("installed");
        assert_ne!(target.contents(), before);
        assert_eq!(contents(&*scan), before, "{kind:?}");
    }
}

#[test]
fn destroyed_data_is_gone_and_nothing_else() {
    for kind in KINDS {
        let (_, target) = two_sites(kind);
        let region = region(2, "b", "y");
        let after = expected(&Contents::new(), &target.contents(), &region);
        let job = DestroyData { region: region.id, range: region.range };
        for _ in 0..2 {
            job.run(&*target.engine).expect("destroyed");
            assert_eq!(target.contents(), after, "{kind:?}");
        }
    }
}

/// Rows under short keys, in all families, so that ranges cut through them.
fn random_rows(prng: &mut Prng, site: &Site) {
    for _ in 0..prng.below(40) {
        let mut batch = WriteBatch::new();
        for _ in 0..1 + prng.below(10) {
            let cf = Cf::DATA[prng.below(3) as usize];
            let prefix = b"sz{"[prng.below(3) as usize];
            let key = [prefix, random_byte(prng), random_byte(prng)];
            let key = &key[..1 + prng.below(3) as usize];
            match prng.below(5) {
                0 => batch.delete(cf, key),
                _ => batch.put(cf, key, &noise(prng.next_u64(), prng.below(100) as usize)),
            }
        }
        site.engine.write(&batch).expect("written");
        if prng.one_in(10) {
            site.engine.flush().expect("flushed");
        }
    }
}

fn random_byte(prng: &mut Prng) -> u8 {
    [0, b'a', b'b', b'c', 0xff][prng.below(5) as usize]
}

fn random_region(prng: &mut Prng) -> Region {
    let mut border = || -> Vec<u8> { (0..prng.below(3)).map(|_| random_byte(prng)).collect() };
    let (a, b) = (border(), border());
    let range = match a < b {
        true => KeyRange::new(a, b),
        false => KeyRange::new(b, ""),
    };
    let id = if prng.one_in(4) { RegionId::SYSTEM } else { RegionId(2) };
    Region { id, range, ..region(2, "", "") }
}

fn range_equals_the_source(kind: Kind, rounds: u64) {
    let (source, target) = (Site::new(kind), Site::new(kind));
    for seed in 0..rounds {
        let mut prng = Prng::new(seed);
        random_rows(&mut prng, &source);
        random_rows(&mut prng, &target);
        let region = random_region(&mut prng);
        let after = expected(&source.contents(), &target.contents(), &region);
        let key = source.send(&source.build(&region), &target);
        target.install(&region).expect("installed");
        assert_eq!(target.contents(), after, "{kind:?} seed {seed} {region:?}");
        target.folder.remove(SnapshotName::Received(key)).expect("removed");
    }
    assert_eq!((source.files().len(), target.files().len()), (0, 0));
}

#[test]
fn after_an_install_the_range_is_the_sources_and_the_rest_untouched() {
    range_equals_the_source(Kind::Memory, 100);
    range_equals_the_source(Kind::Rocks, 20);
}
