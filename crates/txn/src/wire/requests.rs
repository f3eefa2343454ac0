//! From requests to commands: what the context demands, and what is wrong with a request before
//! anything is looked up.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Instant, KeyRange, TimeStamp};
use bytes::Bytes;
use proto::kvrpcpb::{self, Context};
use thiserror::Error;

use crate::actions::{
    Assertion, AssertionLevel, BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Commit,
    DeleteRange, Flashback, Flush, HeartBeat, Op, PessimisticAction, PessimisticLock,
    PessimisticRollback, PrepareFlashback, Prewrite, PrewriteKey, ResolveLock, TxnOutcomes,
    WhatToRead, wait_limit,
};
use crate::mvcc::{Isolation, Key, ReadOptions, Scan};
use crate::scheduler::{Command, LockCommand};
use crate::{Abort, ApiVersion, RequestError};

/// A request waits so long for a lock if it does not say how long, and never longer.
const LOCK_WAIT: Duration = Duration::from_millis(1_000);

/// Number of `kvrpcpb.Op.PessimisticLock`.
const OP_PESSIMISTIC_LOCK: i32 = 5;

/// What is wrong with a request by itself.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadRequest {
    /// Its keys, or its version.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Its parts do not fit together.
    #[error(transparent)]
    Abort(#[from] Abort),
}

/// Makes commands.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// The mode of the store.
    pub api: ApiVersion,
}

impl Requests {
    /// Keys of a request that must be transactional ones.
    pub fn keys(&self, context: &Context, keys: Vec<Bytes>) -> Result<Vec<Key>, BadRequest> {
        self.api.check_txn_request(context.api_version, &keys)?;
        Ok(keys.into_iter().map(Key::new).collect())
    }

    /// Keys of a request that finishes what was begun: only its version is looked at.
    fn any_keys(&self, context: &Context, keys: Vec<Bytes>) -> Result<Vec<Key>, BadRequest> {
        self.api.check_txn_request(context.api_version, [])?;
        Ok(keys.into_iter().map(Key::new).collect())
    }

    /// A key of a request that must be a transactional one.
    pub fn key(&self, context: &Context, key: Bytes) -> Result<Key, BadRequest> {
        self.api.check_txn_request(context.api_version, [&key])?;
        Ok(Key::new(key))
    }

    /// Checks what only an api version says.
    pub fn check_api(&self, context: &Context) -> Result<(), BadRequest> {
        Ok(self.api.check_txn_request(context.api_version, [])?)
    }

    /// A range in region form; empty bounds are unbounded.
    pub fn range(
        &self,
        context: &Context,
        start: &Bytes,
        end: &Bytes,
    ) -> Result<KeyRange, BadRequest> {
        self.api.check_txn_range(context.api_version, start, end)?;
        Ok(region_range(start, end))
    }

    /// A scan, and the range in region form that it goes through. One that goes backwards begins at
    /// the upper bound.
    pub fn scan(
        &self,
        context: &Context,
        request: kvrpcpb::ScanRequest,
    ) -> Result<(Scan, KeyRange), BadRequest> {
        let (lower, upper) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        let range = self.range(context, lower, upper)?;
        let scan = Scan {
            start: request.start_key,
            end: request.end_key,
            limit: request.limit as usize,
            key_only: request.key_only,
            reverse: request.reverse,
            sample_step: request.sample_step as usize,
        };
        Ok((scan, range))
    }

    /// A key that is to be written.
    fn written(&self, context: &Context, key: &Bytes) -> Result<Key, BadRequest> {
        self.api.check_txn_request(context.api_version, [key])?;
        self.api.check_txn_key_size(key)?;
        Ok(Key::new(key.clone()))
    }

