//! Senders that break off, repeat themselves or lie; disks that are full; what a start sweeps.

use std::io;

use storage::disk::Disk;

use super::*;

/// A snapshot of region 2 with the contents of its files.
fn made_up() -> (raft::Snapshot, Vec<u8>) {
    let (a, b) = (noise(1, 5000), noise(2, 700));
    let file = |cf, bytes: &[u8]| SnapshotFile {
        cf,
        size: bytes.len() as u64,
        checksum: crc32fast::hash(bytes),
    };
    let files = vec![file(Cf::Default, &a), file(Cf::Write, &b)];
    let (region, (absorbed, collected)) = (region(2, "b", "y"), Default::default());
    let data = SnapshotData { region, absorbed, collected, files }.encode();
    (raft::Snapshot { pos: POS, conf: ConfState::default(), data }, [a, b].concat())
}

pub(super) fn memory_folder(disk: &MemoryDisk, keep: &[SnapshotKey]) -> SnapshotFolder {
    SnapshotFolder::open(Arc::new(disk.clone()), Path::new("/snap"), keep).expect("a folder")
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    disk.list(Path::new("/snap")).expect("a folder")
}

const REGION: RegionId = RegionId(2);
const KEY: SnapshotKey = SnapshotKey { region: REGION, term: POS.term, index: POS.index };

#[test]
fn pieces_may_be_of_any_size() {
    let (snapshot, bytes) = made_up();
    for len in [1, 7, 699, 700, 701, 5000, 5001, 6000] {
        let disk = MemoryDisk::new();
        let folder = memory_folder(&disk, &[]);
        let mut writer = folder.writer(REGION, &snapshot).expect("room");
        assert_eq!(writer.key(), KEY);
        assert_eq!(writer.data().byte_size(), bytes.len() as u64);
        bytes.chunks(len).for_each(|piece| writer.write(piece).expect("written"));
        assert_eq!(writer.finish(), Ok(KEY));
        let tables = ["default", "write"].map(|cf| {
            let path = format!("/snap/received-2-6-100-{cf}.sst");
            disk.contents(Path::new(&path)).expect("a file")
        });
        assert_eq!(tables.concat(), bytes);
    }
}

#[test]
fn a_transfer_that_breaks_off_leaves_nothing() {
    let (snapshot, bytes) = made_up();
    for len in [0, 1, 4999, 5000, 5001, 5699] {
        let disk = MemoryDisk::new();
        let folder = memory_folder(&disk, &[]);
        let mut writer = folder.writer(REGION, &snapshot).expect("room");
        writer.write(&bytes[..len]).expect("written");
        let error = writer.finish().expect_err("something is missing");
        let (expected, actual) = if len < 5000 { (5000, len) } else { (700, len - 5000) };
        assert!(
            matches!(&error, SnapshotError::Size { expected: e, actual: a, .. }
                if (*e, *a) == (expected, actual as u64)),
            "{error}"
        );
        assert_eq!(names(&disk), [""; 0]);
        // And the same snapshot can come again.
        let mut writer = folder.writer(REGION, &snapshot).expect("room");
        writer.write(&bytes).expect("written");
        assert_eq!(writer.finish(), Ok(KEY));
    }
}

