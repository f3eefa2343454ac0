//! The way to one store: connect, stream, and again after a pause.

use std::sync::Arc;
use std::time::Duration;

use base::StoreId;
use futures_util::{Stream, stream};
use proto::tikvpb::BatchRaftMessage;
use store::{alive_to_proto, credit_to_proto, raft_message_to_proto};
use tokio::sync::oneshot;

use super::TransportParts;
use super::connect::{LinkError, connect, signed};
use super::queue::{Batch, Queue};
use crate::backoff::Backoff;

/// The first pause before a store is connected to again, about.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest. A store that comes back is reached within this time: a group may wait for its vote.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A stream that lasts so long has proved itself: neither cluster nor store are the wrong ones.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// The task that empties the queue of one store.
pub(super) struct Link {
    store: StoreId,
    queue: Arc<Queue>,
    parts: Arc<TransportParts>,
    backoff: Backoff,
}

impl Link {
    pub(super) fn new(store: StoreId, queue: Arc<Queue>, parts: Arc<TransportParts>) -> Self {
        let seed = store.0 ^ parts.store_id.0.rotate_left(32);
        let backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX, seed);
        Self { store, queue, parts, backoff }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            self.queue.wait_filled().await;
            let error = self.stream().await;
            let lost = self.queue.fail();
            let store = self.store;
            if lost.tell {
                tracing::warn!(%store, %error, dropped = lost.messages, "store is unreachable");
            } else {
                tracing::debug!(%store, %error, dropped = lost.messages, "still unreachable");
            }
            self.parts.note(store, lost);
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }

    /// One connection, from its begin to its end.
    async fn stream(&mut self) -> LinkError {
        let mut client = match connect(&self.parts, self.store).await {
            Ok(client) => client,
            Err(error) => return error,
        };
        // Whatever becomes of the connection's own task: once this function has returned nothing
        // takes from the queue on its behalf.
        let (_alive, ended) = oneshot::channel();
        let outgoing = batches(self.queue.clone(), self.parts.clone(), ended);
        let call = client.batch_raft(signed(&self.parts, outgoing));
        let mut call = std::pin::pin!(call);
        let outcome = tokio::select! {
            outcome = call.as_mut() => outcome,
            () = tokio::time::sleep(SETTLED_AFTER) => {
                self.backoff.reset();
                self.queue.settle();
                tracing::debug!(store = %self.store, "connected");
                call.await
            }
        };
        match outcome {
            Ok(_) => LinkError::Closed,
            Err(status) => status.into(),
        }
    }
}

/// What the queue gives, until the other end of `ended` is dropped.
fn batches(
    queue: Arc<Queue>,
    parts: Arc<TransportParts>,
    ended: oneshot::Receiver<()>,
) -> impl Stream<Item = BatchRaftMessage> + Send {
    stream::unfold((queue, parts, ended), |(queue, parts, mut ended)| async move {
        let Batch { messages, bytes, alive, credits } = tokio::select! {
            biased;
            _ = &mut ended => return None,
            batch = queue.next_batch() => batch,
        };
        let counters = parts.metrics.transport();
        counters.sent.add(messages.len());
        counters.sent_bytes.add(bytes);
        let messages = messages.into_iter().map(raft_message_to_proto);
        let behind = alive.map(alive_to_proto).into_iter();
        let behind = behind.chain(credits.into_iter().map(credit_to_proto));
        let msgs = messages.chain(behind).collect();
        Some((BatchRaftMessage { msgs, ..Default::default() }, (queue, parts, ended)))
    })
}
