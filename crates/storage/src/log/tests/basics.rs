//! What a log answers, without any faults.

use super::*;
use crate::log::ReadError;

fn reopen(log: RaftLog, disk: &MemoryDisk) -> RaftLog {
    drop(log);
    disk.kill();
    open(disk, small()).unwrap()
}

#[test]
fn a_fresh_region_begins_behind_its_first_index() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let reader = log.reader();
    assert_eq!((reader.first_index(R1), reader.last_index(R1)), (1, 0));
    assert!(reader.state(R1).is_none() && reader.regions().is_empty());

    let state = Bytes::from_static(b"term 5, last 5");
    log.write(&batch(&[Change::State(R1, state.clone()), Change::Truncate(R1, 5, 5)])).unwrap();
    for log in [&log, &open(&disk.image(), small()).unwrap()] {
        let reader = log.reader();
        assert_eq!((reader.first_index(R1), reader.last_index(R1)), (6, 5));
        assert_eq!(reader.truncated(R1), (5, 5));
        assert_eq!(reader.term(R1, 5).unwrap(), 5);
        assert_eq!(reader.state(R1), Some(state.clone()));
        assert_eq!(reader.regions(), [R1]);
    }
}

/// The table of `(truncated 3, entries 4 and 5)`, as every implementation of a Raft storage is
/// asked.
#[test]
fn terms_and_entries_at_the_edges() {
    let mut log = open(&MemoryDisk::new(), small()).unwrap();
    let reader = log.reader();
    log.write(&batch(&[
        Change::Truncate(R1, 3, 3),
        Change::Append(R1, vec![entry(4, 4, 10), entry(5, 5, 10)]),
    ]))
    .unwrap();
    for (index, expected) in [(3, 3), (4, 4), (5, 5)] {
        assert_eq!(reader.term(R1, index).unwrap(), expected);
    }
    let compacted = |error| matches!(error, ReadError::Compacted { truncated: 3, term: 3 });
    let unavailable = |error| matches!(error, ReadError::Unavailable { last: 5 });
    assert!(compacted(reader.term(R1, 2).unwrap_err()));
    assert!(compacted(reader.term(R1, 0).unwrap_err()));
    assert!(unavailable(reader.term(R1, 6).unwrap_err()));
    assert!(unavailable(reader.term(R1, u64::MAX).unwrap_err()));

    let get = |low, high, max| reader.entries(R1, low, high, max);
    assert!(compacted(get(2, 6, u64::MAX).unwrap_err()));
    assert!(compacted(get(3, 4, u64::MAX).unwrap_err()));
    assert!(unavailable(get(4, 7, u64::MAX).unwrap_err()));
    assert!(unavailable(get(6, 7, u64::MAX).unwrap_err()));
    assert_eq!(get(4, 4, u64::MAX).unwrap(), []);
    assert_eq!(get(6, 6, u64::MAX).unwrap(), []);
    assert_eq!(get(4, 5, u64::MAX).unwrap(), [entry(4, 4, 10)]);
    assert_eq!(get(4, 6, u64::MAX).unwrap(), [entry(4, 4, 10), entry(5, 5, 10)]);
    // At least one, then as many as fit.
    assert_eq!(get(4, 6, 0).unwrap().len(), 1);
    assert_eq!(get(4, 6, 19).unwrap().len(), 1);
    assert_eq!(get(4, 6, 20).unwrap().len(), 2);
}

