//! The link of the real client: its calls travel over the simulated network.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::{Instant, StoreId, TimeStamp};
use client::{Link, LinkError, PlacementReply, PlacementRequest, StoreReply, StoreRequest, Task};
use proto::pdpb;

use super::executor::{Port, Route};
use crate::cluster::boot::CLUSTER;
use crate::cluster::event::{Reply, Request};

/// Patience with one call.
const PATIENCE: Duration = Duration::from_millis(1_500);

pub(crate) struct SimLink {
    port: Port,
    seed: u64,
    nodes: usize,
    /// Where the placement driver is thought to be.
    driver: AtomicUsize,
    /// Where reads go.
    reads: Mutex<Route>,
}

impl SimLink {
    pub(crate) fn new(port: Port, nodes: usize, seed: u64) -> Self {
        let driver = AtomicUsize::new(port.client() % nodes);
        Self { port, seed, nodes, driver, reads: Mutex::new(Route::Leader) }
    }

    /// From now on reads go there.
    pub(crate) fn read_from(&self, route: Route) {
        *self.reads.lock().expect("one thread") = route;
    }

    /// Asks for another safe point.
    pub(crate) async fn move_safe_point(&self, ts: TimeStamp) {
        // Whoever refuses it, or gets it without an answer: another one follows.
        let _ = self.driver(Request::MoveSafePoint(ts)).await;
    }

    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    async fn driver(&self, request: Request) -> Result<Reply, LinkError> {
        let to = self.driver.load(Ordering::Relaxed);
        let error = match self.port.call(to, request, PATIENCE).await {
            Some(Reply::NotLeader) => LinkError::Unsent("not the leader".to_owned()),
            Some(Reply::Refused) => LinkError::Unsent("refused".to_owned()),
            Some(reply) => return Ok(reply),
            None => LinkError::Lost("no answer".to_owned()),
        };
        self.driver.store((to + 1) % self.nodes, Ordering::Relaxed);
        Err(error)
    }
}

impl Link for SimLink {
    fn cluster_id(&self) -> u64 {
        CLUSTER.0
    }

    async fn store(&self, store: u64, request: StoreRequest) -> Result<StoreReply, LinkError> {
        let route = match is_read(&request) {
            true => *self.reads.lock().expect("one thread"),
            false => Route::Leader,
        };
        let reply = self.port.call_store(StoreId(store), request, route, PATIENCE).await;
        match reply {
            Some(Reply::Store(reply)) => Ok(*reply),
            // Nobody listens there.
            Some(_) => Err(LinkError::Unsent("no connection".to_owned())),
            None => Err(LinkError::Lost("no answer".to_owned())),
        }
    }

    async fn placement(&self, request: PlacementRequest) -> Result<PlacementReply, LinkError> {
        let PlacementRequest::Tso(tso) = request else {
            return match self.driver(Request::Driver(Box::new(request))).await? {
                Reply::Driver(reply) => Ok(*reply),
                other => unreachable!("{other:?} is no answer"),
            };
        };
        let count = tso.count;
        match self.driver(Request::Timestamps(count)).await? {
            Reply::Timestamp(last) => Ok(PlacementReply::Tso(pdpb::TsoResponse {
                header: Some(placement::header::success(CLUSTER)),
                count,
                timestamp: Some(pdpb::Timestamp {
                    physical: last.physical_ms() as i64,
                    logical: last.logical() as i64,
                    ..Default::default()
                }),
            })),
            other => unreachable!("{other:?} is no answer"),
        }
    }

    fn now(&self) -> Instant {
        self.port.now()
    }

    async fn wait(&self, duration: Duration) {
        self.port.sleep(duration).await;
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn spawn(&self, task: Task) {
        self.port.spawn(task);
    }
}

pub(super) fn is_read(request: &StoreRequest) -> bool {
    use StoreRequest::{KvBatchGet, KvGet, KvScan};
    matches!(request, KvGet(_) | KvBatchGet(_) | KvScan(_))
}
