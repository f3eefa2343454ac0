//! The log in memory keeps the promises of [`Storage`], which all tests of the core rely on.

use base::{Entry, Index, PeerId, Term};
use bytes::Bytes;
use pontoon_raft::{ConfState, HardState, LogPos, MemoryStorage, Snapshot, Storage, StorageError};

fn entry(index: Index, term: Term) -> Entry {
    Entry { index, term, data: Bytes::from_static(b"four"), ..Entry::default() }
}

/// 3@3 is the truncated entry, then 4@4 and 5@5.
fn storage() -> MemoryStorage {
    let storage = MemoryStorage::starting_at(LogPos { index: 3, term: 3 }, [PeerId(1)]);
    storage.append(&[entry(4, 4), entry(5, 5)]);
    storage
}

/// What was answered, without the words of an error.
#[derive(Debug, PartialEq)]
enum Answer<T> {
    Is(T),
    Compacted,
    Unavailable,
}

use Answer::{Compacted, Is, Unavailable};

fn answer<T>(result: Result<T, StorageError>) -> Answer<T> {
    match result {
        Ok(value) => Is(value),
        Err(StorageError::Compacted) => Compacted,
        Err(StorageError::Unavailable) => Unavailable,
        Err(other) => panic!("memory does not fail: {other}"),
    }
}

fn bounds(storage: &MemoryStorage) -> (Index, Index) {
    let first = storage.first_index().expect("memory answers");
    (first, storage.last_index().expect("memory answers"))
}

/// TestStorageTerm2AB.
#[test]
fn terms() {
    let table = [
        (0, Compacted),
        (2, Compacted),
        (3, Is(3)),
        (4, Is(4)),
        (5, Is(5)),
        (6, Unavailable),
        (u64::MAX, Unavailable),
    ];
    for (index, expected) in table {
        assert_eq!(answer(storage().term(index)), expected, "index {index}");
    }
}

/// TestStorageLastIndex2AB, TestStorageFirstIndex2AB.
#[test]
fn bounds_move() {
    let empty = MemoryStorage::new([PeerId(1)]);
    assert_eq!(bounds(&empty), (1, 0));
    let storage = storage();
    assert_eq!(bounds(&storage), (4, 5));
    storage.append(&[entry(6, 5)]);
    assert_eq!(bounds(&storage), (4, 6));
    storage.compact(4);
    assert_eq!(bounds(&storage), (5, 6));
    storage.compact(6);
    assert_eq!(bounds(&storage), (7, 6));
    storage.append(&[entry(7, 6)]);
    assert_eq!(bounds(&storage), (7, 7));
}

/// TestStorageEntries2AB.
#[test]
fn entries() {
    let storage = storage();
    storage.append(&[entry(6, 6)]);
    let all = usize::MAX;
    let table = [
        (2, 6, all, Compacted),
        (3, 4, all, Compacted),
        (4, 5, all, Is(vec![4])),
        (4, 6, all, Is(vec![4, 5])),
        (4, 7, all, Is(vec![4, 5, 6])),
        (4, 4, all, Is(vec![])),
        (7, 7, all, Is(vec![])),
        (4, 8, all, Unavailable),
        (8, 9, all, Unavailable),
        (6, 5, all, Unavailable),
        // Never empty, however little may be read.
        (4, 7, 0, Is(vec![4])),
        (4, 7, 7, Is(vec![4])),
        (4, 7, 8, Is(vec![4, 5])),
        (4, 7, 11, Is(vec![4, 5])),
        (4, 7, 12, Is(vec![4, 5, 6])),
    ];
    for (low, high, bytes_max, expected) in table {
        let found = storage.entries(low, high, bytes_max);
        let found = found.map(|list| list.iter().map(|entry| entry.index).collect());
        assert_eq!(answer(found), expected, "{low}..{high} of {bytes_max} bytes");
    }
}

/// TestStorageAppend2AB.
#[test]
fn what_is_appended_replaces_from_its_first_index_on() {
    let table = [
        (vec![], vec![(4, 4), (5, 5)]),
        (vec![entry(4, 4), entry(5, 5)], vec![(4, 4), (5, 5)]),
        (vec![entry(4, 6), entry(5, 6)], vec![(4, 6), (5, 6)]),
        (vec![entry(4, 4), entry(5, 5), entry(6, 5)], vec![(4, 4), (5, 5), (6, 5)]),
        (vec![entry(4, 5)], vec![(4, 5)]),
        (vec![entry(6, 5)], vec![(4, 4), (5, 5), (6, 5)]),
    ];
    for (appended, expected) in table {
        let storage = storage();
        storage.append(&appended);
        let found: Vec<_> = storage.all_entries().iter().map(|e| (e.index, e.term)).collect();
        assert_eq!(found, expected, "{appended:?}");
    }
}

#[test]
#[should_panic(expected = "a gap before entry 7")]
fn a_gap_is_the_tests_own_fault() {
    storage().append(&[entry(7, 5)]);
}

#[test]
#[should_panic(expected = "not compacted")]
fn what_is_compacted_is_not_replaced() {
    storage().append(&[entry(3, 5)]);
}

/// TestStorageCompact2AB.
#[test]
fn what_is_compacted_leaves_its_last_term() {
    for (index, term, left) in [(4, 4, 1), (5, 5, 0)] {
        let storage = storage();
        storage.compact(index);
        assert_eq!(answer(storage.term(index)), Is(term));
        assert_eq!(answer(storage.term(index - 1)), Compacted);
        assert_eq!(answer(storage.entries(index, index + 1, 0)), Compacted);
        assert_eq!(storage.all_entries().len(), left);
    }
}

/// TestStorageApplySnapshot2AB.
#[test]
fn a_snapshot_replaces_everything() {
    let storage = storage();
    let handle = storage.clone();
    let conf = ConfState::of_voters([PeerId(1), PeerId(2)]);
    let pos = LogPos { index: 9, term: 7 };
    storage.install(&Snapshot { pos, conf: conf.clone(), data: Bytes::new() });
    assert_eq!(bounds(&handle), (10, 9), "clones share the log");
    assert_eq!(answer(handle.term(9)), Is(7));
    assert_eq!(answer(handle.term(8)), Compacted);
    assert_eq!(answer(handle.term(10)), Unavailable);
    assert_eq!(handle.conf(), conf);
    handle.append(&[entry(10, 7)]);
    assert_eq!(bounds(&storage), (10, 10));
}

#[test]
#[should_panic(expected = "the log goes back")]
fn an_older_snapshot_is_not_installed() {
    let conf = ConfState::of_voters([PeerId(1)]);
    let pos = LogPos { index: 2, term: 2 };
    storage().install(&Snapshot { pos, conf, data: Bytes::new() });
}

#[test]
fn a_region_that_was_just_born_is_committed_so_far() {
    let storage = storage();
    let state = storage.initial_state().expect("memory answers");
    assert_eq!(state.hard_state, HardState { term: 3, vote: PeerId::NONE, commit: 3 });
    assert_eq!(state.conf, ConfState::of_voters([PeerId(1)]));
    let voted = HardState { term: 4, vote: PeerId(2), commit: 5 };
    storage.set_hard_state(voted);
    storage.set_conf(ConfState::of_voters([PeerId(2)]));
    assert_eq!(storage.hard_state(), voted);
    let state = storage.initial_state().expect("memory answers");
    assert_eq!((state.hard_state, state.conf.voters), (voted, vec![PeerId(2)]));
}
