//! CheckSecondaryLocks: is an async commit committed? If all its locks are there, yes. The first
//! missing one decides otherwise, and is made to stay missing.

use base::TimeStamp;
use base::rule::{Rule, keep};

use super::changes::check_keys;
use super::rollback::{Place, put_rollback, record_missing};
use super::{Changes, Outcome, check_start_ts};
use crate::mvcc::{Key, LockKind, Reader, TxnRecord};
use crate::{LockInfo, TxnError};

/// The request.
#[derive(Clone, Debug)]
pub struct CheckSecondaryLocks {
    /// Keys of one transaction in one region.
    pub keys: Vec<Key>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondaryStatus {
    /// All are there, in the order asked for.
    Locked(Vec<LockInfo>),
    /// One is committed, and so is the transaction.
    Committed(TimeStamp),
    /// One is missing, for ever: the transaction is rolled back.
    RolledBack,
}

impl CheckSecondaryLocks {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// What it reads as of: no computed commit timestamp may take the place of a rollback that it
    /// records.
    pub fn reads_at(&self) -> Option<TimeStamp> {
        Some(self.start_ts)
    }

    /// Looks at one key after the other until one decides.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<SecondaryStatus>, TxnError> {
        check_start_ts(self.start_ts)?;
        check_keys(reader, &self.keys)?;
        let mut changes = Changes::default();
        let mut locks = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let in_the_way = match reader.load_lock(key)? {
                Some(lock) if lock.start_ts != self.start_ts => Some(lock),
                Some(lock) if lock.kind != LockKind::Pessimistic => {
                    locks.push(LockInfo::new(key, lock));
                    continue;
                }
                Some(lock) => {
                    // Not prewritten: it counts as missing.
                    changes.remove_lock(key, &lock, TimeStamp(0));
                    None
                }
                None => None,
            };
            let reply = self.decide(reader, &mut changes, key, in_the_way)?;
            return Ok(Outcome { reply, changes });
        }
        assert!(changes.is_empty(), "locks that are all there are left alone");
        Ok(Outcome::unchanged(SecondaryStatus::Locked(locks)))
    }

    fn decide(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        key: &Key,
        in_the_way: Option<crate::mvcc::Lock>,
    ) -> Result<SecondaryStatus, TxnError> {
        let overlapped = match reader.txn_record(key, self.start_ts)? {
            TxnRecord::Committed { commit_ts, .. } => {
                return Ok(match keep(Rule::SecondaryTellsCommit) {
                    true => SecondaryStatus::Committed(commit_ts),
                    false => SecondaryStatus::RolledBack,
                });
            }
            TxnRecord::RolledBack { is_protected: true } => return Ok(SecondaryStatus::RolledBack),
            TxnRecord::RolledBack { is_protected: false } => {
                // The record could be collapsed, and then a late prewrite would decide the
                // transaction a second time.
                put_rollback(changes, key, self.start_ts, None, true);
                return Ok(SecondaryStatus::RolledBack);
            }
            TxnRecord::Nothing { overlapped } => overlapped,
        };
        let place = Place { overlapped, in_the_way };
        record_missing(reader, changes, key, self.start_ts, place, true)?;
        Ok(SecondaryStatus::RolledBack)
    }
}
