//! Pages about this node: what it is, whether it serves, which regions it holds.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use base::{Peer, RegionId};
use serde_json::{Value, json};
use store::RegionView;

use super::error::HttpError;
use super::query::number;
use super::{Node, ShownNode, text};
use crate::node::COMPATIBLE_VERSION;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/status", get(status))
        .route("/ready", get(ready))
        .route("/engine_type", get(engine_type))
        .route("/region/{id}", get(region))
}

async fn status(State(node): Node) -> Json<Value> {
    let regions = regions_of_clients(&node);
    let leaders = regions.iter().filter(|view| view.is_leader()).count();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "compatible_version": COMPATIBLE_VERSION,
        "start_timestamp": node.started_at_ms() / 1000,
        "uptime_seconds": node.uptime().as_secs(),
        "address": node.members.advertise(),
        "store_id": node.store.store_id().0,
        "cluster_id": node.store.cluster_id().0,
        "api_version": node.store.api_version().name(),
        "regions": regions.len(),
        "leaders": leaders,
        "leads_placement": node.host.read(|_| ()).is_ok(),
    }))
}

/// Every group with a replica here has a leader, or the first that has none.
async fn ready(State(node): Node) -> Result<Json<&'static str>, HttpError> {
    let views = node.store.views().all();
    if let Some(view) = views.iter().find(|view| view.leader.is_none()) {
        let text = format!("not ready: region {} has no leader", view.region.id);
        return Err(HttpError::unavailable(text));
    }
    if views.is_empty() {
        return Err(HttpError::unavailable("not ready: no regions yet"));
    }
    Ok(Json("ready"))
}

/// TiKV's name for one engine that holds the data of all regions.
async fn engine_type() -> &'static str {
    "raft-kv"
}

async fn region(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    let missing = || HttpError::not_found(format!("region {id} has no replica here"));
    let view = node.store.views().get(id).ok_or_else(missing)?;
    let lease_left = view.lease_until.since(node.host.now());
    Ok(Json(json!({
        "id": id.0,
        "start_key": text::hex(view.region.start()),
        "end_key": text::hex(view.region.end()),
        "epoch": { "conf_ver": view.region.epoch.conf_ver, "version": view.region.epoch.version },
        "peers": view.region.peers.iter().map(peer).collect::<Vec<_>>(),
        "peer": peer(&view.peer),
        "leader": view.leader.as_ref().map(peer),
        "term": view.term,
        "applied": view.applied,
        "serves_reads": view.serves_reads,
        "lease_left_ms": lease_left.as_millis() as u64,
    })))
}

fn peer(peer: &Peer) -> Value {
    json!({ "id": peer.id.0, "store_id": peer.store_id.0, "role": format!("{:?}", peer.role) })
}

/// All regions with a replica here, without the one of the placement driver.
fn regions_of_clients(node: &ShownNode) -> Vec<Arc<RegionView>> {
    let mut views = node.store.views().all();
    views.retain(|view| !view.region.id.is_system());
    views
}
