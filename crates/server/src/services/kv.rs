//! The service `tikvpb.Tikv`: what clients call on a store.
//!
//! Each method is one line: the work is in [`super::raw`], [`super::txn`] and, for what other
//! stores call, in [`super::raft`]. What is not here answers UNIMPLEMENTED.

mod split;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::Stream;
use proto::kvrpcpb;
use proto::raft_serverpb::{Done, RaftMessage, SnapshotChunk};
use proto::tikvpb::tikv_server::{Tikv, TikvServer};
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse, BatchRaftMessage};
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use super::batch;
use super::raft::{RaftLimits, RaftParts, RaftService};
use super::raw::RawService;
use super::txn::TxnService;
use crate::placement_link::PlacementLink;
use crate::safe_ts;
use crate::store_handle::StoreHandle;

/// How slow a store is, from 1 to 100, as far as this version judges itself.
const SLOW_SCORE_HEALTHY: i32 = 1;

/// The service.
pub(crate) struct KvService {
    raw: RawService,
    txn: TxnService,
    link: PlacementLink,
    raft: RaftService,
    health: Health,
    closed: watch::Receiver<bool>,
}

/// The service. Its streams end when `closed` turns true.
pub(super) fn service(
    store: StoreHandle,
    link: PlacementLink,
    txn: TxnService,
    closed: watch::Receiver<bool>,
) -> KvService {
    let health = Health { store_id: store.store_id().0, sequence: Arc::default() };
    let raft = RaftService::new(RaftParts {
        cluster_id: store.cluster_id(),
        store_id: store.store_id(),
        inbox: store.inbox(),
        snapshots: store.snapshots().clone(),
        metrics: store.shared_metrics().clone(),
        closed: closed.clone(),
        limits: RaftLimits::default(),
    });
    KvService { raw: RawService::new(store), txn, link, raft, health, closed }
}

