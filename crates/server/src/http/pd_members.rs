//! PD's pages about its members: the nodes that can lead the placement driver, and the one that
//! does.

use std::sync::Arc;

use ::placement::{Liveness, Member, Members, Placement};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use proto::pdpb;
use serde_json::{Value, json};

use super::error::HttpError;
use super::{Node, ShownNode};
use crate::node::COMPATIBLE_VERSION;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/members", get(members))
        .route("/pd/api/v1/leader", get(leader))
        .route("/pd/api/v1/health", get(health))
        .route("/pd/api/v1/ping", get(ping))
        .route("/pd/api/v1/version", get(version))
        .route("/pd/api/v1/status", get(status))
}

/// Whether every member answers this path of PD for itself.
pub(super) fn answers_anywhere(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    ["members", "leader", "health", "ping", "version", "status"]
        .iter()
        .any(|name| path.strip_prefix("/pd/api/v1/") == Some(name))
}

async fn members(State(node): Node) -> Result<Json<Value>, HttpError> {
    let members = known_members(&node).await?.get_members();
    let leader = members.leader.as_ref().map(page);
    Ok(Json(json!({
        "header": { "cluster_id": node.host.cluster_id().0 },
        "members": members.members.iter().map(page).collect::<Vec<_>>(),
        "leader": leader,
        "etcd_leader": leader,
    })))
}

async fn leader(State(node): Node) -> Result<Json<Value>, HttpError> {
    let members = known_members(&node).await?.get_members();
    let leader = members.leader.ok_or_else(|| HttpError::unavailable("no leader"))?;
    Ok(Json(page(&leader)))
}

/// A member that answers is healthy; the others are healthy as far as the leader has heard.
async fn health(State(node): Node) -> Result<Json<Value>, HttpError> {
    let members = known_members(&node).await?.members;
    let (us, now) = (node.store.store_id(), node.host.now());
    let silent = |store| {
        let is_silent =
            |p: &Placement| p.store(store).is_some_and(|s| s.liveness(now) != Liveness::Up);
        node.host.read(is_silent).unwrap_or(false)
    };
    let health = |member: &Member| {
        let (name, id, url) = (&member.name, member.store.0, &member.client_url);
        let healthy = member.store == us || !silent(member.store);
        json!({ "name": name, "member_id": id, "client_urls": [url], "health": healthy })
    };
    Ok(Json(members.iter().map(health).collect()))
}

async fn ping() {}

async fn version() -> Json<Value> {
    Json(json!({ "version": version_text(), "build_time": "", "hash": "", "branch": "" }))
}

async fn status(State(node): Node) -> Json<Value> {
    Json(json!({
        "build_ts": "",
        "version": version_text(),
        "git_hash": "",
        "start_timestamp": node.started_at_ms() / 1000,
        "kernel_type": "Classic",
    }))
}

/// The release of PD that this node stands in for, as PD writes it.
fn version_text() -> String {
    format!("v{COMPATIBLE_VERSION}")
}

/// The members, and who of them leads as far as this node knows.
async fn known_members(node: &ShownNode) -> Result<Members, HttpError> {
    node.members.now().await.ok_or_else(|| HttpError::unavailable("no leader"))
}

fn page(member: &pdpb::Member) -> Value {
    json!({
        "name": member.name,
        "member_id": member.member_id,
        "peer_urls": member.peer_urls,
        "client_urls": member.client_urls,
        "deploy_path": member.deploy_path,
        "binary_version": member.binary_version,
        "git_hash": member.git_hash,
    })
}