    /// Of a prewrite.
    pub fn prewrite(
        &self,
        context: &Context,
        request: kvrpcpb::PrewriteRequest,
    ) -> Result<Command, BadRequest> {
        let actions = request.pessimistic_actions;
        // A client that cuts its mutations into batches may send the actions of all with each:
        // those beyond belong to nothing.
        if !actions.is_empty() && actions.len() < request.mutations.len() {
            return abort(Abort::Request("an action for each mutation, or none at all"));
        }
        let mut keys = Vec::with_capacity(request.mutations.len());
        for (i, mutation) in request.mutations.into_iter().enumerate() {
            let op = Op::from_number(mutation.op)?;
            let key = self.written(context, &mutation.key)?;
            let mut key = PrewriteKey::new(op, key, mutation.value);
            key.assertion = assertion(mutation.assertion);
            key.action = action(actions.get(i).copied().unwrap_or_default());
            keys.push(key);
        }
        for constraint in request.for_update_ts_constraints {
            let Some(key) = keys.get_mut(constraint.index as usize) else {
                return abort(Abort::Request("a constraint of a mutation that is not there"));
            };
            key.expected_for_update_ts = Some(TimeStamp(constraint.expected_for_update_ts));
        }
        Ok(Command::Prewrite(Prewrite {
            keys,
            primary: request.primary_lock,
            start_ts: TimeStamp(request.start_version),
            ttl_ms: request.lock_ttl,
            skip_constraint_check: request.skip_constraint_check,
            txn_size: request.txn_size,
            for_update_ts: TimeStamp(request.for_update_ts),
            min_commit_ts: TimeStamp(request.min_commit_ts),
            secondaries: request.use_async_commit.then_some(request.secondaries),
            try_one_pc: request.try_one_pc,
            max_commit_ts: TimeStamp(request.max_commit_ts),
            assertion_level: assertion_level(request.assertion_level),
            is_retry: context.is_retry_request,
            source: context.txn_source,
        }))
    }

    /// Of a request for pessimistic locks that came at `now`.
    pub fn lock(
        &self,
        context: &Context,
        request: kvrpcpb::PessimisticLockRequest,
        now: Instant,
    ) -> Result<LockCommand, BadRequest> {
        let mut keys = Vec::with_capacity(request.mutations.len());
        for mutation in &request.mutations {
            if mutation.op != OP_PESSIMISTIC_LOCK {
                return abort(Abort::MutationKind { number: mutation.op });
            }
            let must_be_absent = assertion(mutation.assertion) == Assertion::NotExist;
            keys.push((self.written(context, &mutation.key)?, must_be_absent));
        }
        let read = match (request.return_values, request.check_existence) {
            (true, _) => WhatToRead::Values,
            (false, true) => WhatToRead::Existence,
            (false, false) => WhatToRead::Nothing,
        };
        let action = PessimisticLock {
            keys,
            primary: request.primary_lock,
            start_ts: TimeStamp(request.start_version),
            ttl_ms: request.lock_ttl,
            for_update_ts: TimeStamp(request.for_update_ts),
            min_commit_ts: TimeStamp(request.min_commit_ts),
            read,
            only_if_exists: request.lock_only_if_exists,
            allow_conflict: request.wake_up_mode
                == kvrpcpb::PessimisticLockWakeUpMode::WakeUpModeForceLock as i32,
        };
        let limit = wait_limit(request.wait_timeout, LOCK_WAIT);
        Ok(LockCommand {
            action,
            wait_until: limit.map(|limit| now + limit),
            is_first_lock: request.is_first_lock,
            resource_group_tag: context.resource_group_tag.clone(),
        })
    }

    /// Of a pessimistic rollback.
    pub fn unlock(
        &self,
        context: &Context,
        request: kvrpcpb::PessimisticRollbackRequest,
    ) -> Result<PessimisticRollback, BadRequest> {
        Ok(PessimisticRollback {
            keys: self.keys(context, request.keys)?,
            start_ts: TimeStamp(request.start_version),
            for_update_ts: TimeStamp(request.for_update_ts),
        })
    }

    /// Of a heart beat.
    pub fn heart_beat(
        &self,
        context: &Context,
        request: kvrpcpb::TxnHeartBeatRequest,
    ) -> Result<Command, BadRequest> {
        Ok(Command::HeartBeat(HeartBeat {
            primary: self.key(context, request.primary_lock)?,
            start_ts: TimeStamp(request.start_version),
            advise_ttl_ms: request.advise_lock_ttl,
            min_commit_ts: TimeStamp(request.min_commit_ts),
        }))
    }

