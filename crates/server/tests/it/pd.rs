//! The placement driver over gRPC on a real node: what travels in an answer, in a header, as a
//! status; and the streams.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use pontoon_server::{Config, Node};
use proto::keyspacepb::keyspace_client::KeyspaceClient;
use proto::pdpb::ErrorType;
use proto::pdpb::pd_client::PdClient;
use proto::{keyspacepb, metapb, pdpb};
use tonic::Code;
use tonic::transport::Channel;

/// A node on a folder of its own, and a client of it.
struct Running {
    node: Node,
    folder: PathBuf,
    pd: PdClient<Channel>,
}

async fn start(name: &str) -> Running {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pd-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    open(folder).await
}

async fn open(folder: PathBuf) -> Running {
    let mut config = Config { data_dir: folder.clone(), ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::open(config).await.unwrap();
    let pd = PdClient::connect(format!("http://{}", node.address())).await.unwrap();
    Running { node, folder, pd }
}

impl Running {
    fn header(&self) -> Option<pdpb::RequestHeader> {
        let cluster_id = self.node.cluster_id().0;
        Some(pdpb::RequestHeader { cluster_id, ..Default::default() })
    }

    fn tso(&self, count: u32) -> pdpb::TsoRequest {
        pdpb::TsoRequest { header: self.header(), count, dc_location: "global".to_owned() }
    }

    /// The only region, as clients find it.
    async fn region(&mut self) -> pdpb::GetRegionResponse {
        let request = pdpb::GetRegionRequest { header: self.header(), ..Default::default() };
        self.pd.get_region(request).await.unwrap().into_inner()
    }

    /// One timestamp as a number.
    async fn timestamp(&mut self) -> u64 {
        let request = stream::iter([self.tso(1)]);
        let mut answers = self.pd.tso(request).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap();
        assert!(answers.next().await.is_none(), "ends with OK after the client's half");
        largest(&answer)
    }

    async fn stop(self) {
        self.node.stop().await;
        std::fs::remove_dir_all(self.folder).unwrap();
    }
}

fn largest(answer: &pdpb::TsoResponse) -> u64 {
    let ts = answer.timestamp.unwrap();
    (u64::try_from(ts.physical).unwrap() << 18) + u64::try_from(ts.logical).unwrap()
}

fn error(header: Option<pdpb::ResponseHeader>) -> Option<ErrorType> {
    header.unwrap().error.map(|error| error.r#type())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_answer_anyone_and_all_else_asks_for_the_cluster() {
    let mut running = start("members").await;
    let members = running.pd.get_members(pdpb::GetMembersRequest::default()).await.unwrap();
    let leader = members.into_inner().leader.unwrap();
    assert_eq!(leader.client_urls, [format!("http://{}", running.node.address())]);
    assert_ne!(leader.member_id, 0);
    let wrong = pdpb::RequestHeader { cluster_id: 1, ..Default::default() };
    let request = pdpb::GetClusterInfoRequest { header: None };
    let info = running.pd.get_cluster_info(request).await.unwrap().into_inner();
    assert_eq!(info.service_modes, [1]);

    let request = pdpb::GetRegionRequest { header: Some(wrong), ..Default::default() };
    let status = running.pd.get_region(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let text = format!("mismatch cluster id, need {} but got 1", running.node.cluster_id());
    assert_eq!(status.message(), text);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_region_and_its_store_are_found() {
    let mut running = start("region").await;
    let found = running.region().await;
    assert_eq!(error(found.header), None);
    let (region, leader) = (found.region.unwrap(), found.leader.unwrap());
    assert!(region.start_key.is_empty() && region.end_key.is_empty());
    assert_eq!(region.peers, [leader]);
    let request = pdpb::GetStoreRequest { header: running.header(), store_id: leader.store_id };
    let store = running.pd.get_store(request).await.unwrap().into_inner().store.unwrap();
    assert_eq!(store.address, running.node.address().to_string());
    assert_eq!(store.state(), metapb::StoreState::Up);

    let request = pdpb::GetStoreRequest { header: running.header(), store_id: 99 };
    let refused = running.pd.get_store(request).await.unwrap().into_inner();
    let text = refused.header.unwrap().error.unwrap().message;
    assert_eq!(text, "invalid store ID 99, not found");
    let request = pdpb::BootstrapRequest { header: running.header(), ..Default::default() };
    let refused = running.pd.bootstrap(request).await.unwrap().into_inner();
    assert_eq!(error(refused.header), Some(ErrorType::AlreadyBootstrapped));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_come_in_order_with_their_counts() {
    let mut running = start("order").await;
    let counts: Vec<u32> =
        (0..5_000).map(|i| if i == 500 { 300_000 } else { 1 + i % 90 }).collect();
    let requests: Vec<_> = counts.iter().map(|count| running.tso(*count)).collect();
    let mut answers = running.pd.tso(stream::iter(requests)).await.unwrap().into_inner();
    let mut last = 0;
    for count in counts {
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.count, count);
        let first = largest(&answer) + 1 - u64::from(count);
        assert!(first > last, "{first} after {last}");
        last = largest(&answer);
    }
    assert!(answers.next().await.is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_for_timestamps_fails_the_stream_behind_the_good_ones() {
    let mut running = start("wrong").await;
    let foreign = pdpb::TsoRequest { count: 1, ..Default::default() };
    for (wrong, code) in [(running.tso(0), Code::Unknown), (foreign, Code::FailedPrecondition)] {
        let requests = stream::iter([running.tso(1), running.tso(2), wrong, running.tso(1)]);
        let mut answers = running.pd.tso(requests).await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap().count, 1);
        assert_eq!(answers.next().await.unwrap().unwrap().count, 2);
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), code);
        assert!(answers.next().await.is_none());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_above_everything_it_gave_out() {
    let mut running = start("restart").await;
    let alloc = |running: &Running| pdpb::AllocIdRequest { header: running.header(), count: 3 };
    let request = alloc(&running);
    let mut id = running.pd.alloc_id(request).await.unwrap().into_inner().id;
    let mut timestamp = running.timestamp().await;
    for _ in 0..3 {
        let folder = running.folder.clone();
        running.node.stop().await;
        running = open(folder).await;
        let request = alloc(&running);
        let next = running.pd.alloc_id(request).await.unwrap().into_inner();
        assert_eq!((next.id, next.count), (id + 3, 3));
        id = next.id;
        let later = running.timestamp().await;
        assert!(later > timestamp);
        timestamp = later;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_answered_when_they_are_refused() {
    let mut running = start("heartbeats").await;
    let found = running.region().await;
    let (region, leader) = (found.region.unwrap(), found.leader.unwrap());
    let header = running.header();
    let heartbeat = |version: u64, leader: metapb::Peer| {
        let mut region = region.clone();
        region.region_epoch.as_mut().unwrap().version += version;
        pdpb::RegionHeartbeatRequest {
            header: header.clone(),
            region: Some(region),
            leader: Some(leader),
            ..Default::default()
        }
    };
    let lost = metapb::Peer { store_id: 99, ..leader };
    let requests =
        [heartbeat(2, leader), heartbeat(1, leader), heartbeat(3, leader), heartbeat(4, lost)];
    let mut answers =
        running.pd.region_heartbeat(stream::iter(requests)).await.unwrap().into_inner();
    let stale = answers.next().await.unwrap().unwrap();
    assert_eq!(error(stale.header), Some(ErrorType::Unknown));
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.message(), "invalid store ID 99, not found");
    assert!(answers.next().await.is_none());
    let known = running.region().await.region.unwrap().region_epoch.unwrap().version;
    assert_eq!(known, region.region_epoch.unwrap().version + 3);

    let query = pdpb::QueryRegionRequest {
        header: running.header(),
        keys: vec!["a".into()],
        ..Default::default()
    };
    let requests = stream::iter([query.clone(), query]);
    let mut answers = running.pd.query_region(requests).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(answers.next().await.unwrap().unwrap().key_id_map, [region.id]);
    }
    assert!(answers.next().await.is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_points_and_other_timestamps() {
    let mut running = start("safe-points").await;
    let header = running.header();
    let request = pdpb::GetMinTsRequest { header: header.clone() };
    let now = running.pd.get_min_ts(request).await.unwrap().into_inner().timestamp.unwrap();
    let now = (u64::try_from(now.physical).unwrap() << 18) + u64::try_from(now.logical).unwrap();
    let request = pdpb::UpdateGcSafePointRequest { header: header.clone(), safe_point: now };
    let updated = running.pd.update_gc_safe_point(request).await.unwrap().into_inner();
    assert_eq!(updated.new_safe_point, now, "clients' gc(now) relies on it");
    let request = pdpb::GetGcStateRequest { header: header.clone(), ..Default::default() };
    let state = running.pd.get_gc_state(request).await.unwrap().into_inner().gc_state.unwrap();
    assert_eq!((state.txn_safe_point, state.gc_safe_point), (now, now));
    for (timestamp, refused) in [(now, None), (u64::MAX, Some(ErrorType::InvalidValue))] {
        let request = pdpb::SetExternalTimestampRequest { header: header.clone(), timestamp };
        let answer = running.pd.set_external_timestamp(request).await.unwrap().into_inner();
        assert_eq!(error(answer.header), refused);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_of_changes_and_end_with_the_node() {
    let mut running = start("watch").await;
    let request = pdpb::WatchGlobalConfigRequest::default();
    let mut config = running.pd.watch_global_config(request).await.unwrap().into_inner();
    for revision in 1..4 {
        let item = pdpb::GlobalConfigItem {
            name: "a".to_owned(),
            payload: "1".into(),
            ..Default::default()
        };
        let request = pdpb::StoreGlobalConfigRequest { changes: vec![item], ..Default::default() };
        running.pd.store_global_config(request).await.unwrap();
        let change = config.next().await.unwrap().unwrap();
        assert_eq!(change.revision, revision);
        assert_eq!(change.changes[0].name, "/global/config/a");
    }
    let url = format!("http://{}", running.node.address());
    let mut client = KeyspaceClient::connect(url).await.unwrap();
    let request = keyspacepb::WatchKeyspacesRequest { header: running.header() };
    let mut keyspaces = client.watch_keyspaces(request).await.unwrap().into_inner();
    assert_eq!(keyspaces.next().await.unwrap().unwrap().keyspaces[0].name, "DEFAULT");
    let idle = stream::iter([running.tso(1)]).chain(stream::pending());
    let mut timestamps = running.pd.tso(idle).await.unwrap().into_inner();
    timestamps.next().await.unwrap().unwrap();
    running.stop().await;
    assert!(config.next().await.is_none_or(|end| end.is_err()));
    assert!(keyspaces.next().await.is_none_or(|end| end.is_err()));
    assert!(timestamps.next().await.is_none_or(|end| end.is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_that_is_not_there_says_so_in_the_header() {
    let running = start("keyspaces").await;
    let url = format!("http://{}", running.node.address());
    let mut client = KeyspaceClient::connect(url).await.unwrap();
    for (name, refused) in [("DEFAULT", None), ("other", Some(ErrorType::EntryNotFound))] {
        let header = running.header();
        let request =
            keyspacepb::LoadKeyspaceRequest { header, name: name.to_owned(), namespace: None };
        let answer = client.load_keyspace(request).await.unwrap().into_inner();
        assert_eq!(error(answer.header), refused);
        assert_eq!(answer.keyspace.is_some(), refused.is_none());
    }
    running.stop().await;
}
