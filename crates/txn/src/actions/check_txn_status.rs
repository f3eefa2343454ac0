//! CheckTxnStatus: a transaction met a lock and asks the lock's primary what became of its owner;
//! if nobody can tell any more, the owner is rolled back.

use base::TimeStamp;
use base::rule::{Rule, keep};

use super::rollback::{Place, record_missing, roll_back_lock};
use super::{Changes, Outcome, check_start_ts};
use crate::mvcc::{Key, Lock, LockKind, Reader, TxnRecord};
use crate::{Abort, KeyError, LockInfo, TxnError};

/// The request.
#[derive(Clone, Debug)]
pub struct CheckTxnStatus {
    /// The primary of the transaction asked about.
    pub primary: Key,
    /// That transaction.
    pub lock_ts: TimeStamp,
    /// The reader that is blocked. 0: nobody; MAX: a read of the newest.
    pub caller_start_ts: TimeStamp,
    /// Now. MAX: judge the lock expired.
    pub current_ts: TimeStamp,
    /// With neither lock nor record: record a rollback, so that a late prewrite fails.
    pub rollback_if_not_exist: bool,
    /// Treat an async commit as a two-phase one: some of its locks are known to be plain.
    pub force_sync_commit: bool,
    /// The caller met a pessimistic lock.
    pub resolving_pessimistic_lock: bool,
    /// Refuse a lock that names another primary.
    pub verify_is_primary: bool,
}

/// What CheckTxnStatus did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusAction {
    /// Nothing.
    None,
    /// The lock had expired: rolled back.
    TtlExpireRollback,
    /// There was nothing: a rollback is recorded now.
    LockNotExistRollback,
    /// The lock lives and will commit above the caller, who may pass it.
    MinCommitTsPushed,
    /// An expired pessimistic lock was removed, and nothing recorded.
    TtlExpirePessimisticRollback,
    /// There was nothing, and nothing is recorded.
    LockNotExistDoNothing,
}

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnStatus {
    /// It runs, or nobody knows. The time to live in there is never 0: clients take that for
    /// "rolled back".
    Locked(Box<LockInfo>),
    /// It is committed.
    Committed(TimeStamp),
    /// It is rolled back, or never will be more than it is.
    RolledBack,
}

type Reply = (TxnStatus, StatusAction);

impl CheckTxnStatus {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.primary)
    }

    /// What it reads as of. A reader that is told "it will commit above you" relies on it, and so
    /// does the record of a rollback, whose place no computed commit timestamp may take.
    pub fn reads_at(&self) -> Option<TimeStamp> {
        let all = [self.lock_ts, self.caller_start_ts, self.current_ts];
        let all = all.into_iter().filter(|_| keep(Rule::ChecksRaiseMaxTs));
        all.filter(|ts| *ts != TimeStamp::MAX).max()
    }

    /// What is known, and what was done.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<Reply>, TxnError> {
        check_start_ts(self.lock_ts)?;
        let mut changes = Changes::default();
        let reply = match reader.load_lock(&self.primary)? {
            Some(lock) if lock.start_ts == self.lock_ts => {
                if self.verify_is_primary && !lock.is_primary(&self.primary) {
                    self.not_primary(reader, &mut changes, lock)?
                } else {
                    self.locked(reader, &mut changes, lock)?
                }
            }
            in_the_way => self.missing(reader, &mut changes, in_the_way)?,
        };
        Ok(Outcome { reply, changes })
    }

    /// The lock names another primary. The caller met a prewritten lock that names this key, so a
    /// pessimistic lock here is a leftover of the time before the transaction chose its primary
    /// anew, and it must not keep the caller waiting.
    fn not_primary(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        lock: Lock,
    ) -> Result<Reply, TxnError> {
        if self.resolving_pessimistic_lock || lock.kind != LockKind::Pessimistic {
            return Err(KeyError::PrimaryMismatch(LockInfo::new(&self.primary, lock)).into());
        }
        changes.remove_lock(&self.primary, &lock, TimeStamp(0));
        self.missing(reader, changes, None)
    }

    fn locked(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        mut lock: Lock,
    ) -> Result<Reply, TxnError> {
        // Whether an async commit is committed is decided by all its locks, not by this one.
        if lock.is_async_commit() && !self.force_sync_commit && keep(Rule::AsyncAsksAll) {
            return Ok(self.alive(lock, StatusAction::None));
        }
        if self.current_ts == TimeStamp::MAX || lock.is_expired(self.current_ts) {
            return self.expired(reader, changes, &lock);
        }
        let caller = self.caller_start_ts;
        let may_push = lock.min_commit_ts.0 != 0 && caller != TimeStamp::MAX;
        if may_push && caller >= lock.min_commit_ts {
            lock.min_commit_ts = TimeStamp(caller.0 + 1).max(self.current_ts);
            if keep(Rule::PushMinCommitTs) {
                changes.put_lock(&self.primary, &lock);
            }
        }
        let is_above = caller.0 != 0 && lock.min_commit_ts > caller;
        let action = if is_above || caller == TimeStamp::MAX {
            StatusAction::MinCommitTsPushed
        } else {
            StatusAction::None
        };
        Ok(self.alive(lock, action))
    }

    fn alive(&self, mut lock: Lock, action: StatusAction) -> Reply {
        lock.ttl_ms = lock.ttl_ms.max(1);
        (TxnStatus::Locked(Box::new(LockInfo::new(&self.primary, lock))), action)
    }

    fn expired(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        lock: &Lock,
    ) -> Result<Reply, TxnError> {
        if self.resolving_pessimistic_lock && lock.kind == LockKind::Pessimistic {
            changes.remove_lock(&self.primary, lock, TimeStamp(0));
            return Ok((TxnStatus::RolledBack, StatusAction::TtlExpirePessimisticRollback));
        }
        match roll_back_lock(reader, changes, &self.primary, lock, true) {
            Ok(()) => Ok((TxnStatus::RolledBack, StatusAction::TtlExpireRollback)),
            Err(TxnError::Key(error)) => match *error {
                // A late copy of a request locked the key of a committed transaction again. The
                // record is what counts, the lock goes.
                KeyError::Abort(Abort::Committed { commit_ts, .. }) => {
                    changes.remove_lock(&self.primary, lock, commit_ts);
                    Ok((TxnStatus::Committed(commit_ts), StatusAction::None))
                }
                other => Err(other.into()),
            },
            Err(other) => Err(other),
        }
    }

    fn missing(
        &self,
        reader: &mut Reader<'_>,
        changes: &mut Changes,
        in_the_way: Option<Lock>,
    ) -> Result<Reply, TxnError> {
        let overlapped = match reader.txn_record(&self.primary, self.lock_ts)? {
            TxnRecord::Committed { commit_ts, .. } => {
                return Ok((TxnStatus::Committed(commit_ts), StatusAction::None));
            }
            TxnRecord::RolledBack { .. } => return Ok((TxnStatus::RolledBack, StatusAction::None)),
            TxnRecord::Nothing { overlapped } => overlapped,
        };
        if !self.rollback_if_not_exist {
            let (start_ts, primary) = (self.lock_ts, self.primary.user().clone());
            return Err(KeyError::TxnNotFound { start_ts, primary }.into());
        }
        if self.resolving_pessimistic_lock {
            return Ok((TxnStatus::RolledBack, StatusAction::LockNotExistDoNothing));
        }
        let place = Place { overlapped, in_the_way };
        record_missing(reader, changes, &self.primary, self.lock_ts, place, true)?;
        Ok((TxnStatus::RolledBack, StatusAction::LockNotExistRollback))
    }
}
