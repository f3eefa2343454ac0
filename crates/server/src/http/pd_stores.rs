//! PD's pages about stores.

use std::sync::Arc;
use std::time::Duration;

use ::placement::{Liveness, StoreInfo, StoreLoad};
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::{Instant, StoreId};
use proto::{metapb, pdpb};
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{Query, number};
use super::{Node, ShownNode, text};

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/stores", get(all))
        .route("/pd/api/v1/store/{id}", get(by_id).delete(remove))
        .route("/pd/api/v1/store/{id}/state", post(set_state))
}

/// All but those that were removed.
async fn all(State(node): Node) -> Result<Json<Value>, HttpError> {
    let (stores, loads) = node.placement(|p| {
        let here = p.stores().filter(|store| !store.is_tombstone());
        (here.cloned().collect::<Vec<_>>(), p.regions().store_loads())
    })?;
    let load = |store: &StoreInfo| loads.get(&StoreId(store.meta.id)).copied();
    let pages: Vec<_> =
        stores.iter().map(|store| page(&node, store, &load(store).unwrap_or_default())).collect();
    Ok(Json(json!({ "count": pages.len(), "stores": pages })))
}

async fn by_id(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id = StoreId(number("store id", &id)?);
    let (store, loads) = node.placement(|p| (p.store(id).cloned(), p.regions().store_loads()))?;
    let store = store.ok_or_else(|| HttpError::not_found(format!("store {id} not found")))?;
    let load = loads.get(&id).copied().unwrap_or_default();
    Ok(Json(page(&node, &store, &load)))
}

/// Begins to remove a store. With `force=true` its disk is gone for good.
async fn remove(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<String>, HttpError> {
    let id = StoreId(number("store id", &id)?);
    let destroyed = query.text("force")? == "true";
    known(&node, id)?;
    node.host.write(|p| p.remove_store(id, destroyed)).await?;
    node.host.look_soon();
    Ok(Json("The store is set as Offline.".to_owned()))
}

/// `state=Up` takes a removal back, `state=Offline` begins one.
async fn set_state(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<String>, HttpError> {
    let id = StoreId(number("store id", &id)?);
    known(&node, id)?;
    match query.text("state")? {
        "Up" => node.host.write(|p| p.restore_store(id)).await?,
        "Offline" => node.host.write(|p| p.remove_store(id, false)).await?,
        other => {
            let text = format!("invalid state {other:?}: Up and Offline can be set");
            return Err(HttpError::bad_request(text));
        }
    }
    node.host.look_soon();
    Ok(Json("The store's state is updated.".to_owned()))
}

fn known(node: &ShownNode, id: StoreId) -> Result<(), HttpError> {
    let missing = || HttpError::not_found(format!("store {id} not found"));
    node.placement(|p| p.store(id).is_some())?.then_some(()).ok_or_else(missing)
}

fn page(node: &ShownNode, store: &StoreInfo, load: &StoreLoad) -> Value {
    let now = node.host.now();
    // What was heard before this placement driver began says nothing of the store as it is.
    let silent_ms = now.since(store.heard_at).as_millis() as u64;
    let heard_ms = store.stats.as_ref().map(|_| node.host.wall_ms().saturating_sub(silent_ms));
    json!({ "store": meta(store, now, heard_ms), "status": status(store, load, heard_ms) })
}

/// `heard_ms`: when the store last reported, in ms since 1970.
fn meta(store: &StoreInfo, now: Instant, heard_ms: Option<u64>) -> Value {
    let meta = &store.meta;
    let label = |label: &metapb::StoreLabel| json!({ "key": label.key, "value": label.value });
    json!({
        "id": meta.id,
        "address": meta.address,
        "peer_address": meta.peer_address,
        "status_address": meta.status_address,
        "labels": meta.labels.iter().map(label).collect::<Vec<_>>(),
        "version": meta.version,
        "git_hash": meta.git_hash,
        "start_timestamp": meta.start_timestamp,
        "deploy_path": meta.deploy_path,
        "last_heartbeat": heard_ms.unwrap_or(0) * 1_000_000,
        "state": meta.state,
        "state_name": state_name(store, now),
        "node_state": meta.node_state,
        "node_state_name": meta.node_state().as_str_name(),
    })
}

/// The state, and for a store that is up what its silence means.
fn state_name(store: &StoreInfo, now: Instant) -> &'static str {
    match (store.meta.state(), store.liveness(now)) {
        (metapb::StoreState::Up, Liveness::Up) => "Up",
        (metapb::StoreState::Up, Liveness::Disconnected) => "Disconnected",
        (metapb::StoreState::Up, Liveness::Down) => "Down",
        (state, _) => state.as_str_name(),
    }
}

/// Scores are plain sums: every store has the same weight.
fn status(store: &StoreInfo, load: &StoreLoad, heard_ms: Option<u64>) -> Value {
    let empty = pdpb::StoreStats::default();
    let stats = store.stats.as_ref().unwrap_or(&empty);
    let mut status = json!({
        "capacity": text::size(stats.capacity),
        "available": text::size(stats.available),
        "used_size": text::size(stats.used_size),
        "leader_count": load.leaders,
        "leader_weight": 1,
        "leader_score": load.leaders,
        "leader_size": text::mib(load.leader_size),
        "region_count": load.regions,
        "region_weight": 1,
        "region_score": text::mib(load.region_size),
        "region_size": text::mib(load.region_size),
        "pending_peer_count": load.pending,
        "is_busy": stats.is_busy,
    });
    // Times that are not known are left out.
    let started_s = u64::try_from(store.meta.start_timestamp).unwrap_or(0);
    if started_s > 0 {
        status["start_ts"] = json!(text::time(started_s * 1000));
    }
    if let Some(heard_ms) = heard_ms {
        status["last_heartbeat_ts"] = json!(text::time(heard_ms));
        let uptime = Duration::from_secs((heard_ms / 1000).saturating_sub(started_s));
        status["uptime"] = json!(text::duration(uptime));
    }
    status
}
