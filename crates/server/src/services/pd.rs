//! The service `pdpb.PD`: what clients and stores ask the placement driver.
//!
//! ```text
//!   call ──> read   ──> Placement, in memory ───────────────────────┐
//!        ──> write  ──> plan, rows through the system region ───────┤
//!        ──> stream ──> one of the two for each message ────────────┤
//!                                                                   v
//!   answer <── reply, or an empty one with an error in its header, or a gRPC status
//! ```
//!
//! Each method is one call of [`Placement`]; what is not here answers UNIMPLEMENTED. GetMembers and
//! GetClusterInfo answer anyone, whether the placement driver runs here or not; all others answer
//! UNAVAILABLE with the words `not leader` where it does not, as PD's followers do. Nothing is
//! forwarded: every client knows these words, asks the members who leads, and goes there at once,
//! while a call that was passed on would only hide a detour that each later call makes again.
//! Streams end with the same words when the placement driver leaves.

mod answer;
mod split;
mod streams;
mod tso;

use std::sync::Arc;

use base::TimeStamp;
use placement::{Change, Placement, PlacementError, header};
use proto::pdpb;
use proto::pdpb::pd_server::{Pd, PdServer};
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) use answer::{Header, answer, status};
pub(super) use streams::changes;

use crate::placement_host::{HostError, PlacementHost};
use crate::placement_link::LocalMembers;

/// The largest request: no call of this service needs more.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 20;

/// The service.
pub(crate) struct PdService {
    host: PlacementHost,
    members: LocalMembers,
    /// Told when the global config was changed through this service.
    config_changed: Arc<watch::Sender<()>>,
    closed: watch::Receiver<bool>,
}

/// The service. Its streams end when `closed` turns true.
pub(super) fn service(
    host: PlacementHost,
    members: LocalMembers,
    closed: watch::Receiver<bool>,
) -> PdService {
    let config_changed = Arc::new(watch::Sender::new(()));
    PdService { host, members, config_changed, closed }
}

