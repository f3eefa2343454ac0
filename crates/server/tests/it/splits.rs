//! Regions are cut: as clients ask, as the placement driver is asked, and because they grow.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::codec;
use bytes::Bytes;
use pontoon_server::config::{ByteSize, Interval};
use pontoon_server::{Config, Node};
use proto::pdpb::pd_client::PdClient;
use proto::tikvpb::tikv_client::TikvClient;
use proto::{kvrpcpb, metapb, pdpb};
use tonic::transport::Channel;

/// Whatever a node has to do is done within this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    node: Node,
    pd: PdClient<Channel>,
    kv: TikvClient<Channel>,
}

async fn start(name: &str, set: impl FnOnce(&mut Config)) -> Running {
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("splits-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    let mut config = Config { data_dir: folder, ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.raftstore.split_region_check_tick_interval = Interval(Duration::from_millis(200));
    set(&mut config);
    let node = Node::open(config).await.unwrap();
    let url = format!("http://{}", node.address());
    let (pd, kv) = (PdClient::connect(url.clone()).await.unwrap(), TikvClient::connect(url).await);
    Running { node, pd, kv: kv.unwrap() }
}

impl Running {
    fn header(&self) -> Option<pdpb::RequestHeader> {
        let cluster_id = self.node.cluster_id().0;
        Some(pdpb::RequestHeader { cluster_id, ..Default::default() })
    }

    /// All regions in order, as clients find them.
    async fn regions(&mut self) -> Vec<pdpb::Region> {
        let request = pdpb::ScanRegionsRequest { header: self.header(), ..Default::default() };
        self.pd.scan_regions(request).await.unwrap().into_inner().regions
    }

    /// The regions, once there are so many and they leave no gap.
    async fn regions_once(&mut self, enough: usize) -> Vec<pdpb::Region> {
        let started = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let regions = self.regions().await;
            let bounds = |r: &pdpb::Region| r.region.clone().map(|m| (m.start_key, m.end_key));
            let bounds: Vec<_> = regions.iter().filter_map(bounds).collect();
            let whole = bounds.windows(2).all(|pair| pair[0].1 == pair[1].0)
                && bounds.first().is_some_and(|first| first.0.is_empty())
                && bounds.last().is_some_and(|last| last.1.is_empty());
            if whole && regions.len() >= enough {
                return regions;
            }
            assert!(started.elapsed() < PATIENCE, "{} regions: {bounds:?}", regions.len());
        }
    }

    async fn context(&mut self, region_key: &[u8]) -> kvrpcpb::Context {
        let region_key = Bytes::copy_from_slice(region_key);
        let request =
            pdpb::GetRegionRequest { header: self.header(), region_key, ..Default::default() };
        let found = self.pd.get_region(request).await.unwrap().into_inner();
        context(&found.region.unwrap(), found.leader)
    }

    async fn put(&mut self, key: &[u8], value: &[u8]) {
        let started = Instant::now();
        loop {
            let request = kvrpcpb::RawPutRequest {
                context: Some(self.context(key).await),
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
                ..Default::default()
            };
            let answer = self.kv.raw_put(request).await.unwrap().into_inner();
            let Some(refused) = answer.region_error else {
                return assert_eq!(answer.error, "");
            };
            assert!(refused.epoch_not_match.is_some(), "nothing else is ever seen: {refused:?}");
            assert!(started.elapsed() < PATIENCE, "{refused:?}");
        }
    }

    async fn split(
        &mut self,
        at: &[u8],
        keys: &[&str],
        is_raw_kv: bool,
    ) -> kvrpcpb::SplitRegionResponse {
        let request = kvrpcpb::SplitRegionRequest {
            context: Some(self.context(at).await),
            split_keys: keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect(),
            is_raw_kv,
            ..Default::default()
        };
        self.kv.split_region(request).await.unwrap().into_inner()
    }
}

