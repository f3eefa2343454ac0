//! Purging, segments that are used again, full disks and failing syncs.

use std::io;

use super::*;
use crate::log::ReadError;

fn append(log: &mut RaftLog, region: RegionId, first: Index, last: Index) {
    for index in first..=last {
        log.write(&batch(&[Change::Append(region, vec![entry(index, 1, 200)])])).unwrap();
    }
}

#[test]
fn purge_drops_what_is_truncated_and_is_idempotent() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    append(&mut log, R1, 1, 100);
    append(&mut log, R2, 1, 10);
    let before = log.stats().segments;
    assert!(before > 5);
    assert_eq!(log.purge().unwrap().segments_dropped, 0, "all of it is wanted");
    // As a log's garbage collection would ask: up to 10, to 50, to 50 again, and all.
    let mut dropped = 0;
    for to in [10, 50, 50, 100] {
        log.write(&batch(&[Change::Truncate(R1, to, 1)])).unwrap();
        let report = log.purge().unwrap();
        dropped += report.segments_dropped;
        assert_eq!(log.purge().unwrap().segments_dropped, 0, "nothing is left to do");
        assert_eq!(log.reader().first_index(R1), to + 1);
        assert_eq!(log.reader().entries(R2, 1, 11, u64::MAX).unwrap(), entries(1, 10, 1, 200));
        let below = log.reader().entries(R1, to, to + 1, u64::MAX).unwrap_err();
        assert!(matches!(below, ReadError::Compacted { .. }));
    }
    assert_eq!(log.stats().segments_purged, dropped);
    assert_eq!(log.stats().segments, before - dropped);
    disk.power_loss(&mut Prng::new(3));
    let log = open(&disk, small()).unwrap();
    assert_eq!(log.reader().truncated(R1), (100, 1));
    assert_eq!(log.reader().entries(R2, 1, 11, u64::MAX).unwrap(), entries(1, 10, 1, 200));
}

/// A quiet region's few rows do not keep the whole log behind them on the disk.
#[test]
fn the_rest_of_old_segments_is_written_again() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let quiet = [
        Change::Truncate(R2, 7, 3),
        Change::Append(R2, entries(8, 10, 3, 50)),
        Change::State(R2, Bytes::from_static(b"quiet")),
    ];
    log.write(&batch(&quiet)).unwrap();
    let mut rewritten = 0;
    for round in 0..50 {
        append(&mut log, R1, round * 20 + 1, round * 20 + 20);
        log.write(&batch(&[Change::Truncate(R1, round * 20 + 20, 1)])).unwrap();
        rewritten += log.purge().unwrap().bytes_rewritten;
        assert!(log.stats().segments <= 6, "{:?}", log.stats());
    }
    assert!(rewritten > 0 && rewritten < 10_000, "{rewritten}");
    assert!(log.stats().disk_bytes < 12 * 4096);
    let mut model = Model::default();
    model.apply(&quiet);
    for log in [&log, &open(&disk.image(), small()).unwrap()] {
        let found = Model::of(&log.reader());
        assert_eq!(found.regions[&R2], model.regions[&R2]);
        assert_eq!(found.regions[&R1].truncated, (1000, 1));
    }
}

/// Rewriting is done in steps; a restart or a new suffix between them changes nothing.
#[test]
fn rewriting_in_steps() {
    let disk = MemoryDisk::new();
    let options = LogOptions { rewrite_bytes_max: 1, ..small() };
    let mut log = open(&disk, options).unwrap();
    append(&mut log, R2, 1, 12);
    append(&mut log, R1, 1, 200);
    log.write(&batch(&[Change::Truncate(R1, 190, 1)])).unwrap();
    let mut steps = 0;
    while log.purge().unwrap().more {
        steps += 1;
        if steps == 4 {
            log.write(&batch(&[Change::Append(R2, entries(9, 10, 2, 5))])).unwrap();
        }
        if steps % 2 == 0 {
            log.sync().unwrap();
            disk.power_loss(&mut Prng::new(steps));
            log = open(&disk, options).unwrap();
        }
        let found = log.reader().entries(R2, 1, 9, u64::MAX).unwrap();
        assert_eq!(found, entries(1, 8, 1, 200));
    }
    assert!(steps > 4, "{steps}");
    assert_eq!(log.reader().last_index(R2), 10);
    assert_eq!(log.reader().entries(R2, 9, 11, u64::MAX).unwrap(), entries(9, 10, 2, 5));
}

