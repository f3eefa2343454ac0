//! Reads at replicas that do not lead, as clients ask for them; and connections on which nobody is
//! any more.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::patience::{PATIENCE, eventually};
use pontoon_server::{Config, Interval, Node};
use proto::pdpb::pd_client::PdClient;
use proto::tikvpb::tikv_client::TikvClient;
use proto::{kvrpcpb, pdpb};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;

fn config(name: &str, join: Option<SocketAddr>) -> Config {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reads-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    let mut config = Config { data_dir: folder, ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.join = join.iter().map(SocketAddr::to_string).collect();
    config.raft.safe_ts_interval = Interval(Duration::from_millis(200));
    config
}

/// The region once it has three voters, and a client of each node in the order of store ids.
async fn three_voters(nodes: &[Node]) -> (pdpb::GetRegionResponse, Vec<TikvClient<Channel>>) {
    let header =
        Some(pdpb::RequestHeader { cluster_id: nodes[0].cluster_id().0, ..Default::default() });
    let region = eventually("three voters", async || {
        let mut pd = PdClient::connect(format!("http://{}", nodes[0].address())).await.ok()?;
        let request = pdpb::GetRegionRequest { header: header.clone(), ..Default::default() };
        let region = pd.get_region(request).await.ok()?.into_inner();
        let peers = &region.region.as_ref()?.peers;
        (peers.len() == 3 && peers.iter().all(|peer| peer.role == 0)).then_some(region)
    });
    let region = region.await;
    let mut clients = Vec::new();
    for node in nodes {
        clients.push(TikvClient::connect(format!("http://{}", node.address())).await.unwrap());
    }
    (region, clients)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_answers_if_it_is_asked_to() {
    let first = Node::open(config("1", None)).await.unwrap();
    let join = Some(first.address());
    let second = Node::open(config("2", join)).await.unwrap();
    let third = Node::open(config("3", join)).await.unwrap();
    let nodes = [first, second, third];
    let (region, mut clients) = three_voters(&nodes).await;
    let (meta, leader) = (region.region.unwrap(), region.leader.unwrap());
    for peer in &meta.peers {
        let place = nodes.iter().position(|node| node.store_id().0 == peer.store_id).unwrap();
        let mut context = kvrpcpb::Context {
            region_id: meta.id,
            region_epoch: meta.region_epoch,
            peer: Some(*peer),
            ..Default::default()
        };
        let leads = kvrpcpb::Context { peer: Some(leader), ..context.clone() };
        let led = nodes.iter().position(|node| node.store_id().0 == leader.store_id).unwrap();
        let value = peer.id.to_be_bytes().to_vec();
        let put = kvrpcpb::RawPutRequest {
            context: Some(leads),
            key: "k".into(),
            value: value.clone().into(),
            ..Default::default()
        };
        let put = clients[led].raw_put(put).await.unwrap().into_inner();
        assert_eq!((put.region_error, put.error), (None, String::new()));

        let get = |context: &kvrpcpb::Context| kvrpcpb::RawGetRequest {
            context: Some(context.clone()),
            key: "k".into(),
            ..Default::default()
        };
        let client = &mut clients[place];
        let plain = client.raw_get(get(&context)).await.unwrap().into_inner();
        let refused = plain.region_error.is_some_and(|error| error.not_leader.is_some());
        assert_eq!(refused, peer.id != leader.id);

        context.replica_read = true;
        let read = client.raw_get(get(&context)).await.unwrap().into_inner();
        assert_eq!((read.region_error, &read.value[..]), (None, &value[..]));
        let ask =
            kvrpcpb::ReadIndexRequest { context: Some(context.clone()), ..Default::default() };
        let index = client.read_index(ask).await.unwrap().into_inner();
        assert!(index.region_error.is_none() && index.read_index > 0, "{index:?}");

        context.replica_read = false;
        context.stale_read = true;
        let safe = eventually("a safe timestamp", async || {
            let request = kvrpcpb::StoreSafeTsRequest::default();
            let safe = client.get_store_safe_ts(request).await.ok()?.into_inner().safe_ts;
            (safe > 0).then_some(safe)
        });
        assert!(safe.await > 1 << 40);
        let read = client.raw_get(get(&context)).await.unwrap().into_inner();
        assert_eq!(read.region_error, None);
    }
    for node in nodes {
        node.stop().await;
    }
}

/// A client that lost its power says nothing any more, and does not answer either.
#[tokio::test]
async fn a_connection_without_anybody_at_its_other_end_is_closed() {
    let mut config = config("alone", None);
    config.server.grpc_keepalive_time = Interval(Duration::from_millis(200));
    let node = Node::open(config).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(node.address()).await.unwrap();
    // HTTP/2's greeting and empty settings; then not a word.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let closed = async {
        let mut buffer = [0; 1_024];
        while matches!(stream.read(&mut buffer).await, Ok(bytes) if bytes > 0) {}
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is closed");
    node.stop().await;
}
