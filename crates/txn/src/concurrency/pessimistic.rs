//! Pessimistic locks that live in the memory of a region's leader.
//!
//! A pessimistic lock may be lost: its prewrite then takes it again if nobody wrote the key since
//! the transaction began, and fails otherwise. So it need not go through the log, as long as the
//! loss is rare: the locks follow leadership where it moves in order.
//!
//! ```text
//!             insert, remove, mark, unmark
//!                    ┌────┐
//!                    ▼    │      hand_over           resume (it came to nothing)
//!   clear ──► Closed ──► Open ───────────► HandingOver ──────────────────────────► Open
//!      ▲        │  open   │                     │
//!      └────────┴─────────┴─────────────────────┘ leadership lost
//! ```
//!
//! A hand-over (transfer of leadership, split, merge) gets all locks as writes to propose, before
//! the step itself is proposed. A lock whose removal is already on its way through the log is
//! *marked* and left out: its removal was proposed before, so the hand-over must not bring it back.
//!
//! Invariants:
//! 1. Nothing is inserted unless Open, for the term and version it was opened for.
//! 2. The bytes of all locks stay below the limit; above it locks go through the log.

use std::collections::BTreeMap;

use base::Term;
use bytes::Bytes;
use storage::engine::Cf;

use crate::Mutation;
use crate::mvcc::{Key, Lock, LockKind};

/// Bytes that a lock takes beside its key and primary.
const LOCK_BYTES: usize = 128;

/// The locks did not get in: propose them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another term, another version, or leadership is about to move.
    Closed,
    /// No room.
    Full,
}

/// The locks as writes to be proposed before leadership, or the range, moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Of the leader that proposes.
    pub term: Term,
    /// Of the region.
    pub version: u64,
    /// One a lock.
    pub writes: Vec<Mutation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { term: Term, version: u64 },
    HandingOver { term: Term, version: u64 },
}

#[derive(Clone, Debug)]
struct Held {
    lock: Lock,
    /// A write that removes or replaces it is on its way through the log.
    marked: bool,
}

/// The pessimistic locks of one region in memory. Owned by the region's scheduler; commands get
/// copies of those they need.
#[derive(Debug)]
pub struct PessimisticLocks {
    state: State,
    held: BTreeMap<Key, Held>,
    bytes: usize,
    bytes_max: usize,
}

impl PessimisticLocks {
    /// Closed and empty; will hold at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { state: State::Closed, held: BTreeMap::new(), bytes: 0, bytes_max }
    }

    /// This replica leads in `term`, and the region has this version.
    pub fn open(&mut self, term: Term, version: u64) {
        assert!(self.held.is_empty(), "locks of an earlier term were not cleared");
        self.state = State::Open { term, version };
    }

    /// Leadership is lost: the locks with it, those that were handed over are in the engine.
    pub fn clear(&mut self) {
        self.state = State::Closed;
        self.held.clear();
        self.bytes = 0;
    }

    /// Adds or replaces locks, all or none. `term` and `version` are those the command ran under.
    pub fn insert(
        &mut self,
        term: Term,
        version: u64,
        locks: &[(Key, Lock)],
    ) -> Result<(), Refused> {
        if self.state != (State::Open { term, version }) {
            return Err(Refused::Closed);
        }
        // A request may name a key twice.
        let unique: BTreeMap<&Key, &Lock> = locks.iter().map(|(key, lock)| (key, lock)).collect();
        let added: usize = unique.iter().map(|(key, lock)| size(key, lock)).sum();
        let replaced = unique.keys().filter_map(|key| Some(size(key, &self.held.get(*key)?.lock)));
        let bytes = self.bytes + added - replaced.sum::<usize>();
        if bytes > self.bytes_max {
            return Err(Refused::Full);
        }
        for (key, lock) in locks {
            assert!(lock.kind == LockKind::Pessimistic, "only pessimistic locks may be lost");
            self.held.insert(key.clone(), Held { lock: lock.clone(), marked: false });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Copies of the locks on `keys`, for a command that has latched them.
    pub fn of_keys<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> BTreeMap<Key, Lock> {
        let found = keys.into_iter().filter_map(|key| self.held.get_key_value(key));
        found.map(|(key, held)| (key.clone(), held.lock.clone())).collect()
    }

    /// Copies of all, for a command that looks for locks.
    pub fn all(&self) -> BTreeMap<Key, Lock> {
        self.held.iter().map(|(key, held)| (key.clone(), held.lock.clone())).collect()
    }

    /// A write that removes or replaces the locks of `keys` is about to be proposed.
    pub fn mark<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        self.set_marked(keys, true);
    }

    /// It failed for certain.
    pub fn unmark<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        self.set_marked(keys, false);
    }

    fn set_marked<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>, marked: bool) {
        for key in keys {
            if let Some(held) = self.held.get_mut(key) {
                held.marked = marked;
            }
        }
    }

    /// It is applied: the engine has what counts.
    pub fn remove<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            if let Some(held) = self.held.remove(key) {
                self.bytes -= size(key, &held.lock);
            }
        }
        assert!(!self.held.is_empty() || self.bytes == 0, "bytes without locks");
    }

    /// Leadership or the range is about to move: no more locks get in, and the caller proposes
    /// those that are there. `None` unless open.
    pub fn hand_over(&mut self) -> Option<HandOver> {
        let State::Open { term, version } = self.state else { return None };
        self.state = State::HandingOver { term, version };
        let live = self.held.iter().filter(|(_, held)| !held.marked);
        let write = |(key, held): (&Key, &Held)| Mutation::Put {
            cf: Cf::Lock,
            key: key.region(),
            value: Bytes::from(held.lock.encode()),
        };
        Some(HandOver { term, version, writes: live.map(write).collect() })
    }

    /// The move came to nothing (or it is done, as for a split, and the region has the new
    /// `version`). What was handed over is in the engine now, so the memory forgets it.
    pub fn resume(&mut self, version: u64, handed_over: bool) {
        if let State::HandingOver { term, version: before } = self.state {
            assert!(version >= before, "a region's version never falls");
            self.state = State::Open { term, version };
            if handed_over {
                self.held.clear();
                self.bytes = 0;
            }
        }
    }

    /// The region took over another one's keys, and has the new `version`: what is held stays.
    pub fn renew(&mut self, version: u64) {
        if let State::Open { term, version: before } = self.state {
            assert!(version >= before, "a region's version never falls");
            self.state = State::Open { term, version };
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn size(key: &Key, lock: &Lock) -> usize {
    LOCK_BYTES + key.data().len() + key.user().len() + lock.primary.len()
}
