//! PessimisticLock: a transaction reserves keys while it still runs, and reads them as of
//! `for_update_ts` on the way.
//!
//! All keys or none. A key that somebody else has locked ends the attempt: the scheduler lets the
//! request wait ([`crate::waiting`]), without latches, and answers it when the lock is released.
//! The mode "force lock" (one key) is different: it takes the lock although a newer version is
//! there, and says so; its waiter is given the lock by running this action again.

use std::time::Duration;

use base::TimeStamp;
use base::rule::{Rule, keep};
use bytes::Bytes;

use super::changes::check_keys;
use super::constraints::{Asker, check_absent};
use super::{Changes, Outcome, check_start_ts};
use crate::mvcc::{Key, LastChange, Lock, LockKind, Reader, Write};
use crate::{Abort, Conflict, ConflictReason, KeyError, LockInfo, TxnError};

/// What the client wants to know of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhatToRead {
    /// Nothing.
    #[default]
    Nothing,
    /// Whether they have values.
    Existence,
    /// The values.
    Values,
}

/// The request.
#[derive(Clone, Debug, Default)]
pub struct PessimisticLock {
    /// The keys, each with whether it must have no value.
    pub keys: Vec<(Key, bool)>,
    /// User form.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Of the locks.
    pub ttl_ms: u64,
    /// Versions above are a conflict.
    pub for_update_ts: TimeStamp,
    /// The commit must not be below.
    pub min_commit_ts: TimeStamp,
    /// What to answer.
    pub read: WhatToRead,
    /// Do not lock a key without a value. Needs [`WhatToRead::Values`].
    pub only_if_exists: bool,
    /// Lock in spite of a newer version. One key only.
    pub allow_conflict: bool,
}

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLocked {
    /// With [`WhatToRead::Values`] or a conflict: the value, if there is one. Else empty.
    pub value: Option<Bytes>,
    /// Whether the key has a value, as far as it was looked at.
    pub exists: bool,
    /// The lock was granted above this newer version, and its `for_update_ts` is this now.
    pub conflict_ts: Option<TimeStamp>,
}

/// What came of the whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// One result for each key, in the order of the request.
    Granted(Vec<KeyLocked>),
    /// Nothing is locked.
    Refused(LockRefused),
}

/// Why nothing is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockRefused {
    /// Somebody else holds this one: wait, or tell the client.
    Held(Box<LockInfo>),
    /// Tell the client.
    Error(Box<KeyError>),
}

/// How long a request may wait for a lock: `timeout_ms` as clients say it (0: the server's default;
/// negative: not at all), and never longer than the default. `None`: answer at once.
pub fn wait_limit(timeout_ms: i64, default: Duration) -> Option<Duration> {
    match u64::try_from(timeout_ms) {
        Ok(0) => Some(default),
        Ok(timeout_ms) => Some(default.min(Duration::from_millis(timeout_ms))),
        Err(_) => None,
    }
}

