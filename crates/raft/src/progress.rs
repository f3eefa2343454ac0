//! What a leader knows of one member.
//!
//! ```text
//!              matched                  refused, or lost on the way
//!      Probe ───────────> Replicate ──────────────────────────────> Probe
//!        └── next entry compacted ──┴──> Snapshot ── sent, failed ──> Probe
//!                                           └────────── matched ────> Replicate
//! ```
//!
//! In `Probe` the leader does not know where the logs part: one `Append` at a time, until an answer
//! or a heartbeat's answer comes. In `Replicate` it does: `next` runs ahead of the answers, bounded
//! by the window of [`Inflights`]. In `Snapshot` the member needs what the log no longer has:
//! nothing but heartbeats flows until the driver tells how that went, or an answer shows that the
//! log meets the member's after all.
//!
//! Invariant: matched < next <= last + 1.

use base::{Index, PeerId};

use crate::inflights::Inflights;

pub(crate) struct Progress {
    pub(crate) id: PeerId,
    /// The member's log equals the leader's up to here, durably.
    pub(crate) matched: Index,
    /// The next entry to send.
    pub(crate) next: Index,
    pub(crate) flow: Flow,
    /// The highest commit index in an `Append` since the flow last began.
    pub(crate) commit_sent: Index,
    /// The latest round that the member echoed.
    pub(crate) round: u64,
    /// Whether it was heard since the last check of the quorum.
    pub(crate) heard: bool,
}

/// How entries flow to a member.
pub(crate) enum Flow {
    /// One message at a time.
    Probe {
        /// One is on the way.
        waiting: bool,
    },
    /// Ahead of the answers.
    Replicate(Inflights),
    /// Nothing, until it has a snapshot.
    Snapshot {
        /// The last entry that the one on the way covers; `None` while it is being made.
        index: Option<Index>,
    },
}

impl Progress {
    /// A member of which nothing is known but that the leader's log ends before `next`.
    pub(crate) fn new(id: PeerId, next: Index) -> Self {
        Self {
            id,
            matched: 0,
            next,
            flow: Flow::Probe { waiting: false },
            commit_sent: 0,
            round: 0,
            heard: false,
        }
    }

    /// A member that is known to have the whole log, which ends at `last`, and was just heard.
    pub(crate) fn level(id: PeerId, last: Index) -> Self {
        Self {
            matched: last,
            flow: Flow::Replicate(Inflights::default()),
            commit_sent: last,
            heard: true,
            ..Self::new(id, last + 1)
        }
    }

    /// Whether an `Append` with entries may be sent now.
    pub(crate) fn may_send(&self, count_max: u32, bytes_max: usize) -> bool {
        match &self.flow {
            Flow::Probe { waiting } => !waiting,
            Flow::Replicate(inflights) => !inflights.is_full(count_max, bytes_max),
            Flow::Snapshot { .. } => false,
        }
    }

    /// Whether what the member lacks of a log that ends at `last` waits for an answer, to go with
    /// what comes until then: see [`Config::gather_entries`](crate::Config::gather_entries).
    pub(crate) fn gathers(&self, last: Index, entries: u64) -> bool {
        let few = last + 1 - self.next < entries;
        few && matches!(&self.flow, Flow::Replicate(inflights) if inflights.count() > 0)
    }

    /// An `Append` was sent with entries up to `last` (`next - 1` if it had none) of `bytes` in
    /// all.
    pub(crate) fn sent(&mut self, last: Index, bytes: usize, commit: Index) {
        assert!(last + 1 >= self.next, "{}: sent back to {last} from {}", self.id, self.next);
        self.commit_sent = self.commit_sent.max(commit);
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = true,
            Flow::Replicate(inflights) => {
                if last >= self.next {
                    inflights.add(last, bytes);
                    self.next = last + 1;
                }
            }
            Flow::Snapshot { .. } => panic!("{}: an append beside a snapshot", self.id),
        }
    }

    /// The member's log equals the leader's up to `index`, which has entries from `first` on.
    /// Returns whether that is news about its log.
    pub(crate) fn matches(&mut self, index: Index, first: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index + 1);
        match &mut self.flow {
            Flow::Probe { .. } => {
                // Nothing is known to be on the way: what follows goes out anew, ahead of the
                // answers.
                self.next = self.matched + 1;
                self.flow = Flow::Replicate(Inflights::default());
            }
            Flow::Replicate(inflights) => inflights.free_to(index),
            // Without news it is a late answer, which does not show that the snapshot arrived: a
            // member may have asked for one although the log could serve it.
            Flow::Snapshot { .. } if news && self.matched + 1 >= first => {
                self.next = self.matched + 1;
                self.flow = Flow::Replicate(Inflights::default());
            }
            Flow::Snapshot { .. } => {}
        }
        assert!(self.matched < self.next, "{}: {} >= {}", self.id, self.matched, self.next);
        news
    }

    /// The member refused an `Append` that attached at `prev`; it may agree with the leader up to
    /// `agreeable`. Returns whether this was news, and not a late answer.
    pub(crate) fn refused(&mut self, prev: Index, agreeable: Index) -> bool {
        let late = match &self.flow {
            Flow::Probe { .. } => prev + 1 != self.next,
            Flow::Replicate(_) => prev <= self.matched,
            Flow::Snapshot { .. } => true,
        };
        if late {
            return false;
        }
        self.next = (agreeable + 1).min(prev).max(self.matched + 1);
        self.flow = Flow::Probe { waiting: false };
        self.commit_sent = 0;
        true
    }

    /// The member cannot be reached, or lost something: begin anew behind what is known to match.
    pub(crate) fn probe(&mut self) {
        self.next = self.matched + 1;
        self.flow = Flow::Probe { waiting: false };
        self.commit_sent = 0;
    }

    /// Gives memory back that an idle flow does not need.
    pub(crate) fn rest(&mut self) {
        if let Flow::Replicate(inflights) = &mut self.flow {
            inflights.rest();
        }
    }

    /// The member needs a snapshot, which is to be made.
    pub(crate) fn await_snapshot(&mut self) {
        self.flow = Flow::Snapshot { index: None };
        self.commit_sent = 0;
    }

    /// Whether a snapshot for the member is being made.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        matches!(self.flow, Flow::Snapshot { index: None })
    }

    /// The snapshot arrived, if `arrived`, or will not. What follows is tried with the next answer
    /// to a heartbeat, so that failures do not follow each other at once.
    pub(crate) fn snapshot_over(&mut self, arrived: bool) {
        let Flow::Snapshot { index } = self.flow else { return };
        let reached = index.filter(|_| arrived).unwrap_or(0);
        self.next = self.matched.max(reached) + 1;
        self.flow = Flow::Probe { waiting: true };
    }
}
