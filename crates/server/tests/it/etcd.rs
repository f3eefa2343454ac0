//! etcd's services over gRPC: on one node, on nodes that do not lead, and through a change of
//! leader. The rules themselves are tested in the crate `placement`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::patience::{PATIENCE, eventually};
use futures_util::{StreamExt, future};
use pontoon_server::{Config, Node};
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    AlarmRequest, AuthStatusRequest, AuthenticateRequest, CompactionRequest, HashKvRequest,
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MemberAddRequest,
    MemberListRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const SAFE_POINT: &str = "/tidb/store/gcworker/saved_safe_point";

/// Nodes of one cluster, on folders of their own.
struct Cluster {
    nodes: Vec<Option<Node>>,
    addresses: Vec<SocketAddr>,
    folders: Vec<PathBuf>,
}

fn config(folder: &Path, listen: SocketAddr, join: &[SocketAddr]) -> Config {
    let mut config = Config { data_dir: folder.to_owned(), listen, ..Config::default() };
    config.join = join.iter().map(SocketAddr::to_string).collect();
    config.join_timeout_s = 20;
    config
}

impl Cluster {
    async fn start(name: &str, count: usize) -> Self {
        let mut cluster = Self { nodes: vec![], addresses: vec![], folders: vec![] };
        for number in 1..=count {
            let folder =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("etcd-{name}-{number}"));
            let _ = std::fs::remove_dir_all(&folder);
            let join = cluster.addresses.first().copied();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let node = Node::open(config(&folder, any, join.as_slice())).await.unwrap();
            cluster.addresses.push(node.address());
            cluster.nodes.push(Some(node));
            cluster.folders.push(folder);
        }
        cluster
    }

    async fn restart(&mut self, number: usize) {
        if let Some(node) = self.nodes[number].take() {
            node.stop().await;
        }
        let config = config(&self.folders[number], self.addresses[number], &[]);
        let node = eventually("the address", async || Node::open(config.clone()).await.ok()).await;
        self.nodes[number] = Some(node);
    }

    async fn client(&self, number: usize) -> Client {
        let url = format!("http://{}", self.addresses[number]);
        Client { channel: Channel::from_shared(url).unwrap().connect().await.unwrap() }
    }

    /// The number of the node that leads, once so many members vote.
    async fn leader(&self, voters: usize) -> usize {
        let leader = eventually("a leader", async || {
            let up = self.nodes.iter().position(Option::is_some).unwrap();
            let mut client = self.client(up).await;
            let list = client.cluster().member_list(MemberListRequest::default()).await.ok()?;
            let status = client.maintenance().status(StatusRequest {}).await.ok()?.into_inner();
            let members = list.into_inner().members;
            let all_vote = members.iter().filter(|member| !member.is_learner).count() == voters;
            (all_vote && status.leader != 0).then_some(status.leader)
        })
        .await;
        let is_it = |node: &Option<Node>| node.as_ref().is_some_and(|n| n.store_id().0 == leader);
        self.nodes.iter().position(is_it).unwrap()
    }

    async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
        self.folders.iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    }
}

/// A connection to one node.
#[derive(Clone)]
struct Client {
    channel: Channel,
}

impl Client {
    fn kv(&mut self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&mut self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn cluster(&mut self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    fn maintenance(&mut self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// The revision of a put.
    async fn put(&mut self, key: &str, value: &str, lease: i64) -> Result<i64, Status> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = PutRequest { key, value, lease, ..Default::default() };
        Ok(self.kv().put(request).await?.into_inner().header.unwrap().revision)
    }

    async fn get(&mut self, key: &str) -> Result<Option<String>, Status> {
        let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let response = self.kv().range(request).await?.into_inner();
        let value = response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
        Ok(value)
    }

    async fn grant(&mut self, ttl: i64) -> i64 {
        let request = LeaseGrantRequest { ttl, id: 0 };
        self.lease().lease_grant(request).await.unwrap().into_inner().id
    }

    /// Watches everything under a prefix from a revision on, 0: from now on.
    async fn watch(&mut self, prefix: &str, start_revision: i64) -> Result<Watch, Status> {
        let (requests, outbound) = mpsc::channel(4);
        let mut range_end = prefix.as_bytes().to_vec();
        *range_end.last_mut().unwrap() += 1;
        let create = WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: range_end.into(),
            start_revision,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        requests.send(WatchRequest { request_union }).await.unwrap();
        let mut client = WatchClient::new(self.channel.clone());
        let mut answers = client.watch(ReceiverStream::new(outbound)).await?.into_inner();
        let created = answers.next().await.unwrap()?;
        assert!(created.created && !created.canceled, "{created:?}");
        Ok(Watch { requests, answers })
    }
}

struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.answers.next()).await;
        next.expect("nothing is told").expect("the stream ended without a status")
    }

    /// The next events until there are so many: revision, and whether it is a put.
    async fn events(&mut self, count: usize) -> Vec<(i64, bool)> {
        let mut events = Vec::new();
        while events.len() < count {
            for event in self.next().await.unwrap().events {
                let is_put = event.r#type() == EventType::Put;
                events.push((event.kv.unwrap().mod_revision, is_put));
            }
        }
        events
    }
}

