//! From store to store: raft messages and snapshots over gRPC.
//!
//! ```text
//!   store thread ── send ──┬─ a queue a store ── Link ── BatchRaft stream ─────> its services/raft
//!                          └─ snapshots ── SnapshotSender ── Snapshot stream ───>      │
//!   store thread <── Unreachable, SnapshotSent ─── (Inbox)                              ▼
//!   store thread <── messages ──────────────────── (Inbox) <── services/raft <── other stores
//! ```
//!
//! Raft needs no guarantee, so none is made: a message arrives once or never, in order as long as a
//! connection lasts. What cannot be sent is dropped, and the shard is told
//! ([`ShardInput::Unreachable`]) once for each time that the way breaks. Each snapshot message is
//! answered by exactly one [`ShardInput::SnapshotSent`].
//!
//! Batches need no timer: while one is written the next piles up in the queue.
//!
//! Both ends say who they are and whom they mean. The caller sends its cluster's id as metadata
//! [`CLUSTER_ID`]; the receiver refuses another's, and ends the stream at a message for another
//! store. Either way the caller asks for the address again ([`Resolver`]) and comes back after a
//! pause.
//!
//! Bounds: [`QueueLimits`] a destination, [`SnapshotLimits`] for snapshots on their way out, and
//! the credits of `services/raft` on the way in.
//!
//! Where to start: [`Transport::send`], then `link` for the life of a connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base::{ClusterId, StoreId};
use futures_util::future::BoxFuture;
use raft::Body;
use store::snapshot::SnapshotFolder;
use store::{RaftMessage, ShardInput, SnapshotCredit, StoreAlive};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use crate::metrics::Metrics;

mod connect;
mod counters;
mod link;
mod queue;
mod snapshot_sender;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use connect::{channel_to, connect_to, sign};
pub(crate) use counters::TransportCounters;
pub(crate) use queue::{QueueLimits, weight};
pub(crate) use snapshot_sender::SnapshotLimits;

/// The metadata of a stream between stores that holds the caller's cluster id, as a decimal number.
pub(crate) const CLUSTER_ID: &str = "cluster-id";

/// Where a store is reached, as `host:port`; nothing if nobody knows. Asked before each connection.
pub(crate) type Resolver = Arc<dyn Fn(StoreId) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// Where things go that a shard should know.
pub(crate) trait Inbox: Send + Sync {
    /// Messages of other stores. `credit` is to be dropped once they are looked at.
    fn messages(&self, messages: Vec<RaftMessage>, credit: OwnedSemaphorePermit);

    /// What the transport itself has to say.
    fn tell(&self, input: ShardInput);
}

/// What a transport is made of.
pub(crate) struct TransportParts {
    /// The cluster that this store belongs to, and the other ends must too.
    pub(crate) cluster_id: ClusterId,
    /// This store.
    pub(crate) store_id: StoreId,
    pub(crate) resolver: Resolver,
    pub(crate) inbox: Arc<dyn Inbox>,
    /// Where the files lie that snapshot messages speak of.
    pub(crate) snapshots: SnapshotFolder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) queue_limits: QueueLimits,
    pub(crate) snapshot_limits: SnapshotLimits,
}

/// The way to the other stores. Its tasks end when it is dropped.
pub(crate) struct Transport {
    parts: Arc<TransportParts>,
    snapshots: Arc<snapshot_sender::SnapshotSender>,
    runtime: Handle,
    out: Mutex<Out>,
}

#[derive(Default)]
struct Out {
    queues: HashMap<StoreId, Arc<queue::Queue>>,
    tasks: JoinSet<()>,
}

impl Transport {
    /// Its tasks run on `runtime`. Nothing is connected before there is something to send.
    pub(crate) fn start(parts: TransportParts, runtime: Handle) -> Self {
        let parts = Arc::new(parts);
        let snapshots = Arc::new(snapshot_sender::SnapshotSender::new(parts.clone()));
        Self { parts, snapshots, runtime, out: Mutex::default() }
    }

    /// Sends what can be sent and drops the rest; `messages` is empty afterwards. Does not wait.
    pub(crate) fn send(&self, messages: &mut Vec<RaftMessage>) {
        if messages.is_empty() {
            return;
        }
        let mut groups = BTreeMap::<StoreId, Vec<RaftMessage>>::new();
        for message in messages.drain(..) {
            match message.message.body {
                Body::Snapshot { .. } => self.send_snapshot(message),
                // To a peer that was here before another one of the same region.
                _ if message.to.store_id == self.parts.store_id => {
                    self.parts.metrics.transport().dropped.add(1);
                }
                _ => groups.entry(message.to.store_id).or_default().push(message),
            }
        }
        for (store, group) in groups {
            let lost = self.queue(store).push(group);
            self.parts.note(store, lost);
        }
    }

    /// Sends signs of life; `alive` is empty afterwards. Does not wait.
    pub(crate) fn send_alive(&self, alive: &mut Vec<StoreAlive>) {
        for alive in alive.drain(..) {
            self.queue(alive.to).push_alive(alive);
        }
    }

    /// Sends words about room for snapshots; `credits` is empty afterwards. Does not wait.
    pub(crate) fn send_credits(&self, credits: &mut Vec<SnapshotCredit>) {
        for credit in credits.drain(..) {
            // Nobody but a peer that was here before has its leader here too.
            if credit.to.store_id != self.parts.store_id {
                self.queue(credit.to.store_id).push_credit(credit);
            }
        }
    }

    fn send_snapshot(&self, message: RaftMessage) {
        let transfer = self.snapshots.clone().transfer(message);
        let mut out = self.out();
        // The set keeps what has ended until somebody asks.
        while out.tasks.try_join_next().is_some() {}
        out.tasks.spawn_on(transfer, &self.runtime);
    }

    /// The queue of a store, with a task behind it.
    fn queue(&self, store: StoreId) -> Arc<queue::Queue> {
        let mut guard = self.out();
        let out = &mut *guard;
        let queue = out.queues.entry(store).or_insert_with(|| {
            let queue = Arc::new(queue::Queue::new(self.parts.queue_limits));
            let link = link::Link::new(store, queue.clone(), self.parts.clone());
            out.tasks.spawn_on(link.run(), &self.runtime);
            queue
        });
        queue.clone()
    }

    fn out(&self) -> std::sync::MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is known to be wrong on the way to `store`.
    #[cfg(test)]
    pub(crate) fn is_clear(&self, store: StoreId) -> bool {
        self.out().queues.get(&store).is_some_and(|queue| queue.is_clear())
    }

    /// Messages and bytes that wait for `store`.
    #[cfg(test)]
    pub(crate) fn depth(&self, store: StoreId) -> (usize, usize) {
        self.out().queues.get(&store).map_or((0, 0), |queue| queue.depth())
    }
}

impl TransportParts {
    /// Counts what was lost on the way to `store`, and tells the shard if it should know.
    fn note(&self, store: StoreId, lost: queue::Lost) {
        let counters = self.metrics.transport();
        counters.dropped.add(lost.messages);
        if lost.tell {
            counters.unreachable.add(1);
            self.inbox.tell(ShardInput::Unreachable(store));
        }
    }
}
