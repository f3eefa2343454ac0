//! What a node wants done: the one way out of the core.

use base::{Entry, Index, PeerId, Term};

use crate::message::Message;
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
    /// [`RawNode::confirmed_round`](crate::RawNode::confirmed_round) at this moment. Where it is
    /// zero there is no lease; withdraw one that was given before the messages leave.
    pub confirmed_round: u64,
    /// Storage broke a promise. The node does nothing any more; stop it and say why.
    pub failure: Option<Failure>,
}

/// One write to the log, and what may be said once it is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Persist {
    /// Report it with [`RawNode::persisted`](crate::RawNode::persisted) once all of this is
    /// durable.
    pub ticket: Ticket,
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
pub struct Ticket(pub(crate) u64);

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
