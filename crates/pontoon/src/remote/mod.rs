//! A cluster over the network: what the client needs of the world, by gRPC and the system's clock.
//!
//! ```text
//!   client ──▶ GrpcLink ─┬─ placement ── single calls ──────────▶ the placement driver's leader
//!                        ├─ timestamps ─ one stream for all ────▶
//!                        └─ lanes ────── streams of commands ───▶ stores
//! ```
//!
//! Many callers share a few connections: what waits for a store at the same moment goes into one
//! message. `http` is for the pages that a node serves beside.

mod convert;
mod grpc;
pub mod http;
mod lanes;
mod placement;
mod timestamps;

use std::error::Error;
use std::time::Duration;

use client::{ApiVersion, ClientError, Db, DbOptions};
use tonic::Status;

pub use grpc::GrpcLink;
pub use placement::{Placement, RegionInfo};

/// How long one call may take before it is given up.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to the cluster of which one node, or the first of several (`A,B,C`) that answers, is
/// at `addresses`. Stores are connected to when they are needed, each by `connections` connections.
pub async fn connect(
    addresses: &str,
    version: ApiVersion,
    connections: usize,
) -> Result<Db<GrpcLink>, ClientError> {
    let link = GrpcLink::connect(addresses, connections).await?;
    Ok(Db::new(link, DbOptions { api_version: version, ..DbOptions::default() }))
}

/// `host:port` or a URL, as the URL that a channel is opened to.
fn endpoint(address: &str) -> Result<tonic::transport::Endpoint, ClientError> {
    let url =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = tonic::transport::Endpoint::from_shared(url)
        .map_err(|_| ClientError::Address { address: address.to_owned() })?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}

/// Opens a connection.
async fn channel(address: &str) -> Result<tonic::transport::Channel, ClientError> {
    endpoint(address)?.connect().await.map_err(|error| ClientError::Unreachable {
        address: address.to_owned(),
        cause: root_cause(&error),
    })
}

/// The innermost cause of a failed connection: "tcp connect error" alone helps nobody.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A status as a short text.
fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}
