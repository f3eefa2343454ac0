//! PD's pages about the cluster as a whole.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use proto::{metapb, pdpb};
use serde_json::{Value, json};

use super::error::HttpError;
use super::{Node, ShownNode, text};

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/cluster", get(cluster))
        .route("/pd/api/v1/cluster/status", get(status))
}

async fn cluster(State(node): Node) -> Result<Json<Value>, HttpError> {
    let cluster = meta(&node)?;
    Ok(Json(json!({ "id": cluster.id, "max_peer_count": cluster.max_peer_count })))
}

/// The cluster's description.
pub(super) fn meta(node: &ShownNode) -> Result<metapb::Cluster, HttpError> {
    let request = pdpb::GetClusterConfigRequest { header: node.header() };
    Ok(node.placement(|p| p.get_cluster_config(&request))??.cluster.unwrap_or_default())
}

/// Replicas are spread by majority, for which PD has no status to tell.
async fn status(State(node): Node) -> Result<Json<Value>, HttpError> {
    let since_ms = node.placement(|p| p.bootstrapped_at_ms())?;
    let mut page = json!({ "is_initialized": since_ms.is_some(), "replication_status": "" });
    if let Some(since_ms) = since_ms {
        page["raft_bootstrap_time"] = json!(text::time(since_ms));
    }
    Ok(Json(page))
}
