//! The calls that the client makes, as values: what a [`Link`](crate::Link) carries.
//!
//! The names are those of the protocol. A reply is of the kind of its request; one of another kind
//! is a broken server.

use proto::kvrpcpb::{self as kv, Context};
use proto::{errorpb, pdpb};

/// A request to a store.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is named after its call, which the protocol describes")]
pub enum StoreRequest {
    KvGet(kv::GetRequest),
    KvBatchGet(kv::BatchGetRequest),
    KvScan(kv::ScanRequest),
    KvPrewrite(kv::PrewriteRequest),
    KvCommit(kv::CommitRequest),
    KvBatchRollback(kv::BatchRollbackRequest),
    KvPessimisticLock(kv::PessimisticLockRequest),
    KvPessimisticRollback(kv::PessimisticRollbackRequest),
    KvTxnHeartBeat(kv::TxnHeartBeatRequest),
    KvCheckTxnStatus(kv::CheckTxnStatusRequest),
    KvCheckSecondaryLocks(kv::CheckSecondaryLocksRequest),
    KvResolveLock(kv::ResolveLockRequest),
    KvScanLock(kv::ScanLockRequest),
    MvccGetByKey(kv::MvccGetByKeyRequest),
    RawGet(kv::RawGetRequest),
    RawPut(kv::RawPutRequest),
    RawBatchPut(kv::RawBatchPutRequest),
    RawDelete(kv::RawDeleteRequest),
    RawDeleteRange(kv::RawDeleteRangeRequest),
    RawScan(kv::RawScanRequest),
    RawGetKeyTtl(kv::RawGetKeyTtlRequest),
    RawCompareAndSwap(kv::RawCasRequest),
}

/// A store's answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is named after its call, which the protocol describes")]
pub enum StoreReply {
    KvGet(kv::GetResponse),
    KvBatchGet(kv::BatchGetResponse),
    KvScan(kv::ScanResponse),
    KvPrewrite(kv::PrewriteResponse),
    KvCommit(kv::CommitResponse),
    KvBatchRollback(kv::BatchRollbackResponse),
    KvPessimisticLock(kv::PessimisticLockResponse),
    KvPessimisticRollback(kv::PessimisticRollbackResponse),
    KvTxnHeartBeat(kv::TxnHeartBeatResponse),
    KvCheckTxnStatus(kv::CheckTxnStatusResponse),
    KvCheckSecondaryLocks(kv::CheckSecondaryLocksResponse),
    KvResolveLock(kv::ResolveLockResponse),
    KvScanLock(kv::ScanLockResponse),
    MvccGetByKey(kv::MvccGetByKeyResponse),
    RawGet(kv::RawGetResponse),
    RawPut(kv::RawPutResponse),
    RawBatchPut(kv::RawBatchPutResponse),
    RawDelete(kv::RawDeleteResponse),
    RawDeleteRange(kv::RawDeleteRangeResponse),
    RawScan(kv::RawScanResponse),
    RawGetKeyTtl(kv::RawGetKeyTtlResponse),
    RawCompareAndSwap(kv::RawCasResponse),
}

/// A request to the placement driver.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is named after its call, which the protocol describes")]
pub enum PlacementRequest {
    Tso(pdpb::TsoRequest),
    GetRegion(pdpb::GetRegionRequest),
    GetPrevRegion(pdpb::GetRegionRequest),
    ScanRegions(pdpb::ScanRegionsRequest),
}

/// The placement driver's answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is named after its call, which the protocol describes")]
pub enum PlacementReply {
    Tso(pdpb::TsoResponse),
    GetRegion(pdpb::GetRegionResponse),
    GetPrevRegion(pdpb::GetRegionResponse),
    ScanRegions(pdpb::ScanRegionsResponse),
}

