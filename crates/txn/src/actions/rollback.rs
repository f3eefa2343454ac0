//! Rollback: a transaction is over on a key, and a record makes sure that it stays so.
//!
//! The record stands at the transaction's own start timestamp, where its late prewrite looks. Three
//! ways it can be kept:
//!
//! | what lies there | unprotected | protected |
//! | --- | --- | --- |
//! | nothing | a record; older unprotected ones below it go | a record that stays |
//! | another transaction's commit | nothing: it conflicts with the late prewrite as well | a flag |
//! | another transaction's lock | a record | and the lock remembers it: see [`Lock::rollback_ts`] |
//!
//! Protected are rollbacks that a late request could otherwise undo without meeting a conflict:
//! those of primaries of pessimistic transactions (which do not look at newer versions), and those
//! by which somebody else decided a transaction's fate.

use base::TimeStamp;
use base::rule::{Rule, keep};

use super::changes::distinct_keys;
use super::{Changes, Outcome, check_start_ts};
use crate::mvcc::{Key, Lock, Overlapped, Reader, TxnRecord, Write, WriteKind};
use crate::{Abort, KeyError, TxnError};

/// Rolls a transaction back on keys, come what may.
#[derive(Clone, Debug)]
pub struct BatchRollback {
    /// The keys.
    pub keys: Vec<Key>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

impl BatchRollback {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// All keys or none: one that is committed refuses the request.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<()>, TxnError> {
        check_start_ts(self.start_ts)?;
        let keys = distinct_keys(reader, &self.keys)?;
        let mut changes = Changes::default();
        for key in keys {
            roll_back_key(reader, &mut changes, key, self.start_ts, None, false)?;
        }
        Ok(Outcome { reply: (), changes })
    }
}

/// Rolls one key back if its lock has expired: what old clients do with a lock in their way.
#[derive(Clone, Debug)]
pub struct Cleanup {
    /// The key.
    pub key: Key,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Now; 0: even if it has not expired.
    pub current_ts: TimeStamp,
}

impl Cleanup {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.key)
    }

    /// Answers the commit timestamp if the transaction is committed, 0 if it is rolled back now.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<TimeStamp>, TxnError> {
        check_start_ts(self.start_ts)?;
        let mut changes = Changes::default();
        let now = (self.current_ts.0 != 0).then_some(self.current_ts);
        match roll_back_key(reader, &mut changes, &self.key, self.start_ts, now, true) {
            Ok(()) => Ok(Outcome { reply: TimeStamp(0), changes }),
            Err(TxnError::Key(error)) => match *error {
                KeyError::Abort(Abort::Committed { commit_ts, .. }) => {
                    Ok(Outcome::unchanged(commit_ts))
                }
                other => Err(other.into()),
            },
            Err(other) => Err(other),
        }
    }
}

/// Rolls `start_ts` back on `key`. With `now` a lock that lives refuses.
pub(super) fn roll_back_key(
    reader: &mut Reader<'_>,
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
    now: Option<TimeStamp>,
    protected: bool,
) -> Result<(), TxnError> {
    let in_the_way = match reader.load_lock(key)? {
        Some(lock) if lock.start_ts == start_ts => {
            if now.is_some_and(|now| !lock.is_expired(now)) {
                return Err(KeyError::locked(key, lock).into());
            }
            return roll_back_lock(reader, changes, key, &lock, !protected);
        }
        other => other,
    };
    match reader.txn_record(key, start_ts)? {
        TxnRecord::Committed { commit_ts, .. } => {
            let key = key.user().clone();
            Err(Abort::Committed { start_ts, commit_ts, key }.into())
        }
        TxnRecord::RolledBack { .. } => Ok(()),
        TxnRecord::Nothing { overlapped } => {
            let place = Place { overlapped, in_the_way };
            record_missing(reader, changes, key, start_ts, place, protected)
        }
    }
}

/// What lies where a rollback is to be recorded.
pub(super) struct Place {
    pub(super) overlapped: Option<Overlapped>,
    /// Another transaction's lock.
    pub(super) in_the_way: Option<Lock>,
}

