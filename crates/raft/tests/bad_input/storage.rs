//! A disk that breaks its promises: the node says which, and at which entry, and does nothing any
//! more.

use std::sync::{Arc, Mutex};

use base::{Entry, Index, PeerId, Term};
use bytes::Bytes;
use pontoon_raft::{
    AppendOutcome, Body, ConfChange, ConfState, Config, InitialState, LogPos, MemberChange,
    MemoryStorage, Message, ProposeError, RawNode, ReadIndexError, Role, Snapshot, StepError,
    Storage, StorageError, TransferError,
};

use crate::{config, entry, message, stored};

/// A storage that answers one call wrongly from the moment at which it is told to.
#[derive(Clone)]
struct Faulty {
    inner: MemoryStorage,
    fault: Arc<Mutex<Option<Fault>>>,
}

#[derive(Clone)]
enum Fault {
    Initial(StorageError),
    First(Result<Index, StorageError>),
    Last(Result<Index, StorageError>),
    Term(Result<Term, StorageError>),
    Entries(Result<Vec<Entry>, StorageError>),
}

impl Faulty {
    fn fault(&self) -> Option<Fault> {
        self.fault.lock().expect("nobody panics with it").clone()
    }

    fn breaks(&self, fault: Fault) {
        *self.fault.lock().expect("nobody panics with it") = Some(fault);
    }
}

impl Storage for Faulty {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        match self.fault() {
            Some(Fault::Initial(error)) => Err(error),
            _ => self.inner.initial_state(),
        }
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        match self.fault() {
            Some(Fault::First(answer)) => answer,
            _ => self.inner.first_index(),
        }
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        match self.fault() {
            Some(Fault::Last(answer)) => answer,
            _ => self.inner.last_index(),
        }
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        match self.fault() {
            Some(Fault::Term(answer)) => answer,
            _ => self.inner.term(index),
        }
    }

    fn entries(&self, low: Index, high: Index, max: usize) -> Result<Vec<Entry>, StorageError> {
        match self.fault() {
            Some(Fault::Entries(answer)) => answer,
            _ => self.inner.entries(low, high, max),
        }
    }
}

fn io() -> StorageError {
    StorageError::Io(Arc::new(std::io::Error::other("bad sector")))
}

fn faulty() -> Faulty {
    Faulty { inner: stored(1..=3), fault: Arc::default() }
}

/// What the node does when storage begins to fail: it reads what is no longer in memory.
type Provoke = fn(&mut RawNode);

/// A leader's entry attaches at 7, which lies in storage alone.
fn append_at_7(node: &mut RawNode) {
    let prev = LogPos { index: 7, term: 2 };
    let body = Body::Append { prev, entries: vec![entry(8, 3)], commit: 7, round: 1 };
    assert_eq!(node.step(message(2, 3, body)), Err(StepError::Stopped));
}

/// 8 becomes committed.
fn commit_8(node: &mut RawNode) {
    node.step(message(2, 3, Body::Heartbeat { commit: 8, round: 1 })).expect("is taken");
}

/// Entry 8 is committed, and may change members.
fn campaign(node: &mut RawNode) {
    commit_8(node);
    assert!(!node.campaign());
}

/// 7 entries back lies what a follower needs.
fn lead_a_slow_one(node: &mut RawNode) {
    let ticket = |node: &mut RawNode| node.ready().persist.expect("its vote").ticket;
    assert!(node.campaign());
    let vote = ticket(node);
    node.persisted(vote);
    node.step(message(2, 4, Body::VoteResponse { granted: true })).expect("is taken");
    assert_eq!(node.role(), Role::Leader);
    let hint = LogPos { index: 5, term: 2 };
    let outcome = AppendOutcome::Conflict { prev: 8, hint };
    drop(node.ready());
    let _ = node.step(message(2, 4, Body::AppendResponse { outcome, round: 1 }));
}

/// The log that a snapshot must meet is not known.
fn make_a_snapshot(node: &mut RawNode) {
    lead_a_slow_one(node);
    let _ = node.step(message(2, 4, Body::SnapshotRequest { at_least: 7 }));
    let conf = ConfState::of_voters([PeerId(1)]);
    let snapshot = Snapshot { pos: LogPos { index: 7, term: 2 }, conf, data: Bytes::default() };
    assert!(node.snapshot_made(PeerId(2), snapshot).is_err());
}

