//! Commit: the second phase. A lock becomes a record at the commit timestamp.

use base::TimeStamp;
use base::rule::{Rule, keep};

use super::changes::distinct_keys;
use super::{Changes, Outcome, check_commit_ts, check_start_ts};
use crate::mvcc::{Key, Lock, Reader, TxnRecord, Write, WriteKind};
use crate::{KeyError, TxnError};

/// The request: all keys or none.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The keys.
    pub keys: Vec<Key>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// When it is committed.
    pub commit_ts: TimeStamp,
}

impl Commit {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The reply is the commit timestamp as asked for.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<TimeStamp>, TxnError> {
        check_start_ts(self.start_ts)?;
        check_commit_ts(self.start_ts, self.commit_ts)?;
        let keys = distinct_keys(reader, &self.keys)?;
        let mut changes = Changes::default();
        for key in keys {
            commit_key(reader, &mut changes, key, self.start_ts, self.commit_ts)?;
        }
        Ok(Outcome { reply: self.commit_ts, changes })
    }
}

/// Commits `start_ts` on `key`, if it is not committed already.
pub(super) fn commit_key(
    reader: &mut Reader<'_>,
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
    commit_ts: TimeStamp,
) -> Result<(), TxnError> {
    let is_own = |lock: &Lock| lock.start_ts == start_ts || !keep(Rule::CommitOwnLock);
    let lock = reader.load_lock(key)?.filter(is_own);
    let Some(lock) = lock else {
        return match reader.txn_record(key, start_ts)? {
            TxnRecord::Committed { .. } => Ok(()),
            TxnRecord::RolledBack { .. } | TxnRecord::Nothing { .. } => {
                Err(KeyError::LockNotFound { start_ts, commit_ts, key: key.user().clone() }.into())
            }
        };
    };
    if commit_ts < lock.min_commit_ts && keep(Rule::CommitAboveBound) {
        return Err(KeyError::CommitTsExpired {
            start_ts,
            attempted_commit_ts: commit_ts,
            key: key.user().clone(),
            min_commit_ts: lock.min_commit_ts,
        }
        .into());
    }
    if let Some(kind) = lock.write_kind() {
        let write = committed_record(&lock, kind, commit_ts);
        changes.put_write(key, commit_ts, &write);
    }
    // A pessimistic lock was never prewritten: the transaction does not change the key, and its
    // rollback of the lock was lost on the way.
    changes.remove_lock(key, &lock, commit_ts);
    Ok(())
}

/// The record that `lock` becomes at `commit_ts`.
pub(super) fn committed_record(lock: &Lock, kind: WriteKind, commit_ts: TimeStamp) -> Write {
    let mut write = Write::new(kind, lock.start_ts, lock.short_value.clone());
    write.last_change = lock.last_change;
    write.source = lock.source;
    // A rollback that lies at this timestamp is replaced, so the record must say it too.
    write.has_overlapped_rollback = lock.rollback_ts.contains(&commit_ts);
    write
}
