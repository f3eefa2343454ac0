//! The port: one listener for gRPC and HTTP, told apart by content type.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tonic::Status;
use tower::ServiceExt;

use crate::config::Config;
use crate::http;
use crate::node::StartError;
use crate::placement_host::EtcdDesk;
use crate::placement_link::{LocalMembers, PlacementLink};
use crate::services;
use crate::services::Calls;
use crate::services::etcd::{Etcd, Forwarder, Route};
use crate::store_handle::StoreHandle;

/// A connection must send its first request's head within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What a stream, and a connection, may have on the way to us: enough for a batch of the largest
/// entries.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// The gRPC status of a call that is not served.
const UNIMPLEMENTED: &str = "12";

/// So much of its name goes into the answer. Real ones are shorter.
const CALL_NAME_MAX: usize = 256;

/// What every connection serves.
#[derive(Clone)]
pub(crate) struct Services {
    grpc: axum::Router,
    forwarder: Forwarder,
    http: axum::Router,
    store: StoreHandle,
    connections: Arc<Semaphore>,
    streams_max: u32,
    keep_alive: Duration,
    closed: watch::Receiver<bool>,
}

impl Services {
    pub(crate) fn new(
        calls: &Calls,
        link: &PlacementLink,
        members: LocalMembers,
        desk: EtcdDesk,
        config: &Config,
        closed: watch::Receiver<bool>,
    ) -> Self {
        let store = link.host().store().clone();
        let etcd = Etcd::new(desk, members.clone(), closed.clone());
        Self {
            grpc: services::router(calls, link, &etcd, &closed),
            forwarder: Forwarder::new(link.host().clone(), members.clone()),
            http: http::router(&store, link.host(), &members, config),
            store,
            connections: Arc::new(Semaphore::new(config.server.connections_max)),
            streams_max: config.server.streams_max,
            keep_alive: config.server.grpc_keepalive_time.0,
            closed,
        }
    }

    async fn call(
        self,
        request: hyper::Request<hyper::body::Incoming>,
    ) -> Result<axum::response::Response, Infallible> {
        let content_type = request.headers().get(hyper::header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
        if !is_grpc {
            return self.http.oneshot(request).await;
        }
        let call = request.uri().clone();
        match self.forwarder.route(call.path(), request.headers()).await {
            Route::Here => {}
            Route::There(leader) => return Ok(self.forwarder.pass_on(leader, request).await),
            Route::Nowhere(status) => return Ok(status.into_http()),
        }
        let mut response = self.grpc.oneshot(request).await?;
        if response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == UNIMPLEMENTED) {
            response.headers_mut().insert(Status::GRPC_MESSAGE, unserved(&call));
        }
        Ok(response)
    }
}

/// What the answer to a call that nobody here serves says: its name, for whoever reads the client's
/// log. Escaped as gRPC wants it.
fn unserved(call: &Uri) -> HeaderValue {
    let mut text = String::from("unimplemented: ");
    for byte in call.path().bytes().take(CALL_NAME_MAX) {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).expect("all of it is printable")
}

/// Takes the address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|cause| StartError::Listen { address, cause })
}

/// Serves until the node closes.
pub(crate) async fn serve(listener: TcpListener, services: Services) {
    let mut closed = services.closed.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer, &services),
            Err(error) => {
                // Out of file descriptors, or the peer is gone already. Others may end meanwhile.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn take(stream: TcpStream, peer: SocketAddr, services: &Services) {
    let Ok(permit) = services.connections.clone().try_acquire_owned() else {
        tracing::warn!(%peer, "too many connections, closed");
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    let services = services.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let _counted = services.store.shared_metrics().connection();
        if let Err(error) = serve_connection(stream, services).await {
            tracing::debug!(%peer, %error, "connection ended");
        }
    });
}

async fn serve_connection(
    stream: TcpStream,
    services: Services,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(services.streams_max)
        // A machine that lost its power, or was cut off, says nothing by itself.
        .keep_alive_interval(services.keep_alive)
        .keep_alive_timeout(services.keep_alive)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let mut closed = services.closed.clone();
    let service = hyper::service::service_fn(move |request| services.clone().call(request));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        _ = closed.wait_for(|closed| *closed) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_unserved_call_is_escaped_and_bounded() {
        let text = |path: &str| unserved(&path.parse().unwrap()).to_str().unwrap().to_owned();
        assert_eq!(text("/pdpb.PD/SyncRegions"), "unimplemented: /pdpb.PD/SyncRegions");
        assert_eq!(text("/a%0a/b?c"), "unimplemented: /a%250a/b");
        assert_eq!(text(&"/a".repeat(1_000)).len(), "unimplemented: ".len() + CALL_NAME_MAX);
    }
}