#[test]
fn bytes_that_changed_on_the_way_are_found() {
    let (snapshot, bytes) = made_up();
    for at in [0, 4999, 5000, 5699] {
        let disk = MemoryDisk::new();
        let folder = memory_folder(&disk, &[]);
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let mut writer = folder.writer(REGION, &snapshot).expect("room");
        let error = writer.write(&bad).expect_err("flipped");
        let cf = if at < 5000 { "default" } else { "write" };
        assert!(matches!(error, SnapshotError::Checksum { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("/snap/received-2-6-100-{cf}.sst has ")));
        // It stays with the first answer.
        assert_eq!(writer.write(&bytes), Err(error.clone()));
        assert_eq!(writer.finish(), Err(error));
        assert_eq!(names(&disk), [""; 0]);
    }
}

#[test]
fn more_bytes_than_promised_are_refused() {
    let (snapshot, mut bytes) = made_up();
    let disk = MemoryDisk::new();
    let folder = memory_folder(&disk, &[]);
    bytes.push(0);
    let mut writer = folder.writer(REGION, &snapshot).expect("room");
    let error = writer.write(&bytes).expect_err("too long");
    assert!(matches!(error, SnapshotError::Size { expected: 5700, actual: 5701, .. }), "{error}");
    assert_eq!(writer.finish(), Err(error));
    assert_eq!(names(&disk), [""; 0]);
}

#[test]
fn the_same_snapshot_is_received_once() {
    let (snapshot, bytes) = made_up();
    let disk = MemoryDisk::new();
    let folder = memory_folder(&disk, &[]);
    let mut writer = folder.writer(REGION, &snapshot).expect("room");
    writer.write(&bytes).expect("written");
    let error = folder.clone().writer(REGION, &snapshot).err();
    assert_eq!(error, Some(SnapshotError::Taken { key: KEY, complete: false }));
    // Removing what is not there yet does not disturb.
    folder.remove(SnapshotName::Received(KEY)).expect("nothing to do");
    let data = writer.data().clone();
    assert_eq!(writer.finish(), Ok(KEY));
    let error = folder.writer(REGION, &snapshot).err();
    assert_eq!(error, Some(SnapshotError::Taken { key: KEY, complete: true }));
    assert_eq!(folder.data(KEY), Ok(data));
    // A list that cannot be read makes room for a new one.
    disk.flip_bit(Path::new("/snap/received-2-6-100.meta"), 3);
    let mut writer = folder.writer(REGION, &snapshot).expect("room");
    writer.write(&bytes).expect("written");
    assert_eq!(writer.finish(), Ok(KEY));
    assert_eq!(folder.received(), Ok(vec![KEY]));
}

#[test]
fn data_that_makes_no_sense_is_refused() {
    let (snapshot, _) = made_up();
    let good = SnapshotData::decode(REGION, &snapshot.data).expect("ours");
    assert_eq!(good.encode(), snapshot.data);
    let error = SnapshotData::decode(RegionId(3), &snapshot.data).expect_err("another region");
    assert!(error.is_damage() && error.to_string().contains("it describes region 2"), "{error}");
    let file = |cf| SnapshotFile { cf, size: 1 << 63, checksum: 0 };
    let lists = [
        vec![file(Cf::Raft)],
        vec![file(Cf::Write), file(Cf::Default)],
        vec![file(Cf::Lock), file(Cf::Lock)],
        vec![file(Cf::Default), file(Cf::Write)],
    ];
    let wrong_sum = |data: &mut proto::raft_serverpb::RaftSnapshotData| data.file_size += 1;
    let no_region = |data: &mut proto::raft_serverpb::RaftSnapshotData| data.region = None;
    let version = |data: &mut proto::raft_serverpb::RaftSnapshotData| data.version = 3;
    for change in [wrong_sum, no_region, version] {
        let mut data = <proto::raft_serverpb::RaftSnapshotData as prost::Message>::decode(
            snapshot.data.clone(),
        )
        .expect("ours");
        change(&mut data);
        let data = prost::Message::encode_to_vec(&data);
        assert!(matches!(SnapshotData::decode(REGION, &data), Err(SnapshotError::Data { .. })));
    }
    for files in lists {
        let total = files.iter().fold(0u64, |sum, file| sum.wrapping_add(file.size));
        let meta = proto::raft_serverpb::SnapshotMeta {
            cf_files: files
                .iter()
                .map(|file| proto::raft_serverpb::SnapshotCfFile {
                    cf: file.cf.name().to_owned(),
                    size: file.size,
                    checksum: 0,
                })
                .collect(),
            ..Default::default()
        };
        let data = proto::raft_serverpb::RaftSnapshotData {
            region: Some(proto::region_to_proto(&good.region)),
            version: 2,
            file_size: total,
            meta: Some(meta),
            ..Default::default()
        };
        let data = prost::Message::encode_to_vec(&data);
        assert!(matches!(SnapshotData::decode(REGION, &data), Err(SnapshotError::Data { .. })));
    }
    for seed in 0..2000 {
        // Must not panic; what comes of it does not matter.
        let mut bytes = snapshot.data.to_vec();
        let mut prng = Prng::new(seed);
        let at = prng.below(bytes.len() as u64) as usize;
        bytes[at] = prng.next_u64() as u8;
        let _ = SnapshotData::decode(REGION, &bytes[..prng.below(bytes.len() as u64 + 1) as usize]);
    }
}

#[test]
fn a_full_disk_is_told_before_and_on_the_way() {
    let (snapshot, bytes) = made_up();
    let disk = MemoryDisk::new();
    let folder = memory_folder(&disk, &[]);
    disk.set_capacity(Some(2 * 5700 - 1));
    let error = folder.writer(REGION, &snapshot).err().expect("no room");
    assert!(error.is_full() && !error.is_damage(), "{error}");
    disk.set_capacity(Some(2 * 5700));
    let mut writer = folder.writer(REGION, &snapshot).expect("room");
    disk.set_capacity(Some(5200));
    let error = writer.write(&bytes).expect_err("full");
    assert!(error.is_full() && error.to_string().contains("received-2-6-100"), "{error}");
    assert_eq!(writer.finish(), Err(error));
    assert_eq!(names(&disk), [""; 0]);
}

#[test]
fn a_disk_that_fails_is_not_full() {
    let (snapshot, bytes) = made_up();
    let disk = MemoryDisk::new();
    let folder = memory_folder(&disk, &[]);
    let mut writer = folder.writer(REGION, &snapshot).expect("room");
    disk.fail_next_write(10, io::ErrorKind::Other);
    let error = writer.write(&bytes).expect_err("broken");
    assert!(matches!(error, SnapshotError::Disk { full: false, .. }), "{error}");
    drop(writer);
    for syncs in 0..3 {
        let mut writer = folder.writer(REGION, &snapshot).expect("room");
        disk.fail_syncs_after(syncs);
        let result = writer.write(&bytes).and_then(|()| writer.finish());
        disk.repair_syncs();
        assert!(matches!(result, Err(SnapshotError::Disk { full: false, .. })), "{result:?}");
        assert_eq!(names(&disk), [""; 0]);
    }
}

#[test]
fn a_power_loss_takes_what_is_not_finished_and_nothing_else() {
    let (snapshot, bytes) = made_up();
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let disk = MemoryDisk::new();
        let folder = memory_folder(&disk, &[]);
        let mut writer = folder.writer(REGION, &snapshot).expect("room");
        let broken_at = prng.below(bytes.len() as u64) as usize;
        writer.write(&bytes[..broken_at]).expect("written");
        let half = disk.image();
        half.power_loss(&mut prng);
        let after = memory_folder(&half, &[]);
        assert_eq!((after.received(), names(&half).len()), (Ok(vec![]), 0), "seed {seed}");

        writer.write(&bytes[broken_at..]).expect("written");
        assert_eq!(writer.finish(), Ok(KEY));
        disk.power_loss(&mut prng);
        let after = memory_folder(&disk, &[KEY]);
        assert_eq!(after.received(), Ok(vec![KEY]), "seed {seed}");
        let data = after.data(KEY).expect("complete");
        for file in &data.files {
            after.check(KEY, file).expect("undamaged");
        }
    }
}

