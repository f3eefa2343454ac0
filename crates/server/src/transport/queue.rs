//! What waits to be sent to one store: bounded by count and by bytes.
//!
//! ```text
//!   store thread ── push ──> [ messages ] ── next_batch ──> stream of one connection
//!                    │ full: dropped           │ broken: fail() drops all that waits
//!                    └──── told once, until the way was clear again ────┘
//! ```
//!
//! Raft does with lost messages, but it should know: while it believes that they arrive it sends
//! entry after entry. One word is enough, for as long as the same trouble lasts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft::Body;
use store::{RaftMessage, SnapshotCredit, StoreAlive};
use tokio::sync::Notify;

/// What a message weighs beside what it carries: its part of the queue and of the wire.
const MESSAGE_WEIGHT: usize = 128;

/// What an entry weighs beside its data.
const ENTRY_WEIGHT: usize = 32;

/// Words about room for snapshots that may wait; the rest is dropped, and asked for again.
const CREDITS_MAX: usize = 1 << 10;

/// How much may wait, and how much goes into one message of the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Messages that may wait.
    pub(crate) messages_max: usize,
    /// Bytes that may wait, about. A single message may be larger.
    pub(crate) bytes_max: usize,
    /// Messages in a batch.
    pub(crate) batch_messages_max: usize,
    /// Bytes after which a batch is full, about.
    pub(crate) batch_bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            messages_max: 16 << 10,
            bytes_max: 64 << 20,
            batch_messages_max: 512,
            batch_bytes_max: 1 << 20,
        }
    }
}

/// What a message weighs: about its size in memory, and a bit more than that on the wire.
pub(crate) fn weight(message: &RaftMessage) -> usize {
    let carried = match &message.message.body {
        Body::Append { entries, .. } => {
            entries.iter().map(|entry| entry.data.len() + ENTRY_WEIGHT).sum()
        }
        Body::Propose { data } => data.len(),
        Body::Snapshot { snapshot, .. } => snapshot.data.len(),
        _ => 0,
    };
    let range = message.range.as_ref().map_or(0, |range| range.start.len() + range.end.len());
    MESSAGE_WEIGHT + carried + range
}

/// What became of messages that were not taken, or no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// So many were dropped.
    pub(crate) messages: usize,
    /// Raft should hear of it: it is the first time since the way was clear.
    pub(crate) tell: bool,
}

/// The queue of one destination. Many push, one takes.
pub(crate) struct Queue {
    limits: QueueLimits,
    waiting: Mutex<Waiting>,
    /// There is something again.
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<RaftMessage>,
    /// The sum of their weights.
    bytes: usize,
    /// A sign of life; a later one takes the place of one that still waits.
    alive: Option<StoreAlive>,
    /// Words about room for snapshots.
    credits: Vec<SnapshotCredit>,
    /// Raft was told that messages get lost, and the way was not clear since.
    told: bool,
    /// The connection has proved itself.
    settled: bool,
}

