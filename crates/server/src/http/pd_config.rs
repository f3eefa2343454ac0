//! PD's pages about configuration: of the cluster, of scheduling, of where replicas go.
//!
//! Nothing is scheduled: regions stay where they are. So all limits are zero, there are no
//! placement rules and no labels of regions, and nothing here can be changed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::error::HttpError;
use super::pd_cluster::meta;
use super::query::number;
use super::{Node, ShownNode};
use crate::node::COMPATIBLE_VERSION;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/config", get(config))
        .route("/pd/api/v1/config/cluster-version", get(cluster_version))
        .route("/pd/api/v1/config/schedule", get(schedule))
        .route("/pd/api/v1/config/replicate", get(replicate))
        .route("/pd/api/v1/config/rules", get(none))
        .route("/pd/api/v1/config/rules/group/{group}", get(none))
        .route("/pd/api/v1/config/rules/key/{*key}", get(none))
        .route("/pd/api/v1/config/rules/region/{id}", get(none_of_region))
        .route("/pd/api/v1/config/rule/{group}/{id}", get(no_rule))
        .route("/pd/api/v1/config/rule_groups", get(none))
        .route("/pd/api/v1/config/rule_group/{id}", get(no_rule_group))
        .route("/pd/api/v1/config/placement-rule", get(none))
        .route("/pd/api/v1/config/placement-rule/{group}", get(no_rules_of_group))
        .route("/pd/api/v1/config/region-label/rules", get(none))
        .route("/pd/api/v1/config/region-label/rules/ids", get(none))
        .route("/pd/api/v1/config/region-label/rule/{*id}", get(no_label_rule))
        .route("/pd/api/v1/region/id/{id}/labels", get(none_of_region))
}

async fn config(State(node): Node) -> Result<Json<Value>, HttpError> {
    let replicas = meta(&node)?.max_peer_count;
    let url = format!("http://{}", node.members.advertise());
    Ok(Json(json!({
        "name": format!("pontoon-{}", node.store.store_id()),
        "data-dir": node.config["data-dir"],
        "client-urls": url,
        "peer-urls": url,
        "advertise-client-urls": url,
        "advertise-peer-urls": url,
        "cluster-version": COMPATIBLE_VERSION,
        "schedule": schedule_page(),
        "replication": replicate_page(replicas),
        "replication-mode": { "replication-mode": "majority" },
    })))
}

async fn cluster_version() -> Json<&'static str> {
    Json(COMPATIBLE_VERSION)
}

async fn schedule() -> Json<Value> {
    Json(schedule_page())
}

async fn replicate(State(node): Node) -> Result<Json<Value>, HttpError> {
    Ok(Json(replicate_page(meta(&node)?.max_peer_count)))
}

fn schedule_page() -> Value {
    json!({
        "leader-schedule-limit": 0,
        "region-schedule-limit": 0,
        "replica-schedule-limit": 0,
        "merge-schedule-limit": 0,
        "hot-region-schedule-limit": 0,
        "max-merge-region-size": 0,
        "max-merge-region-keys": 0,
        "max-store-down-time": "30m0s",
        "schedulers-v2": [],
    })
}

/// PD writes these switches as text.
fn replicate_page(replicas: u32) -> Value {
    json!({
        "max-replicas": replicas,
        "location-labels": "",
        "strictly-match-label": "false",
        "enable-placement-rules": "false",
        "isolation-level": "",
    })
}

async fn none() -> Json<[(); 0]> {
    Json([])
}

async fn none_of_region(Path(id): Path<String>) -> Result<Json<[(); 0]>, HttpError> {
    number::<u64>("region id", &id)?;
    Ok(Json([]))
}

async fn no_rules_of_group(Path(group): Path<String>) -> Json<Value> {
    Json(json!({ "group_id": group, "group_index": 0, "group_override": false, "rules": [] }))
}

async fn no_rule(Path((group, id)): Path<(String, String)>) -> HttpError {
    HttpError::not_found(format!("there is no placement rule {group}/{id}"))
}

async fn no_rule_group(Path(id): Path<String>) -> HttpError {
    HttpError::not_found(format!("there is no group {id} of placement rules"))
}

async fn no_label_rule(Path(id): Path<String>) -> HttpError {
    HttpError::not_found(format!("there is no rule {id} of region labels"))
}
