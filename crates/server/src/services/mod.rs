//! The gRPC services of the node, all on its one port.
//!
//! ```text
//!   tikvpb.Tikv            kv        raw data: single calls and the BatchCommands stream
//!   pdpb.PD                pd        the placement driver
//!   keyspacepb.Keyspace    keyspace  names of keyspaces
//!   grpc.health.v1.Health            serving, as long as the node answers at all
//! ```
//!
//! Each file turns messages into calls of the store or the placement driver and back; `errors` has
//! the words for refusals. All services read compressed requests and answer uncompressed.
//!
//! Where to start: [`router`], then `kv` and, for the fast way of a put, `batch`.

mod batch;
mod keyspace;
mod kv;
mod pd;
pub(crate) mod raft;
mod raw;

use axum::Router;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use crate::placement_host::PlacementHost;
use crate::placement_link::LocalMembers;
use crate::store_handle::StoreHandle;

/// Serves all calls. Streams end when `closed` turns true. A call or a service that is not here
/// answers UNIMPLEMENTED with its name.
pub(crate) fn router(
    store: &StoreHandle,
    host: &PlacementHost,
    members: &LocalMembers,
    closed: &watch::Receiver<bool>,
) -> Router {
    // It says "serving" for the empty name, which means the whole server, from the start.
    let (_, health) = tonic_health::server::health_reporter();
    let health =
        health.accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(usize::MAX);
    Routes::new(kv::server(store.clone(), closed.clone()))
        .add_service(pd::server(host.clone(), members.clone(), closed.clone()))
        .add_service(keyspace::server(host.clone(), closed.clone()))
        .add_service(health)
        .into_axum_router()
}
