//! Streams: answers that follow messages, and answers that follow changes.
//!
//! Each is one value that makes the next answer when the connection has room for it, so a client
//! that does not read is not read from either. They end when the client ends its side (with OK),
//! when the node closes, and after the first error.

use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use placement::{Placement, PlacementError, header};
use proto::pdpb;
use tokio::sync::watch;
use tonic::{Request, Status, Streaming};

use super::answer::status;
use crate::placement_host::{HostError, PlacementHost};

/// Who waits for changes looks this often whether the placement driver is still here.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The messages of a client, until it ends its side or the node closes.
pub(super) struct Inbound<T> {
    messages: Streaming<T>,
    closed: watch::Receiver<bool>,
}

impl<T> Inbound<T> {
    pub(super) fn new(request: Request<Streaming<T>>, closed: &watch::Receiver<bool>) -> Self {
        Self { messages: request.into_inner(), closed: closed.clone() }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<T, Status>> {
        tokio::select! {
            _ = self.closed.wait_for(|closed| *closed) => None,
            message = self.messages.next() => message,
        }
    }

    /// A message that is here already, if there is one. The end is left for [`next`](Self::next).
    pub(super) fn next_waiting(&mut self) -> Option<Result<T, Status>> {
        self.messages.next().now_or_never().flatten()
    }
}

/// What follows a message.
enum Then<A> {
    Nothing,
    Answer(A),
    LastAnswer(A),
    Fail(Status),
}

/// The answers to region heartbeats: one for each that is refused. One that is taken in needs none.
pub(super) fn region_heartbeat(
    host: PlacementHost,
    requests: Inbound<pdpb::RegionHeartbeatRequest>,
) -> impl Stream<Item = Result<pdpb::RegionHeartbeatResponse, Status>> + Send {
    follow(requests, move |request| {
        let result = host.update(|placement| placement.region_heartbeat(&request));
        let error = match result.map_err(HostError::from).and_then(|taken| Ok(taken?)) {
            Ok(()) => return Then::Nothing,
            Err(error) => error,
        };
        let answer = |header| pdpb::RegionHeartbeatResponse { header, ..Default::default() };
        match refusal(&host, &error) {
            Some((refusal, header)) if *refusal == PlacementError::NotBootstrapped => {
                Then::LastAnswer(answer(Some(header)))
            }
            Some((_, header)) => Then::Answer(answer(Some(header))),
            None => Then::Fail(status(&error)),
        }
    })
}

/// The answers to queries of regions, one for each.
pub(super) fn query_region(
    host: PlacementHost,
    requests: Inbound<pdpb::QueryRegionRequest>,
) -> impl Stream<Item = Result<pdpb::QueryRegionResponse, Status>> + Send {
    follow(requests, move |request| {
        let result = host.read(|placement| placement.query_region(&request));
        match result.map_err(HostError::from).and_then(|reply| Ok(reply?)) {
            Ok(reply) => Then::Answer(reply),
            Err(error) => match refusal(&host, &error) {
                Some((_, header)) => Then::Answer(pdpb::QueryRegionResponse {
                    header: Some(header),
                    ..Default::default()
                }),
                None => Then::Fail(status(&error)),
            },
        }
    })
}

/// A refusal that travels in a header, and that header.
fn refusal<'a>(
    host: &PlacementHost,
    error: &'a HostError,
) -> Option<(&'a PlacementError, pdpb::ResponseHeader)> {
    match error {
        HostError::Placement(refusal) => {
            Some((refusal, header::refusal(host.cluster_id(), refusal)?))
        }
        _ => None,
    }
}

/// The answers that `then` gives to the messages, in their order.
fn follow<Q: Send, A: Send>(
    requests: Inbound<Q>,
    then: impl FnMut(Q) -> Then<A> + Send,
) -> impl Stream<Item = Result<A, Status>> + Send {
    // `None`: nothing follows.
    stream::unfold(Some((requests, then)), |state| async move {
        let (mut requests, mut then) = state?;
        loop {
            match requests.next().await?.map(&mut then) {
                Ok(Then::Nothing) => {}
                Ok(Then::Answer(answer)) => return Some((Ok(answer), Some((requests, then)))),
                Ok(Then::LastAnswer(answer)) => return Some((Ok(answer), None)),
                Ok(Then::Fail(status)) | Err(status) => return Some((Err(status), None)),
            }
        }
    })
}

/// What `changed` gives, now and whenever `wake` is told, until the placement driver leaves or the
/// node closes.
pub(crate) fn changes<A: Send>(
    host: PlacementHost,
    wake: watch::Receiver<()>,
    closed: watch::Receiver<bool>,
    changed: impl FnMut(&Placement) -> Option<A> + Send,
) -> impl Stream<Item = Result<A, Status>> + Send {
    // `None`: nothing follows.
    stream::unfold(Some((host, wake, closed, changed)), |state| async move {
        let (host, mut wake, mut closed, mut changed) = state?;
        loop {
            wake.mark_unchanged();
            match host.read(&mut changed) {
                Ok(Some(answer)) => {
                    return Some((Ok(answer), Some((host, wake, closed, changed))));
                }
                Ok(None) => {}
                Err(error) => return Some((Err(status(&error.into())), None)),
            }
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return None,
                _ = wake.changed() => {}
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
    })
}
