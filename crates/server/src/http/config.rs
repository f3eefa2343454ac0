//! `/config`: the configuration in effect, under the names of the file.
//!
//! Two keys are spelled as TiKV spells them, because test suites of clients read them to learn what
//! they talk to: `storage.api-version` is the number 1 or 2, `storage.enable-ttl` says whether
//! version 1 keeps expiry times.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use txn::ApiVersion;

use super::{Node, ShownNode};
use crate::config::Config;

pub(super) fn routes() -> Router<Arc<ShownNode>> {
    Router::new().route("/config", get(config))
}

async fn config(State(node): Node) -> Json<Value> {
    Json(node.config.clone())
}

/// The configuration with what was decided where it leaves things open.
pub(super) fn effective(config: &Config, advertise: &str) -> Value {
    let version = config.storage.api_version.version();
    // A path may be any bytes, JSON is text.
    let data_dir = config.data_dir.to_string_lossy().into_owned().into();
    let config = Config { data_dir, advertise: Some(advertise.to_owned()), ..config.clone() };
    let mut shown = serde_json::to_value(config).expect("text and numbers only");
    shown["storage"]["api-version"] = json!(if version == ApiVersion::V2 { 2 } else { 1 });
    shown["storage"]["enable-ttl"] = json!(version.has_ttl());
    shown
}
