//! PD's pages about regions: lists, lookups, and sums over a key range.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::placement::RegionInfo;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use base::{KeyRange, RegionId};
use proto::metapb;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{Query, number, unescape};
use super::{Node, ShownNode, text};

/// Regions in an answer to a range, if the query does not say how many.
const RANGE_LIMIT: usize = 16;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/regions", get(all))
        .route("/pd/api/v1/regions/count", get(count))
        .route("/pd/api/v1/regions/key", get(in_range))
        .route("/pd/api/v1/regions/store/{id}", get(on_store))
        .route("/pd/api/v1/region/id/{id}", get(by_id))
        .route("/pd/api/v1/region/key/", get(by_first_key))
        .route("/pd/api/v1/region/key/{*key}", get(by_key))
        .route("/pd/api/v1/stats/region", get(sums))
}

#[derive(Serialize)]
struct RegionList {
    count: usize,
    regions: Vec<RegionPage>,
}

#[derive(Serialize)]
struct RegionPage {
    id: u64,
    start_key: String,
    end_key: String,
    epoch: EpochPage,
    peers: Vec<PeerPage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<PeerPage>,
    down_peers: Vec<DownPeerPage>,
    pending_peers: Vec<PeerPage>,
    written_bytes: u64,
    read_bytes: u64,
    written_keys: u64,
    read_keys: u64,
    /// In MiB.
    approximate_size: u64,
    approximate_keys: u64,
}

#[derive(Serialize)]
struct EpochPage {
    conf_ver: u64,
    version: u64,
}

#[derive(Serialize)]
struct PeerPage {
    id: u64,
    store_id: u64,
    role: i32,
    role_name: &'static str,
    is_learner: bool,
}

#[derive(Serialize)]
struct DownPeerPage {
    peer: PeerPage,
    down_seconds: u64,
}

/// Regions as they were taken out of the map.
type Found = Vec<Arc<RegionInfo>>;

async fn all(State(node): Node) -> Result<Json<RegionList>, HttpError> {
    let found: Found = node.placement(|p| p.regions().iter().cloned().collect())?;
    Ok(list(&found))
}

async fn count(State(node): Node) -> Result<Json<Value>, HttpError> {
    Ok(Json(json!({ "count": node.placement(|p| p.regions().len())? })))
}

