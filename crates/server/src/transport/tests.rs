//! Transports of several stores in one process, over real sockets.

mod messages;
mod snapshots;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use base::{ClusterId, Epoch, Peer, PeerId, RegionId, StoreId};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proto::raft_serverpb::{self, Done, SnapshotChunk};
use proto::tikvpb::BatchRaftMessage;
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::tikv_server::{Tikv, TikvServer};
use raft::{Body, Message};
use storage::disk::RealDisk;
use store::snapshot::SnapshotFolder;
use store::{RaftMessage, ShardInput};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

use super::*;
use crate::services::raft::{RaftLimits, RaftParts, RaftService};

const CLUSTER: ClusterId = ClusterId(77);

/// For what happens at once unless the machine is very busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `ready`.
async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let polling = async {
        let mut interval = tokio::time::interval(Duration::from_millis(2));
        while !ready() {
            interval.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, polling).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn peer_on(store: u64) -> Peer {
    Peer::voter(PeerId(store + 100), StoreId(store))
}

fn message(from: u64, to: u64, body: Body) -> RaftMessage {
    let (from, to) = (peer_on(from), peer_on(to));
    let message = Message { from: from.id, to: to.id, term: 6, body };
    let epoch = Epoch { conf_ver: 1, version: 1 };
    RaftMessage {
        region_id: RegionId(2),
        from,
        to,
        epoch,
        message,
        range: None,
        tombstone: false,
        merged_into: None,
    }
}

fn heartbeat_to(from: u64, to: u64, round: u64) -> RaftMessage {
    message(from, to, Body::Heartbeat { commit: 5, round })
}

/// From store 1 to store 2.
pub(super) fn heartbeat(round: u64) -> RaftMessage {
    heartbeat_to(1, 2, round)
}

fn round_of(message: &RaftMessage) -> u64 {
    match message.message.body {
        Body::Heartbeat { round, .. } => round,
        ref other => panic!("not a heartbeat: {other:?}"),
    }
}

/// Where everybody is.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<StoreId, SocketAddr>>>);

impl Addresses {
    fn set(&self, store: u64, address: SocketAddr) {
        self.0.lock().unwrap().insert(StoreId(store), address);
    }

    fn resolver(&self) -> Resolver {
        let addresses = self.clone();
        Arc::new(move |store| {
            let address = addresses.0.lock().unwrap().get(&store).map(SocketAddr::to_string);
            Box::pin(async move { address })
        })
    }
}

/// What a shard was told, instead of a shard.
#[derive(Default)]
struct FakeInbox {
    seen: watch::Sender<Seen>,
    /// While it is there credits are put into it, as if nobody looked at the messages.
    held: Mutex<Option<Vec<OwnedSemaphorePermit>>>,
}

#[derive(Default)]
struct Seen {
    messages: Vec<RaftMessage>,
    unreachable: Vec<StoreId>,
    /// Of which store's peer, and whether it arrived.
    sent: Vec<(PeerId, bool)>,
}

impl Seen {
    fn rounds(&self) -> Vec<u64> {
        self.messages.iter().map(round_of).collect()
    }
}

impl FakeInbox {
    async fn wait<T>(&self, what: &str, ready: impl Fn(&Seen) -> Option<T>) -> T {
        let mut result = None;
        let mut seen = self.seen.subscribe();
        let waiting = seen.wait_for(|seen| {
            result = ready(seen);
            result.is_some()
        });
        let waited = tokio::time::timeout(DEADLINE, waiting).await.map(|_| ());
        waited.unwrap_or_else(|_| panic!("never: {what}"));
        result.expect("waited for")
    }

    async fn wait_rounds(&self, count: usize) -> Vec<u64> {
        self.wait("messages", |seen| (seen.messages.len() >= count).then(|| seen.rounds())).await
    }

    async fn wait_sent(&self, count: usize) -> Vec<(PeerId, bool)> {
        self.wait("sent", |seen| (seen.sent.len() >= count).then(|| seen.sent.clone())).await
    }

    async fn wait_unreachable(&self, count: usize) {
        self.wait("unreachable", |seen| (seen.unreachable.len() >= count).then_some(())).await;
    }

    fn unreachable(&self) -> Vec<StoreId> {
        self.seen.borrow().unreachable.clone()
    }
}

impl Inbox for FakeInbox {
    fn messages(&self, messages: Vec<RaftMessage>, credit: OwnedSemaphorePermit) {
        if let Some(held) = &mut *self.held.lock().unwrap() {
            held.push(credit);
        }
        self.seen.send_modify(|seen| seen.messages.extend(messages));
    }

    fn tell(&self, input: ShardInput) {
        self.seen.send_modify(|seen| match input {
            ShardInput::Unreachable(store) => seen.unreachable.push(store),
            ShardInput::SnapshotSent { to, arrived, .. } => seen.sent.push((to, arrived)),
            ShardInput::Message(message) => seen.messages.push(message),
            _ => panic!("not the transport's business"),
        });
    }
}

/// The service as other stores see it.
struct Receiver(RaftService);

#[tonic::async_trait]
impl Tikv for Receiver {
    async fn raft(
        &self,
        request: Request<Streaming<raft_serverpb::RaftMessage>>,
    ) -> Result<Response<Done>, Status> {
        self.0.raft(request).await
    }

    async fn batch_raft(
        &self,
        request: Request<Streaming<BatchRaftMessage>>,
    ) -> Result<Response<Done>, Status> {
        self.0.batch_raft(request).await
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Done>, Status> {
        self.0.snapshot(request).await
    }
}

/// A listening socket with everything that was accepted on it. Gone at once when it is dropped.
struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    closed: watch::Sender<bool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("loopback");
        let router = router.clone();
        let service = hyper::service::service_fn(move |request| router.clone().oneshot(request));
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// One store: a transport, a fake shard, and maybe a server.
struct Site {
    id: u64,
    cluster: ClusterId,
    transport: Transport,
    inbox: Arc<FakeInbox>,
    metrics: Arc<Metrics>,
    snapshots: SnapshotFolder,
    dir: TempDir,
}

#[derive(Default)]
struct Limits {
    queue: QueueLimits,
    snapshot: SnapshotLimits,
}

impl Site {
    fn new(id: u64, addresses: &Addresses) -> Self {
        Self::with(id, CLUSTER, addresses, Limits::default())
    }

    fn with(id: u64, cluster: ClusterId, addresses: &Addresses, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::new());
        let snapshots = SnapshotFolder::open(disk, &dir.path().join("snap"), &[]).unwrap();
        let (inbox, metrics) = (Arc::<FakeInbox>::default(), Arc::<Metrics>::default());
        let parts = TransportParts {
            cluster_id: cluster,
            store_id: StoreId(id),
            resolver: addresses.resolver(),
            inbox: inbox.clone(),
            snapshots: snapshots.clone(),
            metrics: metrics.clone(),
            queue_limits: limits.queue,
            snapshot_limits: limits.snapshot,
        };
        let transport = Transport::start(parts, Handle::current());
        Self { id, cluster, transport, inbox, metrics, snapshots, dir }
    }

    async fn serve(&self) -> Server {
        self.serve_with(RaftLimits::default()).await
    }

    async fn serve_with(&self, limits: RaftLimits) -> Server {
        let (closed, closing) = watch::channel(false);
        let service = RaftService::new(RaftParts {
            cluster_id: self.cluster,
            store_id: StoreId(self.id),
            inbox: self.inbox.clone(),
            snapshots: self.snapshots.clone(),
            metrics: self.metrics.clone(),
            closed: closing,
            limits,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = TikvServer::new(Receiver(service)).max_decoding_message_size(usize::MAX);
        let router = Routes::new(server).into_axum_router();
        Server { address, accepting: tokio::spawn(accept(listener, router)), closed }
    }

    fn send(&self, messages: impl IntoIterator<Item = RaftMessage>) {
        let mut messages: Vec<_> = messages.into_iter().collect();
        self.transport.send(&mut messages);
        assert!(messages.is_empty());
    }

    fn counters(&self) -> &TransportCounters {
        self.metrics.transport()
    }
}

/// A caller that is no transport.
async fn caller(server: &Server) -> TikvClient<Channel> {
    TikvClient::connect(format!("http://{}", server.address)).await.unwrap()
}

/// `message`, from a caller of cluster `cluster` if it says.
fn call<T>(message: T, cluster: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(cluster) = cluster {
        request.metadata_mut().insert(CLUSTER_ID, cluster.parse().unwrap());
    }
    request
}

/// An address at which nobody listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
