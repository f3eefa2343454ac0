//! The link to a cluster over the network.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use base::Instant as Now;
use client::{
    ClientError, Link, LinkError, PlacementReply, PlacementRequest, StoreReply, StoreRequest, Task,
};

use super::lanes::Lanes;
use super::placement::Placement;
use super::timestamps::Timestamps;

/// A cluster over gRPC. It lives on the tokio runtime on which its calls are awaited.
#[derive(Debug)]
pub struct GrpcLink {
    placement: Placement,
    timestamps: Timestamps,
    lanes: Lanes,
    started: Instant,
}

impl GrpcLink {
    /// See [`connect`](super::connect).
    pub(super) async fn connect(
        addresses: &str,
        connections: usize,
    ) -> Result<GrpcLink, ClientError> {
        let placement = Placement::connect(addresses).await?;
        let timestamps = Timestamps::default();
        let lanes = Lanes::new(connections);
        Ok(GrpcLink { placement, timestamps, lanes, started: Instant::now() })
    }

    /// The placement driver, for what concerns the cluster and not the data.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }
}

impl Link for GrpcLink {
    fn cluster_id(&self) -> u64 {
        self.placement.cluster_id()
    }

    async fn store(&self, store_id: u64, request: StoreRequest) -> Result<StoreReply, LinkError> {
        self.lanes.call(&self.placement, store_id, request).await
    }

    async fn placement(&self, request: PlacementRequest) -> Result<PlacementReply, LinkError> {
        match request {
            PlacementRequest::Tso(request) => {
                self.timestamps.next(&self.placement, request).await.map(PlacementReply::Tso)
            }
            other => self.placement.ask(other).await,
        }
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn seed(&self) -> u64 {
        RandomState::new().hash_one(self.placement.cluster_id())
    }

    fn spawn(&self, task: Task) {
        tokio::spawn(task);
    }
}
