//! What a node wants done: the one way out of the core.

use std::num::NonZeroU64;

use base::{Entry, Index, PeerId, Term};

use crate::message::Message;
use crate::snapshot::{Snapshot, SnapshotWanted};
use crate::storage::Failure;

/// The work that piled up since the last `Ready`. Each piece is handed out once. See the crate's
/// page for the picture and the driver's duties.
#[derive(Debug, Default)]
#[must_use = "what a Ready holds is not handed out again"]
pub struct Ready {
    /// What must become durable, with the messages that wait for it. Hand it to the log writer;
    /// several may be on the way, in order.
    pub persist: Option<Persist>,
    /// Messages that may leave now, before anything is durable.
    pub messages: Vec<Message>,
    /// Entries to apply: committed, durable here, in order, without a gap to those handed out
    /// before.
    pub committed: Vec<Entry>,
    /// Answers to `read_index`.
    pub read_states: Vec<ReadState>,
    /// Members that need a snapshot.
    pub snapshots_wanted: Vec<SnapshotWanted>,
    /// [`RawNode::confirmed_round`](crate::RawNode::confirmed_round) at this moment. Where it is
    /// zero there is no lease; withdraw one that was given before the messages leave.
    pub confirmed_round: u64,
    /// Storage broke a promise. The node does nothing any more; stop it and say why.
    pub failure: Option<Failure>,
    /// The vectors of the last `persist`, for the next.
    pub(crate) spare: Spare,
}

/// Vectors that were emptied, to be filled again.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    pub(crate) entries: Vec<Entry>,
    pub(crate) then: Vec<Message>,
}

impl Ready {
    /// Forgets the work that was done, and keeps the memory.
    pub(crate) fn empty(&mut self) {
        if let Some(Persist { mut entries, mut then, .. }) = self.persist.take() {
            entries.clear();
            then.clear();
            self.spare = Spare { entries, then };
        }
        self.messages.clear();
        self.committed.clear();
        self.read_states.clear();
        self.snapshots_wanted.clear();
        self.confirmed_round = 0;
        self.failure = None;
    }
}

/// One write to the log, and what may be said once it is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Persist {
    /// Report it with [`RawNode::persisted`](crate::RawNode::persisted) once all of this is
    /// durable.
    pub ticket: Ticket,
    /// Install it before the rest: the state machine becomes what it holds, the log becomes empty
    /// and begins after it, the members become its members; all of that at once. Pages of entries
    /// that were handed out earlier and are not applied yet are covered by it.
    pub snapshot: Option<Box<Snapshot>>,
    /// The new hard state, if term or vote changed, or if the commit index did and there are
    /// entries to write anyway.
    pub hard_state: Option<HardState>,
    /// Consecutive entries to append. The first one's index may be at or below the last one's on
    /// disk: everything from there on is replaced.
    pub entries: Vec<Entry>,
    /// Messages that may leave only when this write and all before it are durable. There may be
    /// such messages alone: they wait for an earlier write.
    pub then: Vec<Message>,
}

/// Names a [`Persist`]. Tickets of one node grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) NonZeroU64);

impl Ticket {
    /// A node's first.
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    /// The one after this.
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("nobody writes so often"))
    }
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term; [`PeerId::NONE`] for nobody.
    pub vote: PeerId,
    /// Up to here the log is known to be committed. Written lazily, so it may lag behind what was
    /// applied.
    pub commit: Index,
}

/// An answer to `read_index`: once the state machine has applied `index` it may serve the reads of
/// `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// What the caller passed to `read_index`.
    pub context: u64,
    /// The index to wait for.
    pub index: Index,
}
