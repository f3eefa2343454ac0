//! Reads of single keys at a timestamp.

use std::collections::BTreeSet;

use base::TimeStamp;
use bytes::Bytes;

use super::reader::before;
use super::{Isolation, Key, Lock, LockKind, LockVerdict, Reader, Row};
use crate::{Conflict, ConflictReason, KeyError, TxnError};

/// As of when, and how locks are met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What is committed at or below it is seen. [`TimeStamp::MAX`]: the newest.
    pub ts: TimeStamp,
    /// How locks are met.
    pub isolation: Isolation,
    /// Transactions whose locks are ignored: known to be rolled back, or to commit above `ts`.
    pub bypass: BTreeSet<TimeStamp>,
    /// Transactions known to be committed at or below `ts`: the value is taken out of their locks.
    pub access: BTreeSet<TimeStamp>,
    /// The read runs on a follower that asked the leader for its read index.
    pub is_replica_read: bool,
}

impl ReadOptions {
    /// A snapshot read at `ts` with no exceptions.
    pub fn at(ts: TimeStamp) -> Self {
        Self { ts, ..Self::default() }
    }

    /// How this read fails on a newer version or a lock when it checks its timestamp.
    pub(super) fn conflict(
        &self,
        key: &Key,
        conflict_ts: TimeStamp,
        conflict_commit_ts: TimeStamp,
        primary: Bytes,
    ) -> KeyError {
        KeyError::Conflict(Conflict {
            start_ts: self.ts,
            conflict_ts,
            conflict_commit_ts,
            key: key.user().clone(),
            primary,
            reason: ConflictReason::RcCheckTs,
        })
    }

    /// What a lock means for this read: pass (`None`), or the answer.
    pub(crate) fn judge(
        &self,
        key: &Key,
        lock: Lock,
        memory_only: bool,
    ) -> Result<Option<Lock>, Box<KeyError>> {
        match lock.meet(key, self, memory_only) {
            LockVerdict::Pass => Ok(None),
            LockVerdict::Access => Ok(Some(lock)),
            LockVerdict::Blocked => Err(Box::new(KeyError::locked(key, lock))),
            LockVerdict::Conflict => {
                let error = self.conflict(key, lock.start_ts, TimeStamp(0), lock.primary);
                Err(Box::new(error))
            }
        }
    }
}

/// A value and when it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As the client wrote it.
    pub value: Bytes,
    /// 0 if it was taken out of a lock whose commit timestamp is not known here.
    pub commit_ts: TimeStamp,
}

impl Reader<'_> {
    /// The value of `key`, if it has one. Locks in the concurrency manager are the caller's
    /// business, before it takes the snapshot.
    pub fn get(&mut self, key: &Key, read: &ReadOptions) -> Result<Option<Value>, TxnError> {
        self.check_key(key)?;
        if read.isolation != Isolation::ReadCommitted
            && let Some(lock) = self.load_lock(key)?
            && let Some(lock) = read.judge(key, lock, false)?
        {
            return self.accessed_value(key, &lock, false);
        }
        self.visible_value(key, read, false)
    }

    /// Those of `keys` that have a value, in the order asked for; a locked key is a row with its
    /// error.
    pub fn batch_get(&mut self, keys: &[Key], read: &ReadOptions) -> Result<Vec<Row>, TxnError> {
        let mut rows = Vec::with_capacity(keys.len());
        for (i, key) in keys.iter().enumerate() {
            if i % 256 == 255 {
                self.check_interrupt()?;
            }
            let outcome = match self.get(key, read) {
                Ok(Some(value)) => Ok(value),
                Ok(None) => continue,
                Err(TxnError::Key(error)) => Err(error),
                Err(other) => return Err(other),
            };
            rows.push(Row { key: key.user().clone(), outcome });
        }
        Ok(rows)
    }

    /// What a lock of a transaction that is known to be committed gives.
    pub(super) fn accessed_value(
        &mut self,
        key: &Key,
        lock: &Lock,
        key_only: bool,
    ) -> Result<Option<Value>, TxnError> {
        let value = match lock.kind {
            LockKind::Put if key_only => Bytes::new(),
            LockKind::Put => self.load_lock_value(key, lock)?,
            LockKind::Delete => return Ok(None),
            LockKind::Lock | LockKind::Pessimistic => {
                unreachable!("locks that change nothing are passed, not accessed")
            }
        };
        Ok(Some(Value { value, commit_ts: TimeStamp(0) }))
    }

    /// The newest committed value that the read sees.
    pub(super) fn visible_value(
        &mut self,
        key: &Key,
        read: &ReadOptions,
        key_only: bool,
    ) -> Result<Option<Value>, TxnError> {
        if read.isolation == Isolation::RcCheckTs && !read.is_replica_read {
            self.check_nothing_newer(key, read)?;
        }
        let Some((commit_ts, write)) = self.newest_put(key, read.ts)? else { return Ok(None) };
        let value = if key_only { Bytes::new() } else { self.load_value(key, &write)? };
        Ok(Some(Value { value, commit_ts }))
    }

    fn check_nothing_newer(&mut self, key: &Key, read: &ReadOptions) -> Result<(), TxnError> {
        let mut found = self.seek_write(key, TimeStamp::MAX)?;
        while let Some((commit_ts, write)) = found.filter(|(commit_ts, _)| *commit_ts > read.ts) {
            if write.kind.is_change() {
                let conflict = read.conflict(key, write.start_ts, commit_ts, Bytes::new());
                return Err(conflict.into());
            }
            found = match before(commit_ts) {
                Some(ts) => self.seek_write(key, ts)?,
                None => None,
            };
        }
        Ok(())
    }
}
