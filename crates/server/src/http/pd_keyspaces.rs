//! PD's pages about keyspaces, and the only way to make one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use bytes::Bytes;
use proto::keyspacepb::{self, KeyspaceMeta, KeyspaceState, keyspace_meta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HttpError;
use super::query::{Query, json as read_json, number};
use super::{Node, ShownNode};

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new()
        .route("/pd/api/v2/keyspaces", get(all).post(create))
        .route("/pd/api/v2/keyspaces/id/{id}", get(by_id))
        .route("/pd/api/v2/keyspaces/{name}", get(by_name))
        .route("/pd/api/v2/keyspaces/{name}/state", put(switch))
}

#[derive(Deserialize)]
struct NewKeyspace {
    name: String,
    #[serde(default)]
    config: Option<BTreeMap<String, String>>,
}

async fn create(State(node): Node, body: Bytes) -> Result<Json<Value>, HttpError> {
    let new: NewKeyspace = read_json(&body)?;
    let config = new.config.unwrap_or_default();
    let wall_ms = node.host.wall_ms();
    let made = node.host.write(|p| p.create_keyspace(&new.name, &config, wall_ms)).await?;
    Ok(Json(page(&made)))
}

/// `limit` of them from the id `page_token` on; all if the query does not say.
async fn all(State(node): Node, query: Query) -> Result<Json<Value>, HttpError> {
    use keyspacepb::get_all_keyspaces_request::StartKeyspace;
    let start = query.number("page_token")?.unwrap_or(0);
    let limit = query.number::<u16>("limit")?.map_or(0, u32::from);
    let request = keyspacepb::GetAllKeyspacesRequest {
        header: node.header(),
        // One more, to see where the next page begins.
        limit: if limit == 0 { 0 } else { limit + 1 },
        start_keyspace: Some(StartKeyspace::StartId(start)),
        ..Default::default()
    };
    let mut found = node.placement(|p| p.get_all_keyspaces(&request))??.keyspaces;
    let mut next = String::new();
    if limit > 0 && found.len() > limit as usize {
        next = found.pop().map_or_else(String::new, |keyspace| id(&keyspace).to_string());
    }
    let pages: Vec<_> = found.iter().map(page).collect();
    Ok(Json(json!({ "keyspaces": pages, "next_page_token": next })))
}

async fn by_name(State(node): Node, Path(name): Path<String>) -> Result<Json<Value>, HttpError> {
    load(&node, name).map(|keyspace| Json(page(&keyspace)))
}

async fn by_id(State(node): Node, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    use keyspacepb::load_keyspace_by_id_request::Keyspace;
    let keyspace = Some(Keyspace::Id(number("keyspace id", &id)?));
    let request = keyspacepb::LoadKeyspaceByIdRequest { header: node.header(), keyspace };
    let found = node.placement(|p| p.load_keyspace_by_id(&request))??.keyspace;
    Ok(Json(page(&found.unwrap_or_default())))
}

#[derive(Deserialize)]
struct Switch {
    state: String,
}

async fn switch(
    State(node): Node,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, HttpError> {
    use keyspacepb::update_keyspace_state_request::Keyspace;
    let wanted = read_json::<Switch>(&body)?.state.to_uppercase();
    let bad = || HttpError::bad_request(format!("there is no keyspace state {wanted}"));
    let state = KeyspaceState::from_str_name(&wanted).ok_or_else(bad)?;
    let request = keyspacepb::UpdateKeyspaceStateRequest {
        header: node.header(),
        state: state.into(),
        keyspace: Some(Keyspace::Id(id(&load(&node, name)?))),
    };
    let wall_ms = node.host.wall_ms();
    let answer = node.host.write(|p| p.update_keyspace_state(&request, wall_ms)).await?;
    Ok(Json(page(&answer.keyspace.unwrap_or_default())))
}

fn load(node: &ShownNode, name: String) -> Result<KeyspaceMeta, HttpError> {
    let header = node.header();
    let request = keyspacepb::LoadKeyspaceRequest { header, name, ..Default::default() };
    Ok(node.placement(|p| p.load_keyspace(&request))??.keyspace.unwrap_or_default())
}

fn id(keyspace: &KeyspaceMeta) -> u32 {
    match &keyspace.keyspace {
        Some(keyspace_meta::Keyspace::Id(id)) => *id,
        Some(keyspace_meta::Keyspace::KeyspaceIdentity(identity)) => identity.keyspace_id,
        None => 0,
    }
}

fn page(keyspace: &KeyspaceMeta) -> Value {
    json!({
        "id": id(keyspace),
        "name": keyspace.name,
        "state": keyspace.state().as_str_name(),
        "created_at": keyspace.created_at,
        "state_changed_at": keyspace.state_changed_at,
        "config": keyspace.config.iter().collect::<BTreeMap<_, _>>(),
    })
}