#[test]
fn a_start_sweeps_all_but_what_is_being_installed() {
    let files = [
        "made-2-6-100-33-default.sst",
        "made-2-6-100-33-write.sst",
        "received-2-6-100-default.sst",
        "received-2-6-100.meta",
        "received-2-6-100.meta.part",
        "received-2-6-101-default.sst",
        "received-4-6-100-lock.sst",
        "received-4-6-100.meta",
        "received-18446744073709551615-7-8.meta",
        // None of these is ours.
        "NOTES",
        "received-4-6-100-raft.sst",
        "received-4-6.meta",
        "received-4-6-100-7.meta",
        "made-2-6-100-default.sst",
        "received-4-6-x.meta",
        "received-4-6-100.sst",
    ];
    let disk = MemoryDisk::new();
    drop(memory_folder(&disk, &[]));
    for file in files {
        disk.create(&Path::new("/snap").join(file)).expect("created");
    }
    let system = SnapshotKey { region: RegionId::SYSTEM, term: 7, index: 8 };
    let folder = memory_folder(&disk, &[KEY, system]);
    let left = [&files[2..4], &files[8..]].concat();
    let mut left: Vec<_> = left.into_iter().map(str::to_owned).collect();
    left.sort();
    assert_eq!(names(&disk), left);
    assert_eq!(folder.received(), Ok(vec![KEY, system]));
}

#[test]
fn a_peer_waits_for_one_snapshot_at_a_time() {
    for kind in KINDS {
        let (source, target) = two_sites(kind);
        let region = region(2, "b", "y");
        let build = |to, index| BuildSnapshot {
            region: Arc::new(region.clone()),
            absorbed: Arc::default(),
            to: PeerId(to),
            pos: LogPos { index, term: 6 },
            conf: ConfState::default(),
            snapshot: source.engine.snapshot(),
        };
        let run = |job: BuildSnapshot| job.run(&*source.engine, &source.folder).expect("built");
        let first = run(build(33, 90));
        let other = run(build(34, 90));
        assert_eq!((first.key, first.size), (other.key, other.size), "{kind:?}");
        let files = run(build(33, 100));
        assert_eq!(source.files().len(), 6);
        assert!(source.files().iter().all(|name| !name.starts_with("made-2-6-90-33")));
        DiscardSnapshot(other.name()).run(&source.folder).expect("discarded");
        assert_eq!(source.files().len(), 3);
        source.send(&files, &target);
        assert_eq!(source.files(), [""; 0]);
    }
}
