//! ResolveLock: the outcome of finished transactions, carried to the locks that they left.
//!
//! With keys ("lite") it is one step. Without, the region is gone through in steps: [`find`] some
//! locks, latch their keys, [`run`] on a new snapshot, and so on from where `find` stopped.
//!
//! [`find`]: ResolveLock::find
//! [`run`]: ResolveLock::run

use std::collections::BTreeMap;

use base::{KeyRange, TimeStamp};

use super::changes::distinct_keys;
use super::commit::commit_key;
use super::rollback::roll_back_key;
use super::{Changes, Outcome, check_commit_ts, check_start_ts};
use crate::mvcc::{Key, LockScan, Reader};
use crate::{KeyError, TxnError};

/// Locks of one step.
pub const RESOLVE_BATCH: usize = 256;

/// Bytes of writes after which a step ends.
pub const RESOLVE_BYTES: usize = 32 << 10;

/// Finished transactions: start timestamp to commit timestamp, 0 for rolled back.
pub type TxnOutcomes = BTreeMap<TimeStamp, TimeStamp>;

/// The request, or one step of it.
#[derive(Clone, Debug)]
pub struct ResolveLock {
    /// What became of whom.
    pub outcomes: TxnOutcomes,
    /// The keys of a lite request (which has one transaction), or those that were found.
    pub keys: Vec<Key>,
    /// The keys are the client's: a lock to be committed that is missing is an error. Among keys
    /// that were found, a lock may have gone meanwhile.
    pub is_lite: bool,
}

impl ResolveLock {
    /// Refuses outcomes that cannot be.
    pub fn check_request(&self) -> Result<(), TxnError> {
        if self.is_lite && self.outcomes.len() != 1 {
            return Err(crate::Abort::Request("keys go with one transaction").into());
        }
        for (start_ts, commit_ts) in &self.outcomes {
            check_start_ts(*start_ts)?;
            if commit_ts.0 != 0 {
                check_commit_ts(*start_ts, *commit_ts)?;
            }
        }
        Ok(())
    }

    /// The next locks of these transactions in `range` (region form).
    pub fn find(&self, reader: &Reader<'_>, range: &KeyRange) -> Result<LockScan, TxnError> {
        let wanted = |_: &Key, lock: &crate::mvcc::Lock| self.outcomes.contains_key(&lock.start_ts);
        reader.scan_locks(range, RESOLVE_BATCH, wanted)
    }

    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// Commits or rolls back on each key. The reply is the first key that did not fit into the
    /// step.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<Option<Key>>, TxnError> {
        self.check_request()?;
        let keys = distinct_keys(reader, &self.keys)?;
        let mut changes = Changes::default();
        for key in keys {
            if !self.is_lite && changes.byte_size() >= RESOLVE_BYTES {
                return Ok(Outcome { reply: Some(key.clone()), changes });
            }
            let start_ts = if self.is_lite {
                *self.outcomes.keys().next().expect("a lite request has one transaction")
            } else {
                let lock = reader.load_lock(key)?;
                match lock.filter(|lock| self.outcomes.contains_key(&lock.start_ts)) {
                    Some(lock) => lock.start_ts,
                    // Somebody else resolved it since it was found.
                    None => continue,
                }
            };
            self.resolve(reader, &mut changes, key, start_ts)?;
        }
        Ok(Outcome { reply: None, changes })
    }

    fn resolve(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        key: &Key,
        start_ts: TimeStamp,
    ) -> Result<(), TxnError> {
        let commit_ts = self.outcomes[&start_ts];
        if commit_ts.0 == 0 {
            return roll_back_key(reader, changes, key, start_ts, None, false);
        }
        match commit_key(reader, changes, key, start_ts, commit_ts) {
            Err(TxnError::Key(error))
                if !self.is_lite && matches!(*error, KeyError::LockNotFound { .. }) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}
