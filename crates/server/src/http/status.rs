//! Pages about this node: what it is, whether it serves, how many regions it holds.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use store::RegionView;

use super::error::HttpError;
use super::{Node, ShownNode};
use crate::node::COMPATIBLE_VERSION;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/status", get(status))
        .route("/ready", get(ready))
        .route("/engine_type", get(engine_type))
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

/// All regions with a replica here, without the one of the placement driver.
fn regions_of_clients(node: &ShownNode) -> Vec<Arc<RegionView>> {
    let mut views = node.store.views().all();
    views.retain(|view| !view.region.id.is_system());
    views
}
