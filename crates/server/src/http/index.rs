//! `/`: what there is to ask for.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;

use super::ShownNode;

/// The paths that somebody may want to look at in a browser, and what they tell.
const PATHS: &[(&str, &str)] = &[
    ("/status", "this node: version, uptime, ids, number of regions"),
    ("/ready", "200 once every region here can be read and written"),
    ("/config", "the configuration in effect"),
    ("/metrics", "counters for Prometheus"),
    ("/engine_type", "how data is stored"),
    ("/region/{id}", "a region as this node sees it; POST .../check, .../compact: see pontoon ctl"),
    ("/pd/api/v1/cluster", "the cluster's id and number of replicas"),
    ("/pd/api/v1/cluster/status", "since when it exists"),
    ("/pd/api/v1/members", "the nodes that can lead it"),
    ("/pd/api/v1/leader", "the one that does"),
    ("/pd/api/v1/health", "how they are"),
    ("/pd/api/v1/stores", "all stores, with space and load"),
    ("/pd/api/v1/store/{id}", "one of them"),
    ("/pd/api/v1/operators", "what is being done to regions; POST {\"name\": ...} asks for more"),
    ("/pd/api/v1/operators/records", "what was done"),
    ("/pd/api/v1/checker/{name}", "whether it is paused; POST {\"delay\": seconds} pauses"),
    ("/pd/api/v1/regions", "all regions"),
    ("/pd/api/v1/regions/key?key=&end_key=&limit=", "those of a key range"),
    ("/pd/api/v1/regions/store/{id}", "those of a store"),
    ("/pd/api/v1/region/id/{id}", "one region"),
    ("/pd/api/v1/region/key/{key}", "the region that holds a key"),
    ("/pd/api/v1/stats/region?start_key=&end_key=", "sums over the regions of a key range"),
    ("/pd/api/v1/gc/safepoint", "what holds garbage collection back"),
    ("/pd/api/v1/min-resolved-ts?scope=", "how far locks are resolved"),
    ("/pd/api/v1/config", "the cluster's configuration"),
    ("/pd/api/v1/version", "what the placement driver is compatible with"),
    ("/pd/api/v2/keyspaces", "all keyspaces; POST {\"name\": ...} makes one"),
    ("/pd/api/v2/keyspaces/{name}", "one of them"),
];

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new().route("/", get(index))
}

async fn index() -> impl IntoResponse {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("Pontoon {version}\n\n");
    for (path, what) in PATHS {
        text += &format!("{path:44}  {what}\n");
    }
    text
}