fn refusal(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_answers_like_an_etcd_of_one_member() {
    let cluster = Cluster::start("one", 1).await;
    let mut client = cluster.client(0).await;
    let request = RangeRequest { key: SAFE_POINT.into(), ..Default::default() };
    let empty = client.kv().range(request).await.unwrap().into_inner();
    assert!(empty.kvs.is_empty() && empty.count == 0);
    let header = empty.header.unwrap();
    let node = cluster.nodes[0].as_ref().unwrap();
    assert_eq!((header.cluster_id, header.member_id), (node.cluster_id().0, node.store_id().0));
    assert!(header.revision == 1 && header.raft_term > 0);

    let list = client.cluster().member_list(MemberListRequest::default()).await.unwrap();
    let member = list.into_inner().members.remove(0);
    assert_eq!(member.client_ur_ls, [format!("http://{}", cluster.addresses[0])]);
    let status = client.cluster().member_add(MemberAddRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    client.put("a", "1", 0).await.unwrap();
    let status = client.maintenance().status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.version.as_str()), (member.id, "3.5.0"));
    assert!(status.db_size > 0 && status.errors.is_empty() && status.raft_applied_index > 0);
    let alarms = client.maintenance().alarm(AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty());
    let hash = client.maintenance().hash_kv(HashKvRequest::default()).await.unwrap().into_inner();
    assert_ne!(hash.hash, 0);
    let mut auth = AuthClient::new(client.channel.clone());
    assert!(!auth.auth_status(AuthStatusRequest {}).await.unwrap().into_inner().enabled);
    let status = auth.authenticate(AuthenticateRequest::default()).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: authentication is not enabled");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_statuses_in_the_words_of_etcd() {
    let cluster = Cluster::start("refusals", 1).await;
    let mut client = cluster.client(0).await;
    let status = client.put("", "1", 0).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let status = client.put("a", "1", 99).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::NotFound, "etcdserver: requested lease not found"));
    let status = client.put("a", &"x".repeat(2_000_000), 0).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::InvalidArgument, "etcdserver: request is too large"));
    for value in ["1", "2", "3"] {
        client.put("a", value, 0).await.unwrap();
    }
    let compact = |revision| CompactionRequest { revision, physical: false };
    client.kv().compact(compact(3)).await.unwrap();
    let old = RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
    let text = "etcdserver: mvcc: required revision has been compacted";
    let status = client.kv().range(old).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::OutOfRange, text));
    let status = client.kv().compact(compact(2)).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::OutOfRange, text));
    let mut watch = client.watch("a", 2).await.unwrap();
    let told = watch.next().await.unwrap();
    assert!(told.canceled && told.compact_revision == 3);

    let put = |key: &'static str| {
        let request = PutRequest { key: key.into(), value: "1".into(), ..Default::default() };
        RequestOp { request: Some(Op::RequestPut(request)) }
    };
    let twice = TxnRequest { success: vec![put("b"), put("b")], ..Default::default() };
    let status = client.kv().txn(twice).await.unwrap_err();
    let text = "etcdserver: duplicate key given in txn request";
    assert_eq!(refusal(&status), (Code::InvalidArgument, text));
    let txn = TxnRequest { success: vec![put("b"), put("c")], ..Default::default() };
    assert!(client.kv().txn(txn).await.unwrap().into_inner().succeeded);
    assert_eq!(client.get("c").await.unwrap().unwrap(), "1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_write_at_once_and_a_watch_hears_each_once() {
    const WRITERS: usize = 8;
    const PUTS: usize = 40;
    let mut cluster = Cluster::start("many", 1).await;
    let mut client = cluster.client(0).await;
    let mut watch = client.watch("k", 0).await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let mut client = client.clone();
        async move {
            let mut revisions = Vec::new();
            for i in 0..PUTS {
                revisions.push(client.put(&format!("k{writer}"), &i.to_string(), 0).await.unwrap());
            }
            assert!(revisions.is_sorted());
            revisions
        }
    });
    let mut written: Vec<i64> = future::join_all(writers).await.concat();
    written.sort_unstable();
    let all: Vec<i64> = (2..2 + (WRITERS * PUTS) as i64).collect();
    assert_eq!(written, all, "each has a revision of its own, and there are no others");
    let expected: Vec<_> = all.iter().map(|revision| (*revision, true)).collect();
    assert_eq!(watch.events(expected.len()).await, expected);
    let request_union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    watch.requests.send(WatchRequest { request_union }).await.unwrap();
    let progress = watch.next().await.unwrap();
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, *all.last().unwrap()));

    cluster.restart(0).await;
    let status = watch.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let mut client = cluster.client(0).await;
    let mut watch = client.watch("k", 2).await.unwrap();
    assert_eq!(watch.events(expected.len()).await, expected, "history outlives a restart");
    assert_eq!(client.put("k", "", 0).await.unwrap(), all.last().unwrap() + 1);
    cluster.stop().await;
}

