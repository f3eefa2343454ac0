//! PessimisticRollback: a transaction gives pessimistic locks up and goes on. No record is left.

use base::{KeyRange, TimeStamp};

use super::changes::distinct_keys;
use super::{Changes, Outcome, check_start_ts};
use crate::TxnError;
use crate::mvcc::{Key, LockKind, LockScan, Reader};

/// The request.
#[derive(Clone, Debug)]
pub struct PessimisticRollback {
    /// The keys. None: those that [`Self::find`] finds.
    pub keys: Vec<Key>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Locks with a later one stay: they are of a later statement.
    pub for_update_ts: TimeStamp,
}

impl PessimisticRollback {
    /// The transaction's pessimistic locks in the region from `from` (region form) on, at most
    /// `limit`, for a request without keys.
    pub fn find(
        &self,
        reader: &Reader<'_>,
        from: &KeyRange,
        limit: usize,
    ) -> Result<LockScan, TxnError> {
        reader.scan_locks(from, limit, |_, lock| {
            lock.start_ts == self.start_ts && lock.kind == LockKind::Pessimistic
        })
    }

    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// Removes the locks that are there. What is not there, or is somebody else's, or is
    /// prewritten, is left alone.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<()>, TxnError> {
        check_start_ts(self.start_ts)?;
        let keys = distinct_keys(reader, &self.keys)?;
        let mut changes = Changes::default();
        for key in keys {
            if let Some(lock) = reader.load_lock(key)?
                && lock.kind == LockKind::Pessimistic
                && lock.start_ts == self.start_ts
                && lock.for_update_ts <= self.for_update_ts
            {
                changes.remove_lock(key, &lock, TimeStamp(0));
            }
        }
        Ok(Outcome { reply: (), changes })
    }
}