/// Records the rollback of a transaction that has neither lock nor record on `key`.
pub(super) fn record_missing(
    reader: &mut Reader<'_>,
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
    place: Place,
    protected: bool,
) -> Result<(), TxnError> {
    if !protected {
        collapse_below(reader, changes, key, start_ts)?;
    }
    if let (Some(lock), None) = (place.in_the_way, &place.overlapped) {
        remember_in_lock(changes, key, lock, start_ts, protected);
    }
    put_rollback(changes, key, start_ts, place.overlapped, protected);
    Ok(())
}

/// Removes a transaction's own lock and records that it is rolled back. Fails if the transaction is
/// committed: then the lock is of a late copy of a request, and means nothing.
pub(super) fn roll_back_lock(
    reader: &mut Reader<'_>,
    changes: &mut Changes,
    key: &Key,
    lock: &Lock,
    collapse: bool,
) -> Result<(), TxnError> {
    let start_ts = lock.start_ts;
    let overlapped = match reader.txn_record(key, start_ts)? {
        TxnRecord::Nothing { overlapped } => overlapped,
        // The record is there and only the lock is left over.
        TxnRecord::RolledBack { .. } => {
            changes.remove_lock(key, lock, TimeStamp(0));
            return Ok(());
        }
        TxnRecord::Committed { commit_ts, .. } => {
            let key = key.user().clone();
            return Err(Abort::Committed { start_ts, commit_ts, key }.into());
        }
    };
    if lock.has_long_value() {
        changes.delete_value(key, start_ts);
    }
    let protected = lock.is_of_pessimistic_txn() && lock.is_primary(key);
    put_rollback(changes, key, start_ts, overlapped, protected);
    if collapse {
        collapse_below(reader, changes, key, start_ts)?;
    }
    changes.remove_lock(key, lock, TimeStamp(0));
    Ok(())
}

/// Writes the record, or the flag, or nothing: see the table above.
pub(super) fn put_rollback(
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
    overlapped: Option<Overlapped>,
    protected: bool,
) {
    if !keep(Rule::RecordRollbacks) {
        return;
    }
    let protected = protected && keep(Rule::ProtectRollbacks);
    match overlapped {
        None => changes.put_write(key, start_ts, &Write::rollback(start_ts, protected)),
        Some(Overlapped { mut write, gc_fence }) if protected && keep(Rule::FlagOverlapped) => {
            assert!(write.start_ts < start_ts, "a commit at {start_ts} began before it");
            write.has_overlapped_rollback = true;
            write.gc_fence = Some(gc_fence);
            changes.put_write(key, start_ts, &write);
        }
        Some(_) => {}
    }
}

/// Removes the newest rollback below `start_ts` if it is not protected: the one that is being
/// written conflicts with every prewrite that the old one had to refuse.
pub(super) fn collapse_below(
    reader: &mut Reader<'_>,
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
) -> Result<(), TxnError> {
    if let Some((commit_ts, write)) = reader.seek_write(key, start_ts)?
        && commit_ts != start_ts
        && write.kind == WriteKind::Rollback
        && !write.is_protected()
    {
        changes.delete_write(key, commit_ts);
    }
    Ok(())
}

/// Another transaction's async commit lock is where a protected rollback is recorded: should it
/// choose the rollback's timestamp for its commit, it must carry the rollback along.
pub(super) fn remember_in_lock(
    changes: &mut Changes,
    key: &Key,
    mut lock: Lock,
    start_ts: TimeStamp,
    protected: bool,
) {
    assert!(lock.start_ts != start_ts, "a transaction's own lock is rolled back with it");
    let may_commit_there = lock.is_async_commit() && lock.min_commit_ts <= start_ts;
    if protected && may_commit_there && !lock.rollback_ts.contains(&start_ts) {
        lock.rollback_ts.push(start_ts);
        changes.put_lock(key, &lock);
    }
}
