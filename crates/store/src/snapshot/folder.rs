//! The folder of snapshots: what its files are called, and which of them a start leaves alone.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use base::rule::{Rule, keep};
use base::{Index, PeerId, RegionId, Term};
use storage::disk::{Disk, DiskFile};
use storage::engine::Cf;

use super::{CHUNK_BYTES_MAX, SnapshotData, SnapshotError, SnapshotFile, SnapshotKey};

/// Whose files are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotName {
    /// Those that were made here for a peer elsewhere.
    Made {
        /// Of what.
        key: SnapshotKey,
        /// For whom.
        to: PeerId,
    },
    /// Those that came from another store.
    Received(SnapshotKey),
}

/// A folder with the files of snapshots that come and go. Clones are the same folder.
#[derive(Clone)]
pub struct SnapshotFolder {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// What is being received. Whoever creates or removes files of a received snapshot holds the
    /// lock or has its key in here.
    receiving: Mutex<BTreeSet<SnapshotKey>>,
}

/// Which file of a snapshot one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Table,
    /// Says that all the others are here.
    Meta,
    /// Will say so.
    Unfinished,
}

impl SnapshotFolder {
    /// Opens the folder `dir`, making it if need be, and removes what earlier processes left in it:
    /// everything of ours but the received snapshots named by `keep`, those of regions that are
    /// [`Applying`](crate::LocalState). Files with other names are left alone.
    ///
    /// `disk` must be the one that the engine writes its tables to.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keep: &[SnapshotKey],
    ) -> Result<Self, SnapshotError> {
        disk.create_dir(dir).map_err(|error| SnapshotError::disk("create", dir, &error))?;
        let receiving = Mutex::new(BTreeSet::new());
        let folder = Self { shared: Arc::new(Shared { disk, dir: dir.to_owned(), receiving }) };
        folder.sweep(keep)?;
        Ok(folder)
    }

    fn sweep(&self, keep: &[SnapshotKey]) -> Result<(), SnapshotError> {
        for (file, name, part) in self.files()? {
            let kept = match name {
                SnapshotName::Received(key) => keep.contains(&key) && part != Part::Unfinished,
                SnapshotName::Made { .. } => false,
            };
            if !kept {
                self.remove_file(&self.shared.dir.join(file))?;
            }
        }
        Ok(())
    }

    /// The received snapshots that are complete, in order.
    pub fn received(&self) -> Result<Vec<SnapshotKey>, SnapshotError> {
        let mut keys: Vec<_> = self
            .files()?
            .into_iter()
            .filter_map(|(_, name, part)| match (name, part) {
                (SnapshotName::Received(key), Part::Meta) => Some(key),
                _ => None,
            })
            .collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// What is known of the received snapshot `key`: [`Missing`](SnapshotError::Missing) unless it
    /// is complete.
    pub fn data(&self, key: SnapshotKey) -> Result<SnapshotData, SnapshotError> {
        let path = self.meta_path(key);
        let fail = |error: io::Error| SnapshotError::disk("read", &path, &error);
        let file = self.disk().open(&path).map_err(fail)?;
        let size = file.size().map_err(fail)?;
        if size > CHUNK_BYTES_MAX as u64 {
            let expected = CHUNK_BYTES_MAX as u64;
            return Err(SnapshotError::Size { path, expected, actual: size });
        }
        let mut bytes = vec![0; size as usize];
        file.read_at(&mut bytes, 0).map_err(fail)?;
        SnapshotData::decode_file(key, &bytes)
    }

    /// Removes the files of a snapshot, if there are any. One that is being received stays.
    pub fn remove(&self, name: SnapshotName) -> Result<(), SnapshotError> {
        match name {
            SnapshotName::Made { .. } => self.remove_tables(name),
            SnapshotName::Received(key) => {
                let receiving = self.receiving();
                match receiving.contains(&key) {
                    true => Ok(()),
                    false => self.remove_received(key),
                }
            }
        }
    }

    /// Removes what was made earlier for the same peer: it can wait for one at a time only.
    pub(super) fn remove_made(&self, region: RegionId, peer: PeerId) -> Result<(), SnapshotError> {
        for (file, name, _) in self.files()? {
            if let SnapshotName::Made { key, to } = name
                && (key.region, to) == (region, peer)
            {
                self.remove_file(&self.shared.dir.join(file))?;
            }
        }
        Ok(())
    }

    /// The list goes first: without it there is no snapshot, only leftovers.
    pub(super) fn remove_received(&self, key: SnapshotKey) -> Result<(), SnapshotError> {
        self.remove_file(&self.meta_path(key))?;
        self.remove_file(&self.meta_part_path(key))?;
        self.remove_tables(SnapshotName::Received(key))
    }

    fn remove_tables(&self, name: SnapshotName) -> Result<(), SnapshotError> {
        Cf::DATA.into_iter().try_for_each(|cf| self.remove_file(&self.table_path(name, cf)))
    }

    /// Also if it is not there.
    pub(super) fn remove_file(&self, path: &Path) -> Result<(), SnapshotError> {
        match self.disk().remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::disk("remove", path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the received snapshot `key` gets its own claim now; else somebody has it.
    pub(super) fn claim(&self, key: SnapshotKey) -> bool {
        self.receiving().insert(key)
    }

    pub(super) fn release(&self, key: SnapshotKey) {
        let had = self.receiving().remove(&key);
        assert!(had, "the snapshot of {key} is released by who claimed it");
    }

    fn receiving(&self) -> MutexGuard<'_, BTreeSet<SnapshotKey>> {
        self.shared.receiving.lock().expect("no thread panics while it holds the lock")
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.shared.disk
    }

    pub(super) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    pub(super) fn table_path(&self, name: SnapshotName, cf: Cf) -> PathBuf {
        let cf = cf.name();
        self.shared.dir.join(match name {
            SnapshotName::Made { key: SnapshotKey { region, term, index }, to } => {
                format!("made-{region}-{term}-{index}-{to}-{cf}.sst")
            }
            SnapshotName::Received(SnapshotKey { region, term, index }) => {
                format!("received-{region}-{term}-{index}-{cf}.sst")
            }
        })
    }

    pub(super) fn meta_path(&self, key: SnapshotKey) -> PathBuf {
        let SnapshotKey { region, term, index } = key;
        self.shared.dir.join(format!("received-{region}-{term}-{index}.meta"))
    }

    pub(super) fn meta_part_path(&self, key: SnapshotKey) -> PathBuf {
        let SnapshotKey { region, term, index } = key;
        self.shared.dir.join(format!("received-{region}-{term}-{index}.meta.part"))
    }

    /// Opens a file and makes sure of its size.
    pub(super) fn open_sized(
        &self,
        path: &Path,
        expected: u64,
    ) -> Result<Arc<dyn DiskFile>, SnapshotError> {
        let fail = |error: io::Error| SnapshotError::disk("read", path, &error);
        let file = self.disk().open(path).map_err(fail)?;
        let actual = file.size().map_err(fail)?;
        if actual != expected {
            return Err(SnapshotError::Size { path: path.to_owned(), expected, actual });
        }
        Ok(file)
    }

    /// Reads a file of `size` bytes from end to end.
    pub(super) fn checksum(&self, path: &Path, size: u64) -> Result<u32, SnapshotError> {
        let file = self.open_sized(path, size)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES_MAX.min(usize::try_from(size).unwrap_or(usize::MAX))];
        let mut offset = 0;
        while offset < size {
            let len = (size - offset).min(buffer.len() as u64);
            let piece = &mut buffer[..len as usize];
            file.read_at(piece, offset)
                .map_err(|error| SnapshotError::disk("read", path, &error))?;
            hasher.update(piece);
            offset += len;
        }
        Ok(hasher.finalize())
    }

    /// Whether the received file is what was promised.
    pub(super) fn check(
        &self,
        key: SnapshotKey,
        file: &SnapshotFile,
    ) -> Result<PathBuf, SnapshotError> {
        let path = self.table_path(SnapshotName::Received(key), file.cf);
        let actual = self.checksum(&path, file.size)?;
        if actual != file.checksum && keep(Rule::CheckReceivedFiles) {
            return Err(SnapshotError::Checksum { path, expected: file.checksum, actual });
        }
        Ok(path)
    }

    /// The files that are ours.
    fn files(&self) -> Result<Vec<(String, SnapshotName, Part)>, SnapshotError> {
        let dir = self.dir();
        let names =
            self.disk().list(dir).map_err(|error| SnapshotError::disk("list", dir, &error))?;
        let ours = names.into_iter().filter_map(|file| {
            let (name, part) = parse(&file)?;
            Some((file, name, part))
        });
        Ok(ours.collect())
    }
}

/// What a file of this name is; `None` if it is none of ours.
fn parse(file: &str) -> Option<(SnapshotName, Part)> {
    let (stem, extension) = file.split_once('.')?;
    let part = match extension {
        "sst" => Part::Table,
        "meta" => Part::Meta,
        "meta.part" => Part::Unfinished,
        _ => return None,
    };
    let mut words = stem.split('-');
    let kind = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let (region, term, index): (u64, Term, Index) = (number()?, number()?, number()?);
    let key = SnapshotKey { region: RegionId(region), term, index };
    let name = match kind {
        "made" => SnapshotName::Made { key, to: PeerId(number()?) },
        "received" => SnapshotName::Received(key),
        _ => return None,
    };
    if part == Part::Table {
        Cf::from_name(words.next()?).filter(|cf| Cf::DATA.contains(cf))?;
    }
    words.next().is_none().then_some((name, part))
}