async fn in_range(State(node): Node, query: Query) -> Result<Json<RegionList>, HttpError> {
    let range = KeyRange::new(query.key("key")?, query.key("end_key")?);
    let limit = match query.number::<i64>("limit")? {
        None => RANGE_LIMIT,
        // Below zero, all of them.
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let found: Found =
        node.placement(|p| p.regions().overlapping(&range).take(limit).cloned().collect())?;
    Ok(list(&found))
}

async fn on_store(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Json<RegionList>, HttpError> {
    let id: u64 = number("store id", &id)?;
    let is_there =
        |region: &&Arc<RegionInfo>| region.meta.peers.iter().any(|peer| peer.store_id == id);
    let found: Found =
        node.placement(|p| p.regions().iter().filter(is_there).cloned().collect())?;
    Ok(list(&found))
}

async fn by_id(State(node): Node, Path(id): Path<String>) -> Result<Json<RegionPage>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    let known = |p: &::placement::Placement| match id.is_system() {
        true => p.system_region().cloned().map(Arc::new),
        false => p.regions().get(id).cloned(),
    };
    let found = node.placement(known)?;
    let region = found.ok_or_else(|| HttpError::not_found(format!("region {id} not found")))?;
    Ok(Json(page(&region)))
}

async fn by_first_key(State(node): Node) -> Result<Json<RegionPage>, HttpError> {
    holder(&node, b"")
}

/// The key is taken from the path as it came: it need not be text.
async fn by_key(State(node): Node, uri: Uri, query: Query) -> Result<Json<RegionPage>, HttpError> {
    let (_, key) = uri.path().split_once("/region/key/").expect("the route has it");
    holder(&node, &query.decode_key(&unescape(key)?)?)
}

fn holder(node: &ShownNode, key: &[u8]) -> Result<Json<RegionPage>, HttpError> {
    let found = node.placement(|p| p.regions().find(key).cloned())?;
    let missing = || HttpError::not_found("no region is known to hold the key");
    let region = found.ok_or_else(missing)?;
    Ok(Json(page(&region)))
}

/// Sums over the regions of a range. With `count`, only how many there are.
async fn sums(State(node): Node, query: Query) -> Result<Json<Value>, HttpError> {
    let range = KeyRange::new(query.key("start_key")?, query.key("end_key")?);
    let found: Found = node.placement(|p| p.regions().overlapping(&range).cloned().collect())?;
    if query.get("count").is_some() {
        return Ok(Json(json!({ "count": found.len() })));
    }
    let sizes = found.iter().map(|region| text::mib(region.approximate_size));
    let empty = sizes.clone().filter(|size| *size <= 1).count();
    let leaders = by_store(&found, |region| region.leader.iter().collect());
    let peers = by_store(&found, |region| region.meta.peers.iter().collect());
    Ok(Json(json!({
        "count": found.len(),
        "empty_count": empty,
        "storage_size": sizes.sum::<u64>(),
        "storage_keys": found.iter().map(|region| region.approximate_keys).sum::<u64>(),
        "store_leader_count": leaders.counts,
        "store_leader_size": leaders.sizes,
        "store_leader_keys": leaders.keys,
        "store_peer_count": peers.counts,
        "store_peer_size": peers.sizes,
        "store_peer_keys": peers.keys,
    })))
}

/// Regions, MiB and keys by store.
#[derive(Default)]
struct StoreSums {
    counts: BTreeMap<u64, u64>,
    sizes: BTreeMap<u64, u64>,
    keys: BTreeMap<u64, u64>,
}

fn by_store(found: &Found, peers: impl Fn(&RegionInfo) -> Vec<&metapb::Peer>) -> StoreSums {
    let mut sums = StoreSums::default();
    for region in found {
        for peer in peers(region) {
            *sums.counts.entry(peer.store_id).or_default() += 1;
            *sums.sizes.entry(peer.store_id).or_default() += text::mib(region.approximate_size);
            *sums.keys.entry(peer.store_id).or_default() += region.approximate_keys;
        }
    }
    sums
}

fn list(found: &Found) -> Json<RegionList> {
    let regions: Vec<_> = found.iter().map(|region| page(region)).collect();
    Json(RegionList { count: regions.len(), regions })
}

fn page(region: &RegionInfo) -> RegionPage {
    let epoch = region.epoch();
    let down = |stats: &proto::pdpb::PeerStats| {
        let down_seconds = stats.down_seconds;
        stats.peer.as_ref().map(|peer| DownPeerPage { peer: peer_page(peer), down_seconds })
    };
    RegionPage {
        id: region.meta.id,
        start_key: text::hex(&region.meta.start_key),
        end_key: text::hex(&region.meta.end_key),
        epoch: EpochPage { conf_ver: epoch.conf_ver, version: epoch.version },
        peers: region.meta.peers.iter().map(peer_page).collect(),
        leader: region.leader.as_ref().map(peer_page),
        down_peers: region.down_peers.iter().filter_map(down).collect(),
        pending_peers: region.pending_peers.iter().map(peer_page).collect(),
        written_bytes: region.flow.written_bytes,
        read_bytes: region.flow.read_bytes,
        written_keys: region.flow.written_keys,
        read_keys: region.flow.read_keys,
        approximate_size: text::mib(region.approximate_size),
        approximate_keys: region.approximate_keys,
    }
}

fn peer_page(peer: &metapb::Peer) -> PeerPage {
    PeerPage {
        id: peer.id,
        store_id: peer.store_id,
        role: peer.role,
        role_name: peer.role().as_str_name(),
        is_learner: peer.role() == metapb::PeerRole::Learner,
    }
}
