//! Calls at a node where the placement driver does not run: passed on to the node where it does,
//! without being read.
//!
//! A call waits while nobody leads, like at a member of etcd, and is then sent once. What was sent
//! is not sent again: it may have been carried out. An answer that breaks off ends with a status
//! that clients come again after.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use super::status::{leader_changed, no_leader};
use crate::placement_host::PlacementHost;
use crate::placement_link::LocalMembers;

/// A call waits so long for a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Who waits looks this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A connection to the leader must be there in this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A leader that vanished is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Marks a call that was passed on: it is not passed on again.
const PASSED_ON: HeaderName = HeaderName::from_static("pontoon-passed-on");

/// The way to the leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Forwarder {
    host: PlacementHost,
    members: LocalMembers,
    /// Where the leader was last, `host:port`, and a connection to it.
    last: Arc<Mutex<Option<(String, Channel)>>>,
}

/// Where a call is answered.
pub(crate) enum Route {
    Here,
    There(Channel),
    Nowhere(Status),
}

impl Forwarder {
    pub(crate) fn new(host: PlacementHost, members: LocalMembers) -> Self {
        Self { host, members, last: Arc::default() }
    }

    /// Where a call goes. All but some of etcd's are answered here.
    pub(crate) async fn route(&self, path: &str, headers: &HeaderMap) -> Route {
        if !needs_leader(path) {
            return Route::Here;
        }
        let was_passed_on = headers.contains_key(PASSED_ON);
        let (mut leads, started) = (self.host.leads(), Instant::now());
        loop {
            if *leads.borrow_and_update() {
                return Route::Here;
            }
            match self.members.leader_elsewhere().await {
                // Whoever passed it on knew less.
                Some(_) if was_passed_on => return Route::Nowhere(leader_changed()),
                Some(address) => {
                    if let Some(channel) = self.connect(address).await {
                        return Route::There(channel);
                    }
                }
                None => {}
            }
            if started.elapsed() > LEADER_TIMEOUT {
                return Route::Nowhere(no_leader());
            }
            // It may come here meanwhile.
            let _ = tokio::time::timeout(LOOK_INTERVAL, leads.changed()).await;
        }
    }

    /// A connection to the node at an address, if it answers.
    async fn connect(&self, address: String) -> Option<Channel> {
        if let Some((last, channel)) = &*self.lock()
            && *last == address
        {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.ok()?;
        *self.lock() = Some((address, channel.clone()));
        Some(channel)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(String, Channel)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the call and returns what comes back.
    pub(crate) async fn pass_on(
        &self,
        channel: Channel,
        request: hyper::Request<hyper::body::Incoming>,
    ) -> axum::response::Response {
        let mut request = request.map(tonic::body::Body::new);
        request.headers_mut().insert(PASSED_ON, HeaderValue::from_static("1"));
        match channel.oneshot(request).await {
            // A refusal is all in the head, and must leave as such: an empty body after it would be
            // an answer without its trailers.
            Ok(response) if response.headers().contains_key(Status::GRPC_STATUS) => {
                response.map(|_| axum::body::Body::empty())
            }
            Ok(response) => {
                response.map(|body| axum::body::Body::new(Passed { body, has_ended: false }))
            }
            Err(error) => {
                tracing::debug!(%error, "a call of etcd was not passed on");
                self.lock().take();
                leader_changed().into_http()
            }
        }
    }
}

fn needs_leader(path: &str) -> bool {
    let Some(call) = path.strip_prefix("/etcdserverpb.") else { return false };
    ["KV/", "Watch/", "Lease/", "Maintenance/Hash"].iter().any(|prefix| call.starts_with(prefix))
}

/// An answer on its way back.
struct Passed {
    body: tonic::body::Body,
    has_ended: bool,
}

impl hyper::body::Body for Passed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer of etcd broke off");
                self.has_ended = true;
                let mut trailers = HeaderMap::new();
                // A status of fixed words has nothing in it that a header cannot carry.
                let _ = leader_changed().add_header(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            None => Poll::Ready(None),
        }
    }
}