/// A file that is used again holds old records; none of them is taken for a new one, wherever the
/// log ends.
#[test]
fn old_records_in_reused_files_stay_dead() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let mut reused = 0;
    for index in 1..=400 {
        // Records of one length, so that new ones lie exactly where old ones were.
        append(&mut log, R1, index, index);
        if index % 30 == 0 {
            log.write(&batch(&[Change::Truncate(R1, index, 1)])).unwrap();
            reused += log.purge().unwrap().segments_reused;
        }
        let copy = open(&disk.image(), small()).unwrap();
        assert_eq!(Model::of(&copy.reader()), Model::of(&log.reader()));
    }
    assert!(reused > 10, "{reused}");
    assert!(files(&disk).len() < 9, "{}", files(&disk).len());
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    append(&mut log, R1, 1, 5);
    disk.set_capacity(Some(disk.used() + 3000));
    let mut last = 5;
    let error = loop {
        match log.write(&batch(&[Change::Append(R1, vec![entry(last + 1, 1, 200)])])) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert!(last > 10, "what fits the segment is written");
    let large = log.write(&batch(&[Change::Append(R1, vec![entry(last + 1, 1, 9000)])]));
    assert!(matches!(large, Err(LogError::Full { .. })));
    assert_eq!(log.reader().last_index(R1), last);
    log.sync().unwrap();
    // Still there after a crash, on a disk that is still full.
    disk.power_loss(&mut Prng::new(2));
    let mut log = open(&disk, small()).unwrap();
    assert_eq!(log.reader().entries(R1, 1, last + 1, u64::MAX).unwrap().len() as u64, last);
    let again = log.write(&batch(&[Change::Append(R1, vec![entry(last + 1, 1, 1000)])]));
    assert!(matches!(again, Err(LogError::Full { .. })));
    disk.set_capacity(None);
    append(&mut log, R1, last + 1, last + 50);
    log.sync().unwrap();
    disk.power_loss(&mut Prng::new(2));
    let log = open(&disk, small()).unwrap();
    assert_eq!(log.reader().last_index(R1), last + 50);
}

/// Purging needs no space but what every segment reserves for it.
#[test]
fn a_full_disk_can_be_purged() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    append(&mut log, R1, 1, 60);
    disk.set_capacity(Some(disk.used()));
    let mut last = 60;
    while log.offset + 350 < log.active.size {
        last += 1;
        append(&mut log, R1, last, last);
    }
    let large = batch(&[Change::Append(R1, vec![entry(last + 1, 1, 400)])]);
    assert!(matches!(log.write(&large), Err(LogError::Full { .. })));
    log.write(&batch(&[Change::Truncate(R1, last, 1)])).unwrap();
    assert!(log.purge().unwrap().segments_reused > 0);
    append(&mut log, R1, last + 1, last + 10);
    assert_eq!(log.reader().last_index(R1), last + 10);
}

/// On file systems that never write in place a write can run out of space half-way.
#[test]
fn a_write_that_fails_half_way_is_written_over() {
    for bytes in [0, 100, 512, 1000, 2000, u64::MAX] {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, small()).unwrap();
        append(&mut log, R1, 1, 5);
        disk.fail_next_write(bytes, io::ErrorKind::StorageFull);
        let long = batch(&[Change::Append(R1, vec![entry(6, 1, 2000)])]);
        assert!(matches!(log.write(&long), Err(LogError::Full { .. })));
        assert_eq!(log.reader().last_index(R1), 5);
        // The next record goes to the same place, or to another segment.
        let next = if bytes < 600 { 10 } else { 3000 };
        log.write(&batch(&[Change::Append(R1, vec![entry(6, 2, next)])])).unwrap();
        append(&mut log, R1, 7, 9);
        disk.kill();
        let log = open(&disk, small()).unwrap();
        assert_eq!(log.reader().entries(R1, 6, 7, 0).unwrap(), [entry(6, 2, next)], "{bytes}");
        assert_eq!(log.reader().last_index(R1), 9);
    }
}

