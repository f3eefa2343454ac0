//! The gRPC services of the node, all on its one port.
//!
//! ```text
//!   tikvpb.Tikv            kv        data: single calls and the BatchCommands stream
//!   pdpb.PD                pd        the placement driver
//!   deadlock.Deadlock      deadlock  who waits for whom, told by other stores
//!   keyspacepb.Keyspace    keyspace  names of keyspaces
//!   etcdserverpb.*         etcd      etcd's keys, leases and watches, kept by the placement driver
//!   grpc.health.v1.Health            serving, as long as the node answers at all
//! ```
//!
//! Each file turns messages into calls of the store or the placement driver and back; `errors` has
//! the words for refusals. All services read compressed requests and answer uncompressed.
//!
//! Where to start: [`router`], then `kv` and, for the fast way of a put, `batch`.

mod batch;
mod calls;
mod deadlock;
pub(crate) mod etcd;
mod keyspace;
mod kv;
mod pd;
pub(crate) mod raft;
mod raw;
pub(crate) mod txn;

pub use calls::Calls;

use axum::Router;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use crate::placement_link::PlacementLink;

/// Serves all calls. Streams end when `closed` turns true. A call or a service that is not here
/// answers UNIMPLEMENTED with its name.
pub(crate) fn router(
    calls: &Calls,
    link: &PlacementLink,
    etcd: &etcd::Etcd,
    closed: &watch::Receiver<bool>,
) -> Router {
    // It says "serving" for the empty name, which means the whole server, from the start.
    let (_, health) = tonic_health::server::health_reporter();
    let health =
        health.accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(usize::MAX);
    let (host, txn) = (link.host(), calls.txn.clone());
    let routes = Routes::new(kv::server(calls.kv.clone()))
        .add_service(deadlock::server(txn, link.cluster_id(), closed.clone()))
        .add_service(pd::server(calls.pd.clone()))
        .add_service(keyspace::server(host.clone(), closed.clone()))
        .add_service(health);
    etcd::add(routes, etcd).into_axum_router()
}
