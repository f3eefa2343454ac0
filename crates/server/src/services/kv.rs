//! The service `tikvpb.Tikv`: what clients call on a store.
//!
//! Each method is one line: the work is in [`super::raw`] and, for what other stores call, in
//! [`super::raft`]. What is not here answers UNIMPLEMENTED.

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
use crate::store_handle::StoreHandle;

/// How slow a store is, from 1 to 100, as far as this version judges itself.
const SLOW_SCORE_HEALTHY: i32 = 1;

/// The service.
pub(crate) struct KvService {
    raw: RawService,
    raft: RaftService,
    health: Health,
    closed: watch::Receiver<bool>,
}

/// The service for a server: requests of any size are read, compressed ones too. Streams end when
/// `closed` turns true.
pub(crate) fn server(store: StoreHandle, closed: watch::Receiver<bool>) -> TikvServer<KvService> {
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
    TikvServer::new(KvService { raw: RawService::new(store), raft, health, closed })
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
        let (raw, health) = (self.raw.clone(), self.health.clone());
        let answers = batch::serve(raw, health, request.into_inner(), self.closed.clone());
        Ok(Response::new(Box::pin(answers)))
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