    /// Of a question for a transaction's status.
    pub fn check_txn_status(
        &self,
        context: &Context,
        request: kvrpcpb::CheckTxnStatusRequest,
    ) -> Result<Command, BadRequest> {
        Ok(Command::CheckTxnStatus(CheckTxnStatus {
            primary: self.key(context, request.primary_key)?,
            lock_ts: TimeStamp(request.lock_ts),
            caller_start_ts: TimeStamp(request.caller_start_ts),
            current_ts: TimeStamp(request.current_ts),
            rollback_if_not_exist: request.rollback_if_not_exist,
            force_sync_commit: request.force_sync_commit,
            resolving_pessimistic_lock: request.resolving_pessimistic_lock,
            verify_is_primary: request.verify_is_primary,
        }))
    }

    /// Of a question for secondary locks.
    pub fn check_secondary_locks(
        &self,
        context: &Context,
        request: kvrpcpb::CheckSecondaryLocksRequest,
    ) -> Result<Command, BadRequest> {
        let (keys, start_ts) = (self.keys(context, request.keys)?, request.start_version);
        let start_ts = TimeStamp(start_ts);
        Ok(Command::CheckSecondaryLocks(CheckSecondaryLocks { keys, start_ts }))
    }

    /// Of a commit.
    pub fn commit(
        &self,
        context: &Context,
        request: kvrpcpb::CommitRequest,
    ) -> Result<Command, BadRequest> {
        Ok(Command::Commit(Commit {
            keys: self.any_keys(context, request.keys)?,
            start_ts: TimeStamp(request.start_version),
            commit_ts: TimeStamp(request.commit_version),
        }))
    }

    /// Of a rollback of keys.
    pub fn rollback(
        &self,
        context: &Context,
        request: kvrpcpb::BatchRollbackRequest,
    ) -> Result<Command, BadRequest> {
        let keys = self.keys(context, request.keys)?;
        let start_ts = TimeStamp(request.start_version);
        Ok(Command::Rollback(BatchRollback { keys, start_ts }))
    }

    /// Of a cleanup.
    pub fn cleanup(
        &self,
        context: &Context,
        request: kvrpcpb::CleanupRequest,
    ) -> Result<Command, BadRequest> {
        Ok(Command::Cleanup(Cleanup {
            key: self.key(context, request.key)?,
            start_ts: TimeStamp(request.start_version),
            current_ts: TimeStamp(request.current_ts),
        }))
    }

    /// Of a request to resolve locks: the whole of a lite one, or what is to be looked for.
    pub fn resolve(
        &self,
        context: &Context,
        request: kvrpcpb::ResolveLockRequest,
    ) -> Result<ResolveLock, BadRequest> {
        let mut outcomes: TxnOutcomes = BTreeMap::new();
        for info in &request.txn_infos {
            outcomes.insert(TimeStamp(info.txn), TimeStamp(info.status));
        }
        let is_lite = !request.keys.is_empty();
        // A client that collects and finds nothing but reservations, which it gives up one by one,
        // names nobody: there is nothing to do, and that is no error.
        let names_nobody = request.start_version == 0 && request.commit_version == 0 && !is_lite;
        if outcomes.is_empty() && !names_nobody {
            let commit_ts = TimeStamp(request.commit_version);
            outcomes.insert(TimeStamp(request.start_version), commit_ts);
        }
        Ok(ResolveLock { outcomes, keys: self.any_keys(context, request.keys)?, is_lite })
    }

