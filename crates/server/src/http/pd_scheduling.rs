//! PD's pages about what moves regions. Nothing does: there are no schedulers, no operators and no
//! hot spots to show.
//!
//! Importers pause the checkers of regions before they begin and resume them afterwards, and take
//! nothing but success. Since no checker ever runs, asking one to pause changes nothing and is
//! granted.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{json as read_json, number};
use super::{ShownNode, text};

/// The checkers that PD has.
const CHECKERS: [&str; 6] = ["joint-state", "learner", "merge", "replica", "rule", "split"];

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/schedulers", get(none))
        .route("/pd/api/v1/operators", get(none))
        .route("/pd/api/v1/operators/{id}", get(no_operator))
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

async fn no_operator(Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id: u64 = number("region id", &id)?;
    Err(HttpError::not_found(format!("no operator works on region {id}")))
}

/// A checker that never runs is paused.
async fn checker(Path(name): Path<String>) -> Result<Json<Value>, HttpError> {
    check_name(&name)?;
    Ok(Json(json!({ "paused": true })))
}

#[derive(Deserialize)]
struct Pause {
    /// Seconds; zero resumes.
    delay: u64,
}

async fn pause_checker(Path(name): Path<String>, body: Bytes) -> Result<Json<String>, HttpError> {
    check_name(&name)?;
    let pause: Pause = read_json(&body)?;
    Ok(Json(match pause.delay {
        0 => format!("Resumed the {name} checker; no checkers run in this cluster."),
        seconds => {
            let span = text::duration(Duration::from_secs(seconds));
            format!("Paused the {name} checker for {span}; no checkers run in this cluster.")
        }
    }))
}

fn check_name(name: &str) -> Result<(), HttpError> {
    if CHECKERS.contains(&name) {
        return Ok(());
    }
    Err(HttpError::not_found(format!("there is no checker {name}")))
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