impl StoreRequest {
    /// The name of the call.
    pub fn name(&self) -> &'static str {
        match self {
            StoreRequest::KvGet(_) => "KvGet",
            StoreRequest::KvBatchGet(_) => "KvBatchGet",
            StoreRequest::KvScan(_) => "KvScan",
            StoreRequest::KvPrewrite(_) => "KvPrewrite",
            StoreRequest::KvCommit(_) => "KvCommit",
            StoreRequest::KvBatchRollback(_) => "KvBatchRollback",
            StoreRequest::KvPessimisticLock(_) => "KvPessimisticLock",
            StoreRequest::KvPessimisticRollback(_) => "KVPessimisticRollback",
            StoreRequest::KvTxnHeartBeat(_) => "KvTxnHeartBeat",
            StoreRequest::KvCheckTxnStatus(_) => "KvCheckTxnStatus",
            StoreRequest::KvCheckSecondaryLocks(_) => "KvCheckSecondaryLocks",
            StoreRequest::KvResolveLock(_) => "KvResolveLock",
            StoreRequest::KvScanLock(_) => "KvScanLock",
            StoreRequest::MvccGetByKey(_) => "MvccGetByKey",
            StoreRequest::RawGet(_) => "RawGet",
            StoreRequest::RawPut(_) => "RawPut",
            StoreRequest::RawBatchPut(_) => "RawBatchPut",
            StoreRequest::RawDelete(_) => "RawDelete",
            StoreRequest::RawDeleteRange(_) => "RawDeleteRange",
            StoreRequest::RawScan(_) => "RawScan",
            StoreRequest::RawGetKeyTtl(_) => "RawGetKeyTTL",
            StoreRequest::RawCompareAndSwap(_) => "RawCompareAndSwap",
        }
    }

    /// Whether sending it twice does the same as sending it once, also if others come between.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self, StoreRequest::RawCompareAndSwap(_))
    }

    /// Its context, to be filled in.
    pub fn context_mut(&mut self) -> &mut Context {
        let slot = match self {
            StoreRequest::KvGet(request) => &mut request.context,
            StoreRequest::KvBatchGet(request) => &mut request.context,
            StoreRequest::KvScan(request) => &mut request.context,
            StoreRequest::KvPrewrite(request) => &mut request.context,
            StoreRequest::KvCommit(request) => &mut request.context,
            StoreRequest::KvBatchRollback(request) => &mut request.context,
            StoreRequest::KvPessimisticLock(request) => &mut request.context,
            StoreRequest::KvPessimisticRollback(request) => &mut request.context,
            StoreRequest::KvTxnHeartBeat(request) => &mut request.context,
            StoreRequest::KvCheckTxnStatus(request) => &mut request.context,
            StoreRequest::KvCheckSecondaryLocks(request) => &mut request.context,
            StoreRequest::KvResolveLock(request) => &mut request.context,
            StoreRequest::KvScanLock(request) => &mut request.context,
            StoreRequest::MvccGetByKey(request) => &mut request.context,
            StoreRequest::RawGet(request) => &mut request.context,
            StoreRequest::RawPut(request) => &mut request.context,
            StoreRequest::RawBatchPut(request) => &mut request.context,
            StoreRequest::RawDelete(request) => &mut request.context,
            StoreRequest::RawDeleteRange(request) => &mut request.context,
            StoreRequest::RawScan(request) => &mut request.context,
            StoreRequest::RawGetKeyTtl(request) => &mut request.context,
            StoreRequest::RawCompareAndSwap(request) => &mut request.context,
        };
        slot.get_or_insert_default()
    }
}