/// The service on a port: requests of any size are read, compressed ones too.
pub(super) fn server(service: Arc<KvService>) -> TikvServer<KvService> {
    TikvServer::from_arc(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(usize::MAX)
}

/// What the store says about its health.
#[derive(Clone)]
pub(super) struct Health {
    store_id: u64,
    /// Number of the last answer. Clients drop what is not newer than what they have.
    sequence: Arc<AtomicU64>,
}

impl Health {
    /// The next answer.
    pub(super) fn feedback(&self) -> kvrpcpb::GetHealthFeedbackResponse {
        let feedback = kvrpcpb::HealthFeedback {
            store_id: self.store_id,
            feedback_seq_no: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            slow_score: SLOW_SCORE_HEALTHY,
        };
        kvrpcpb::GetHealthFeedbackResponse { health_feedback: Some(feedback), ..Default::default() }
    }
}

/// The answer to `RawCoprocessor`, on which no plugin can be loaded.
pub(super) fn no_plugins() -> kvrpcpb::RawCoprocessorResponse {
    let error = "coprocessor plugins are disabled".to_owned();
    kvrpcpb::RawCoprocessorResponse { error, ..Default::default() }
}

#[tonic::async_trait]
impl Tikv for KvService {
    async fn kv_get(
        &self,
        request: Request<kvrpcpb::GetRequest>,
    ) -> Result<Response<kvrpcpb::GetResponse>, Status> {
        self.txn.get(request.into_inner()).await.map(Response::new)
    }

    async fn kv_batch_get(
        &self,
        request: Request<kvrpcpb::BatchGetRequest>,
    ) -> Result<Response<kvrpcpb::BatchGetResponse>, Status> {
        self.txn.batch_get(request.into_inner()).await.map(Response::new)
    }

    async fn kv_scan(
        &self,
        request: Request<kvrpcpb::ScanRequest>,
    ) -> Result<Response<kvrpcpb::ScanResponse>, Status> {
        self.txn.scan(request.into_inner()).await.map(Response::new)
    }

    async fn kv_buffer_batch_get(
        &self,
        request: Request<kvrpcpb::BufferBatchGetRequest>,
    ) -> Result<Response<kvrpcpb::BufferBatchGetResponse>, Status> {
        self.txn.buffer_batch_get(request.into_inner()).await.map(Response::new)
    }

    async fn kv_scan_lock(
        &self,
        request: Request<kvrpcpb::ScanLockRequest>,
    ) -> Result<Response<kvrpcpb::ScanLockResponse>, Status> {
        self.txn.scan_lock(request.into_inner()).await.map(Response::new)
    }

    async fn kv_prewrite(
        &self,
        request: Request<kvrpcpb::PrewriteRequest>,
    ) -> Result<Response<kvrpcpb::PrewriteResponse>, Status> {
        self.txn.answer(self.txn.prewrite(request.into_inner())).await.map(Response::new)
    }

    async fn kv_commit(
        &self,
        request: Request<kvrpcpb::CommitRequest>,
    ) -> Result<Response<kvrpcpb::CommitResponse>, Status> {
        self.txn.answer(self.txn.commit(request.into_inner())).await.map(Response::new)
    }

    async fn kv_pessimistic_lock(
        &self,
        request: Request<kvrpcpb::PessimisticLockRequest>,
    ) -> Result<Response<kvrpcpb::PessimisticLockResponse>, Status> {
        self.txn.answer(self.txn.pessimistic_lock(request.into_inner())).await.map(Response::new)
    }

    async fn kv_pessimistic_rollback(
        &self,
        request: Request<kvrpcpb::PessimisticRollbackRequest>,
    ) -> Result<Response<kvrpcpb::PessimisticRollbackResponse>, Status> {
        self.txn.pessimistic_rollback(request.into_inner()).await.map(Response::new)
    }

    async fn kv_txn_heart_beat(
        &self,
        request: Request<kvrpcpb::TxnHeartBeatRequest>,
    ) -> Result<Response<kvrpcpb::TxnHeartBeatResponse>, Status> {
        self.txn.answer(self.txn.heart_beat(request.into_inner())).await.map(Response::new)
    }

    async fn kv_flush(
        &self,
        request: Request<kvrpcpb::FlushRequest>,
    ) -> Result<Response<kvrpcpb::FlushResponse>, Status> {
        self.txn.answer(self.txn.flush(request.into_inner())).await.map(Response::new)
    }

    async fn kv_check_txn_status(
        &self,
        request: Request<kvrpcpb::CheckTxnStatusRequest>,
    ) -> Result<Response<kvrpcpb::CheckTxnStatusResponse>, Status> {
        self.txn.answer(self.txn.check_txn_status(request.into_inner())).await.map(Response::new)
    }

    async fn kv_check_secondary_locks(
        &self,
        request: Request<kvrpcpb::CheckSecondaryLocksRequest>,
    ) -> Result<Response<kvrpcpb::CheckSecondaryLocksResponse>, Status> {
        self.txn
            .answer(self.txn.check_secondary_locks(request.into_inner()))
            .await
            .map(Response::new)
    }

    async fn kv_resolve_lock(
        &self,
        request: Request<kvrpcpb::ResolveLockRequest>,
    ) -> Result<Response<kvrpcpb::ResolveLockResponse>, Status> {
        self.txn.resolve_lock(request.into_inner()).await.map(Response::new)
    }

    async fn kv_cleanup(
        &self,
        request: Request<kvrpcpb::CleanupRequest>,
    ) -> Result<Response<kvrpcpb::CleanupResponse>, Status> {
        self.txn.answer(self.txn.cleanup(request.into_inner())).await.map(Response::new)
    }

    async fn kv_batch_rollback(
        &self,
        request: Request<kvrpcpb::BatchRollbackRequest>,
    ) -> Result<Response<kvrpcpb::BatchRollbackResponse>, Status> {
        self.txn.answer(self.txn.batch_rollback(request.into_inner())).await.map(Response::new)
    }

    async fn kv_delete_range(
        &self,
        request: Request<kvrpcpb::DeleteRangeRequest>,
    ) -> Result<Response<kvrpcpb::DeleteRangeResponse>, Status> {
        self.txn.answer(self.txn.delete_range(request.into_inner())).await.map(Response::new)
    }

    async fn unsafe_destroy_range(
        &self,
        request: Request<kvrpcpb::UnsafeDestroyRangeRequest>,
    ) -> Result<Response<kvrpcpb::UnsafeDestroyRangeResponse>, Status> {
        self.txn.unsafe_destroy_range(request.into_inner()).await.map(Response::new)
    }

    async fn kv_prepare_flashback_to_version(
        &self,
        request: Request<kvrpcpb::PrepareFlashbackToVersionRequest>,
    ) -> Result<Response<kvrpcpb::PrepareFlashbackToVersionResponse>, Status> {
        self.txn.prepare_flashback(request.into_inner()).await.map(Response::new)
    }

    async fn kv_flashback_to_version(
        &self,
        request: Request<kvrpcpb::FlashbackToVersionRequest>,
    ) -> Result<Response<kvrpcpb::FlashbackToVersionResponse>, Status> {
        self.txn.flashback(request.into_inner()).await.map(Response::new)
    }

    async fn mvcc_get_by_key(
        &self,
        request: Request<kvrpcpb::MvccGetByKeyRequest>,
    ) -> Result<Response<kvrpcpb::MvccGetByKeyResponse>, Status> {
        self.txn.mvcc_get_by_key(request.into_inner()).await.map(Response::new)
    }

    async fn mvcc_get_by_start_ts(
        &self,
        request: Request<kvrpcpb::MvccGetByStartTsRequest>,
    ) -> Result<Response<kvrpcpb::MvccGetByStartTsResponse>, Status> {
        self.txn.mvcc_get_by_start_ts(request.into_inner()).await.map(Response::new)
    }

    async fn get_lock_wait_info(
        &self,
        _request: Request<kvrpcpb::GetLockWaitInfoRequest>,
    ) -> Result<Response<kvrpcpb::GetLockWaitInfoResponse>, Status> {
        Ok(Response::new(self.txn.lock_wait_info()))
    }

    async fn raw_get(
        &self,
        request: Request<kvrpcpb::RawGetRequest>,
    ) -> Result<Response<kvrpcpb::RawGetResponse>, Status> {
        self.raw.get(request.into_inner()).await.map(Response::new)
    }

    async fn raw_batch_get(
        &self,
        request: Request<kvrpcpb::RawBatchGetRequest>,
    ) -> Result<Response<kvrpcpb::RawBatchGetResponse>, Status> {
        self.raw.batch_get(request.into_inner()).await.map(Response::new)
    }

    async fn raw_put(
        &self,
        request: Request<kvrpcpb::RawPutRequest>,
    ) -> Result<Response<kvrpcpb::RawPutResponse>, Status> {
        self.raw.put(request.into_inner()).await.map(Response::new)
    }

    async fn raw_batch_put(
        &self,
        request: Request<kvrpcpb::RawBatchPutRequest>,
    ) -> Result<Response<kvrpcpb::RawBatchPutResponse>, Status> {
        self.raw.batch_put(request.into_inner()).await.map(Response::new)
    }

    async fn raw_delete(
        &self,
        request: Request<kvrpcpb::RawDeleteRequest>,
    ) -> Result<Response<kvrpcpb::RawDeleteResponse>, Status> {
        self.raw.delete(request.into_inner()).await.map(Response::new)
    }

    async fn raw_batch_delete(
        &self,
        request: Request<kvrpcpb::RawBatchDeleteRequest>,
    ) -> Result<Response<kvrpcpb::RawBatchDeleteResponse>, Status> {
        self.raw.batch_delete(request.into_inner()).await.map(Response::new)
    }

    async fn raw_delete_range(
        &self,
        request: Request<kvrpcpb::RawDeleteRangeRequest>,
    ) -> Result<Response<kvrpcpb::RawDeleteRangeResponse>, Status> {
        self.raw.delete_range(request.into_inner()).await.map(Response::new)
    }

    async fn raw_scan(
        &self,
        request: Request<kvrpcpb::RawScanRequest>,
    ) -> Result<Response<kvrpcpb::RawScanResponse>, Status> {
        self.raw.scan(request.into_inner()).await.map(Response::new)
    }

    async fn raw_batch_scan(
        &self,
        request: Request<kvrpcpb::RawBatchScanRequest>,
    ) -> Result<Response<kvrpcpb::RawBatchScanResponse>, Status> {
        self.raw.batch_scan(request.into_inner()).await.map(Response::new)
    }

    async fn raw_get_key_ttl(
        &self,
        request: Request<kvrpcpb::RawGetKeyTtlRequest>,
    ) -> Result<Response<kvrpcpb::RawGetKeyTtlResponse>, Status> {
        self.raw.key_ttl(request.into_inner()).await.map(Response::new)
    }

    async fn raw_compare_and_swap(
        &self,
        request: Request<kvrpcpb::RawCasRequest>,
    ) -> Result<Response<kvrpcpb::RawCasResponse>, Status> {
        self.raw.compare_and_swap(request.into_inner()).await.map(Response::new)
    }

    async fn raw_checksum(
        &self,
        request: Request<kvrpcpb::RawChecksumRequest>,
    ) -> Result<Response<kvrpcpb::RawChecksumResponse>, Status> {
        self.raw.checksum(request.into_inner()).await.map(Response::new)
    }

    async fn raw_coprocessor(
        &self,
        _request: Request<kvrpcpb::RawCoprocessorRequest>,
    ) -> Result<Response<kvrpcpb::RawCoprocessorResponse>, Status> {
        Ok(Response::new(no_plugins()))
    }

    async fn get_health_feedback(
        &self,
        _request: Request<kvrpcpb::GetHealthFeedbackRequest>,
    ) -> Result<Response<kvrpcpb::GetHealthFeedbackResponse>, Status> {
        Ok(Response::new(self.health.feedback()))
    }

    async fn broadcast_txn_status(
        &self,
        _request: Request<kvrpcpb::BroadcastTxnStatusRequest>,
    ) -> Result<Response<kvrpcpb::BroadcastTxnStatusResponse>, Status> {
        Ok(Response::new(kvrpcpb::BroadcastTxnStatusResponse {}))
    }

    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Result<
        Response<Pin<Box<dyn Stream<Item = Result<BatchCommandsResponse, Status>> + Send>>>,
        Status,
    > {
        let services = (self.raw.clone(), self.txn.clone());
        let answers =
            batch::serve(services, self.health.clone(), request.into_inner(), self.closed.clone());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn read_index(
        &self,
        request: Request<kvrpcpb::ReadIndexRequest>,
    ) -> Result<Response<kvrpcpb::ReadIndexResponse>, Status> {
        self.txn.read_index(request.into_inner()).await.map(Response::new)
    }

    async fn check_leader(
        &self,
        request: Request<kvrpcpb::CheckLeaderRequest>,
    ) -> Result<Response<kvrpcpb::CheckLeaderResponse>, Status> {
        self.raft.check_cluster(request.metadata())?;
        let views = self.raw.store().views();
        Ok(Response::new(safe_ts::check_leaders(views, request.get_ref())))
    }

    async fn get_store_safe_ts(
        &self,
        request: Request<kvrpcpb::StoreSafeTsRequest>,
    ) -> Result<Response<kvrpcpb::StoreSafeTsResponse>, Status> {
        let range = request.into_inner().key_range.unwrap_or_default();
        let range = base::KeyRange::new(range.start_key, range.end_key);
        let safe_ts = self.raw.store().views().least_safe_ts(&range).0;
        Ok(Response::new(kvrpcpb::StoreSafeTsResponse { safe_ts }))
    }

    async fn split_region(
        &self,
        request: Request<kvrpcpb::SplitRegionRequest>,
    ) -> Result<Response<kvrpcpb::SplitRegionResponse>, Status> {
        split::split(&self.raw, &self.link, request.into_inner()).await.map(Response::new)
    }

    async fn raft(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Done>, Status> {
        self.raft.raft(request).await
    }

    async fn batch_raft(
        &self,
        request: Request<Streaming<BatchRaftMessage>>,
    ) -> Result<Response<Done>, Status> {
        self.raft.batch_raft(request).await
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Done>, Status> {
        self.raft.snapshot(request).await
    }
}

#[cfg(test)]
mod tests;
