//! A region as this node sees it, and what a person may ask of its leader here.
//!
//! ```text
//!   GET  /region/{id}           descriptor, roles, log, lease, progress of the members
//!   POST /region/{id}/check     compares the replicas; answered when the leader's hash is known
//!   POST /region/{id}/compact   lets the log forget what every living member has
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::{Peer, RegionId};
use serde_json::{Value, json};
use store::{
    InspectReply, Inspection, MemberProgress, RegionError, RegionRequest, RegionView,
    ReplicaStatus, RequestHeader, ShardInput,
};
use tokio::sync::oneshot;

use super::error::HttpError;
use super::query::number;
use super::{Node, ShownNode, text};
use crate::store_handle::reply_into;

/// A store that does not answer in this time is too busy to be looked at.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reading a region through may take long; whoever asks may go away earlier.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/region/{id}", get(region))
        .route("/region/{id}/check", post(check))
        .route("/region/{id}/compact", post(compact))
}

async fn region(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    let view = node.store.views().get(id);
    let missing = || HttpError::not_found(format!("region {id} has no replica here"));
    let status = inspect(&node, id).await?.ok_or_else(missing)?;
    Ok(Json(page(&status, view.as_deref())))
}

async fn check(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    request(&node, id, ShardInput::Check).await?;
    let missing = || HttpError::unavailable(format!("region {id} has left this node"));
    let status = inspect(&node, id).await?.ok_or_else(missing)?;
    Ok(Json(page(&status, None)))
}

async fn compact(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    let id = RegionId(number("region id", &id)?);
    request(&node, id, ShardInput::CompactLog).await?;
    let missing = || HttpError::unavailable(format!("region {id} has left this node"));
    let status = inspect(&node, id).await?.ok_or_else(missing)?;
    Ok(Json(page(&status, None)))
}

async fn inspect(node: &ShownNode, id: RegionId) -> Result<Option<ReplicaStatus>, HttpError> {
    let (send, receive) = oneshot::channel();
    // Whoever waited may have gone away.
    let reply = InspectReply::new(move |status| drop(send.send(status)));
    node.store.request(ShardInput::Inspect(Inspection { region_id: id, reply }));
    match tokio::time::timeout(INSPECT_TIMEOUT, receive).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(_)) => Err(HttpError::unavailable("the store is stopping, or too busy")),
        Err(_) => Err(HttpError::unavailable("the store did not answer in time")),
    }
}

/// Has the leader here do something.
async fn request(
    node: &ShownNode,
    id: RegionId,
    input: fn(RegionRequest) -> ShardInput,
) -> Result<(), HttpError> {
    let missing = || HttpError::not_found(format!("region {id} has no replica here"));
    let view = node.store.views().get(id).ok_or_else(missing)?;
    let header = RequestHeader::new(id, view.peer, view.region.epoch);
    let (send, receive) = oneshot::channel();
    node.store.request(input(RegionRequest { header, reply: reply_into(send) }));
    let late = || HttpError::unavailable(format!("region {id}: not done in time"));
    let done = tokio::time::timeout(REQUEST_TIMEOUT, receive).await.map_err(|_| late())?;
    done.unwrap_or(Err(RegionError::Undetermined)).map_err(|error| match error {
        RegionError::RegionNotFound(_) => HttpError::not_found(error.to_string()),
        other => HttpError::unavailable(other.to_string()),
    })
}

fn page(status: &ReplicaStatus, view: Option<&RegionView>) -> Value {
    let region = &status.region;
    let check = status.check.as_ref().map(|check| {
        json!({
            "index": check.hash.index,
            "hash": text::hex(&check.hash.digest),
            "keys": check.hash.keys(),
            "bytes": check.hash.bytes(),
            "agreed": check.agreed,
        })
    });
    json!({
        "id": region.id.0,
        "start_key": text::hex(region.start()),
        "end_key": text::hex(region.end()),
        "epoch": { "conf_ver": region.epoch.conf_ver, "version": region.epoch.version },
        "peers": region.peers.iter().map(peer).collect::<Vec<_>>(),
        "peer": peer(&status.peer),
        "activity": format!("{:?}", status.activity),
        "leader": status.leader.as_ref().map(peer),
        "term": status.term,
        "last": status.last,
        "committed": status.committed,
        "applied": status.applied,
        "truncated": { "index": status.truncated.0, "term": status.truncated.1 },
        "log_bytes": status.log_bytes,
        "serves_reads": view.is_some_and(|view| view.serves_reads),
        "lease_left_ms": status.lease_left.as_millis() as u64,
        "quiet": status.quiet,
        "check": check,
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn peer(peer: &Peer) -> Value {
    json!({ "id": peer.id.0, "store_id": peer.store_id.0, "role": format!("{:?}", peer.role) })
}

fn member(member: &MemberProgress) -> Value {
    json!({
        "peer_id": member.peer.0,
        "matched": member.matched,
        "flow": format!("{:?}", member.flow),
        "alive": member.alive,
    })
}
