//! PD's pages about old versions: what holds garbage collection back, and how far locks are
//! resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use proto::pdpb;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{Query, number};
use super::{Node, ShownNode};

/// Who moves the safe point below which reads are refused.
const GC_WORKER: &str = "gc_worker";

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v1/gc/safepoint", get(safe_points))
        .route("/pd/api/v1/min-resolved-ts", get(min_resolved_ts))
}

async fn safe_points(State(node): Node) -> Result<Json<Value>, HttpError> {
    let request = pdpb::GetGcStateRequest { header: node.header(), ..Default::default() };
    let wall_ms = node.host.wall_ms();
    let answer = node.placement(|p| p.get_gc_state(&request, wall_ms))??;
    let state = answer.gc_state.unwrap_or_default();
    let barriers = state.gc_barriers.iter();
    let mut services: Vec<(&str, i64, u64)> = barriers
        .map(|b| (b.barrier_id.as_str(), expiry_s(wall_ms, b.ttl_seconds), b.barrier_ts))
        .collect();
    if state.txn_safe_point > 0 {
        services.push((GC_WORKER, i64::MAX, state.txn_safe_point));
    }
    let lowest = services.iter().map(|(_, _, safe_point)| *safe_point).min().unwrap_or(0);
    Ok(Json(json!({
        "service_gc_safe_points": services.iter().map(service).collect::<Vec<_>>(),
        "min_service_gc_safe_point": lowest,
        "gc_safe_point": state.gc_safe_point,
    })))
}

fn service((id, expired_at, safe_point): &(&str, i64, u64)) -> Value {
    json!({ "service_id": id, "expired_at": expired_at, "safe_point": safe_point })
}

/// When a barrier with so many seconds left goes away, in seconds since 1970.
fn expiry_s(wall_ms: u64, ttl_s: i64) -> i64 {
    i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX).saturating_add(ttl_s)
}

/// `scope` asks for single stores besides: `cluster` for all, or a list of ids.
async fn min_resolved_ts(State(node): Node, query: Query) -> Result<Json<Value>, HttpError> {
    let stores: BTreeMap<u64, u64> = node.placement(|p| {
        let live = p.stores().filter(|store| !store.is_tombstone());
        live.map(|store| (store.meta.id, store.min_resolved_ts)).collect()
    })?;
    let (asked, shown) = match query.text("scope")? {
        "" => (stores.clone(), json!(null)),
        "cluster" => (stores.clone(), json!(stores)),
        ids => {
            let asked = scope(&stores, ids)?;
            (asked.clone(), json!(asked))
        }
    };
    // A store that has never reported could hold a lock of any age.
    let lowest = asked.values().copied().min().unwrap_or(0);
    Ok(Json(json!({
        "min_resolved_ts": lowest,
        "is_real_time": lowest > 0,
        "persist_interval": if lowest > 0 { "1s" } else { "0s" },
        "stores_min_resolved_ts": shown,
    })))
}

fn scope(stores: &BTreeMap<u64, u64>, ids: &str) -> Result<BTreeMap<u64, u64>, HttpError> {
    let mut asked = BTreeMap::new();
    for id in ids.split(',') {
        let id = number("scope", id)?;
        let missing = || HttpError::not_found(format!("store {id} not found"));
        asked.insert(id, *stores.get(&id).ok_or_else(missing)?);
    }
    Ok(asked)
}