/// The node says `expected` once, and then nothing for ever.
fn check(fault: Fault, provoke: Provoke, expected: &str) {
    let storage = faulty();
    let mut node = RawNode::new(config(7), Box::new(storage.clone())).expect("starts");
    storage.breaks(fault);
    provoke(&mut node);
    let mut failure = None;
    while let Some(ready) = node.has_ready().then(|| node.ready()) {
        assert!(failure.is_none(), "it says one thing more: {ready:?}");
        failure = ready.failure;
    }
    let failure = failure.expect("it failed");
    assert_eq!(failure.to_string(), format!("storage broke its promise that {expected}"));
    does_nothing_any_more(&mut node);
}

fn does_nothing_any_more(node: &mut RawNode) {
    let before = node.status();
    let peer = PeerId(2);
    (0..100).for_each(|_| node.tick());
    for term in [before.term, before.term + 1] {
        let heartbeat: Message = message(2, term, Body::Heartbeat { commit: 8, round: 9 });
        assert_eq!(node.step(heartbeat), Err(StepError::Stopped));
    }
    let data = Bytes::from_static(b"x");
    assert_eq!(node.propose(data.clone()), Err(ProposeError::NotLeader { leader: None }));
    assert_eq!(node.forward(data), Err(ProposeError::NotLeader { leader: None }));
    assert_eq!(node.read_index(1), Err(ReadIndexError::NoLeader));
    assert_eq!(node.transfer_leader(peer), Err(TransferError::NoLeader));
    assert!(!node.campaign() && !node.quiesce());
    node.snapshot_sent(peer);
    node.snapshot_failed(peer);
    node.report_unreachable(peer);
    node.applied(before.applied);
    let change = ConfChange::One(MemberChange::AddVoter(PeerId(4)));
    let _ = (node.request_snapshot(), node.apply_conf_change(8, &change));
    assert!(!node.has_ready());
    let ready = node.ready();
    assert!(ready.persist.is_none() && ready.messages.is_empty() && ready.failure.is_none());
    let after = node.status();
    assert_eq!((after.role, after.term, after.last), (before.role, before.term, before.last));
}

#[test]
fn a_term_that_is_not_there() {
    let promise = "a stable entry has a term until it is applied and compacted";
    let at_7 = format!("{promise} (index 7, log ends in term 3)");
    let table = [
        (StorageError::Compacted, "compacted"),
        (StorageError::Unavailable, "not there yet"),
        (io(), "read failed: bad sector"),
    ];
    for (error, cause) in table {
        check(Fault::Term(Err(error)), append_at_7, &format!("{at_7}: {cause}"));
    }
}

#[test]
fn a_term_that_cannot_be() {
    let promise = "it answers with what was written: consecutive, terms never go back";
    let expected = format!("{promise} (index 7, log ends in term 3): it answered with entry 7@4");
    check(Fault::Term(Ok(4)), append_at_7, &expected);
}

#[test]
fn entries_that_are_not_there() {
    let promise = "a stable entry is there until it is applied and compacted";
    let table = [
        (Err(StorageError::Compacted), "compacted"),
        (Err(StorageError::Unavailable), "not there yet"),
        (Err(io()), "read failed: bad sector"),
        (Ok(Vec::new()), "not there yet"),
    ];
    for (answer, cause) in table {
        for provoke in [commit_8 as Provoke, campaign] {
            let expected = format!("{promise} (index 8, log ends in term 3): {cause}");
            check(Fault::Entries(answer.clone()), provoke, &expected);
        }
    }
}

/// 8@3 is asked for.
#[test]
fn entries_that_cannot_be() {
    let promise = "it answers with what was written: consecutive, terms never go back";
    let table = [
        (vec![entry(7, 2)], "7@2"),
        (vec![entry(9, 3)], "9@3"),
        (vec![entry(8, 4)], "8@4"),
        (vec![entry(8, 3), entry(9, 3)], "9@3"),
    ];
    for (answer, cause) in table {
        for provoke in [commit_8 as Provoke, campaign] {
            let index = cause.split('@').next().expect("an entry");
            let expected = format!(
                "{promise} (index {index}, log ends in term 3): it answered with entry {cause}"
            );
            check(Fault::Entries(Ok(answer.clone())), provoke, &expected);
        }
    }
}