/// The service on a port.
pub(super) fn server(service: Arc<PdService>) -> PdServer<PdService> {
    PdServer::from_arc(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
}

impl PdService {
    /// Answers from memory; `refused` makes the answer that holds nothing but a header.
    fn read<R>(
        &self,
        read: impl FnOnce(&Placement) -> Result<R, PlacementError>,
        refused: impl FnOnce(Header) -> R,
    ) -> Result<Response<R>, Status> {
        let result = self.host.read(read).map_err(HostError::from);
        answer(&self.host, result.and_then(|reply| Ok(reply?)), refused)
    }

    /// The same for what there is only once the cluster is founded.
    async fn read_founded<R>(
        &self,
        read: impl FnOnce(&Placement) -> Result<R, PlacementError>,
        refused: impl FnOnce(Header) -> R,
    ) -> Result<Response<R>, Status> {
        self.host.founded().await;
        self.read(read, refused)
    }

    /// The same for a call that changes memory.
    fn update<R>(
        &self,
        update: impl FnOnce(&mut Placement) -> Result<R, PlacementError>,
        refused: impl FnOnce(Header) -> R,
    ) -> Result<Response<R>, Status> {
        let result = self.host.update(update).map_err(HostError::from);
        answer(&self.host, result.and_then(|reply| Ok(reply?)), refused)
    }

    /// Answers once the plan's rows are applied.
    async fn write<R>(
        &self,
        plan: impl FnOnce(&Placement) -> Result<Change<R>, PlacementError>,
        refused: impl FnOnce(Header) -> R,
    ) -> Result<Response<R>, Status> {
        answer(&self.host, self.host.write(plan).await, refused)
    }

    /// A timestamp of this moment.
    async fn present(&self) -> Result<TimeStamp, Status> {
        self.host.timestamps(1).await.map_err(|error| status(&error))
    }
}

#[tonic::async_trait]
impl Pd for PdService {
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        let members = self.members.now().await;
        let unknown = || Status::unavailable("no leader: no member of the cluster answers");
        Ok(Response::new(members.ok_or_else(unknown)?.get_members()))
    }

    async fn get_cluster_info(
        &self,
        _: Request<pdpb::GetClusterInfoRequest>,
    ) -> Result<Response<pdpb::GetClusterInfoResponse>, Status> {
        Ok(Response::new(placement::cluster_info(self.host.cluster_id())))
    }

    // Ids, timestamps, the beginning of a cluster.

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Result<Response<BoxStream<pdpb::TsoResponse>>, Status> {
        let requests = streams::Inbound::new(request, &self.host, &self.closed);
        Ok(Response::new(Box::pin(tso::serve(self.host.clone(), requests))))
    }

    async fn get_min_ts(
        &self,
        request: Request<pdpb::GetMinTsRequest>,
    ) -> Result<Response<pdpb::GetMinTsResponse>, Status> {
        let request = request.into_inner();
        let cluster_id = self.host.cluster_id();
        let checked = header::check(cluster_id, request.header.as_ref());
        checked.map_err(|error| status(&error.into()))?;
        Ok(Response::new(pdpb::GetMinTsResponse {
            timestamp: Some(header::timestamp(self.present().await?)),
            header: Some(header::success(cluster_id)),
        }))
    }

    async fn alloc_id(
        &self,
        request: Request<pdpb::AllocIdRequest>,
    ) -> Result<Response<pdpb::AllocIdResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::AllocIdResponse { header, ..Default::default() };
        self.write(|placement| placement.alloc_id(&request), refused).await
    }

    async fn bootstrap(
        &self,
        request: Request<pdpb::BootstrapRequest>,
    ) -> Result<Response<pdpb::BootstrapResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::BootstrapResponse { header, ..Default::default() };
        self.write(|placement| placement.bootstrap(&request, wall_ms), refused).await
    }

    async fn is_bootstrapped(
        &self,
        request: Request<pdpb::IsBootstrappedRequest>,
    ) -> Result<Response<pdpb::IsBootstrappedResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::IsBootstrappedResponse { header, ..Default::default() };
        self.read(|placement| placement.get_is_bootstrapped(&request), refused)
    }

    async fn is_snapshot_recovering(
        &self,
        request: Request<pdpb::IsSnapshotRecoveringRequest>,
    ) -> Result<Response<pdpb::IsSnapshotRecoveringResponse>, Status> {
        let request = request.into_inner();
        let cluster_id = self.host.cluster_id();
        let checked = header::check(cluster_id, request.header.as_ref());
        checked.map_err(|error| status(&error.into()))?;
        let header = Some(header::success(cluster_id));
        Ok(Response::new(pdpb::IsSnapshotRecoveringResponse { header, marked: false }))
    }

    // Stores and the cluster.

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetStoreResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.get_store(&request), refused).await
    }

    async fn put_store(
        &self,
        request: Request<pdpb::PutStoreRequest>,
    ) -> Result<Response<pdpb::PutStoreResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::PutStoreResponse { header, ..Default::default() };
        self.write(|placement| placement.put_store(&request), refused).await
    }

    async fn get_all_stores(
        &self,
        request: Request<pdpb::GetAllStoresRequest>,
    ) -> Result<Response<pdpb::GetAllStoresResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetAllStoresResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.get_all_stores(&request), refused).await
    }

    async fn store_heartbeat(
        &self,
        request: Request<pdpb::StoreHeartbeatRequest>,
    ) -> Result<Response<pdpb::StoreHeartbeatResponse>, Status> {
        let request = request.into_inner();
        let (now, wall_ms) = (self.host.now(), self.host.wall_ms());
        let refused = |header| pdpb::StoreHeartbeatResponse { header, ..Default::default() };
        self.update(|placement| placement.store_heartbeat(&request, now, wall_ms), refused)
    }

    async fn get_cluster_config(
        &self,
        request: Request<pdpb::GetClusterConfigRequest>,
    ) -> Result<Response<pdpb::GetClusterConfigResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetClusterConfigResponse { header, ..Default::default() };
        self.read(|placement| placement.get_cluster_config(&request), refused)
    }

    async fn put_cluster_config(
        &self,
        request: Request<pdpb::PutClusterConfigRequest>,
    ) -> Result<Response<pdpb::PutClusterConfigResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::PutClusterConfigResponse { header };
        self.write(|placement| placement.put_cluster_config(&request), refused).await
    }

    // Regions.

    async fn region_heartbeat(
        &self,
        request: Request<Streaming<pdpb::RegionHeartbeatRequest>>,
    ) -> Result<Response<BoxStream<pdpb::RegionHeartbeatResponse>>, Status> {
        let requests = streams::Inbound::new(request, &self.host, &self.closed);
        Ok(Response::new(Box::pin(streams::region_heartbeat(self.host.clone(), requests))))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetRegionResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.get_region(&request), refused).await
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetRegionResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.get_prev_region(&request), refused).await
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIdRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetRegionResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.get_region_by_id(&request), refused).await
    }

    async fn query_region(
        &self,
        request: Request<Streaming<pdpb::QueryRegionRequest>>,
    ) -> Result<Response<BoxStream<pdpb::QueryRegionResponse>>, Status> {
        let requests = streams::Inbound::new(request, &self.host, &self.closed);
        Ok(Response::new(Box::pin(streams::query_region(self.host.clone(), requests).await)))
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Result<Response<pdpb::ScanRegionsResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::ScanRegionsResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.scan_regions(&request), refused).await
    }

    async fn batch_scan_regions(
        &self,
        request: Request<pdpb::BatchScanRegionsRequest>,
    ) -> Result<Response<pdpb::BatchScanRegionsResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::BatchScanRegionsResponse { header, ..Default::default() };
        self.read_founded(|placement| placement.batch_scan_regions(&request), refused).await
    }

    async fn ask_split(
        &self,
        request: Request<pdpb::AskSplitRequest>,
    ) -> Result<Response<pdpb::AskSplitResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::AskSplitResponse { header, ..Default::default() };
        self.write(|placement| placement.ask_split(&request), refused).await
    }

    async fn report_split(
        &self,
        request: Request<pdpb::ReportSplitRequest>,
    ) -> Result<Response<pdpb::ReportSplitResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::ReportSplitResponse { header };
        self.read(|placement| placement.report_split(&request), refused)
    }

    async fn ask_batch_split(
        &self,
        request: Request<pdpb::AskBatchSplitRequest>,
    ) -> Result<Response<pdpb::AskBatchSplitResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::AskBatchSplitResponse { header, ..Default::default() };
        self.write(|placement| placement.ask_batch_split(&request), refused).await
    }

    async fn report_batch_split(
        &self,
        request: Request<pdpb::ReportBatchSplitRequest>,
    ) -> Result<Response<pdpb::ReportBatchSplitResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::ReportBatchSplitResponse { header };
        self.read(|placement| placement.report_batch_split(&request), refused)
    }

    async fn scatter_region(
        &self,
        request: Request<pdpb::ScatterRegionRequest>,
    ) -> Result<Response<pdpb::ScatterRegionResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::ScatterRegionResponse { header, ..Default::default() };
        self.read(|placement| placement.scatter_region(&request), refused)
    }

    async fn split_regions(
        &self,
        request: Request<pdpb::SplitRegionsRequest>,
    ) -> Result<Response<pdpb::SplitRegionsResponse>, Status> {
        let pdpb::SplitRegionsRequest { header, split_keys, .. } = request.into_inner();
        let outcome = split::split(&self.host, header.as_ref(), split_keys).await;
        let reply = outcome.map(|outcome| pdpb::SplitRegionsResponse {
            header: Some(header::success(self.host.cluster_id())),
            finished_percentage: outcome.percentage,
            regions_id: outcome.new,
        });
        let refused = |header| pdpb::SplitRegionsResponse { header, ..Default::default() };
        answer(&self.host, reply, refused)
    }

    async fn split_and_scatter_regions(
        &self,
        request: Request<pdpb::SplitAndScatterRegionsRequest>,
    ) -> Result<Response<pdpb::SplitAndScatterRegionsResponse>, Status> {
        let request = request.into_inner();
        let (header, keys) = (request.header, request.split_keys);
        let refused =
            |header| pdpb::SplitAndScatterRegionsResponse { header, ..Default::default() };
        let outcome = match split::split(&self.host, header.as_ref(), keys).await {
            Ok(outcome) => outcome,
            Err(error) => return answer(&self.host, Err(error), refused),
        };
        let scatter = pdpb::ScatterRegionRequest {
            header,
            regions_id: outcome.new.clone(),
            group: request.group,
            ..Default::default()
        };
        let scattered = match outcome.new.is_empty() {
            true => 100,
            false => self
                .host
                .read(|placement| placement.scatter_region(&scatter))
                .map_err(|error| status(&error.into()))?
                .map_or(0, |reply| reply.finished_percentage),
        };
        Ok(Response::new(pdpb::SplitAndScatterRegionsResponse {
            header: Some(header::success(self.host.cluster_id())),
            split_finished_percentage: outcome.percentage,
            scatter_finished_percentage: scattered,
            regions_id: outcome.new,
        }))
    }

    async fn get_operator(
        &self,
        request: Request<pdpb::GetOperatorRequest>,
    ) -> Result<Response<pdpb::GetOperatorResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetOperatorResponse { header, ..Default::default() };
        self.read(|placement| placement.get_operator(&request), refused)
    }

    // Garbage collection.

    async fn get_gc_safe_point(
        &self,
        request: Request<pdpb::GetGcSafePointRequest>,
    ) -> Result<Response<pdpb::GetGcSafePointResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetGcSafePointResponse { header, ..Default::default() };
        self.read(|placement| placement.get_gc_safe_point(&request), refused)
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateGcSafePointResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::UpdateGcSafePointResponse { header, ..Default::default() };
        self.write(|placement| placement.update_gc_safe_point(&request, wall_ms), refused).await
    }

    async fn update_service_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateServiceGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateServiceGcSafePointResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused =
            |header| pdpb::UpdateServiceGcSafePointResponse { header, ..Default::default() };
        let plan =
            |placement: &Placement| placement.update_service_gc_safe_point(&request, wall_ms);
        self.write(plan, refused).await
    }

    async fn get_gc_state(
        &self,
        request: Request<pdpb::GetGcStateRequest>,
    ) -> Result<Response<pdpb::GetGcStateResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::GetGcStateResponse { header, ..Default::default() };
        self.read(|placement| placement.get_gc_state(&request, wall_ms), refused)
    }

    async fn get_all_keyspaces_gc_states(
        &self,
        request: Request<pdpb::GetAllKeyspacesGcStatesRequest>,
    ) -> Result<Response<pdpb::GetAllKeyspacesGcStatesResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused =
            |header| pdpb::GetAllKeyspacesGcStatesResponse { header, ..Default::default() };
        self.read(|placement| placement.get_all_keyspaces_gc_states(&request, wall_ms), refused)
    }

    async fn advance_txn_safe_point(
        &self,
        request: Request<pdpb::AdvanceTxnSafePointRequest>,
    ) -> Result<Response<pdpb::AdvanceTxnSafePointResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::AdvanceTxnSafePointResponse { header, ..Default::default() };
        self.write(|placement| placement.advance_txn_safe_point(&request, wall_ms), refused).await
    }

    async fn advance_gc_safe_point(
        &self,
        request: Request<pdpb::AdvanceGcSafePointRequest>,
    ) -> Result<Response<pdpb::AdvanceGcSafePointResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::AdvanceGcSafePointResponse { header, ..Default::default() };
        self.write(|placement| placement.advance_gc_safe_point(&request), refused).await
    }

    async fn set_gc_barrier(
        &self,
        request: Request<pdpb::SetGcBarrierRequest>,
    ) -> Result<Response<pdpb::SetGcBarrierResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::SetGcBarrierResponse { header, ..Default::default() };
        self.write(|placement| placement.set_gc_barrier(&request, wall_ms), refused).await
    }

    async fn delete_gc_barrier(
        &self,
        request: Request<pdpb::DeleteGcBarrierRequest>,
    ) -> Result<Response<pdpb::DeleteGcBarrierResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::DeleteGcBarrierResponse { header, ..Default::default() };
        self.write(|placement| placement.delete_gc_barrier(&request, wall_ms), refused).await
    }

    async fn set_global_gc_barrier(
        &self,
        request: Request<pdpb::SetGlobalGcBarrierRequest>,
    ) -> Result<Response<pdpb::SetGlobalGcBarrierResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::SetGlobalGcBarrierResponse { header, ..Default::default() };
        self.write(|placement| placement.set_global_gc_barrier(&request, wall_ms), refused).await
    }

    async fn delete_global_gc_barrier(
        &self,
        request: Request<pdpb::DeleteGlobalGcBarrierRequest>,
    ) -> Result<Response<pdpb::DeleteGlobalGcBarrierResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let refused = |header| pdpb::DeleteGlobalGcBarrierResponse { header, ..Default::default() };
        self.write(|placement| placement.delete_global_gc_barrier(&request, wall_ms), refused).await
    }

    // Timestamps that others tell.

    async fn report_min_resolved_ts(
        &self,
        request: Request<pdpb::ReportMinResolvedTsRequest>,
    ) -> Result<Response<pdpb::ReportMinResolvedTsResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::ReportMinResolvedTsResponse { header };
        self.update(|placement| placement.report_min_resolved_ts(&request), refused)
    }

    async fn set_external_timestamp(
        &self,
        request: Request<pdpb::SetExternalTimestampRequest>,
    ) -> Result<Response<pdpb::SetExternalTimestampResponse>, Status> {
        let (request, present) = (request.into_inner(), self.present().await?);
        let refused = |header| pdpb::SetExternalTimestampResponse { header };
        self.write(|placement| placement.set_external_timestamp(&request, present), refused).await
    }

    async fn get_external_timestamp(
        &self,
        request: Request<pdpb::GetExternalTimestampRequest>,
    ) -> Result<Response<pdpb::GetExternalTimestampResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| pdpb::GetExternalTimestampResponse { header, ..Default::default() };
        self.read(|placement| placement.get_external_timestamp(&request), refused)
    }

    // The global config, whose messages have no request header.

    async fn store_global_config(
        &self,
        request: Request<pdpb::StoreGlobalConfigRequest>,
    ) -> Result<Response<pdpb::StoreGlobalConfigResponse>, Status> {
        let request = request.into_inner();
        let refused = |header: Header| pdpb::StoreGlobalConfigResponse {
            error: header.and_then(|header| header.error),
        };
        let response =
            self.write(|placement| placement.store_global_config(&request), refused).await?;
        self.config_changed.send_replace(());
        Ok(response)
    }

    async fn load_global_config(
        &self,
        request: Request<pdpb::LoadGlobalConfigRequest>,
    ) -> Result<Response<pdpb::LoadGlobalConfigResponse>, Status> {
        let request = request.into_inner();
        let loaded = self.host.read(|placement| placement.load_global_config(&request));
        loaded.map(Response::new).map_err(|error| status(&error.into()))
    }

    async fn watch_global_config(
        &self,
        request: Request<pdpb::WatchGlobalConfigRequest>,
    ) -> Result<Response<BoxStream<pdpb::WatchGlobalConfigResponse>>, Status> {
        let pdpb::WatchGlobalConfigRequest { config_path, revision } = request.into_inner();
        let mut from = match revision {
            0 => {
                let now = self.host.read(Placement::config_revision);
                now.map_err(|error| status(&error.into()))? + 1
            }
            revision => revision,
        };
        let wake = self.config_changed.subscribe();
        let changed = move |placement: &Placement| {
            let changes = placement.global_config_changes(&config_path, from);
            from = from.max(changes.revision + 1);
            (!changes.changes.is_empty()).then_some(changes)
        };
        let stream = changes(self.host.clone(), wake, self.closed.clone(), changed);
        Ok(Response::new(Box::pin(stream)))
    }
}
