//! The HTTP half of the port: pages for people and monitoring, and the paths of PD that clients and
//! tools ask for.
//!
//! ```text
//!   /status /ready /config /metrics ...    this node        status, config, metrics
//!   /region/{id}                           a replica here   region
//!   /pd/api/v1, /pd/api/v2                 the cluster      pd_*, one file a subject
//! ```
//!
//! Most of it is a read of what other parts hold. Keyspaces can be made and switched here, stores
//! removed, operators given, checkers paused, replicas compared. Bodies are JSON in PD's shapes: a
//! tool that reads PD's answers reads these. A failure is a
//! JSON string that says why.
//!
//! What PD has and this cluster has not (schedulers, placement rules, hot spots) is answered
//! truthfully with an empty list; what nobody can do here (changing them) is not served.
//!
//! Invariant: nothing is turned into JSON while the placement driver is locked. Pages take out what
//! they show, which is cheap, and render it afterwards: timestamps do not wait for a list of
//! regions.
//!
//! Where to start: [`router`], then the table of `index`.

mod config;
mod error;
mod index;
mod metrics;
mod pd_cluster;
mod pd_config;
mod pd_gc;
mod pd_keyspaces;
mod pd_members;
mod pd_operators;
mod pd_regions;
mod pd_scheduling;
mod pd_stores;
mod query;
mod region;
mod status;
mod text;

use std::sync::Arc;

use ::placement::Placement;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use proto::pdpb;
use serde_json::Value;

use self::error::HttpError;
use crate::config::Config;
use crate::placement_host::PlacementHost;
use crate::placement_link::LocalMembers;
use crate::store_handle::StoreHandle;

/// Serves all paths.
pub(crate) fn router(
    store: &StoreHandle,
    host: &PlacementHost,
    members: &LocalMembers,
    config: &Config,
) -> Router {
    let node = Arc::new(ShownNode {
        store: store.clone(),
        host: host.clone(),
        members: members.clone(),
        config: config::effective(config, members.advertise()),
    });
    Router::new()
        .merge(index::routes())
        .merge(status::routes())
        .merge(region::routes())
        .merge(config::routes())
        .merge(metrics::routes())
        .merge(pd_cluster::routes())
        .merge(pd_config::routes())
        .merge(pd_gc::routes())
        .merge(pd_keyspaces::routes())
        .merge(pd_members::routes())
        .merge(pd_operators::routes())
        .merge(pd_regions::routes())
        .merge(pd_scheduling::routes())
        .merge(pd_stores::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(node.clone(), to_leader))
        .with_state(node)
}

/// What the pages show.
struct ShownNode {
    store: StoreHandle,
    host: PlacementHost,
    members: LocalMembers,
    /// What `/config` answers; it does not change while the node runs.
    config: Value,
}

/// How a handler gets it.
type Node = State<Arc<ShownNode>>;

impl ShownNode {
    /// Takes out of the placement driver what a page needs.
    fn placement<R>(&self, take: impl FnOnce(&Placement) -> R) -> Result<R, HttpError> {
        Ok(self.host.read(take)?)
    }

    /// The header of a call to the placement driver.
    fn header(&self) -> Option<pdpb::RequestHeader> {
        let cluster_id = self.host.cluster_id().0;
        Some(pdpb::RequestHeader { cluster_id, ..Default::default() })
    }

    /// When the node started, in ms since 1970 by today's clock.
    fn started_at_ms(&self) -> u64 {
        self.host.wall_ms().saturating_sub(self.uptime().as_millis() as u64)
    }

    fn uptime(&self) -> std::time::Duration {
        self.host.now().since(base::Instant::ZERO)
    }
}

/// What only the placement driver's leader can tell is asked of it: on another node the paths of PD
/// lead there, as they do with PD's followers. Who the members are anyone can tell.
async fn to_leader(State(node): Node, request: Request, next: Next) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let asks_leader = path.starts_with("/pd/") && !pd_members::answers_anywhere(path);
    if asks_leader
        && !*node.host.leads().borrow()
        && let Some(leader) = node.members.leader_elsewhere().await
    {
        return Redirect::temporary(&format!("http://{leader}{path}")).into_response();
    }
    next.run(request).await
}

async fn no_such_path(uri: Uri) -> impl IntoResponse {
    HttpError::not_found(format!("no such path: {}", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> impl IntoResponse {
    HttpError::method(format!("{} does not take {method}", uri.path()))
}