/// How an append meets what is there.
#[test]
fn an_append_replaces_the_suffix() {
    let cases: [(&str, Vec<Entry>, Vec<Entry>); 6] = [
        ("the same", entries(4, 5, 4, 9), entries(4, 5, 4, 9)),
        ("a conflict", entries(4, 5, 6, 9), entries(4, 5, 6, 9)),
        ("longer", entries(4, 6, 5, 9), entries(4, 6, 5, 9)),
        ("from the start, shorter", vec![entry(4, 5, 9)], vec![entry(4, 5, 9)]),
        ("from the middle", vec![entry(5, 5, 9)], vec![entry(4, 4, 9), entry(5, 5, 9)]),
        (
            "behind the last",
            vec![entry(6, 5, 9)],
            vec![entry(4, 4, 9), entry(5, 4, 9), entry(6, 5, 9)],
        ),
    ];
    for (name, append, expected) in cases {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, small()).unwrap();
        log.write(&batch(&[Change::Truncate(R1, 3, 3), Change::Append(R1, entries(4, 5, 4, 9))]))
            .unwrap();
        log.write(&batch(&[Change::Append(R1, append)])).unwrap();
        for log in [&log, &open(&disk.image(), small()).unwrap()] {
            let reader = log.reader();
            let last = expected.last().unwrap();
            assert_eq!(reader.last_index(R1), last.index, "{name}");
            let found = reader.entries(R1, 4, last.index + 1, u64::MAX).unwrap();
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn an_append_that_does_not_follow_is_refused_and_changes_nothing() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    log.write(&batch(&[Change::Truncate(R1, 5, 5), Change::Append(R1, entries(6, 8, 5, 9))]))
        .unwrap();
    let before = Model::of(&log.reader());
    let refused = [
        vec![Change::Append(R1, entries(10, 11, 5, 9))],
        vec![Change::Append(R1, entries(5, 9, 5, 9))],
        vec![Change::Append(R2, entries(2, 2, 5, 9))],
        vec![Change::State(R2, Bytes::new()), Change::Append(R1, entries(11, 11, 5, 9))],
        vec![Change::Truncate(R1, 8, 5), Change::Append(R1, entries(8, 9, 5, 9))],
        vec![Change::Remove(R1), Change::Append(R1, entries(9, 9, 5, 9))],
        vec![Change::Append(R1, entries(7, 7, 6, 9)), Change::Append(R1, entries(9, 9, 6, 9))],
    ];
    for changes in refused {
        let error = log.write(&batch(&changes)).unwrap_err();
        assert!(matches!(error, LogError::Gap { .. }), "{changes:?}: {error}");
        assert_eq!(Model::of(&log.reader()), before);
    }
    let mut log = reopen(log, &disk);
    assert_eq!(Model::of(&log.reader()), before);
    log.write(&batch(&[Change::Remove(R1), Change::Append(R1, entries(1, 1, 1, 1))])).unwrap();
    assert_eq!(log.reader().first_index(R1), 1);
}

#[test]
fn truncation_only_moves_forward() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    log.write(&batch(&[Change::Truncate(R1, 5, 5), Change::Append(R1, entries(6, 20, 6, 9))]))
        .unwrap();
    let truncate = |log: &mut RaftLog, index, term| {
        log.write(&batch(&[Change::Truncate(R1, index, term)])).unwrap();
        (log.reader().truncated(R1), log.reader().last_index(R1))
    };
    assert_eq!(truncate(&mut log, 10, 6), ((10, 6), 20));
    assert_eq!(truncate(&mut log, 10, 6), ((10, 6), 20), "again");
    assert_eq!(truncate(&mut log, 7, 6), ((10, 6), 20), "backwards");
    assert_eq!(truncate(&mut log, 10, 9), ((10, 6), 20), "with another term");
    let mut log = reopen(log, &disk);
    assert_eq!(log.reader().entries(R1, 11, 21, u64::MAX).unwrap(), entries(11, 20, 6, 9));
    // A snapshot beyond the end, and one whose log is another than ours.
    assert_eq!(truncate(&mut log, 30, 7), ((30, 7), 30));
    log.write(&batch(&[Change::Append(R1, entries(31, 40, 7, 9))])).unwrap();
    assert_eq!(truncate(&mut log, 35, 8), ((35, 8), 35));
    let log = reopen(log, &disk);
    assert_eq!(log.reader().truncated(R1), (35, 8));
    assert_eq!(log.reader().last_index(R1), 35);
}

/// The entry whose term decides may be in the same batch.
#[test]
fn a_truncation_sees_the_rows_before_it() {
    for (term, last) in [(6, 12), (7, 10)] {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, small()).unwrap();
        log.write(&batch(&[
            Change::Append(R1, entries(1, 9, 5, 9)),
            Change::Append(R1, entries(8, 12, 6, 9)),
            Change::Truncate(R1, 10, term),
        ]))
        .unwrap();
        assert_eq!(log.reader().last_index(R1), last);
        assert_eq!(reopen(log, &disk).reader().last_index(R1), last);
    }
}

#[test]
fn kinds_and_empty_entries_come_back() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let kinds = [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2];
    let all: Vec<Entry> = (1..)
        .zip(kinds)
        .map(|(index, kind)| Entry { index, term: u64::MAX, kind, data: Bytes::new() })
        .collect();
    log.write(&batch(&[Change::Append(R1, all.clone()), Change::State(R2, Bytes::new())])).unwrap();
    let log = reopen(log, &disk);
    assert_eq!(log.reader().entries(R1, 1, 4, 0).unwrap(), all);
    assert_eq!(log.reader().state(R2), Some(Bytes::new()));
}

#[test]
fn merged_batches_are_one_write() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let mut one = batch(&[Change::Append(R1, entries(1, 3, 1, 40))]);
    let mut two = batch(&[
        Change::Append(R2, entries(1, 2, 1, 50)),
        Change::Append(R1, entries(3, 4, 2, 60)),
    ]);
    one.merge(&mut two);
    assert!(two.is_empty() && two.byte_size() == LogBatch::new().byte_size());
    assert_eq!(one.entry_count(), 7);
    log.write(&one).unwrap();
    assert_eq!(log.stats().writes, 1);
    assert_eq!(log.stats().bytes_written, one.byte_size());
    let reader = log.reader();
    assert_eq!(reader.entries(R2, 1, 3, u64::MAX).unwrap(), entries(1, 2, 1, 50));
    assert_eq!(reader.entries(R1, 3, 5, u64::MAX).unwrap(), entries(3, 4, 2, 60));
}

