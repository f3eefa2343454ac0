//! Our idle members. The storage is a type without a size, so that its box costs nothing.

use base::{Entry, Index, PeerId, Term};
use bytes::Bytes;
use pontoon_raft::{
    AppendOutcome, Body, ConfState, Config, HardState, InitialState, LogPos, Message, RawNode,
    Storage, StorageError,
};

/// Where the log of a new region begins.
const START: LogPos = LogPos { index: 5, term: 5 };

const ME: PeerId = PeerId(1);
const OTHERS: [PeerId; 2] = [PeerId(2), PeerId(3)];

/// A log that was born compacted, and is never asked for more.
struct Newborn;

impl Storage for Newborn {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let hard_state = HardState { term: START.term, vote: PeerId::NONE, commit: START.index };
        let conf = ConfState::of_voters([ME, OTHERS[0], OTHERS[1]]);
        Ok(InitialState { hard_state, conf })
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(START.index + 1)
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(START.index)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        if index == START.index { Ok(START.term) } else { Err(StorageError::Unavailable) }
    }

    fn entries(&self, _: Index, _: Index, _: usize) -> Result<Vec<Entry>, StorageError> {
        Err(StorageError::Compacted)
    }
}

fn newborn() -> RawNode {
    let config = Config { applied: START.index, pre_vote: false, ..Config::new(ME) };
    RawNode::new(config, Box::new(Newborn)).expect("it starts")
}

/// A leader that has committed the empty entry of its term and one command everywhere, has sent
/// heartbeats since, and put its group to sleep.
pub fn leader() -> RawNode {
    let mut node = newborn();
    assert!(node.campaign(), "nothing keeps it from an election");
    settle(&mut node);
    answer(&mut node, OTHERS[0], Body::VoteResponse { granted: true });
    settle(&mut node);
    acknowledge(&mut node);
    node.propose(Bytes::from_static(b"command")).expect("it leads");
    settle(&mut node);
    acknowledge(&mut node);
    for _ in 0..10 {
        node.tick();
        settle(&mut node);
        let round = node.round();
        OTHERS.iter().for_each(|id| answer(&mut node, *id, Body::HeartbeatResponse { round }));
    }
    assert!(node.quiesce(), "it leads and has nothing to do");
    settle(&mut node);
    assert!(node.is_quiet() && !node.has_ready(), "it sleeps");
    assert_eq!(node.applied_index(), START.index + 2);
    node
}

/// A follower that took the same from its leader.
pub fn follower() -> RawNode {
    let mut node = newborn();
    let term = START.term + 1;
    let entry =
        |index| Entry { index, term, data: Bytes::from_static(b"command"), ..Entry::default() };
    let entries = vec![entry(START.index + 1), entry(START.index + 2)];
    let append = Body::Append { prev: START, entries, commit: START.index, round: 1 };
    hear(&mut node, term, append);
    for round in 2..=5 {
        hear(&mut node, term, Body::Heartbeat { commit: START.index + 2, round });
        node.tick();
    }
    hear(&mut node, term, Body::Quiesce { commit: START.index + 2 });
    assert!(node.is_quiet() && !node.has_ready(), "it sleeps");
    assert_eq!(node.applied_index(), START.index + 2);
    node
}

fn hear(node: &mut RawNode, term: Term, body: Body) {
    node.step(Message { from: OTHERS[0], to: ME, term, body }).expect("a peer keeps the protocol");
    settle(node);
}

fn answer(node: &mut RawNode, from: PeerId, body: Body) {
    let message = Message { from, to: ME, term: node.term(), body };
    node.step(message).expect("a peer keeps the protocol");
    settle(node);
}

/// The others have everything.
fn acknowledge(node: &mut RawNode) {
    let outcome = AppendOutcome::Matched(node.last_index());
    let round = node.round();
    OTHERS.iter().for_each(|id| answer(node, *id, Body::AppendResponse { outcome, round }));
}

/// Does what the node wants done; what it sends is lost.
fn settle(node: &mut RawNode) {
    while node.has_ready() {
        let ready = node.ready();
        assert!(ready.failure.is_none(), "storage keeps its promises");
        if let Some(persist) = &ready.persist {
            node.persisted(persist.ticket);
        }
        if let Some(last) = ready.committed.last() {
            node.applied(last.index);
        }
    }
}
