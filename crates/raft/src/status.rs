//! What a node tells about itself.

use base::{Index, PeerId, Term};

use crate::progress::{Flow, Progress};
use crate::quorum::ConfState;

/// A node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows the leader of the term, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A copy of everything of interest, for people and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub id: PeerId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in the term, or nobody.
    pub vote: PeerId,
    /// The leader of the term, if it is known.
    pub leader: Option<PeerId>,
    /// The last entry.
    pub last: Index,
    /// The last durable entry.
    pub stable: Index,
    /// The last committed entry that the node knows of.
    pub committed: Index,
    /// The last applied entry.
    pub applied: Index,
    /// Entries in memory.
    pub tail_entries: usize,
    /// Entries for which memory is held.
    pub tail_capacity: usize,
    /// The members.
    pub conf: ConfState,
    /// Whether it sleeps: ticks do nothing until something happens.
    pub quiet: bool,
    /// To whom a leader is handing over.
    pub transferring_to: Option<PeerId>,
    /// A leader's knowledge of the other members, by id; empty otherwise.
    pub members: Vec<MemberStatus>,
}

/// What a leader knows of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The member.
    pub id: PeerId,
    /// Its log equals the leader's up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How entries flow.
    pub flow: FlowStatus,
    /// Whether it was heard since the leader last checked its quorum.
    pub heard: bool,
}

/// How entries flow to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowStatus {
    /// One message at a time.
    Probe,
    /// Ahead of the answers; so many messages are on the way.
    Replicate(usize),
    /// It needs a snapshot: which is being made, or is on the way and covers the log up to here.
    Snapshot(Option<Index>),
}

impl MemberStatus {
    pub(crate) fn of(progress: &Progress) -> Self {
        Self {
            id: progress.id,
            matched: progress.matched,
            next: progress.next,
            flow: match &progress.flow {
                Flow::Probe { .. } => FlowStatus::Probe,
                Flow::Replicate(inflights) => FlowStatus::Replicate(inflights.count()),
                Flow::Snapshot { index } => FlowStatus::Snapshot(*index),
            },
            heard: progress.heard,
        }
    }
}
