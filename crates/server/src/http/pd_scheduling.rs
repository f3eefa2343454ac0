//! PD's pages about what moves regions beside operators: checkers, and schedulers and hot spots,
//! which there are none to show of.
//!
//! Importers pause the checkers of regions before they begin and resume them afterwards. The work
//! of PD's checkers is done here by one; pausing one of the names keeps it from that part of the
//! work. Orders that were given before stand, and so does what somebody wants by hand.

use std::sync::Arc;
use std::time::Duration;

use ::placement::Checker;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::json as read_json;
use super::{Node, ShownNode, text};

/// Nobody needs a longer pause; a year fits every clock.
const PAUSE_SECONDS_MAX: u64 = 365 * 24 * 3600;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/schedulers", get(none))
        .route("/pd/api/v1/checker/{name}", get(checker).post(pause_checker))
        .route("/pd/api/v1/hotspot/regions/read", get(no_hot_regions))
        .route("/pd/api/v1/hotspot/regions/write", get(no_hot_regions))
        .route("/pd/api/v1/hotspot/regions/history", get(no_history))
        .route("/pd/api/v1/hotspot/stores", get(no_hot_stores))
        .route("/pd/api/v1/hotspot/buckets", get(no_hot_buckets))
}

async fn none() -> Json<[(); 0]> {
    Json([])
}

async fn checker(State(node): Node, Path(name): Path<String>) -> Result<Json<Value>, HttpError> {
    let (checker, now) = (by_name(&name)?, node.host.now());
    let paused = node.placement(|p| p.is_checker_paused(checker, now))?;
    Ok(Json(json!({ "paused": paused })))
}

#[derive(Deserialize)]
struct Pause {
    /// Seconds; zero resumes.
    delay: u64,
}

async fn pause_checker(
    State(node): Node,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<String>, HttpError> {
    let checker = by_name(&name)?;
    let pause: Pause = read_json(&body)?;
    let time = Duration::from_secs(pause.delay.min(PAUSE_SECONDS_MAX));
    let now = node.host.now();
    node.host.update(|p| p.pause_checker(checker, time, now))?;
    node.host.look_soon();
    Ok(Json(match time {
        Duration::ZERO => "Resume the checker successfully.".to_owned(),
        time => format!("Pause the checker successfully, for {}.", text::duration(time)),
    }))
}

fn by_name(name: &str) -> Result<Checker, HttpError> {
    let missing = || HttpError::not_found(format!("there is no checker {name}"));
    Checker::from_name(name).ok_or_else(missing)
}

async fn no_hot_regions() -> Json<Value> {
    Json(json!({ "as_peer": {}, "as_leader": {} }))
}

async fn no_history() -> Json<Value> {
    Json(json!({ "history_hot_region": [] }))
}

async fn no_hot_stores() -> Json<Value> {
    Json(json!({
        "bytes-write-rate": {},
        "bytes-read-rate": {},
        "keys-write-rate": {},
        "keys-read-rate": {},
        "query-write-rate": {},
        "query-read-rate": {},
    }))
}

async fn no_hot_buckets() -> Json<Value> {
    Json(json!({}))
}
