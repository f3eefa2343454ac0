//! The term at an index is exact, wherever the entry lies: in memory, in storage, at the edge of
//! what was compacted, in a snapshot that is on its way in; and nothing is made up beyond.

use base::{Entry, Index, PeerId, Term};
use pontoon_raft::{
    Body, ConfState, Config, HardState, LogPos, MemoryStorage, Message, RawNode, Ready, Snapshot,
    Storage,
};

const ME: PeerId = PeerId(1);

fn entry(index: Index, term: Term) -> Entry {
    Entry { index, term, ..Entry::default() }
}

fn step(node: &mut RawNode, body: Body) {
    let message = Message { from: PeerId(2), to: ME, term: 4, body };
    node.step(message).expect("is taken");
}

fn expect(node: &RawNode, when: &str, table: &[(Index, Option<Term>)]) {
    for (index, term) in table {
        assert_eq!(node.term_at(*index), *term, "{when}: index {index}");
    }
}

/// A follower whose storage has 5@2 as its truncated entry and 6@2 7@3 8@3, of which nothing is in
/// memory.
fn follower() -> (RawNode, MemoryStorage) {
    let truncated = LogPos { index: 5, term: 2 };
    let storage = MemoryStorage::starting_at(truncated, (1..=3).map(PeerId));
    storage.append(&[entry(6, 2), entry(7, 3), entry(8, 3)]);
    storage.set_hard_state(HardState { term: 4, vote: PeerId::NONE, commit: 7 });
    let config = Config { applied: 7, ..Config::new(ME) };
    let node = RawNode::new(config, Box::new(storage.clone())).expect("starts");
    (node, storage)
}

fn write(node: &mut RawNode, storage: &MemoryStorage, ready: Ready) {
    storage.write(ready.persist.as_ref().expect("something to write"));
    node.advance(ready);
}

#[test]
fn in_storage_and_in_memory() {
    let (mut node, storage) = follower();
    let below = [(0, None), (1, None), (4, None), (5, Some(2))];
    let stored = [(6, Some(2)), (7, Some(3)), (8, Some(3))];
    let beyond = [(11, None), (u64::MAX - 1, None), (u64::MAX, None)];
    expect(&node, "at the start", &below);
    expect(&node, "at the start", &stored);
    expect(&node, "at the start", &[(9, None), (10, None)]);
    expect(&node, "at the start", &beyond);

    let prev = LogPos { index: 8, term: 3 };
    let entries = vec![entry(9, 4), entry(10, 4)];
    step(&mut node, Body::Append { prev, entries, commit: 7, round: 1 });
    let ready = node.ready();
    for when in ["in memory alone", "in memory and in storage"] {
        expect(&node, when, &below);
        expect(&node, when, &stored);
        expect(&node, when, &[(9, Some(4)), (10, Some(4))]);
        expect(&node, when, &beyond);
        if when == "in memory alone" {
            storage.write(ready.persist.as_ref().expect("two entries"));
        }
    }
    node.advance(ready);

    step(&mut node, Body::Heartbeat { commit: 10, round: 2 });
    while node.has_ready() {
        let ready = node.ready();
        node.advance(ready);
    }
    assert_eq!((node.applied_index(), node.status().tail_entries), (10, 0));
    expect(&node, "in storage alone", &[(8, Some(3)), (9, Some(4)), (10, Some(4)), (11, None)]);
    storage.compact(9);
    expect(&node, "compacted", &[(5, None), (8, None), (9, Some(4)), (10, Some(4)), (11, None)]);
    storage.compact(10);
    expect(&node, "all is compacted", &[(9, None), (10, Some(4)), (11, None)]);
}

/// An entry that was replaced has the term of what replaced it, before that is written.
#[test]
fn replaced() {
    let (mut node, storage) = follower();
    let prev = LogPos { index: 7, term: 3 };
    step(&mut node, Body::Append { prev, entries: vec![entry(8, 4)], commit: 7, round: 1 });
    assert_eq!(storage.term(8).expect("it is stored"), 3);
    expect(&node, "replaced", &[(7, Some(3)), (8, Some(4)), (9, None)]);
}

/// From the moment at which it is taken over the snapshot is the log, although storage has the old
/// one until it is installed.
#[test]
fn a_snapshot_that_comes_in() {
    let (mut node, storage) = follower();
    let conf = ConfState::of_voters((1..=3).map(PeerId));
    let pos = LogPos { index: 20, term: 4 };
    let snapshot = Box::new(Snapshot { pos, conf, data: "state".into() });
    step(&mut node, Body::Snapshot { snapshot, round: 1 });
    let gone = [(0, None), (5, None), (6, None), (8, None), (9, None), (19, None)];
    expect(&node, "pending", &gone);
    expect(&node, "pending", &[(20, Some(4)), (21, None), (u64::MAX, None)]);

    step(&mut node, Body::Append { prev: pos, entries: vec![entry(21, 4)], commit: 20, round: 1 });
    let ready = node.ready();
    for when in ["pending, and an entry behind it", "stored"] {
        expect(&node, when, &gone);
        expect(&node, when, &[(20, Some(4)), (21, Some(4)), (22, None)]);
        if when != "stored" {
            storage.write(ready.persist.as_ref().expect("a snapshot and an entry"));
        }
    }
    node.advance(ready);
    assert_eq!(node.applied_index(), 20);
    expect(&node, "installed", &gone);
    expect(&node, "installed", &[(20, Some(4)), (21, Some(4)), (22, None)]);
}

/// A new leader's empty entry lies in memory, behind what storage has.
#[test]
fn a_leader() {
    let storage = MemoryStorage::starting_at(LogPos { index: 5, term: 5 }, [ME]);
    let config = Config { applied: 5, ..Config::new(ME) };
    let mut node = RawNode::new(config, Box::new(storage.clone())).expect("starts");
    expect(&node, "born", &[(0, None), (4, None), (5, Some(5)), (6, None)]);
    assert!(node.campaign());
    expect(&node, "elected", &[(4, None), (5, Some(5)), (6, Some(6)), (7, None)]);
    let ready = node.ready();
    write(&mut node, &storage, ready);
    expect(&node, "written", &[(4, None), (5, Some(5)), (6, Some(6)), (7, None)]);
}

/// Before the first entry that ever was there is entry 0 of term 0.
#[test]
fn an_empty_log() {
    let storage = MemoryStorage::new([ME]);
    let node = RawNode::new(Config::new(ME), Box::new(storage)).expect("starts");
    expect(&node, "empty", &[(0, Some(0)), (1, None), (u64::MAX, None)]);
}