/// 6@2, 7@2 and 8@3 are asked for.
#[test]
fn a_slow_follower_is_given_nothing_wrong() {
    let promise = "it answers with what was written: consecutive, terms never go back";
    let table = [
        (vec![entry(6, 2), entry(8, 3)], "8@3"),
        (vec![entry(7, 2)], "7@2"),
        (vec![entry(6, 3), entry(7, 2)], "7@2"),
        (vec![entry(6, 2), entry(7, 9)], "7@9"),
    ];
    for (answer, cause) in table {
        let index = cause.split('@').next().expect("an entry");
        let expected = format!(
            "{promise} (index {index}, log ends in term 4): it answered with entry {cause}"
        );
        check(Fault::Entries(Ok(answer)), lead_a_slow_one, &expected);
    }
}

#[test]
fn a_log_that_begins_nowhere() {
    let expected = "first_index answers (index 0, log ends in term 4): read failed: bad sector";
    check(Fault::First(Err(io())), make_a_snapshot, expected);
}

#[test]
fn a_start_from_what_cannot_be() {
    let marks = "truncated <= applied, and commit and applied <= last, at a start";
    let none = "log ends in term 0";
    let table = [
        (
            Fault::Initial(io()),
            format!("it answers at a start (index 0, {none}): read failed: bad sector"),
        ),
        (
            Fault::First(Err(io())),
            format!("first_index answers (index 0, {none}): read failed: bad sector"),
        ),
        (
            Fault::Last(Err(io())),
            format!("last_index answers (index 0, {none}): read failed: bad sector"),
        ),
        (
            Fault::Term(Err(io())),
            format!("the last entry has a term (index 8, {none}): read failed: bad sector"),
        ),
        (
            Fault::Term(Err(StorageError::Unavailable)),
            format!("the last entry has a term (index 8, {none}): not there yet"),
        ),
        (Fault::Last(Ok(6)), format!("{marks} (index 7, {none}): not there yet")),
        (Fault::Last(Ok(0)), format!("{marks} (index 7, {none}): not there yet")),
        (Fault::First(Ok(9)), format!("{marks} (index 7, {none}): compacted")),
        (Fault::First(Ok(0)), format!("{marks} (index 7, {none}): compacted")),
        (Fault::First(Ok(u64::MAX)), format!("{marks} (index 7, {none}): compacted")),
    ];
    for (fault, expected) in table {
        let expected = format!("storage broke its promise that {expected}");
        assert_eq!(start_error(fault, config(7)), expected);
    }
    let ahead = format!("storage broke its promise that {marks} (index 9, {none}): not there yet");
    let healthy = Fault::Last(Ok(8));
    assert_eq!(start_error(healthy.clone(), config(9)), ahead, "applied past the end");
    let behind = format!("storage broke its promise that {marks} (index 7, {none}): compacted");
    assert_eq!(start_error(healthy.clone(), config(4)), behind, "applied before the log");
    let end = format!(
        "storage broke its promise that {marks} (index {}, {none}): not there yet",
        u64::MAX
    );
    assert_eq!(start_error(healthy, Config { applied: u64::MAX, ..config(7) }), end);
    let beyond = "storage contradicts itself: the hard state's term is behind the log's";
    assert_eq!(start_error(Fault::Term(Ok(u64::MAX)), config(7)), beyond);
    let endless = "storage contradicts itself: a term or an index that no group reaches";
    let inner = MemoryStorage::starting_at(LogPos { index: 1 << 63, term: 3 }, [PeerId(1)]);
    let storage = Faulty { inner, fault: Arc::default() };
    let error = RawNode::new(config(1 << 63), Box::new(storage)).err().expect("no start");
    assert_eq!(error.to_string(), endless);
}

fn start_error(fault: Fault, config: Config) -> String {
    let storage = faulty();
    storage.breaks(fault);
    RawNode::new(config, Box::new(storage)).err().expect("it does not start").to_string()
}