fn context(region: &metapb::Region, leader: Option<metapb::Peer>) -> kvrpcpb::Context {
    kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: leader,
        ..Default::default()
    }
}

fn starts(regions: &[metapb::Region]) -> Vec<&[u8]> {
    regions.iter().map(|region| &region.start_key[..]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_splits_at_keys_of_its_choice() {
    let mut running = start("client", |_| {}).await;
    let whole = running.context(b"").await;
    // Unsorted, and one of them twice.
    let answer = running.split(b"", &["m", "d", "m", "x"], true).await;
    assert_eq!(answer.region_error, None);
    assert_eq!(starts(&answer.regions), [&b""[..], b"d", b"m", b"x"]);
    assert_eq!(answer.regions[3].id, whole.region_id, "the right-most part keeps the name");
    let versions: Vec<_> =
        answer.regions.iter().map(|region| region.region_epoch.unwrap().version).collect();
    assert_eq!(versions, [whole.region_epoch.unwrap().version + 3; 4]);
    // Each is served at once by the store that answered.
    for region in &answer.regions {
        let key = [&region.start_key[..], b"-key"].concat();
        let request = kvrpcpb::RawPutRequest {
            context: Some(context(region, Some(region.peers[0]))),
            key: key.into(),
            value: "v".into(),
            ..Default::default()
        };
        let put = running.kv.raw_put(request).await.unwrap().into_inner();
        assert_eq!((put.region_error, put.error), (None, String::new()));
    }
    running.regions_once(4).await;
    // A client that does not know it yet learns of the parts beside the one it names.
    let request = kvrpcpb::RawGetRequest {
        context: Some(whole.clone()),
        key: "a".into(),
        ..Default::default()
    };
    let error = running.kv.raw_get(request).await.unwrap().into_inner().region_error.unwrap();
    let current = error.epoch_not_match.unwrap().current_regions;
    let mut known: Vec<_> = current.iter().map(|region| &region.start_key[..]).collect();
    assert_eq!(known.remove(0), b"x", "the region itself comes first");
    assert_eq!(known, [&b"m"[..], b"d", b""]);
    // Two halves are named as such, too.
    #[expect(deprecated, reason = "what older clients look at")]
    let halves = |answer: kvrpcpb::SplitRegionResponse| (answer.left, answer.right);
    let (left, right) = halves(running.split(b"z", &["z"], true).await);
    assert_eq!((&left.unwrap().end_key[..], &right.unwrap().start_key[..]), (&b"z"[..], &b"z"[..]));
    // Keys of transactions are encoded by the server.
    let answer = running.split(b"z", &["zz"], false).await;
    assert_eq!(answer.regions[1].start_key, codec::encode_bytes(b"zz"));
    running.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_fit_are_refused_as_in_tikv() {
    let mut running = start("refused", |_| {}).await;
    assert_eq!(running.split(b"", &["d", "m"], true).await.region_error, None);
    running.regions_once(3).await;
    let text_of = |answer: kvrpcpb::SplitRegionResponse| {
        let error = answer.region_error.unwrap();
        assert_eq!(error.key_not_in_region, None);
        error.message
    };
    assert_eq!(text_of(running.split(b"e", &["f", ""], true).await), "a split key is empty");
    assert_eq!(text_of(running.split(b"e", &[], true).await), "a split key is empty");
    let nothing = "no valid key found for split";
    assert_eq!(text_of(running.split(b"e", &["d", "d"], true).await), nothing);
    for outside in ["a", "m", "zz"] {
        let answer = running.split(b"e", &["f", outside], true).await;
        let error = answer.region_error.unwrap().key_not_in_region.unwrap();
        assert_eq!((&error.key[..], &error.start_key[..]), (outside.as_bytes(), &b"d"[..]));
    }
    // The wrong epoch, and nobody's region.
    let mut context = running.context(b"e").await;
    context.region_epoch.as_mut().unwrap().version -= 1;
    let mut request = kvrpcpb::SplitRegionRequest {
        context: Some(context),
        split_keys: vec!["f".into()],
        is_raw_kv: true,
        ..Default::default()
    };
    let answer = running.kv.split_region(request.clone()).await.unwrap().into_inner();
    assert!(answer.region_error.unwrap().epoch_not_match.is_some());
    request.context.as_mut().unwrap().region_id = 77;
    let answer = running.kv.split_region(request).await.unwrap().into_inner();
    assert!(answer.region_error.unwrap().region_not_found.is_some());
    assert_eq!(running.regions().await.len(), 3, "nothing was cut");
    running.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_splits_at_thousands_of_keys() {
    let mut running = start("thousands", |_| {}).await;
    let keys: Vec<String> = (0..3_000).map(|i| format!("key-{i:05}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let answer = running.split(b"", &keys, true).await;
    assert_eq!(answer.region_error, None);
    assert_eq!(answer.regions.len(), 3_001);
    assert!(starts(&answer.regions).is_sorted());
    running.regions_once(3_001).await;
    running.put(b"key-01234-x", b"v").await;
    running.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_placement_driver_has_regions_split() {
    let mut running = start("placement", |_| {}).await;
    let keys = |keys: &[&'static str]| keys.iter().copied().map(Bytes::from).collect::<Vec<_>>();
    let header = running.header();
    let split_keys = keys(&["m", "d", "d", ""]);
    let request = pdpb::SplitRegionsRequest { header, split_keys, retry_limit: 5 };
    let answer = running.pd.split_regions(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().error, None);
    assert_eq!((answer.finished_percentage, answer.regions_id.len()), (100, 2));
    let regions = running.regions_once(3).await;
    let id = |at: usize| regions[at].region.as_ref().unwrap().id;
    assert_eq!(answer.regions_id, [id(0), id(1)], "the parts to the left are the new ones");
    let again = running.pd.split_regions(request).await.unwrap().into_inner();
    assert_eq!((again.finished_percentage, again.regions_id.len()), (100, 0), "nothing to do");
    let request = pdpb::SplitAndScatterRegionsRequest {
        header: running.header(),
        split_keys: keys(&["x", "e"]),
        ..Default::default()
    };
    let answer = running.pd.split_and_scatter_regions(request).await.unwrap().into_inner();
    assert_eq!((answer.split_finished_percentage, answer.scatter_finished_percentage), (100, 100));
    assert_eq!(answer.regions_id.len(), 2);
    let other = pdpb::SplitRegionsRequest::default();
    assert!(running.pd.split_regions(other).await.is_err(), "of no cluster");
    running.node.stop().await;
}

/// The bounds with which the tests of client-rust run: ten keys a region.
#[tokio::test(flavor = "multi_thread")]
async fn regions_of_a_few_keys_are_split_within_seconds() {
    let few = |config: &mut Config| {
        config.coprocessor.region_max_keys = Some(10);
        config.coprocessor.region_split_keys = Some(7);
        config.coprocessor.batch_split_limit = Some(100);
    };
    let mut running = start("few", few).await;
    for i in 0..400 {
        running.put(format!("key-{i:05}").as_bytes(), b"v").await;
    }
    let regions = running.regions_once(40).await;
    assert!(regions.len() <= 400 / 7 + 1, "{} regions", regions.len());
    running.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_grows_is_split_and_its_size_is_told() {
    let small = |config: &mut Config| {
        config.coprocessor.region_split_size = Some(ByteSize(1 << 20));
    };
    let mut running = start("size", small).await;
    for i in 0..200u32 {
        let key = format!("key-{:08x}", i.wrapping_mul(0x9e37_79b9));
        running.put(key.as_bytes(), &[7; 64 << 10]).await;
    }
    let regions = running.regions_once(9).await;
    assert!(regions.len() <= 13, "{} regions of 12.5 MiB", regions.len());
    running.node.stop().await;
}