#[test]
fn a_failed_sync_is_the_end() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    append(&mut log, R1, 1, 3);
    log.sync().unwrap();
    append(&mut log, R1, 4, 5);
    disk.fail_syncs_after(0);
    assert!(matches!(log.sync(), Err(LogError::Io { what: "sync", .. })));
    disk.repair_syncs();
    let poisoned = |result: Result<(), LogError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains("raftlog: could not sync: injected"), "{error}");
    };
    poisoned(log.sync());
    poisoned(log.write(&batch(&[Change::Append(R1, vec![entry(6, 1, 1)])])));
    poisoned(log.write(&LogBatch::new()));
    poisoned(log.vouch());
    poisoned(log.purge().map(|_| ()));
    // Reading goes on, and a restart finds what is really there.
    assert_eq!(log.reader().last_index(R1), 5);
    disk.power_loss(&mut Prng::new(1));
    let log = open(&disk, small()).unwrap();
    assert!((3..=5).contains(&log.reader().last_index(R1)));
}

#[test]
fn a_failed_write_is_the_end() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    disk.fail_next_write(100, io::ErrorKind::Other);
    let one = batch(&[Change::Append(R1, vec![entry(1, 1, 1)])]);
    assert!(matches!(log.write(&one), Err(LogError::Io { what: "write", .. })));
    assert!(matches!(log.write(&one), Err(LogError::Poisoned { .. })));
}

/// The writer only syncs the old segment if the next one is ready, and does without the job if it
/// is not.
#[test]
fn segments_are_prepared_ahead() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let preparer = log.preparer();
    for prepared in [true, false, true] {
        if prepared {
            preparer.prepare().unwrap();
        }
        let (before, segments) = (disk.counts(), log.stats().segments);
        let mut next = log.reader().last_index(R1) + 1;
        while log.stats().segments == segments {
            append(&mut log, R1, next, next);
            next += 1;
        }
        let syncs = disk.counts().syncs - before.syncs;
        let dir_syncs = disk.counts().dir_syncs - before.dir_syncs;
        assert_eq!((syncs, dir_syncs), if prepared { (1, 0) } else { (2, 1) });
    }
    // A large segment overtakes the one that is ready; that is prepared anew.
    preparer.prepare().unwrap();
    let next = log.reader().last_index(R1) + 1;
    log.write(&batch(&[Change::Append(R1, vec![entry(next, 1, 10_000)])])).unwrap();
    assert!(!preparer.is_needed());
    append(&mut log, R1, next + 1, next + 40);
    assert!(preparer.is_needed());
    disk.kill();
    let log = open(&disk, small()).unwrap();
    assert_eq!(log.reader().last_index(R1), next + 40);
    assert_eq!(log.reader().entries(R1, next, next + 1, 0).unwrap(), [entry(next, 1, 10_000)]);
}

/// A reader that found its entries before they were purged still reads them.
#[test]
fn purging_does_not_pull_files_from_under_a_reader() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, LogOptions { rewrite_bytes_max: 1, ..small() }).unwrap();
    append(&mut log, R1, 1, 100);
    let pinned = log.index.read().unwrap().segments[&log.oldest].segment.clone();
    let mut before = Vec::new();
    pinned.read(&mut before).unwrap();
    log.write(&batch(&[Change::Truncate(R1, 100, 1)])).unwrap();
    let report = log.purge().unwrap();
    assert!(report.segments_reused < report.segments_dropped);
    for round in 0..10 {
        append(&mut log, R1, 101 + round * 20, 120 + round * 20);
    }
    let mut after = Vec::new();
    pinned.read(&mut after).unwrap();
    assert!(before == after, "its file was not used again");
}