impl PessimisticLock {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|(key, _)| key)
    }

    /// What it reads as of.
    pub fn reads_at(&self) -> Option<TimeStamp> {
        let reads = self.read != WhatToRead::Nothing || self.keys.iter().any(|(_, absent)| *absent);
        reads.then_some(self.for_update_ts)
    }

    fn check_request(&self, reader: &Reader<'_>) -> Result<(), TxnError> {
        check_start_ts(self.start_ts)?;
        if self.for_update_ts < self.start_ts || self.for_update_ts == TimeStamp::MAX {
            let (start_ts, other_ts) = (self.start_ts, self.for_update_ts);
            let what = "for_update_ts is not below the start";
            return Err(Abort::Timestamps { what, start_ts, other_ts }.into());
        }
        if self.only_if_exists && self.read != WhatToRead::Values {
            return Err(Abort::Request("lock_only_if_exists needs return_values").into());
        }
        if self.allow_conflict && self.keys.len() > 1 {
            return Err(Abort::Request("only one key can be locked with force").into());
        }
        check_keys(reader, self.latch_keys())
    }

    /// Locks all keys or none.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<LockOutcome>, TxnError> {
        self.check_request(reader)?;
        let mut changes = Changes::default();
        let mut results = Vec::with_capacity(self.keys.len());
        for (key, must_be_absent) in &self.keys {
            match self.lock_key(reader, &mut changes, key, *must_be_absent) {
                Ok(result) => results.push(result),
                Err(TxnError::Key(error)) => {
                    let refused = match *error {
                        KeyError::Locked(info) => LockRefused::Held(Box::new(info)),
                        other => LockRefused::Error(Box::new(other)),
                    };
                    return Ok(Outcome::unchanged(LockOutcome::Refused(refused)));
                }
                Err(other) => return Err(other),
            }
        }
        assert!(changes.writes.is_empty(), "pessimistic locks are held, not written");
        Ok(Outcome { reply: LockOutcome::Granted(results), changes })
    }

    fn lock_key(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        key: &Key,
        must_be_absent: bool,
    ) -> Result<KeyLocked, TxnError> {
        let own = match reader.load_lock(key)? {
            None => None,
            Some(lock) if lock.start_ts != self.start_ts => {
                return Err(KeyError::locked(key, lock).into());
            }
            Some(lock) if lock.kind != LockKind::Pessimistic => {
                let (start_ts, key) = (self.start_ts, key.user().clone());
                return Err(Abort::LockType { start_ts, key, found: lock.kind }.into());
            }
            Some(lock) => Some(lock),
        };
        match own {
            Some(lock) => self.lock_again(reader, changes, key, lock),
            None => self.lock_anew(reader, changes, key, must_be_absent),
        }
    }

    /// The transaction holds the lock: a repeat, or a later statement.
    fn lock_again(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        key: &Key,
        mut lock: Lock,
    ) -> Result<KeyLocked, TxnError> {
        let is_repeat_of_conflict = self.allow_conflict && self.for_update_ts < lock.for_update_ts;
        let conflict_ts = is_repeat_of_conflict.then_some(lock.for_update_ts);
        let at = conflict_ts.unwrap_or(self.for_update_ts);
        let newer = self.for_update_ts > lock.for_update_ts;
        if newer || self.ttl_ms > lock.ttl_ms || self.min_commit_ts > lock.min_commit_ts {
            lock.for_update_ts = lock.for_update_ts.max(self.for_update_ts);
            lock.ttl_ms = lock.ttl_ms.max(self.ttl_ms);
            lock.min_commit_ts = lock.min_commit_ts.max(self.min_commit_ts);
            lock.with_conflict &= !newer;
            changes.hold_pessimistic(key.clone(), lock);
        }
        self.result(reader, key, at, conflict_ts)
    }

    fn lock_anew(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        key: &Key,
        must_be_absent: bool,
    ) -> Result<KeyLocked, TxnError> {
        let newest = reader.seek_write(key, TimeStamp::MAX)?;
        self.check_not_rolled_back(reader, key, newest.as_ref())?;
        let mut conflict_ts = None;
        if let Some((commit_ts, write)) = &newest
            && *commit_ts > self.for_update_ts
            && keep(Rule::LockNewest)
        {
            if !self.allow_conflict {
                let asker = Asker { start_ts: self.start_ts, primary: &self.primary };
                let reason = ConflictReason::PessimisticRetry;
                return Err(asker.conflict(key, write, *commit_ts, reason).into());
            }
            conflict_ts = Some(*commit_ts);
        }
        if must_be_absent && conflict_ts.is_none() {
            check_absent(reader, key)?;
        }
        let at = conflict_ts.unwrap_or(self.for_update_ts);
        let result = self.result(reader, key, at, conflict_ts)?;
        if self.only_if_exists && !result.exists {
            return Ok(result);
        }
        let kind = LockKind::Pessimistic;
        let mut lock = Lock::new(kind, self.primary.clone(), self.start_ts, self.ttl_ms);
        lock.for_update_ts = at;
        lock.min_commit_ts = self.min_commit_ts;
        lock.with_conflict = conflict_ts.is_some();
        lock.last_change = LastChange::above(newest.as_ref().map(|(ts, write)| (*ts, write)));
        assert!(lock.for_update_ts >= self.start_ts, "a lock is as of the start or later");
        changes.hold_pessimistic(key.clone(), lock);
        Ok(result)
    }

    /// A transaction that was rolled back on the key gets no new lock there.
    fn check_not_rolled_back(
        &self,
        reader: &mut Reader<'_>,
        key: &Key,
        newest: Option<&(TimeStamp, Write)>,
    ) -> Result<(), TxnError> {
        let own_place = match newest {
            Some((commit_ts, _)) if *commit_ts > self.start_ts => {
                reader.seek_write(key, self.start_ts)?
            }
            other => other.cloned(),
        };
        match own_place {
            Some((commit_ts, write)) if write.rolls_back(commit_ts, self.start_ts) => {
                let (start_ts, key) = (self.start_ts, key.user().clone());
                Err(Abort::PessimisticLockRolledBack { start_ts, key }.into())
            }
            _ => Ok(()),
        }
    }

    fn result(
        &self,
        reader: &mut Reader<'_>,
        key: &Key,
        at: TimeStamp,
        conflict_ts: Option<TimeStamp>,
    ) -> Result<KeyLocked, TxnError> {
        if self.read == WhatToRead::Nothing && conflict_ts.is_none() {
            return Ok(KeyLocked { value: None, exists: false, conflict_ts });
        }
        let put = reader.newest_put(key, at)?;
        let exists = put.is_some();
        let wants_value = self.read == WhatToRead::Values || conflict_ts.is_some();
        let value = match put {
            Some((_, write)) if wants_value => Some(reader.load_value(key, &write)?),
            _ => None,
        };
        Ok(KeyLocked { value, exists, conflict_ts })
    }

    /// What a waiter is told whose lock was released: not that it has it, but that it may try
    /// again. `commit_ts` is that of the transaction which released it, 0 if it was rolled back.
    pub fn woken(&self, key: &Key, holder: TimeStamp, commit_ts: TimeStamp) -> KeyError {
        KeyError::Conflict(Conflict {
            start_ts: self.start_ts,
            conflict_ts: holder,
            conflict_commit_ts: commit_ts,
            key: key.user().clone(),
            primary: self.primary.clone(),
            reason: ConflictReason::PessimisticRetry,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        let default = Duration::from_millis(1000);
        assert_eq!(wait_limit(0, default), Some(default));
        assert_eq!(wait_limit(-1, default), None);
        assert_eq!(wait_limit(i64::MIN, default), None);
        assert_eq!(wait_limit(30, default), Some(Duration::from_millis(30)));
        assert_eq!(wait_limit(i64::MAX, default), Some(default));
    }
}
