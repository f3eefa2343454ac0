//! A connection to a store.

use std::error::Error;
use std::time::Duration;

use base::{ClusterId, StoreId};
use proto::tikvpb::tikv_client::TikvClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{CLUSTER_ID, Resolver, TransportParts};
use crate::placement_link::without_scheme;

/// Who knows the address must say it within this time.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A store must take the connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The other end is asked for a sign of life so often, and must give it within the same time: a
/// machine that lost its power says nothing by itself.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Why nothing more is sent to a store for now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("nobody knows the address of store {0}")]
    NoAddress(StoreId),
    #[error("{address}: {cause}")]
    Connect { address: String, cause: String },
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    #[error("the other end closed the stream")]
    Closed,
    #[error("the snapshot's files: {0}")]
    Files(String),
    #[error("it takes too long")]
    Slow,
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// A new connection to `store`, at the address that it has now.
pub(super) async fn connect(
    parts: &TransportParts,
    store: StoreId,
) -> Result<TikvClient<Channel>, LinkError> {
    connect_to(&parts.resolver, store).await
}

/// A new connection to `store`, at the address that `resolver` says.
pub(crate) async fn connect_to(
    resolver: &Resolver,
    store: StoreId,
) -> Result<TikvClient<Channel>, LinkError> {
    channel_to(resolver, store).await.map(TikvClient::new)
}

/// The same, for any service.
pub(crate) async fn channel_to(resolver: &Resolver, store: StoreId) -> Result<Channel, LinkError> {
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, resolver(store)).await;
    let address = resolved.ok().flatten().ok_or(LinkError::NoAddress(store))?;
    let channel = match endpoint(&address) {
        Ok(endpoint) => endpoint.connect().await,
        Err(error) => Err(error),
    };
    channel.map_err(|error| LinkError::Connect { address, cause: last_cause(&error) })
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let address = without_scheme(address);
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// The error that began it: the outer ones only say "transport error".
fn last_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A call with the caller's name on it.
pub(super) fn signed<T>(parts: &TransportParts, message: T) -> Request<T> {
    sign(Request::new(message), parts.cluster_id)
}

/// Puts the caller's cluster on a call.
pub(crate) fn sign<T>(mut request: Request<T>, cluster: ClusterId) -> Request<T> {
    request.metadata_mut().insert(CLUSTER_ID, MetadataValue::from(cluster.0));
    request
}
