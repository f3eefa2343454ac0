//! Flush: a large transaction writes its locks while it still runs, part by part; and how it reads
//! back what it flushed.
//!
//! A key may be flushed again. The part's *generation* grows, so a late copy of an earlier part is
//! known by it and skipped.

use std::collections::BTreeMap;

use base::TimeStamp;
use bytes::Bytes;

use super::constraints::{Asker, Seen, check_absent, check_assertion};
use super::{Assertion, AssertionLevel, Changes, Op, Outcome, check_start_ts, place_value};
use crate::mvcc::{Key, Lock, LockKind, Reader};
use crate::{Abort, ConflictReason, KeyError, TxnError};

/// The request.
#[derive(Clone, Debug, Default)]
pub struct Flush {
    /// The keys: what happens to each, its value, what the client knows of it. Of a key that is
    /// there twice the last one counts.
    pub keys: Vec<(Op, Key, Bytes, Assertion)>,
    /// User form.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// The commit must not be below.
    pub min_commit_ts: TimeStamp,
    /// From 1.
    pub generation: u64,
    /// Of the locks.
    pub ttl_ms: u64,
    /// How assertions are checked.
    pub assertion_level: AssertionLevel,
}

impl Flush {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|(_, key, ..)| key)
    }

    /// What it reads as of: a check of absence is a read.
    pub fn reads_at(&self) -> Option<TimeStamp> {
        self.keys.iter().any(|(op, ..)| op.demands_absence()).then_some(self.start_ts)
    }

    /// The reply has the errors; if there are any, nothing is written.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<Vec<KeyError>>, TxnError> {
        check_start_ts(self.start_ts)?;
        if self.min_commit_ts == TimeStamp::MAX {
            let (start_ts, other_ts) = (self.start_ts, self.min_commit_ts);
            let what = "a commit comes before the last timestamp";
            return Err(Abort::Timestamps { what, start_ts, other_ts }.into());
        }
        if self.generation == 0 {
            return Err(Abort::Request("a flush has a generation above 0").into());
        }
        super::changes::check_keys(reader, self.latch_keys())?;
        let (mut changes, mut locked, mut assertion) = (Changes::default(), Vec::new(), None);
        // Of a key that is there twice the last mutation counts.
        let last: BTreeMap<&Key, usize> =
            self.keys.iter().enumerate().map(|(i, (_, key, ..))| (key, i)).collect();
        for (i, item) in self.keys.iter().enumerate() {
            if last[&item.1] != i {
                continue;
            }
            match self.flush_key(reader, &mut changes, item, &mut assertion) {
                Ok(()) => {}
                Err(TxnError::Key(error)) => match *error {
                    KeyError::Locked(info) => locked.push(KeyError::Locked(info)),
                    other => return Ok(Outcome::unchanged(vec![other])),
                },
                Err(other) => return Err(other),
            }
        }
        if locked.is_empty() {
            locked.extend(assertion);
        }
        if !locked.is_empty() {
            return Ok(Outcome::unchanged(locked));
        }
        Ok(Outcome { reply: Vec::new(), changes })
    }

    fn flush_key(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        item: &(Op, Key, Bytes, Assertion),
        assertion: &mut Option<KeyError>,
    ) -> Result<(), TxnError> {
        let (op, key, value, asserted) = item;
        let mut seen = Seen::default();
        let earlier = match reader.load_lock(key)? {
            Some(lock) if lock.start_ts != self.start_ts => {
                return Err(KeyError::locked(key, lock).into());
            }
            Some(lock) if lock.kind == LockKind::Pessimistic => {
                let (start_ts, key) = (self.start_ts, key.user().clone());
                return Err(Abort::LockType { start_ts, key, found: lock.kind }.into());
            }
            Some(lock) if lock.generation >= self.generation => return Ok(()),
            other => other,
        };
        match &earlier {
            Some(lock) if op.demands_absence() && lock.kind == LockKind::Put => {
                return Err(KeyError::AlreadyExist { key: key.user().clone() }.into());
            }
            Some(lock) if op.demands_absence() && lock.kind == LockKind::Lock => {
                check_absent(reader, key)?;
            }
            Some(_) => {}
            None => {
                let asker = Asker { start_ts: self.start_ts, primary: &self.primary };
                let reason = ConflictReason::Optimistic;
                seen.newest = Some(asker.newest_unless_newer(reader, key, reason)?);
                if op.demands_absence() {
                    check_absent(reader, key)?;
                }
                let wanted = (*asserted, self.assertion_level);
                if assertion.is_none() {
                    *assertion = check_assertion(reader, self.start_ts, key, wanted, &seen)?;
                }
            }
        }
        if *op != Op::CheckNotExists {
            self.put(changes, (*op, key, value), earlier, &seen);
        }
        Ok(())
    }

    fn put(
        &self,
        changes: &mut Changes,
        (op, key, value): (Op, &Key, &Bytes),
        earlier: Option<Lock>,
        seen: &Seen,
    ) {
        let kind = match op {
            Op::Put | Op::Insert => LockKind::Put,
            Op::Delete => LockKind::Delete,
            Op::Lock => LockKind::Lock,
            Op::CheckNotExists => unreachable!("a check writes no lock"),
        };
        let mut lock = Lock::new(kind, self.primary.clone(), self.start_ts, self.ttl_ms);
        lock.min_commit_ts = self.min_commit_ts.max(TimeStamp(self.start_ts.0 + 1));
        lock.generation = self.generation;
        if kind == LockKind::Lock {
            lock.last_change = seen.last_change();
        }
        let mut long_value = None;
        if kind == LockKind::Put {
            (lock.short_value, long_value) = place_value(value);
        }
        if let Some(earlier) = &earlier {
            assert!(earlier.generation < lock.generation, "generations grow");
            lock.ttl_ms = lock.ttl_ms.max(earlier.ttl_ms);
            lock.min_commit_ts = lock.min_commit_ts.max(earlier.min_commit_ts);
            lock.rollback_ts.clone_from(&earlier.rollback_ts);
            if earlier.has_long_value() && long_value.is_none() {
                changes.delete_value(key, self.start_ts);
            }
        }
        if let Some(value) = long_value {
            changes.put_value(key, self.start_ts, value);
        }
        changes.put_lock(key, &lock);
    }
}

/// Reads a transaction's own flushed values.
#[derive(Clone, Debug)]
pub struct BufferBatchGet {
    /// The keys.
    pub keys: Vec<Key>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

impl BufferBatchGet {
    /// Those keys that the transaction has flushed, in the order asked for, with their values; a
    /// deleted one has an empty value.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Vec<(Bytes, Bytes)>, TxnError> {
        let mut pairs = Vec::new();
        for key in &self.keys {
            let lock = reader.load_lock(key)?.filter(|lock| lock.start_ts == self.start_ts);
            let Some(lock) = lock else { continue };
            let value = match lock.kind {
                LockKind::Put => reader.load_lock_value(key, &lock)?,
                LockKind::Delete => Bytes::new(),
                LockKind::Lock | LockKind::Pessimistic => continue,
            };
            pairs.push((key.user().clone(), value));
        }
        Ok(pairs)
    }
}