/// What goes into one message of the stream.
pub(crate) struct Batch {
    pub(crate) messages: Vec<RaftMessage>,
    /// The sum of their weights.
    pub(crate) bytes: usize,
    /// A sign of life, behind the messages.
    pub(crate) alive: Option<StoreAlive>,
    /// Words about room for snapshots, behind that.
    pub(crate) credits: Vec<SnapshotCredit>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.alive.is_none() && self.credits.is_empty()
    }
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        assert!(limits.messages_max > 0 && limits.batch_messages_max > 0, "nothing would pass");
        Self { limits, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// Puts messages behind those that wait, as far as there is room; the rest is dropped.
    pub(crate) fn push(&self, messages: impl IntoIterator<Item = RaftMessage>) -> Lost {
        let mut waiting = self.lock();
        let was_empty = waiting.messages.is_empty();
        let mut lost = Lost::default();
        for message in messages {
            if self.is_full(&waiting) {
                lost.messages += 1;
                continue;
            }
            waiting.bytes += weight(&message);
            waiting.messages.push_back(message);
        }
        if lost.messages > 0 {
            lost.tell = !std::mem::replace(&mut waiting.told, true);
        }
        let filled = was_empty && !waiting.messages.is_empty();
        drop(waiting);
        if filled {
            self.filled.notify_one();
        }
        lost
    }

    /// A sign of life leaves with what waits.
    pub(crate) fn push_alive(&self, alive: StoreAlive) {
        self.lock().alive = Some(alive);
        self.filled.notify_one();
    }

    /// A word about room for a snapshot leaves with what waits.
    pub(crate) fn push_credit(&self, credit: SnapshotCredit) {
        let mut waiting = self.lock();
        if waiting.credits.len() < CREDITS_MAX {
            waiting.credits.push(credit);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// The next messages, in order; waits until there are some.
    pub(crate) async fn next_batch(&self) -> Batch {
        loop {
            if let Some(batch) = self.take_batch() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// Waits until there is something to send.
    pub(crate) async fn wait_filled(&self) {
        while self.lock().is_empty() {
            self.filled.notified().await;
        }
    }

    /// The connection has proved itself: as soon as the queue is not nearly full either, the way is
    /// clear.
    pub(crate) fn settle(&self) {
        let mut waiting = self.lock();
        waiting.settled = true;
        self.clear_if_possible(&mut waiting);
    }

    /// The connection broke, or none could be made: drops all that waits, and counts what was
    /// under way as lost.
    pub(crate) fn fail(&self) -> Lost {
        let mut waiting = self.lock();
        let messages = waiting.messages.len();
        waiting.messages = VecDeque::new();
        waiting.bytes = 0;
        waiting.alive = None;
        waiting.credits = Vec::new();
        waiting.settled = false;
        Lost { messages, tell: !std::mem::replace(&mut waiting.told, true) }
    }

    fn take_batch(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        let (mut count, mut bytes) = (0, 0);
        for message in waiting.messages.iter().take(self.limits.batch_messages_max) {
            if bytes >= self.limits.batch_bytes_max {
                break;
            }
            bytes += weight(message);
            count += 1;
        }
        let messages: Vec<_> = waiting.messages.drain(..count).collect();
        assert!(bytes <= waiting.bytes, "a batch of {bytes} bytes from {}", waiting.bytes);
        waiting.bytes -= bytes;
        self.clear_if_possible(&mut waiting);
        let alive = waiting.alive.take();
        let credits = std::mem::take(&mut waiting.credits);
        let is_empty = messages.is_empty() && alive.is_none() && credits.is_empty();
        (!is_empty).then_some(Batch { messages, bytes, alive, credits })
    }

    fn is_full(&self, waiting: &Waiting) -> bool {
        waiting.messages.len() >= self.limits.messages_max || waiting.bytes >= self.limits.bytes_max
    }

    fn clear_if_possible(&self, waiting: &mut Waiting) {
        let half_empty = waiting.messages.len() <= self.limits.messages_max / 2
            && waiting.bytes <= self.limits.bytes_max / 2;
        if waiting.settled && half_empty {
            waiting.told = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next trouble would be news.
    #[cfg(test)]
    pub(crate) fn is_clear(&self) -> bool {
        !self.lock().told
    }

    /// Messages and bytes that wait.
    #[cfg(test)]
    pub(crate) fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.messages.len(), waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::heartbeat;
    use super::*;

    fn queue(messages_max: usize) -> Queue {
        let limits = QueueLimits { messages_max, batch_messages_max: 3, ..QueueLimits::default() };
        Queue::new(limits)
    }

    fn rounds(messages: &[RaftMessage]) -> Vec<u64> {
        let round = |message: &RaftMessage| match message.message.body {
            Body::Heartbeat { round, .. } => round,
            _ => unreachable!("only heartbeats are sent here"),
        };
        messages.iter().map(round).collect()
    }

    #[test]
    fn batches_keep_the_order_and_the_limits() {
        let queue = queue(100);
        assert_eq!(queue.push((0..7).map(heartbeat)), Lost::default());
        let batches: Vec<_> = std::iter::from_fn(|| queue.take_batch()).collect();
        let sizes: Vec<_> = batches.iter().map(|batch| batch.messages.len()).collect();
        assert_eq!(sizes, [3, 3, 1]);
        let all: Vec<_> = batches.into_iter().flat_map(|batch| batch.messages).collect();
        assert_eq!(rounds(&all), (0..7).collect::<Vec<_>>());
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_says_so_once() {
        let queue = queue(4);
        assert_eq!(queue.push((0..6).map(heartbeat)), Lost { messages: 2, tell: true });
        assert_eq!(queue.push((6..8).map(heartbeat)), Lost { messages: 2, tell: false });
        assert_eq!(queue.depth(), (4, 4 * MESSAGE_WEIGHT));
        assert_eq!(rounds(&queue.take_batch().unwrap().messages), [0, 1, 2]);
        // The way is clear once the connection has proved itself too.
        assert_eq!(queue.push((8..12).map(heartbeat)), Lost { messages: 1, tell: false });
        queue.take_batch();
        queue.settle();
        assert_eq!(queue.push((12..20).map(heartbeat)).messages, 5);
        queue.take_batch();
        queue.take_batch();
        assert_eq!(queue.push((20..26).map(heartbeat)), Lost { messages: 2, tell: true });
    }

    #[test]
    fn a_broken_connection_loses_what_waits() {
        let queue = queue(10);
        queue.settle();
        queue.push((0..5).map(heartbeat));
        assert_eq!(queue.fail(), Lost { messages: 5, tell: true });
        assert_eq!(queue.depth(), (0, 0));
        queue.push((5..8).map(heartbeat));
        assert_eq!(queue.fail(), Lost { messages: 3, tell: false }, "the same trouble");
        queue.settle();
        assert_eq!(queue.fail(), Lost { messages: 0, tell: true }, "another");
    }

    #[test]
    fn bytes_count_too() {
        let limits = QueueLimits { bytes_max: 3 * MESSAGE_WEIGHT, ..QueueLimits::default() };
        let queue = Queue::new(limits);
        assert_eq!(queue.push((0..10).map(heartbeat)), Lost { messages: 7, tell: true });
        let limits = QueueLimits { batch_bytes_max: 2 * MESSAGE_WEIGHT, ..QueueLimits::default() };
        let queue = Queue::new(limits);
        queue.push((0..5).map(heartbeat));
        assert_eq!(queue.take_batch().unwrap().messages.len(), 2);
    }
}