#[test]
fn entries_of_eight_mebibytes() {
    let disk = MemoryDisk::new();
    let options = LogOptions::default();
    let mut log = open(&disk, options).unwrap();
    let large = 8 << 20;
    log.write(&batch(&[Change::Append(R1, vec![entry(1, 1, 100)])])).unwrap();
    log.write(&batch(&[Change::Append(R1, entries(2, 4, 1, large))])).unwrap();
    log.write(&batch(&[Change::Append(R1, vec![entry(5, 1, 100)])])).unwrap();
    log.write(&batch(&[Change::Append(R2, vec![entry(1, 1, large)])])).unwrap();
    log.sync().unwrap();
    let check = |log: &RaftLog| {
        let reader = log.reader();
        for index in 2..=4 {
            let found = reader.entries(R1, index, index + 1, 0).unwrap();
            assert!(found == [entry(index, 1, large)], "entry {index}");
        }
        assert_eq!(reader.entries(R1, 5, 6, u64::MAX).unwrap(), [entry(5, 1, 100)]);
        assert_eq!(reader.entries(R2, 1, 2, 0).unwrap()[0].data.len(), large);
    };
    check(&log);
    disk.power_loss(&mut Prng::new(1));
    let mut log = open(&disk, options).unwrap();
    check(&log);
    // Their files leave the disk, they are not used again.
    log.write(&batch(&[Change::Truncate(R1, 5, 1), Change::Remove(R2)])).unwrap();
    log.write(&batch(&[Change::Append(R1, entries(6, 6, 1, 10))])).unwrap();
    log.purge().unwrap();
    assert!(log.stats().disk_bytes <= 4 * options.segment_bytes, "{:?}", log.stats());
    assert_eq!(log.stats().disk_bytes, disk.used());
}

#[test]
fn a_thousand_regions() {
    let disk = MemoryDisk::new();
    let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let mut log = open(&disk, options).unwrap();
    let mut model = Model::default();
    for round in 0..5 {
        for part in 0..10 {
            let changes: Vec<Change> = (0..100)
                .flat_map(|i| {
                    let region = RegionId(1 + part * 100 + i);
                    let state = Bytes::from(vec![round as u8; 30]);
                    [
                        Change::Append(region, entries(round * 3 + 1, round * 3 + 3, 1, 20)),
                        Change::State(region, state),
                    ]
                })
                .collect();
            model.apply(&changes);
            log.write(&batch(&changes)).unwrap();
        }
        let truncations: Vec<Change> =
            (1..=1000).map(|i| Change::Truncate(RegionId(i), round * 3 + 1, 1)).collect();
        model.apply(&truncations);
        log.write(&batch(&truncations)).unwrap();
        log.sync().unwrap();
        log.purge().unwrap();
    }
    assert_eq!(Model::of(&log.reader()), model);
    assert_eq!(log.stats().regions, 1000);
    disk.kill();
    assert_eq!(Model::of(&open(&disk, options).unwrap().reader()), model);
}

#[test]
fn readers_on_other_threads_see_what_is_written() {
    let mut log = open(&MemoryDisk::new(), small()).unwrap();
    let reader = log.reader();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                let (low, high) = (reader.first_index(R1), reader.last_index(R1) + 1);
                match reader.entries(R1, low, high, u64::MAX) {
                    Ok(found) => {
                        assert!((low..).zip(&found).all(|(i, found)| *found == entry(i, 1, 90)));
                    }
                    Err(ReadError::Compacted { truncated, .. }) => assert!(truncated >= low),
                    Err(error) => panic!("{error}"),
                }
                if high > 3000 {
                    break;
                }
            }
        });
        for index in 1..=3000 {
            log.write(&batch(&[Change::Append(R1, vec![entry(index, 1, 90)])])).unwrap();
            if index % 50 == 0 {
                log.write(&batch(&[Change::Truncate(R1, index - 20, 1)])).unwrap();
                log.purge().unwrap();
            }
        }
    });
}

/// One sync for all that waited, none if nothing did.
#[test]
fn many_writes_share_a_sync() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, LogOptions::default()).unwrap();
    let before = disk.counts();
    for index in 1..=100 {
        log.write(&batch(&[Change::Append(R1, vec![entry(index, 1, 100)])])).unwrap();
    }
    log.sync().unwrap();
    log.sync().unwrap();
    log.write(&LogBatch::new()).unwrap();
    let after = disk.counts();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (100, 1));
    assert_eq!((log.stats().syncs, log.stats().entries), (1, 100));
}

#[test]
fn an_empty_log_takes_little_disk() {
    let disk = MemoryDisk::new();
    let log = open(&disk, LogOptions::default()).unwrap();
    assert_eq!(disk.used(), 1 << 20);
    assert!(log.preparer().is_needed());
    log.preparer().prepare().unwrap();
    assert!(!log.preparer().is_needed());
    log.preparer().prepare().unwrap();
    assert_eq!(disk.used(), 9 << 20);
    assert_eq!(log.stats().disk_bytes, 9 << 20);
}
