//! The client's calls as commands of a stream, and back.

use client::{LinkError, StoreReply, StoreRequest};
use proto::kvrpcpb;
use proto::tikvpb::batch_commands_request::request::Cmd as Command;
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;

/// Calls that have no command in a stream.
pub(super) enum Single {
    MvccGetByKey(kvrpcpb::MvccGetByKeyRequest),
    RawGetKeyTtl(kvrpcpb::RawGetKeyTtlRequest),
    RawCompareAndSwap(kvrpcpb::RawCasRequest),
}

/// How a request is sent.
pub(super) enum Way {
    Stream(Box<Command>),
    Single(Box<Single>),
}

/// The way of a request.
pub(super) fn way(request: StoreRequest) -> Way {
    let single = |single| Way::Single(Box::new(single));
    Way::Stream(Box::new(match request {
        StoreRequest::KvGet(request) => Command::Get(request),
        StoreRequest::KvBatchGet(request) => Command::BatchGet(request),
        StoreRequest::KvScan(request) => Command::Scan(request),
        StoreRequest::KvPrewrite(request) => Command::Prewrite(request),
        StoreRequest::KvCommit(request) => Command::Commit(request),
        StoreRequest::KvBatchRollback(request) => Command::BatchRollback(request),
        StoreRequest::KvPessimisticLock(request) => Command::PessimisticLock(request),
        StoreRequest::KvPessimisticRollback(request) => Command::PessimisticRollback(request),
        StoreRequest::KvTxnHeartBeat(request) => Command::TxnHeartBeat(request),
        StoreRequest::KvCheckTxnStatus(request) => Command::CheckTxnStatus(request),
        StoreRequest::KvCheckSecondaryLocks(request) => Command::CheckSecondaryLocks(request),
        StoreRequest::KvResolveLock(request) => Command::ResolveLock(request),
        StoreRequest::KvScanLock(request) => Command::ScanLock(request),
        StoreRequest::RawGet(request) => Command::RawGet(request),
        StoreRequest::RawPut(request) => Command::RawPut(request),
        StoreRequest::RawBatchPut(request) => Command::RawBatchPut(request),
        StoreRequest::RawDelete(request) => Command::RawDelete(request),
        StoreRequest::RawDeleteRange(request) => Command::RawDeleteRange(request),
        StoreRequest::RawScan(request) => Command::RawScan(request),
        StoreRequest::MvccGetByKey(request) => return single(Single::MvccGetByKey(request)),
        StoreRequest::RawGetKeyTtl(request) => return single(Single::RawGetKeyTtl(request)),
        StoreRequest::RawCompareAndSwap(request) => {
            return single(Single::RawCompareAndSwap(request));
        }
    }))
}

/// The reply in an answer.
pub(super) fn reply(answer: Answer) -> Result<StoreReply, LinkError> {
    Ok(match answer {
        Answer::Get(reply) => StoreReply::KvGet(reply),
        Answer::BatchGet(reply) => StoreReply::KvBatchGet(reply),
        Answer::Scan(reply) => StoreReply::KvScan(reply),
        Answer::Prewrite(reply) => StoreReply::KvPrewrite(reply),
        Answer::Commit(reply) => StoreReply::KvCommit(reply),
        Answer::BatchRollback(reply) => StoreReply::KvBatchRollback(reply),
        Answer::PessimisticLock(reply) => StoreReply::KvPessimisticLock(reply),
        Answer::PessimisticRollback(reply) => StoreReply::KvPessimisticRollback(reply),
        Answer::TxnHeartBeat(reply) => StoreReply::KvTxnHeartBeat(reply),
        Answer::CheckTxnStatus(reply) => StoreReply::KvCheckTxnStatus(reply),
        Answer::CheckSecondaryLocks(reply) => StoreReply::KvCheckSecondaryLocks(reply),
        Answer::ResolveLock(reply) => StoreReply::KvResolveLock(reply),
        Answer::ScanLock(reply) => StoreReply::KvScanLock(reply),
        Answer::RawGet(reply) => StoreReply::RawGet(reply),
        Answer::RawPut(reply) => StoreReply::RawPut(reply),
        Answer::RawBatchPut(reply) => StoreReply::RawBatchPut(reply),
        Answer::RawDelete(reply) => StoreReply::RawDelete(reply),
        Answer::RawDeleteRange(reply) => StoreReply::RawDeleteRange(reply),
        Answer::RawScan(reply) => StoreReply::RawScan(reply),
        _ => return Err(LinkError::Lost("the answer is of a kind that nobody asked for".into())),
    })
}
