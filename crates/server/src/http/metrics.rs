//! `/metrics`: the node's counters, for Prometheus to scrape.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{Node, ShownNode};

/// The form of the text, as its version 1 names itself.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(node): Node) -> impl IntoResponse {
    let text = node.store.metrics().text(&node.store.engine().properties());
    ([(CONTENT_TYPE, OPENMETRICS)], text)
}
