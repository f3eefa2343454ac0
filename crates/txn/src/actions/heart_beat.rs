//! TxnHeartBeat: a long transaction lives on.

use base::TimeStamp;

use super::{Changes, Outcome, check_start_ts};
use crate::mvcc::{Key, Reader};
use crate::{KeyError, TxnError};

/// The request.
#[derive(Clone, Debug)]
pub struct HeartBeat {
    /// Whose lock lives on.
    pub primary: Key,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// For at least so long from its start.
    pub advise_ttl_ms: u64,
    /// Of pipelined transactions, which have no other chance to raise it.
    pub min_commit_ts: TimeStamp,
}

impl HeartBeat {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.primary)
    }

    /// The reply is the time to live, which never shrinks.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<u64>, TxnError> {
        check_start_ts(self.start_ts)?;
        let lock = reader.load_lock(&self.primary)?;
        let Some(mut lock) = lock.filter(|lock| lock.start_ts == self.start_ts) else {
            let (start_ts, primary) = (self.start_ts, self.primary.user().clone());
            return Err(KeyError::TxnNotFound { start_ts, primary }.into());
        };
        let before = lock.clone();
        lock.ttl_ms = lock.ttl_ms.max(self.advise_ttl_ms);
        if lock.generation > 0 && !lock.is_async_commit() {
            lock.min_commit_ts = lock.min_commit_ts.max(self.min_commit_ts);
        }
        let mut changes = Changes::default();
        if lock != before {
            changes.put_lock(&self.primary, &lock);
        }
        assert!(lock.ttl_ms >= before.ttl_ms, "a heart beat never shortens a life");
        Ok(Outcome { reply: lock.ttl_ms, changes })
    }
}
