//! The path of a group of one: every store begins with it.

use base::{Entry, PeerId};
use bytes::Bytes;
use pontoon_raft as raft;
use raft::{Config, HardState, LogPos, MemoryStorage, RawNode, Role};

const ME: PeerId = PeerId(7);

fn node(storage: &MemoryStorage, applied: u64) -> RawNode {
    let config = Config { applied, ..Config::new(ME) };
    RawNode::new(config, Box::new(storage.clone())).expect("starts")
}

/// Does all there is to do and returns what was committed.
fn settle(node: &mut RawNode, storage: &MemoryStorage) -> Vec<Entry> {
    let mut committed = Vec::new();
    while node.has_ready() {
        let ready = node.ready();
        assert!(ready.messages.is_empty(), "nobody to talk to: {:?}", ready.messages);
        if let Some(persist) = ready.persist {
            storage.write(&persist);
            node.persisted(persist.ticket);
        }
        if let Some(last) = ready.committed.last() {
            node.applied(last.index);
        }
        committed.extend(ready.committed);
    }
    committed
}

#[test]
fn leads_with_one_write() {
    let storage = MemoryStorage::starting_at(LogPos { index: 5, term: 5 }, [ME]);
    let mut node = node(&storage, 5);
    assert!(node.campaign());
    let ready = node.ready();
    let persist = ready.persist.expect("term, vote and the empty entry");
    assert_eq!(persist.hard_state, Some(HardState { term: 6, vote: ME, commit: 5 }));
    assert_eq!(persist.entries.len(), 1);
    assert!(ready.committed.is_empty());
    storage.write(&persist);
    node.persisted(persist.ticket);
    assert_eq!((node.role(), node.term(), node.committed()), (Role::Leader, 6, 6));
    assert_eq!(settle(&mut node, &storage).len(), 1);
}

/// TestRawNodeStart2AC, TestSingleNodeCandidate2AA, TestSingleNodeCommit2AB.
#[test]
fn a_proposal_is_written_then_committed() {
    let storage = MemoryStorage::new([ME]);
    let mut node = node(&storage, 0);
    assert!(!node.has_ready());
    node.campaign();
    settle(&mut node, &storage);
    assert_eq!(node.propose(Bytes::from_static(b"one")), Ok((1, 2)));
    assert_eq!(node.propose(Bytes::from_static(b"two")), Ok((1, 3)));
    let ready = node.ready();
    let persist = ready.persist.expect("entries");
    assert_eq!(persist.entries.len(), 2);
    assert!(ready.committed.is_empty(), "nothing is committed before it is durable");
    assert!(!node.has_ready());
    node.persisted(persist.ticket);
    let committed = settle(&mut node, &storage);
    assert_eq!(committed.iter().map(|e| &e.data[..]).collect::<Vec<_>>(), [b"one", b"two"]);
    assert!(!node.has_ready());
    assert_eq!(node.status().tail_entries, 0, "applied entries leave memory");
}

/// TestRawNodeRestart2AC.
#[test]
fn restarts_with_what_was_committed() {
    let storage = MemoryStorage::new([ME]);
    let entry =
        |index| Entry { index, term: 1, data: Bytes::from_static(b"x"), ..Entry::default() };
    storage.append(&[entry(1), entry(2)]);
    storage.set_hard_state(HardState { term: 1, vote: PeerId::NONE, commit: 1 });
    let mut node = node(&storage, 0);
    let ready = node.ready();
    assert_eq!(ready.committed, [entry(1)]);
    assert!(ready.persist.is_none() && ready.messages.is_empty());
    node.applied(1);
    assert!(!node.has_ready());
}

#[test]
fn reads_wait_for_an_entry_of_the_own_term() {
    let storage = MemoryStorage::new([ME]);
    let mut node = node(&storage, 0);
    assert!(node.read_index(1).is_err());
    node.campaign();
    node.read_index(1).expect("leads");
    let ready = node.ready();
    assert!(ready.read_states.is_empty());
    node.persisted(ready.persist.expect("the empty entry").ticket);
    let ready = node.ready();
    assert_eq!(ready.read_states.len(), 1);
    assert_eq!(ready.read_states[0].index, 1);
    assert_eq!(ready.confirmed_round, 0, "no lease before that entry is applied");
    node.applied(1);
    assert_eq!(node.ready().confirmed_round, node.round());
}
