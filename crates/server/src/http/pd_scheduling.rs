//! PD's pages about what moves regions: the orders that keep regions on enough stores. There are no
//! schedulers and no hot spots to show.
//!
//! Importers pause the checkers of regions before they begin and resume them afterwards, and take
//! nothing but success. The one checker that runs here replaces what is missing and moves nothing
//! for balance, which an import may well go on beside: asking a checker to pause is granted and
//! changes nothing.

use std::sync::Arc;
use std::time::Duration;

use ::placement::Order;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{json as read_json, number};
use super::{Node, ShownNode, text};

/// The checkers that PD has.
const CHECKERS: [&str; 6] = ["joint-state", "learner", "merge", "replica", "rule", "split"];

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/schedulers", get(none))
        .route("/pd/api/v1/operators", get(operators))
        .route("/pd/api/v1/operators/{id}", get(operator))
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

/// The orders whose effect has not shown yet.
async fn operators(State(node): Node) -> Result<Json<Vec<Value>>, HttpError> {
    let orders: Vec<Order> = node.placement(|p| p.orders().cloned().collect())?;
    Ok(Json(orders.iter().map(order_page).collect()))
}

async fn operator(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id: u64 = number("region id", &id)?;
    let order = node.placement(|p| p.orders().find(|order| order.region_id.0 == id).cloned())?;
    let missing = || HttpError::not_found(format!("no operator works on region {id}"));
    Ok(Json(order_page(&order.ok_or_else(missing)?)))
}

fn order_page(order: &Order) -> Value {
    json!({
        "region_id": order.region_id.0,
        "desc": order.name(),
        "status": "RUNNING",
        "step": format!("{:?}", order.step),
    })
}

/// What asks for it takes a checker that moves nothing for one that is paused.
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
        0 => format!("Resumed the {name} checker; nothing is moved for balance in this cluster."),
        seconds => {
            let span = text::duration(Duration::from_secs(seconds));
            format!("Paused the {name} checker for {span}; it moves nothing for balance anyway.")
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
