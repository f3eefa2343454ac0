//! Several nodes in one cluster: joining, replicas, a node that goes, what those say that do not
//! lead.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::patience::eventually;
use futures_util::{StreamExt, stream};
use pontoon_server::{ApiVersionName, Config, JoinError, Node, StartError};
use proto::pdpb::pd_client::PdClient;
use proto::tikvpb::tikv_client::TikvClient;
use proto::{kvrpcpb, metapb, pdpb};
use tonic::Code;
use tonic::transport::Channel;

fn folder(name: &str, number: usize) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{name}-{number}"));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn config(folder: &Path, join: &[SocketAddr]) -> Config {
    let mut config = Config { data_dir: folder.to_owned(), ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.join = join.iter().map(SocketAddr::to_string).collect();
    config.join_timeout_s = 20;
    config
}

struct Cluster {
    nodes: Vec<Option<Node>>,
    addresses: Vec<SocketAddr>,
    folders: Vec<PathBuf>,
    cluster_id: u64,
}

impl Cluster {
    async fn start(name: &str, count: usize) -> Self {
        let mut cluster = Self { nodes: vec![], addresses: vec![], folders: vec![], cluster_id: 0 };
        for number in 1..=count {
            let folder = folder(name, number);
            let join = cluster.addresses.first().copied();
            let node = Node::open(config(&folder, join.as_slice())).await.unwrap();
            assert_eq!(cluster.addresses.len() + 1, number);
            cluster.cluster_id = node.cluster_id().0;
            cluster.addresses.push(node.address());
            cluster.nodes.push(Some(node));
            cluster.folders.push(folder);
        }
        cluster
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() })
    }

    /// Clients of the nodes that run.
    async fn clients(&self) -> Vec<PdClient<Channel>> {
        let mut clients = Vec::new();
        for (node, address) in self.nodes.iter().zip(&self.addresses) {
            if node.is_some() {
                clients.push(PdClient::connect(format!("http://{address}")).await.unwrap());
            }
        }
        clients
    }

    /// The leader, as any node that runs tells it.
    async fn leader(&self) -> Option<(PdClient<Channel>, pdpb::GetMembersResponse)> {
        for mut client in self.clients().await {
            let Ok(members) = client.get_members(pdpb::GetMembersRequest::default()).await else {
                continue;
            };
            let members = members.into_inner();
            let Some(leader) = &members.leader else { continue };
            let Ok(client) = PdClient::connect(leader.client_urls[0].clone()).await else {
                continue;
            };
            return Some((client, members));
        }
        None
    }

    async fn region(&self) -> Option<pdpb::GetRegionResponse> {
        let (mut pd, _) = self.leader().await?;
        let request = pdpb::GetRegionRequest { header: self.header(), ..Default::default() };
        Some(pd.get_region(request).await.ok()?.into_inner())
    }

    /// A timestamp, as soon as somebody gives one.
    async fn timestamp(&self) -> u64 {
        eventually("a timestamp", async || {
            let (mut pd, _) = self.leader().await?;
            let request =
                pdpb::TsoRequest { header: self.header(), count: 1, ..Default::default() };
            let mut answers = pd.tso(stream::iter([request])).await.ok()?.into_inner();
            let answer = tokio::time::timeout(Duration::from_secs(2), answers.next()).await;
            let ts = answer.ok()??.ok()?.timestamp?;
            Some((u64::try_from(ts.physical).unwrap() << 18) + u64::try_from(ts.logical).unwrap())
        })
        .await
    }

    /// Where the region is led, and a context for calls there.
    async fn route(&self) -> Option<(TikvClient<Channel>, kvrpcpb::Context)> {
        let region = self.region().await?;
        let (meta, leader) = (region.region?, region.leader?);
        let (mut pd, _) = self.leader().await?;
        let request = pdpb::GetStoreRequest { header: self.header(), store_id: leader.store_id };
        let store = pd.get_store(request).await.ok()?.into_inner().store?;
        let client = TikvClient::connect(format!("http://{}", store.address)).await.ok()?;
        let context = kvrpcpb::Context {
            region_id: meta.id,
            region_epoch: meta.region_epoch,
            peer: Some(leader),
            ..Default::default()
        };
        Some((client, context))
    }

    async fn put(&self, key: &'static str, value: &'static str) {
        eventually("a put", async || {
            let (mut client, context) = self.route().await?;
            let (key, value) = (key.into(), value.into());
            let context = Some(context);
            let request = kvrpcpb::RawPutRequest { context, key, value, ..Default::default() };
            let call = tokio::time::timeout(Duration::from_secs(2), client.raw_put(request));
            let answer = call.await.ok()?.ok()?.into_inner();
            (answer.region_error.is_none() && answer.error.is_empty()).then_some(())
        })
        .await;
    }

    async fn get(&self, key: &'static str) -> Vec<u8> {
        eventually("a get", async || {
            let (mut client, context) = self.route().await?;
            let (context, key) = (Some(context), key.into());
            let request = kvrpcpb::RawGetRequest { context, key, ..Default::default() };
            let call = tokio::time::timeout(Duration::from_secs(2), client.raw_get(request));
            let answer = call.await.ok()?.ok()?.into_inner();
            answer.region_error.is_none().then(|| answer.value.to_vec())
        })
        .await
    }

    /// Until the first region and the system region have so many voters each.
    async fn wait_for_voters(&self, count: usize) {
        eventually("replicas", async || {
            let region = self.region().await?.region?;
            let is_voter = |peer: &&metapb::Peer| peer.role() == metapb::PeerRole::Voter;
            let voters = region.peers.iter().filter(is_voter).count();
            // The placement driver's region grows by itself; a learner is a member already.
            let system = format!("GET /pd/api/v1/region/id/{}", u64::MAX);
            let (_, system) = http(self.addresses[0], &system).await;
            let system: serde_json::Value = serde_json::from_str(&system).ok()?;
            let is_voter = |peer: &&serde_json::Value| peer["role_name"] == "Voter";
            let members = system["peers"].as_array()?.iter().filter(is_voter).count();
            (voters == count && members == count).then_some(())
        })
        .await;
    }

    /// The node that leads the placement driver.
    async fn leading(&self) -> usize {
        let (_, members) = eventually("a leader", async || self.leader().await).await;
        let id = members.leader.unwrap().member_id;
        let is_it = |node: &Option<Node>| node.as_ref().is_some_and(|n| n.store_id().0 == id);
        self.nodes.iter().position(is_it).unwrap()
    }

    async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
        self.folders.iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_go_on_without_any_one() {
    let mut cluster = Cluster::start("three", 3).await;
    cluster.put("before", "1").await;
    cluster.wait_for_voters(3).await;
    let mut last = cluster.timestamp().await;
    for round in 0..2 {
        let leading = cluster.leading().await;
        cluster.nodes[leading].take().unwrap().stop().await;
        let next = cluster.timestamp().await;
        assert!(next > last, "round {round}: {next} after {last}");
        last = next;
        cluster.put("key", if round == 0 { "2" } else { "3" }).await;
        assert_eq!(cluster.get("before").await, b"1");
        // It comes back without being told whom to join, at the address it had.
        let mut config = config(&cluster.folders[leading], &[]);
        config.listen = cluster.addresses[leading];
        let node = eventually("the address", async || Node::open(config.clone()).await.ok()).await;
        cluster.nodes[leading] = Some(node);
        assert_eq!(cluster.get("key").await, if round == 0 { b"2" } else { b"3" });
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_lead_says_who_does_and_refuses_the_rest() {
    let cluster = Cluster::start("follower", 2).await;
    eventually("a second member", async || {
        let (_, members) = cluster.leader().await?;
        (members.members.len() == 2).then_some(())
    })
    .await;
    let mut clients = cluster.clients().await;
    let mut follower = clients.pop().unwrap();
    let leader = format!("http://{}", cluster.addresses[0]);
    let told = eventually("the leader's name", async || {
        let members = follower.get_members(pdpb::GetMembersRequest::default()).await.ok()?;
        members.into_inner().leader
    })
    .await;
    assert_eq!((told.member_id, told.client_urls), (1, vec![leader]));

    let request = pdpb::GetRegionRequest { header: cluster.header(), ..Default::default() };
    let status = follower.get_region(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not leader"));
    let request = pdpb::TsoRequest { header: cluster.header(), count: 1, ..Default::default() };
    let requests = stream::iter([request]).chain(stream::pending());
    let mut answers = follower.tso(requests).await.unwrap().into_inner();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not leader"));
    let info = follower.get_cluster_info(pdpb::GetClusterInfoRequest::default()).await.unwrap();
    assert_eq!(info.into_inner().service_modes, [1]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_join_says_why_and_writes_nothing() {
    let cluster = Cluster::start("refusals", 1).await;
    let target = cluster.addresses[0];
    let alone = folder("refusals-alone", 1);
    let refusal = |config: Config| async move {
        match Node::open(config).await {
            Err(StartError::Join(error)) => error,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it joined"),
        }
    };

    let mut wrong = config(&alone, &[target]);
    wrong.storage.api_version = ApiVersionName::V2;
    let error = refusal(wrong).await;
    let text = error.to_string();
    assert!(matches!(error, JoinError::ApiVersion { .. }), "{text}");
    assert!(text.contains("V1") && text.contains("V2") && text.contains(&target.to_string()));

    let mut wrong = config(&alone, &[target]);
    wrong.advertise = Some(target.to_string());
    let error = refusal(wrong).await;
    assert!(matches!(error, JoinError::Itself(_)), "{error}");

    let mut wrong = config(&alone, &[]);
    wrong.join = vec!["127.0.0.1:1".to_owned()];
    wrong.join_timeout_s = 1;
    let error = refusal(wrong).await;
    let text = error.to_string();
    assert!(
        text.starts_with("no member of a cluster answered at 127.0.0.1:1 within 1 s"),
        "{text}"
    );

    // The folder is as good as new: it founds a cluster, which then cannot become another.
    let other = Node::open(config(&alone, &[])).await.unwrap();
    let theirs = other.cluster_id();
    other.stop().await;
    let error = refusal(config(&alone, &[target])).await;
    let text = error.to_string();
    assert!(matches!(error, JoinError::OtherCluster { .. }), "{text}");
    for id in [theirs.0, cluster.cluster_id] {
        assert!(text.contains(&id.to_string()), "{text}");
    }
    std::fs::remove_dir_all(alone).unwrap();
    cluster.stop().await;
}

/// Sends a request to the HTTP half of a node's port; returns the status and the body.
async fn http(address: SocketAddr, request: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_leaves_leaders_behind() {
    let mut cluster = Cluster::start("leaves", 3).await;
    cluster.wait_for_voters(3).await;
    cluster.put("key", "1").await;
    for _ in 0..2 {
        let leading = cluster.leading().await;
        let node = cluster.nodes[leading].take().unwrap();
        let id = node.store_id().0;
        node.stop().await;
        // Nobody waits for an election: whoever is asked at once names another leader.
        let (_, members) = cluster.leader().await.expect("a leader, at once");
        assert_ne!(members.leader.unwrap().member_id, id);
        let mut config = config(&cluster.folders[leading], &[]);
        config.listen = cluster.addresses[leading];
        let node = eventually("the address", async || Node::open(config.clone()).await.ok()).await;
        cluster.nodes[leading] = Some(node);
    }
    assert_eq!(cluster.get("key").await, b"1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_joins_as_another_store() {
    let mut cluster = Cluster::start("wiped", 3).await;
    cluster.put("key", "1").await;
    cluster.wait_for_voters(3).await;
    let victim = cluster.nodes.pop().unwrap().unwrap();
    let (old, address) = (victim.store_id().0, cluster.addresses.pop().unwrap());
    victim.stop().await;
    let mut config = config(&folder("wiped", 3), &cluster.addresses[..1]);
    config.listen = address;
    let refused = eventually("a refusal", async || match Node::open(config.clone()).await {
        Err(StartError::Join(error)) => Some(error),
        Err(_) => None,
        Ok(_) => panic!("two stores at one address"),
    })
    .await;
    assert!(matches!(refused, JoinError::Address { store, .. } if store == old), "{refused}");

    let leading = cluster.leading().await;
    let at = cluster.addresses[leading];
    let (status, body) = http(at, &format!("DELETE /pd/api/v1/store/{old}")).await;
    assert_eq!(status, 400, "two stores cannot hold three copies: {body}");
    let (status, body) = http(at, &format!("DELETE /pd/api/v1/store/{old}?force=true")).await;
    assert_eq!(status, 200, "{body}");
    let node = eventually("the address", async || Node::open(config.clone()).await.ok()).await;
    assert_ne!(node.store_id().0, old);
    cluster.nodes.push(Some(node));
    cluster.addresses.push(address);
    eventually("a tombstone", async || {
        let (mut pd, _) = cluster.leader().await?;
        let request = pdpb::GetStoreRequest { header: cluster.header(), store_id: old };
        let store = pd.get_store(request).await.ok()?.into_inner().store?;
        (store.state() == metapb::StoreState::Tombstone).then_some(())
    })
    .await;
    cluster.wait_for_voters(3).await;
    assert_eq!(cluster.get("key").await, b"1");
    cluster.stop().await;
}
