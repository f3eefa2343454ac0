//! Streams: answers that follow messages, and answers that follow changes.
//!
//! Each is one value that makes the next answer when the connection has room for it, so a client
//! that does not read is not read from either. They end when the client ends its side (with OK),
//! when the node closes, and after the first error. One that begins or stands while the placement
//! driver is not here fails with the words `not leader`: the client turns to whoever leads then.

use std::time::Duration;

use base::StoreId;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use placement::{Order, Placement, PlacementError, header};
use proto::pdpb;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Status, Streaming};

use super::answer::status;
use crate::placement_host::{HostError, NotPlacementLeader, PlacementHost};

/// Who waits for changes looks this often whether the placement driver is still here.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The messages of a client, until it ends its side, the node closes or the placement driver is not
/// here.
pub(super) struct Inbound<T> {
    messages: Streaming<T>,
    leads: watch::Receiver<bool>,
    closed: watch::Receiver<bool>,
}

impl<T> Inbound<T> {
    pub(super) fn new(
        request: Request<Streaming<T>>,
        host: &PlacementHost,
        closed: &watch::Receiver<bool>,
    ) -> Self {
        Self { messages: request.into_inner(), leads: host.leads(), closed: closed.clone() }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<T, Status>> {
        tokio::select! {
            _ = self.closed.wait_for(|closed| *closed) => None,
            _ = self.leads.wait_for(|leads| !*leads) => {
                Some(Err(status(&NotPlacementLeader.into())))
            }
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

/// The answers to region heartbeats: one for each that is refused, and the orders for the leaders
/// on the store that sends them. A heartbeat that is taken in needs no answer.
pub(super) fn region_heartbeat(
    host: PlacementHost,
    requests: Inbound<pdpb::RegionHeartbeatRequest>,
) -> impl Stream<Item = Result<pdpb::RegionHeartbeatResponse, Status>> + Send {
    let heartbeats = Heartbeats { host, requests, store: None, orders: None };
    // `None`: nothing follows.
    stream::unfold(Some(heartbeats), |state| async move {
        let mut heartbeats = state?;
        loop {
            match heartbeats.next().await? {
                Then::Nothing => {}
                Then::Answer(answer) => return Some((Ok(answer), Some(heartbeats))),
                Then::LastAnswer(answer) => return Some((Ok(answer), None)),
                Then::Fail(status) => return Some((Err(status), None)),
            }
        }
    })
}

/// A store's stream of region heartbeats.
struct Heartbeats {
    host: PlacementHost,
    requests: Inbound<pdpb::RegionHeartbeatRequest>,
    /// The store, once it has reported a region.
    store: Option<StoreId>,
    /// Its orders, unless a newer stream has them.
    orders: Option<mpsc::Receiver<Order>>,
}

impl Heartbeats {
    async fn next(&mut self) -> Option<Then<pdpb::RegionHeartbeatResponse>> {
        let orders = &mut self.orders;
        let order = async {
            match orders {
                Some(orders) => orders.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = order => Some(match order {
                Some(order) => {
                    Then::Answer(order.to_wire(header::success(self.host.cluster_id())))
                }
                None => {
                    self.orders = None;
                    Then::Nothing
                }
            }),
            request = self.requests.next() => Some(match request? {
                Ok(request) => self.take(&request),
                Err(status) => Then::Fail(status),
            }),
        }
    }

    fn take(
        &mut self,
        request: &pdpb::RegionHeartbeatRequest,
    ) -> Then<pdpb::RegionHeartbeatResponse> {
        let host = &self.host;
        let result = host.update(|placement| placement.region_heartbeat(request));
        let result = result.map_err(HostError::from).and_then(|taken| Ok(taken?));
        let answer = |header| pdpb::RegionHeartbeatResponse { header, ..Default::default() };
        let then = match &result {
            Ok(()) => Then::Nothing,
            Err(error) => match refusal(host, error) {
                Some((refusal, header)) if *refusal == PlacementError::NotBootstrapped => {
                    return Then::LastAnswer(answer(Some(header)));
                }
                Some((_, header)) => Then::Answer(answer(Some(header))),
                None => return Then::Fail(status(error)),
            },
        };
        if let Some(leader) = request.leader.as_ref().filter(|_| self.store.is_none()) {
            let store = StoreId(leader.store_id);
            self.store = Some(store);
            self.orders = Some(host.bind(store));
        }
        host.region_reported();
        then
    }
}

/// The answers to queries of regions, one for each, once the cluster is founded.
pub(super) async fn query_region(
    host: PlacementHost,
    requests: Inbound<pdpb::QueryRegionRequest>,
) -> impl Stream<Item = Result<pdpb::QueryRegionResponse, Status>> + Send {
    host.founded().await;
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
    let leads = host.leads();
    // `None`: nothing follows.
    stream::unfold(Some((host, leads, wake, closed, changed)), |state| async move {
        let (host, mut leads, mut wake, mut closed, mut changed) = state?;
        loop {
            wake.mark_unchanged();
            leads.mark_unchanged();
            match host.read(&mut changed) {
                Ok(Some(answer)) => {
                    return Some((Ok(answer), Some((host, leads, wake, closed, changed))));
                }
                Ok(None) => {}
                Err(error) => return Some((Err(status(&error.into())), None)),
            }
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return None,
                _ = wake.changed() => {}
                _ = leads.changed() => {}
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
    })
}
