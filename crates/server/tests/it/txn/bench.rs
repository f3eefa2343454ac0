//! A cluster and what a client of it needs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use pontoon_server::{Config, Interval, Node};
use proto::kvrpcpb::{self, Context, Mutation, Op};
use proto::pdpb::pd_client::PdClient;
use proto::tikvpb::tikv_client::TikvClient;
use proto::{metapb, pdpb};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::patience::until;

/// A time to live that no test outlives.
pub const TTL_MS: u64 = 3_600_000;

pub fn config(name: &str, join: Option<SocketAddr>) -> Config {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("txn-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    let mut config = Config { data_dir: folder, ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.join = join.iter().map(SocketAddr::to_string).collect();
    config.raft.safe_ts_interval = Interval(Duration::from_millis(200));
    config
}

/// A client of one store, for the region that it leads.
#[derive(Clone)]
pub struct Client {
    pub kv: TikvClient<Channel>,
    pub pd: PdClient<Channel>,
    pub context: Context,
    pub cluster_id: u64,
}

/// One node, and a client of it.
pub async fn one_node(name: &str) -> (Node, Client) {
    let node = Node::open(config(name, None)).await.unwrap();
    let client = Client::of(&node, &node, b"").await;
    (node, client)
}

impl Client {
    /// Of the region with this key, whose leader is `store`.
    pub async fn of(placement: &Node, store: &Node, region_key: &[u8]) -> Self {
        let mut pd = PdClient::connect(format!("http://{}", placement.address())).await.unwrap();
        let kv = TikvClient::connect(format!("http://{}", store.address())).await.unwrap();
        let cluster_id = placement.cluster_id().0;
        let header = Some(pdpb::RequestHeader { cluster_id, ..Default::default() });
        let region_key = region_key.to_vec().into();
        let request = pdpb::GetRegionRequest { header, region_key, ..Default::default() };
        let answer = pd.get_region(request).await.unwrap().into_inner();
        let region: metapb::Region = answer.region.unwrap();
        let context = Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: region.peers.iter().find(|peer| peer.store_id == store.store_id().0).copied(),
            ..Default::default()
        };
        Self { kv, pd, context, cluster_id }
    }

    pub fn context(&self) -> Option<Context> {
        Some(self.context.clone())
    }

    /// A timestamp.
    pub async fn ts(&mut self) -> u64 {
        let header =
            Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() });
        let request = pdpb::GetMinTsRequest { header };
        let ts = self.pd.get_min_ts(request).await.unwrap().into_inner().timestamp.unwrap();
        (ts.physical as u64) << 18 | ts.logical as u64
    }

    pub async fn get(&mut self, key: &str, version: u64) -> kvrpcpb::GetResponse {
        let key = key.to_owned().into();
        let request =
            kvrpcpb::GetRequest { context: self.context(), key, version, ..Default::default() };
        self.kv.kv_get(request).await.unwrap().into_inner()
    }

    /// The value, of a read that must succeed.
    pub async fn value(&mut self, key: &str, version: u64) -> Option<String> {
        let answer = self.get(key, version).await;
        assert_eq!((&answer.region_error, &answer.error), (&None, &None), "{key}");
        let value = String::from_utf8(answer.value.to_vec()).unwrap();
        (!answer.not_found).then_some(value)
    }

    pub async fn prewrite(
        &mut self,
        request: kvrpcpb::PrewriteRequest,
    ) -> kvrpcpb::PrewriteResponse {
        let request = kvrpcpb::PrewriteRequest { context: self.context(), ..request };
        self.kv.kv_prewrite(request).await.unwrap().into_inner()
    }

    pub async fn commit(&mut self, keys: &[&str], start: u64, at: u64) -> kvrpcpb::CommitResponse {
        let request = kvrpcpb::CommitRequest {
            context: self.context(),
            start_version: start,
            keys: self::keys(keys),
            commit_version: at,
            ..Default::default()
        };
        self.kv.kv_commit(request).await.unwrap().into_inner()
    }

    /// Writes in two phases, and says when it was committed.
    pub async fn put(&mut self, key: &str, value: &str) -> u64 {
        let start = self.ts().await;
        let done = self.prewrite(prewrite(start, &[(key, value)])).await;
        assert_eq!(done, kvrpcpb::PrewriteResponse::default());
        let at = self.ts().await;
        let done = self.commit(&[key], start, at).await;
        assert_eq!((done.region_error, done.error), (None, None));
        at
    }

    pub async fn lock(
        &mut self,
        request: kvrpcpb::PessimisticLockRequest,
    ) -> kvrpcpb::PessimisticLockResponse {
        let request = kvrpcpb::PessimisticLockRequest { context: self.context(), ..request };
        self.kv.kv_pessimistic_lock(request).await.unwrap().into_inner()
    }

    pub async fn unlock(&mut self, keys: &[&str], start: u64, for_update: u64) {
        let request = kvrpcpb::PessimisticRollbackRequest {
            context: self.context(),
            start_version: start,
            for_update_ts: for_update,
            keys: self::keys(keys),
        };
        let answer = self.kv.kv_pessimistic_rollback(request).await.unwrap().into_inner();
        assert_eq!(answer, kvrpcpb::PessimisticRollbackResponse::default());
    }
}

pub fn keys(keys: &[&str]) -> Vec<bytes::Bytes> {
    keys.iter().map(|key| key.to_string().into()).collect()
}

pub fn mutation(op: Op, key: &str, value: &str) -> Mutation {
    Mutation {
        op: op.into(),
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

/// An optimistic prewrite of puts; the first key is the primary.
pub fn prewrite(start: u64, pairs: &[(&str, &str)]) -> kvrpcpb::PrewriteRequest {
    kvrpcpb::PrewriteRequest {
        mutations: pairs.iter().map(|(key, value)| mutation(Op::Put, key, value)).collect(),
        primary_lock: pairs[0].0.to_owned().into(),
        start_version: start,
        lock_ttl: TTL_MS,
        txn_size: pairs.len() as u64,
        ..Default::default()
    }
}

/// A request for pessimistic locks; the first key is the primary.
pub fn lock(start: u64, for_update: u64, keys: &[&str]) -> kvrpcpb::PessimisticLockRequest {
    kvrpcpb::PessimisticLockRequest {
        mutations: keys.iter().map(|key| mutation(Op::PessimisticLock, key, "")).collect(),
        primary_lock: keys[0].to_owned().into(),
        start_version: start,
        lock_ttl: TTL_MS,
        for_update_ts: for_update,
        ..Default::default()
    }
}

/// Waits until so many wait for a lock on the store.
pub async fn waiting(client: &mut Client, count: usize) {
    until("they wait", async || {
        let request = kvrpcpb::GetLockWaitInfoRequest { context: None };
        let info = client.kv.get_lock_wait_info(request).await.unwrap().into_inner();
        info.entries.len() == count
    })
    .await;
}

/// All regions, as placement knows them.
pub async fn regions(pd: &mut PdClient<Channel>, cluster_id: u64) -> Vec<pdpb::Region> {
    let header = Some(pdpb::RequestHeader { cluster_id, ..Default::default() });
    let request = pdpb::ScanRegionsRequest { header, ..Default::default() };
    pd.scan_regions(request).await.unwrap().into_inner().regions
}

/// Has placement do something with a region. Refused if it is at work on it already.
pub async fn operator(placement: &Node, body: &str) {
    post(placement, "/pd/api/v1/operators", body).await;
}

/// Sends a JSON text; returns the status and what follows.
pub async fn post(node: &Node, path: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(node.address()).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer}")), answer)
}