/// Renews a lease so many times; returns the times to live that it was told.
async fn keep_alive(client: &mut Client, id: i64, times: usize) -> Vec<i64> {
    let (requests, outbound) = mpsc::channel(1);
    requests.send(LeaseKeepAliveRequest { id }).await.unwrap();
    let answers = client.lease().lease_keep_alive(ReceiverStream::new(outbound)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut told = Vec::new();
    for _ in 0..times {
        told.push(answers.next().await.unwrap().unwrap().ttl);
        requests.send(LeaseKeepAliveRequest { id }).await.unwrap();
    }
    drop(requests);
    assert!(answers.next().await.is_some(), "each message is answered");
    assert!(answers.next().await.is_none(), "ends with OK after the client's half");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_runs_out_unless_it_is_renewed() {
    let cluster = Cluster::start("leases", 1).await;
    let mut client = cluster.client(0).await;
    let (short, long) = (client.grant(2).await, client.grant(600).await);
    let mut watch = client.watch("k", 0).await.unwrap();
    let granted = Instant::now();
    client.put("k/short", "1", short).await.unwrap();
    client.put("k/long", "1", long).await.unwrap();
    assert_eq!(keep_alive(&mut client, short, 3).await, [2, 2, 2]);
    assert_eq!(watch.events(3).await, [(2, true), (3, true), (4, false)]);
    assert!(granted.elapsed() >= Duration::from_secs(2), "{:?}", granted.elapsed());
    assert_eq!(client.get("k/short").await.unwrap(), None);
    assert_eq!(keep_alive(&mut client, short, 1).await, [0], "it is gone");
    let request = LeaseTimeToLiveRequest { id: long, keys: true };
    let left = client.lease().lease_time_to_live(request).await.unwrap().into_inner();
    assert!((590..=600).contains(&left.ttl) && left.granted_ttl == 600 && left.keys == ["k/long"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_serves_and_a_change_of_leader_loses_nothing() {
    let mut cluster = Cluster::start("any", 4).await;
    let leader = cluster.leader(3).await;
    // One of the four is no member; all of them pass on what they cannot answer.
    let mut last = 1;
    for number in 0..4 {
        let mut client = cluster.client(number).await;
        let revision = client.put("k", &number.to_string(), 0).await.unwrap();
        assert_eq!(revision, last + 1, "through node {number}");
        last = revision;
        for reader in 0..4 {
            let value = cluster.client(reader).await.get("k").await.unwrap();
            assert_eq!(value.unwrap(), number.to_string(), "{reader} after {number}");
        }
        let status = client.maintenance().status(StatusRequest {}).await.unwrap().into_inner();
        let leads = cluster.nodes[leader].as_ref().unwrap().store_id().0;
        assert_eq!(status.leader, leads, "told by node {number}");
    }
    let others: Vec<usize> = (0..4).filter(|number| *number != leader).collect();
    let mut client = cluster.client(others[0]).await;
    let lease = client.grant(600).await;
    assert_eq!(keep_alive(&mut client, lease, 2).await, [600, 600]);
    let mut watch = client.watch("k", 2).await.unwrap();
    last = client.put("k/leased", "1", lease).await.unwrap();
    let expected: Vec<_> = (2..=last).map(|revision| (revision, true)).collect();
    assert_eq!(watch.events(expected.len()).await, expected);

    cluster.nodes[leader].take().unwrap().stop().await;
    let status = watch.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let mut client = cluster.client(others[1]).await;
    let next = eventually("a put", async || client.put("k", "after", 0).await.ok()).await;
    assert!(next > last);
    let mut watch = client.watch("k", last + 1).await.unwrap();
    let heard = watch.events(1).await;
    assert_eq!(heard[0], (last + 1, true), "the first event after the last that was heard");
    let request = LeaseTimeToLiveRequest { id: lease, keys: true };
    let left = client.lease().lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((left.keys, left.granted_ttl), (vec!["k/leased".into()], 600));
    cluster.stop().await;
}
