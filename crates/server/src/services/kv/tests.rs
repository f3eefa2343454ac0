//! The service as a client sees it: real messages over a connection in memory, a real store on a
//! memory engine and a memory disk.

mod calls;
mod errors;
mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, Peer, PeerId, Region, RegionId, StoreId};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use placement::Settings;
use proto::kvrpcpb::{self, Context};
use proto::metapb;
use proto::tikvpb::tikv_client::TikvClient;
use storage::disk::MemoryDisk;
use storage::engine::{Engine, MemoryEngine};
use storage::log::{LogBatch, LogOptions, RaftLog};
use store::snapshot::SnapshotFolder;
use store::{
    LogWriter, RegionViews, Report, Shard, ShardConfig, ShardInput, StoreIdent, bootstrap,
};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use txn::ApiVersion;

use crate::clock::Clock;
use crate::gc::Gc;
use crate::metrics::Metrics;
use crate::placement_host::PlacementHost;
use crate::placement_link::{PlacementLink, Remote};
use crate::runtime::{Parts, Peers, Threads};
use crate::services::txn::TxnService;
use crate::store_handle::{StoreHandle, StoreParts};
use crate::transport::Resolver;

const MODES: [ApiVersion; 3] = [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2];

const CLUSTER: ClusterId = ClusterId(77);
const STORE: StoreId = StoreId(1);
const REGION: RegionId = RegionId(2);
const PEER: PeerId = PeerId(3);

/// A store of one region, which it leads.
struct Node {
    store: StoreHandle,
    threads: Option<Threads>,
    closing: watch::Sender<bool>,
    api: ApiVersion,
}

impl Node {
    /// Of all keys.
    async fn start(api: ApiVersion) -> Self {
        Self::start_with(api, |region| region).await
    }

    /// Of the region that `change` makes.
    async fn start_with(api: ApiVersion, change: impl FnOnce(Region) -> Region) -> Self {
        let region = change(Region::first(REGION, Peer::voter(PEER, STORE)));
        let (engine, gc) = (Arc::new(MemoryEngine::new()), Gc::new());
        let mut log = open_log();
        found(&*engine, &mut log, api, &region);
        let recovered = store::recover(&*engine, &log.reader(), STORE).expect("just founded");

        let (clock, metrics) = (Clock::start(), Arc::new(Metrics::default()));
        let views = Arc::new(RegionViews::new(STORE));
        let config = ShardConfig { tick: Duration::from_millis(10), ..ShardConfig::default() };
        let (leads, mut leading) = mpsc::unbounded_channel();
        let disk = Arc::new(MemoryDisk::new());
        let snapshots = SnapshotFolder::open(disk, Path::new("snap"), &[]).expect("empty");
        let resolver: Resolver = Arc::new(|_| Box::pin(async { None }));
        let parts = Parts {
            shard: Shard::new(config, log.reader(), views.clone()),
            log_writer: LogWriter::new(log),
            engine: engine.clone(),
            snapshots: snapshots.clone(),
            gc: gc.clone(),
            peers: Peers { cluster_id: CLUSTER, store_id: STORE, resolver },
            clock,
            metrics: metrics.clone(),
            on_report: Box::new(move |report| drop(leads.send(report))),
            on_leading: Box::new(drop),
            on_fatal: Arc::new(|text| panic!("{text}")),
        };
        let threads = Threads::start(parts).expect("there are threads");
        for birth in recovered.births {
            let told = threads.mailbox().tell(ShardInput::Create(birth));
            assert!(told.is_ok(), "the store runs");
        }
        assert!(matches!(leading.recv().await, Some(Report::Leads(_))));

        let mailbox = threads.mailbox().clone();
        let (cluster_id, api_version) = (CLUSTER, api);
        let store = StoreHandle::new(StoreParts {
            cluster_id,
            api_version,
            engine,
            gc,
            views,
            mailbox,
            snapshots,
            clock,
            metrics,
        });
        let (closing, _) = watch::channel(false);
        Self { store, threads: Some(threads), closing, api }
    }

    /// A client on a connection of its own.
    async fn client(&self) -> TikvClient<Channel> {
        TikvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    async fn channel(&self) -> Channel {
        let (near, far) = tokio::io::duplex(1 << 20);
        let host = PlacementHost::new(self.store.clone(), Settings::default());
        let remote = Remote::new(self.store.cluster_id(), Box::new(Vec::new));
        let link = PlacementLink::new(host, remote);
        let resolver: Resolver = Arc::new(|_| Box::pin(async { None }));
        let txn = TxnService::new(self.store.clone(), link.clone(), resolver);
        let service = super::service(self.store.clone(), link, txn, self.closing.subscribe());
        let service = super::server(Arc::new(service));
        let router = Routes::new(service).into_axum_router();
        let server = Server::builder().add_routes(Routes::from(router));
        let incoming = tokio_stream::iter([Ok::<_, std::io::Error>(far)]);
        tokio::spawn(server.serve_with_incoming(incoming));
        let mut near = Some(near);
        let connector = tower::service_fn(move |_| {
            let near = near.take().map(TokioIo::new);
            async move { near.ok_or_else(|| std::io::Error::other("one connection only")) }
        });
        let endpoint = Endpoint::from_static("http://node");
        endpoint.connect_with_connector(connector).await.expect("in memory")
    }

    /// A context that is right in everything.
    fn context(&self) -> Option<Context> {
        let peer = metapb::Peer { id: PEER.0, store_id: STORE.0, ..Default::default() };
        Some(Context {
            region_id: REGION.0,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peer: Some(peer),
            api_version: if self.api == ApiVersion::V2 { 2 } else { 0 },
            ..Default::default()
        })
    }

    /// A key as a client of this mode spells it.
    fn key(&self, name: &str) -> Bytes {
        match self.api {
            ApiVersion::V2 => [b"r\0\0\x01", name.as_bytes()].concat().into(),
            ApiVersion::V1 | ApiVersion::V1Ttl => Bytes::copy_from_slice(name.as_bytes()),
        }
    }

    fn get(&self, name: &str) -> kvrpcpb::RawGetRequest {
        let (context, key) = (self.context(), self.key(name));
        kvrpcpb::RawGetRequest { context, key, ..Default::default() }
    }

    fn put(&self, name: &str, value: impl Into<Bytes>) -> kvrpcpb::RawPutRequest {
        let (context, key, value) = (self.context(), self.key(name), value.into());
        kvrpcpb::RawPutRequest { context, key, value, ..Default::default() }
    }

    fn scan(&self, start: &str, end: &str, limit: u32) -> kvrpcpb::RawScanRequest {
        let (start_key, end_key) = (self.key(start), self.key(end));
        let context = self.context();
        kvrpcpb::RawScanRequest { context, start_key, end_key, limit, ..Default::default() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
    }
}

fn open_log() -> RaftLog {
    let disk = Arc::new(MemoryDisk::new());
    RaftLog::open(disk, Path::new("log"), LogOptions::default()).expect("an empty disk")
}

/// What the first start leaves behind.
fn found(engine: &dyn Engine, log: &mut RaftLog, api: ApiVersion, region: &Region) {
    let api_version = i32::from(api.number());
    let ident = StoreIdent { cluster_id: CLUSTER, store_id: STORE, api_version };
    bootstrap::bootstrap_store(engine, &ident).expect("an empty engine");
    bootstrap::prepare_region(engine, region).expect("memory");
    let mut batch = LogBatch::new();
    bootstrap::initial_log(&mut batch, region.id);
    log.write(&batch).and_then(|()| log.sync()).expect("memory");
    bootstrap::clear_prepared(engine).expect("memory");
}
