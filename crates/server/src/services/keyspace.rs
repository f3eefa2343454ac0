//! The service `keyspacepb.Keyspace`: names and ids of keyspaces, for clients of API V2.
//!
//! The errors travel as in [`super::pd`], whose headers these messages share.

use std::sync::Arc;

use placement::Placement;
use proto::keyspacepb::keyspace_server::{Keyspace, KeyspaceServer};
use proto::{keyspacepb, pdpb};
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::pd::{self, REQUEST_BYTES_MAX, answer, status};
use crate::placement_host::{HostError, PlacementHost};

/// The service.
pub(crate) struct KeyspaceService {
    host: PlacementHost,
    /// Told when a keyspace was changed through this service.
    changed: Arc<watch::Sender<()>>,
    closed: watch::Receiver<bool>,
}

/// The service for a server. Streams end when `closed` turns true.
pub(crate) fn server(
    host: PlacementHost,
    closed: watch::Receiver<bool>,
) -> KeyspaceServer<KeyspaceService> {
    let changed = Arc::new(watch::Sender::new(()));
    KeyspaceServer::new(KeyspaceService { host, changed, closed })
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
}

impl KeyspaceService {
    fn read<R>(
        &self,
        read: impl FnOnce(&Placement) -> Result<R, placement::PlacementError>,
        refused: impl FnOnce(pd::Header) -> R,
    ) -> Result<Response<R>, Status> {
        let result = self.host.read(read).map_err(HostError::from);
        answer(&self.host, result.and_then(|reply| Ok(reply?)), refused)
    }
}

#[tonic::async_trait]
impl Keyspace for KeyspaceService {
    async fn load_keyspace(
        &self,
        request: Request<keyspacepb::LoadKeyspaceRequest>,
    ) -> Result<Response<keyspacepb::LoadKeyspaceResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| keyspacepb::LoadKeyspaceResponse { header, keyspace: None };
        self.read(|placement| placement.load_keyspace(&request), refused)
    }

    async fn load_keyspace_by_id(
        &self,
        request: Request<keyspacepb::LoadKeyspaceByIdRequest>,
    ) -> Result<Response<keyspacepb::LoadKeyspaceResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| keyspacepb::LoadKeyspaceResponse { header, keyspace: None };
        self.read(|placement| placement.load_keyspace_by_id(&request), refused)
    }

    async fn lookup_keyspace(
        &self,
        request: Request<keyspacepb::LookupKeyspaceRequest>,
    ) -> Result<Response<keyspacepb::LookupKeyspaceResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| keyspacepb::LookupKeyspaceResponse { header, ..Default::default() };
        self.read(|placement| placement.lookup_keyspace(&request), refused)
    }

    async fn get_all_keyspaces(
        &self,
        request: Request<keyspacepb::GetAllKeyspacesRequest>,
    ) -> Result<Response<keyspacepb::GetAllKeyspacesResponse>, Status> {
        let request = request.into_inner();
        let refused = |header| keyspacepb::GetAllKeyspacesResponse { header, ..Default::default() };
        self.read(|placement| placement.get_all_keyspaces(&request), refused)
    }

    async fn update_keyspace_state(
        &self,
        request: Request<keyspacepb::UpdateKeyspaceStateRequest>,
    ) -> Result<Response<keyspacepb::UpdateKeyspaceStateResponse>, Status> {
        let (request, wall_ms) = (request.into_inner(), self.host.wall_ms());
        let plan = |placement: &Placement| placement.update_keyspace_state(&request, wall_ms);
        let refused = |header| keyspacepb::UpdateKeyspaceStateResponse { header, keyspace: None };
        let response = answer(&self.host, self.host.write(plan).await, refused)?;
        self.changed.send_replace(());
        Ok(response)
    }

    async fn watch_keyspaces(
        &self,
        request: Request<keyspacepb::WatchKeyspacesRequest>,
    ) -> Result<Response<BoxStream<keyspacepb::WatchKeyspacesResponse>>, Status> {
        let header = request.into_inner().header;
        check_cluster(&self.host, header.as_ref())?;
        let mut seen = 0;
        let changed = move |placement: &Placement| {
            let (changes, now) = placement.keyspace_changes(seen);
            seen = now;
            (!changes.keyspaces.is_empty()).then_some(changes)
        };
        let wake = self.changed.subscribe();
        let stream = pd::changes(self.host.clone(), wake, self.closed.clone(), changed);
        Ok(Response::new(Box::pin(stream)))
    }
}

fn check_cluster(host: &PlacementHost, header: Option<&pdpb::RequestHeader>) -> Result<(), Status> {
    placement::header::check(host.cluster_id(), header).map_err(|error| status(&error.into()))
}
