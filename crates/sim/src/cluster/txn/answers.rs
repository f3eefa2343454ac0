//! Responses in the form of each call.

use client::{StoreReply, StoreRequest};
use proto::{errorpb, kvrpcpb as kv};
use txn::KeyError;
use txn::scheduler::Reply as Outcome;
use txn::wire::replies::{self, Shape};

/// Which call is to be answered, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Get,
    BatchGet,
    Scan,
    ScanLock,
    Prewrite,
    Lock(Shape),
    Unlock,
    HeartBeat,
    Status,
    Secondaries,
    Commit,
    Rollback,
    Resolve,
}

impl Kind {
    /// Of a call that the simulated store serves.
    pub(crate) fn of(request: &StoreRequest) -> Self {
        match request {
            StoreRequest::KvGet(_) => Self::Get,
            StoreRequest::KvBatchGet(_) => Self::BatchGet,
            StoreRequest::KvScan(_) => Self::Scan,
            StoreRequest::KvScanLock(_) => Self::ScanLock,
            StoreRequest::KvPrewrite(_) => Self::Prewrite,
            StoreRequest::KvPessimisticLock(_) => Self::Lock(Shape::default()),
            StoreRequest::KvPessimisticRollback(_) => Self::Unlock,
            StoreRequest::KvTxnHeartBeat(_) => Self::HeartBeat,
            StoreRequest::KvCheckTxnStatus(_) => Self::Status,
            StoreRequest::KvCheckSecondaryLocks(_) => Self::Secondaries,
            StoreRequest::KvCommit(_) => Self::Commit,
            StoreRequest::KvBatchRollback(_) => Self::Rollback,
            StoreRequest::KvResolveLock(_) => Self::Resolve,
            other => panic!("no transactional client sends {}", other.name()),
        }
    }
}

/// What a command came to.
pub(crate) fn answered(kind: Kind, outcome: Outcome) -> StoreReply {
    let shape = Shape::default();
    match kind {
        Kind::Prewrite => StoreReply::KvPrewrite(replies::prewrite(outcome, shape)),
        Kind::Lock(shape) => StoreReply::KvPessimisticLock(replies::lock(outcome, shape)),
        Kind::Unlock => StoreReply::KvPessimisticRollback(replies::done(outcome, shape)),
        Kind::HeartBeat => StoreReply::KvTxnHeartBeat(replies::heart_beat(outcome, shape)),
        Kind::Status => StoreReply::KvCheckTxnStatus(replies::status(outcome, shape)),
        Kind::Secondaries => {
            StoreReply::KvCheckSecondaryLocks(replies::secondaries(outcome, shape))
        }
        Kind::Commit => StoreReply::KvCommit(replies::commit(outcome, shape)),
        Kind::Rollback => StoreReply::KvBatchRollback(replies::done(outcome, shape)),
        Kind::Resolve => StoreReply::KvResolveLock(replies::done(outcome, shape)),
        Kind::Get | Kind::BatchGet | Kind::Scan | Kind::ScanLock => {
            unreachable!("reads are no commands")
        }
    }
}

/// The region refuses.
pub(crate) fn refused(kind: Kind, error: errorpb::Error) -> StoreReply {
    with_errors(kind, Some(error), None)
}

/// A key is in the way.
pub(crate) fn failed(kind: Kind, error: &KeyError) -> StoreReply {
    with_errors(kind, None, Some(txn::wire::key_error(error)))
}

fn with_errors(
    kind: Kind,
    region_error: Option<errorpb::Error>,
    error: Option<kv::KeyError>,
) -> StoreReply {
    let errors: Vec<kv::KeyError> = error.clone().into_iter().collect();
    let whole = |error| kv::KvPair { error: Some(error), ..Default::default() };
    let pairs: Vec<kv::KvPair> = error.clone().into_iter().map(whole).collect();
    match kind {
        Kind::BatchGet => {
            let answer = kv::BatchGetResponse { region_error, error, pairs, ..Default::default() };
            StoreReply::KvBatchGet(answer)
        }
        Kind::Scan => StoreReply::KvScan(kv::ScanResponse { region_error, error, pairs }),
        Kind::Prewrite => {
            let answer = kv::PrewriteResponse { region_error, errors, ..Default::default() };
            StoreReply::KvPrewrite(answer)
        }
        Kind::Lock(_) => {
            let answer = kv::PessimisticLockResponse { region_error, errors, ..Default::default() };
            StoreReply::KvPessimisticLock(answer)
        }
        Kind::Unlock => {
            let answer =
                kv::PessimisticRollbackResponse { region_error, errors, ..Default::default() };
            StoreReply::KvPessimisticRollback(answer)
        }
        kind => with_error(kind, region_error, error),
    }
}

/// Of calls whose response has one place for an error.
fn with_error(
    kind: Kind,
    region_error: Option<errorpb::Error>,
    error: Option<kv::KeyError>,
) -> StoreReply {
    match kind {
        Kind::Get => {
            StoreReply::KvGet(kv::GetResponse { region_error, error, ..Default::default() })
        }
        Kind::ScanLock => {
            let answer = kv::ScanLockResponse { region_error, error, ..Default::default() };
            StoreReply::KvScanLock(answer)
        }
        Kind::HeartBeat => {
            let answer = kv::TxnHeartBeatResponse { region_error, error, ..Default::default() };
            StoreReply::KvTxnHeartBeat(answer)
        }
        Kind::Status => {
            let answer = kv::CheckTxnStatusResponse { region_error, error, ..Default::default() };
            StoreReply::KvCheckTxnStatus(answer)
        }
        Kind::Secondaries => {
            let answer =
                kv::CheckSecondaryLocksResponse { region_error, error, ..Default::default() };
            StoreReply::KvCheckSecondaryLocks(answer)
        }
        Kind::Commit => {
            StoreReply::KvCommit(kv::CommitResponse { region_error, error, ..Default::default() })
        }
        Kind::Rollback => {
            let answer = kv::BatchRollbackResponse { region_error, error, ..Default::default() };
            StoreReply::KvBatchRollback(answer)
        }
        Kind::Resolve => {
            let answer = kv::ResolveLockResponse { region_error, error, ..Default::default() };
            StoreReply::KvResolveLock(answer)
        }
        _ => unreachable!("its response has another form"),
    }
}