impl StoreReply {
    /// The region's error in it. When there is one, nothing else counts.
    pub fn region_error(&mut self) -> &mut Option<errorpb::Error> {
        match self {
            StoreReply::KvGet(reply) => &mut reply.region_error,
            StoreReply::KvBatchGet(reply) => &mut reply.region_error,
            StoreReply::KvScan(reply) => &mut reply.region_error,
            StoreReply::KvPrewrite(reply) => &mut reply.region_error,
            StoreReply::KvCommit(reply) => &mut reply.region_error,
            StoreReply::KvBatchRollback(reply) => &mut reply.region_error,
            StoreReply::KvPessimisticLock(reply) => &mut reply.region_error,
            StoreReply::KvPessimisticRollback(reply) => &mut reply.region_error,
            StoreReply::KvTxnHeartBeat(reply) => &mut reply.region_error,
            StoreReply::KvCheckTxnStatus(reply) => &mut reply.region_error,
            StoreReply::KvCheckSecondaryLocks(reply) => &mut reply.region_error,
            StoreReply::KvResolveLock(reply) => &mut reply.region_error,
            StoreReply::KvScanLock(reply) => &mut reply.region_error,
            StoreReply::MvccGetByKey(reply) => &mut reply.region_error,
            StoreReply::RawGet(reply) => &mut reply.region_error,
            StoreReply::RawPut(reply) => &mut reply.region_error,
            StoreReply::RawBatchPut(reply) => &mut reply.region_error,
            StoreReply::RawDelete(reply) => &mut reply.region_error,
            StoreReply::RawDeleteRange(reply) => &mut reply.region_error,
            StoreReply::RawScan(reply) => &mut reply.region_error,
            StoreReply::RawGetKeyTtl(reply) => &mut reply.region_error,
            StoreReply::RawCompareAndSwap(reply) => &mut reply.region_error,
        }
    }

    /// Takes the words out of it with which the request itself was refused; empty if it was not.
    /// Transactions have typed errors instead, which stay where they are.
    pub(crate) fn take_refusal(&mut self) -> String {
        let text = match self {
            StoreReply::MvccGetByKey(reply) => &mut reply.error,
            StoreReply::RawGet(reply) => &mut reply.error,
            StoreReply::RawPut(reply) => &mut reply.error,
            StoreReply::RawBatchPut(reply) => &mut reply.error,
            StoreReply::RawDelete(reply) => &mut reply.error,
            StoreReply::RawDeleteRange(reply) => &mut reply.error,
            StoreReply::RawGetKeyTtl(reply) => &mut reply.error,
            StoreReply::RawCompareAndSwap(reply) => &mut reply.error,
            // A raw scan has no error of its own; servers put one into the first pair.
            StoreReply::RawScan(reply) => {
                let in_pair = reply.kvs.first_mut().and_then(|pair| pair.error.as_mut());
                return in_pair.map_or_else(String::new, |error| std::mem::take(&mut error.abort));
            }
            _ => return String::new(),
        };
        std::mem::take(text)
    }
}

impl PlacementRequest {
    /// The name of the call.
    pub fn name(&self) -> &'static str {
        match self {
            PlacementRequest::Tso(_) => "Tso",
            PlacementRequest::GetRegion(_) => "GetRegion",
            PlacementRequest::GetPrevRegion(_) => "GetPrevRegion",
            PlacementRequest::ScanRegions(_) => "ScanRegions",
        }
    }

    pub(crate) fn set_header(&mut self, header: pdpb::RequestHeader) {
        let slot = match self {
            PlacementRequest::Tso(request) => &mut request.header,
            PlacementRequest::GetRegion(request) => &mut request.header,
            PlacementRequest::GetPrevRegion(request) => &mut request.header,
            PlacementRequest::ScanRegions(request) => &mut request.header,
        };
        *slot = Some(header);
    }
}

impl PlacementReply {
    pub(crate) fn header(&self) -> Option<&pdpb::ResponseHeader> {
        match self {
            PlacementReply::Tso(reply) => reply.header.as_ref(),
            PlacementReply::GetRegion(reply) => reply.header.as_ref(),
            PlacementReply::GetPrevRegion(reply) => reply.header.as_ref(),
            PlacementReply::ScanRegions(reply) => reply.header.as_ref(),
        }
    }
}
