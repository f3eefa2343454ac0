//! From what a command came to, to its response.

use crate::actions::{
    KeyLocked, LockOutcome, LockRefused, PrewriteReply, SecondaryStatus, TxnStatus, WhatToRead,
};
use crate::mvcc::Row;
use crate::scheduler::Reply;
use crate::{LockInfo, wire};
use proto::kvrpcpb::{self, KvPair};

/// What a request for pessimistic locks wants to see in its response; nothing for all others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// What it reads.
    pub read: WhatToRead,
    /// Whether it locks in spite of a conflict.
    pub force: bool,
}

fn other(reply: Reply) -> ! {
    unreachable!("a command of another kind answered {reply:?}")
}

/// Of a prewrite.
pub fn prewrite(reply: Reply, _: Shape) -> kvrpcpb::PrewriteResponse {
    let Reply::Prewrite(reply) = reply else { other(reply) };
    let PrewriteReply { errors, min_commit_ts, one_pc_commit_ts } = reply;
    kvrpcpb::PrewriteResponse {
        errors: errors.iter().map(wire::key_error).collect(),
        min_commit_ts: min_commit_ts.0,
        one_pc_commit_ts: one_pc_commit_ts.0,
        ..Default::default()
    }
}

/// Of a request for pessimistic locks.
pub fn lock(reply: Reply, shape: Shape) -> kvrpcpb::PessimisticLockResponse {
    let mut response = kvrpcpb::PessimisticLockResponse::default();
    let granted = match reply {
        Reply::Lock(LockOutcome::Granted(granted)) => granted,
        Reply::Lock(LockOutcome::Refused(refused)) => {
            let error = match refused {
                LockRefused::Held(info) => crate::KeyError::Locked(*info),
                LockRefused::Error(error) => *error,
            };
            response.errors.push(wire::key_error(&error));
            if shape.force {
                let r#type = kvrpcpb::PessimisticLockKeyResultType::LockResultFailed.into();
                let failed = kvrpcpb::PessimisticLockKeyResult { r#type, ..Default::default() };
                response.results.push(failed);
            }
            return response;
        }
        reply => other(reply),
    };
    if shape.force {
        response.results = granted.into_iter().map(key_result).collect();
        return response;
    }
    if shape.read != WhatToRead::Nothing {
        response.not_founds = granted.iter().map(|key| !key.exists).collect();
    }
    if shape.read == WhatToRead::Values {
        let values = granted.into_iter().map(|key| key.value.unwrap_or_default());
        response.values = values.collect();
    }
    response
}

fn key_result(key: KeyLocked) -> kvrpcpb::PessimisticLockKeyResult {
    use kvrpcpb::PessimisticLockKeyResultType as Type;
    let r#type = match key.conflict_ts {
        Some(_) => Type::LockResultLockedWithConflict,
        None => Type::LockResultNormal,
    };
    kvrpcpb::PessimisticLockKeyResult {
        r#type: r#type.into(),
        value: key.value.unwrap_or_default(),
        existence: key.exists,
        locked_with_conflict_ts: key.conflict_ts.unwrap_or_default().0,
        ..Default::default()
    }
}

/// Of commands that have nothing to say.
pub fn done<R: Default>(_: Reply, _: Shape) -> R {
    R::default()
}

/// Of a heart beat.
pub fn heart_beat(reply: Reply, _: Shape) -> kvrpcpb::TxnHeartBeatResponse {
    let Reply::Ttl(lock_ttl) = reply else { other(reply) };
    kvrpcpb::TxnHeartBeatResponse { lock_ttl, ..Default::default() }
}

/// Of a question for a transaction's status.
pub fn status(reply: Reply, _: Shape) -> kvrpcpb::CheckTxnStatusResponse {
    let Reply::Status(status, action) = reply else { other(reply) };
    let action = wire::status_action(action).into();
    let mut response = kvrpcpb::CheckTxnStatusResponse { action, ..Default::default() };
    match status {
        TxnStatus::Locked(info) => {
            response.lock_ttl = info.lock.ttl_ms;
            response.lock_info = Some(wire::lock_info(&info));
        }
        TxnStatus::Committed(commit_ts) => response.commit_version = commit_ts.0,
        TxnStatus::RolledBack => {}
    }
    response
}

/// Of a question for secondary locks.
pub fn secondaries(reply: Reply, _: Shape) -> kvrpcpb::CheckSecondaryLocksResponse {
    let Reply::Secondaries(status) = reply else { other(reply) };
    let mut response = kvrpcpb::CheckSecondaryLocksResponse::default();
    match status {
        SecondaryStatus::Locked(locks) => response.locks = lock_infos(&locks),
        SecondaryStatus::Committed(commit_ts) => response.commit_ts = commit_ts.0,
        SecondaryStatus::RolledBack => {}
    }
    response
}

/// Of a commit.
pub fn commit(reply: Reply, _: Shape) -> kvrpcpb::CommitResponse {
    let Reply::CommittedAt(commit_ts) = reply else { other(reply) };
    kvrpcpb::CommitResponse { commit_version: commit_ts.0, ..Default::default() }
}

/// Of a cleanup.
pub fn cleanup(reply: Reply, _: Shape) -> kvrpcpb::CleanupResponse {
    let Reply::CommittedAt(commit_ts) = reply else { other(reply) };
    kvrpcpb::CleanupResponse { commit_version: commit_ts.0, ..Default::default() }
}

/// Of a flush.
pub fn flush(reply: Reply, _: Shape) -> kvrpcpb::FlushResponse {
    let Reply::Errors(errors) = reply else { other(reply) };
    let errors = errors.iter().map(wire::key_error).collect();
    kvrpcpb::FlushResponse { errors, ..Default::default() }
}

/// Locks that were found.
pub fn lock_infos(locks: &[LockInfo]) -> Vec<kvrpcpb::LockInfo> {
    locks.iter().map(wire::lock_info).collect()
}

/// Rows as pairs; their commit timestamps only if they are asked for.
pub fn pairs(rows: Vec<Row>, need_commit_ts: bool) -> Vec<KvPair> {
    let pair = |row: Row| match row.outcome {
        Ok(value) => {
            let commit_ts = if need_commit_ts { value.commit_ts.0 } else { 0 };
            KvPair { key: row.key, value: value.value, commit_ts, ..Default::default() }
        }
        Err(error) => {
            let error = Some(wire::key_error(&error));
            KvPair { key: row.key, error, ..Default::default() }
        }
    };
    rows.into_iter().map(pair).collect()
}
