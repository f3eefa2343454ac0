//! PD's pages about operators: what is being done to regions, and what somebody wants done by hand.
//!
//! ```text
//!   POST {"name": "add-peer", "region_id": 2, "store_id": 3} ──> a goal; orders follow until it is
//!   GET  operators, operators/{region}, operators/records         reached, impossible or too late
//!   DELETE operators/{region}                                  ──> taken back
//! ```
//!
//! The bodies are PD's. `scatter-region` and the others that PD has beside are not served.

use std::sync::Arc;

use ::placement::{Goal, Order, Record};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use base::{RegionId, StoreId};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{json as read_json, number};
use super::{Node, ShownNode, text};

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/operators", get(all).post(create))
        .route("/pd/api/v1/operators/records", get(records))
        .route("/pd/api/v1/operators/{id}", get(by_region).delete(cancel))
}

/// What is wanted and not reached, and the orders beside.
async fn all(State(node): Node) -> Result<Json<Vec<Value>>, HttpError> {
    let (goals, orders): (Vec<Record>, Vec<Order>) =
        node.placement(|p| (p.goals().collect(), p.orders().cloned().collect()))?;
    let has_goal = |order: &&Order| goals.iter().any(|goal| goal.region_id == order.region_id);
    let others = orders.iter().filter(|order| !has_goal(order)).map(order_page);
    Ok(Json(goals.iter().map(goal_page).chain(others).collect()))
}

/// What is over, the latest last.
async fn records(State(node): Node) -> Result<Json<Vec<Value>>, HttpError> {
    let records: Vec<Record> = node.placement(|p| p.goal_records().cloned().collect())?;
    Ok(Json(records.iter().map(goal_page).collect()))
}

async fn by_region(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    let (goal, order) =
        node.placement(|p| (p.goal(id), p.orders().find(|order| order.region_id == id).cloned()))?;
    let page = goal.as_ref().map(goal_page).or_else(|| order.as_ref().map(order_page));
    let missing = || HttpError::not_found(format!("no operator works on region {id}"));
    page.map(Json).ok_or_else(missing)
}

async fn create(State(node): Node, body: Bytes) -> Result<Json<&'static str>, HttpError> {
    let request: Request = read_json(&body)?;
    let (region, goal) = request.goal()?;
    let now = node.host.now();
    node.host.update(|p| p.set_goal(region, goal, now))??;
    node.host.look_soon();
    Ok(Json("The operator is created."))
}

async fn cancel(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Json<&'static str>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    if node.host.update(|p| p.cancel_goal(id))? {
        return Ok(Json("The pending operator is canceled."));
    }
    Err(HttpError::not_found(format!("no operator works on region {id}")))
}

fn goal_page(record: &Record) -> Value {
    json!({
        "region_id": record.region_id.0,
        "desc": record.goal.name(),
        "status": record.status.name(),
        "step": record.detail,
        "kind": "admin",
    })
}

fn order_page(order: &Order) -> Value {
    json!({
        "region_id": order.region_id.0,
        "desc": order.name(),
        "status": "RUNNING",
        "step": format!("{:?}", order.step),
        "kind": "replica",
    })
}

/// The bodies of all kinds in one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    name: String,
    region_id: Option<u64>,
    store_id: Option<u64>,
    from_store_id: Option<u64>,
    to_store_id: Option<u64>,
    to_store_ids: Vec<u64>,
    source_region_id: Option<u64>,
    target_region_id: Option<u64>,
    policy: String,
    keys: Vec<String>,
}

impl Request {
    fn goal(&self) -> Result<(RegionId, Goal), HttpError> {
        let store = |name, id: Option<u64>| self.id(name, id).map(StoreId);
        let region = |name, id: Option<u64>| self.id(name, id).map(RegionId);
        let goal = match &self.name[..] {
            "add-peer" => Goal::AddPeer(store("store_id", self.store_id)?),
            "add-learner" => Goal::AddLearner(store("store_id", self.store_id)?),
            "remove-peer" => Goal::RemovePeer(store("store_id", self.store_id)?),
            "transfer-leader" => Goal::TransferLeader(store("to_store_id", self.to_store_id)?),
            "transfer-peer" => {
                let from = store("from_store_id", self.from_store_id)?;
                Goal::TransferPeer(from, store("to_store_id", self.to_store_id)?)
            }
            "transfer-region" if self.to_store_ids.is_empty() => {
                return Err(HttpError::bad_request("transfer-region needs to_store_ids"));
            }
            "transfer-region" => {
                Goal::TransferRegion(self.to_store_ids.iter().copied().map(StoreId).collect())
            }
            "split-region" => Goal::Split(self.split_keys()?),
            "merge-region" => {
                let source = region("source_region_id", self.source_region_id)?;
                let target = region("target_region_id", self.target_region_id)?;
                return Ok((source, Goal::Merge(target)));
            }
            "" => return Err(HttpError::bad_request("an operator needs a name")),
            other => {
                let text = format!("there is no operator {other} in this cluster");
                return Err(HttpError::bad_request(text));
            }
        };
        Ok((region("region_id", self.region_id)?, goal))
    }

    fn id(&self, name: &str, id: Option<u64>) -> Result<u64, HttpError> {
        id.ok_or_else(|| HttpError::bad_request(format!("{} needs {name}", self.name)))
    }

    /// In hex, as PD takes them. The store finds one itself if none is given.
    fn split_keys(&self) -> Result<Vec<Bytes>, HttpError> {
        let by_key = self.policy.eq_ignore_ascii_case("usekey");
        if by_key && self.keys.is_empty() {
            return Err(HttpError::bad_request("split-region by usekey needs keys"));
        }
        let key = |key: &String| {
            let bad = || HttpError::bad_request(format!("keys: {key:?} is not hex"));
            text::unhex(key.as_bytes())
                .filter(|key| !key.is_empty())
                .map(Bytes::from)
                .ok_or_else(bad)
        };
        let mut keys = self.keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}