    /// Of a flush.
    pub fn flush(
        &self,
        context: &Context,
        request: kvrpcpb::FlushRequest,
    ) -> Result<Command, BadRequest> {
        let mut keys = Vec::with_capacity(request.mutations.len());
        for mutation in request.mutations {
            let op = Op::from_number(mutation.op)?;
            let key = self.written(context, &mutation.key)?;
            keys.push((op, key, mutation.value, assertion(mutation.assertion)));
        }
        Ok(Command::Flush(Flush {
            keys,
            primary: request.primary_key,
            start_ts: TimeStamp(request.start_ts),
            ttl_ms: request.lock_ttl,
            min_commit_ts: TimeStamp(request.min_commit_ts),
            generation: request.generation,
            assertion_level: assertion_level(request.assertion_level),
        }))
    }

    /// Of a deletion of a range.
    pub fn delete_range(
        &self,
        context: &Context,
        request: kvrpcpb::DeleteRangeRequest,
    ) -> Result<Command, BadRequest> {
        let kvrpcpb::DeleteRangeRequest { start_key: start, end_key: end, notify_only, .. } =
            request;
        self.api.check_txn_range(context.api_version, &start, &end)?;
        Ok(Command::DeleteRange(DeleteRange { start, end, notify_only }))
    }

    /// Of the preparation of a flashback.
    pub fn prepare_flashback(
        &self,
        context: &Context,
        request: &kvrpcpb::PrepareFlashbackToVersionRequest,
    ) -> Result<PrepareFlashback, BadRequest> {
        Ok(PrepareFlashback {
            range: self.range(context, &request.start_key, &request.end_key)?,
            start_ts: TimeStamp(request.start_ts),
            version: TimeStamp(request.version),
        })
    }

    /// Of a flashback.
    pub fn flashback(
        &self,
        context: &Context,
        request: &kvrpcpb::FlashbackToVersionRequest,
    ) -> Result<Flashback, BadRequest> {
        Ok(Flashback {
            range: self.range(context, &request.start_key, &request.end_key)?,
            start_ts: TimeStamp(request.start_ts),
            version: TimeStamp(request.version),
            commit_ts: TimeStamp(request.commit_ts),
        })
    }

    /// How a read at `version` meets locks.
    pub fn read_options(&self, context: &Context, version: u64) -> ReadOptions {
        let timestamps = |all: &[u64]| all.iter().copied().map(TimeStamp).collect();
        ReadOptions {
            ts: TimeStamp(version),
            isolation: match context.isolation_level {
                1 => Isolation::ReadCommitted,
                2 => Isolation::RcCheckTs,
                _ => Isolation::Snapshot,
            },
            bypass: timestamps(&context.resolved_locks),
            access: timestamps(&context.committed_locks),
            is_replica_read: context.replica_read,
        }
    }
}

/// A range of user keys in region form; empty bounds are unbounded.
pub fn region_range(start: &Bytes, end: &Bytes) -> KeyRange {
    let bound = |user: &Bytes| match user.is_empty() {
        true => Bytes::new(),
        false => Key::new(user.clone()).region(),
    };
    KeyRange::new(bound(start), bound(end))
}

fn abort<T>(abort: Abort) -> Result<T, BadRequest> {
    Err(abort.into())
}

fn assertion(number: i32) -> Assertion {
    match kvrpcpb::Assertion::try_from(number) {
        Ok(kvrpcpb::Assertion::Exist) => Assertion::Exist,
        Ok(kvrpcpb::Assertion::NotExist) => Assertion::NotExist,
        _ => Assertion::None,
    }
}

fn assertion_level(number: i32) -> AssertionLevel {
    match kvrpcpb::AssertionLevel::try_from(number) {
        Ok(kvrpcpb::AssertionLevel::Fast) => AssertionLevel::Fast,
        Ok(kvrpcpb::AssertionLevel::Strict) => AssertionLevel::Strict,
        _ => AssertionLevel::Off,
    }
}

fn action(number: i32) -> PessimisticAction {
    use kvrpcpb::prewrite_request::PessimisticAction as Wire;
    match Wire::try_from(number) {
        Ok(Wire::DoPessimisticCheck) => PessimisticAction::Locked,
        Ok(Wire::DoConstraintCheck) => PessimisticAction::CheckConstraint,
        _ => PessimisticAction::Skip,
    }
}
