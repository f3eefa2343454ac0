//! What the transport counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the start.
#[derive(Debug, Default)]
pub(crate) struct TransportCounters {
    /// Raft messages that were handed to a connection.
    pub(crate) sent: Counter,
    /// Their size, about.
    pub(crate) sent_bytes: Counter,
    /// Raft messages that were dropped: the queue was full, or the way to their store broken.
    pub(crate) dropped: Counter,
    /// How often the way to a store became unreliable.
    pub(crate) unreachable: Counter,
    /// Raft messages from other stores.
    pub(crate) received: Counter,
    /// Their size, about.
    pub(crate) received_bytes: Counter,
    /// Messages that were thrown away because they make no sense.
    pub(crate) refused: Counter,
    /// Snapshots that arrived at another store.
    pub(crate) snapshots_sent: Counter,
    /// Snapshots that did not.
    pub(crate) snapshots_lost: Counter,
    /// Snapshots that arrived here as a whole.
    pub(crate) snapshots_received: Counter,
    /// Bytes of snapshots in both directions.
    pub(crate) snapshot_bytes: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TransportCounters {
    /// Name, meaning and value of each, as they are exported.
    pub(crate) fn rows(&self) -> [(&'static str, &'static str, u64); 11] {
        [
            ("raft_messages_sent", "Raft messages sent.", self.sent.get()),
            ("raft_message_sent_bytes", "Their bytes, about.", self.sent_bytes.get()),
            ("raft_messages_dropped", "Raft messages not sent.", self.dropped.get()),
            ("raft_unreachable", "Ways to stores that broke.", self.unreachable.get()),
            ("raft_messages_received", "Raft messages received.", self.received.get()),
            ("raft_message_received_bytes", "Their bytes, about.", self.received_bytes.get()),
            ("raft_messages_refused", "Raft messages without sense.", self.refused.get()),
            ("snapshots_sent", "Snapshots sent.", self.snapshots_sent.get()),
            ("snapshots_lost", "Snapshots that did not arrive.", self.snapshots_lost.get()),
            ("snapshots_received", "Snapshots received.", self.snapshots_received.get()),
            ("snapshot_bytes", "Bytes of snapshots sent and received.", self.snapshot_bytes.get()),
        ]
    }
}
