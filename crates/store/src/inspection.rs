//! What people may ask of a replica: everything that it knows of itself and of its group.
//!
//! A [`ReplicaStatus`] is a value of one moment: the end of the shard's turn in which the question
//! came. Nobody decides anything by it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{Index, Peer, PeerId, Region, RegionId, Term};
use raft::FlowStatus;

use crate::consistency::RegionHash;

/// Somebody wants to look at the replica of a region here.
#[derive(Debug)]
pub struct Inspection {
    /// The region.
    pub region_id: RegionId,
    /// Whom to tell; `None` if it has no replica here.
    pub reply: InspectReply,
}

/// Where the answer to an [`Inspection`] goes. Dropped unanswered when the store stops.
pub struct InspectReply(Box<dyn FnOnce(Option<ReplicaStatus>) + Send>);

impl InspectReply {
    /// `deliver` is called once, from the thread that answers: it must be quick and must not block.
    pub fn new(deliver: impl FnOnce(Option<ReplicaStatus>) + Send + 'static) -> Self {
        Self(Box::new(deliver))
    }

    /// Answers.
    pub fn answer(self, status: Option<ReplicaStatus>) {
        (self.0)(status);
    }
}

impl fmt::Debug for InspectReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InspectReply")
    }
}

/// A replica, as it knows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The descriptor; without peers if the replica waits for its first snapshot.
    pub region: Arc<Region>,
    /// The replica.
    pub peer: Peer,
    /// What it is busy with.
    pub activity: Activity,
    /// Who leads, if known.
    pub leader: Option<Peer>,
    /// Raft term.
    pub term: Term,
    /// The last entry of the log.
    pub last: Index,
    /// The last entry that is known to be committed.
    pub committed: Index,
    /// The last entry that was applied here.
    pub applied: Index,
    /// Index and term of the last entry that left the log.
    pub truncated: (Index, Term),
    /// Bytes of the entries in the log.
    pub log_bytes: u64,
    /// How long local reads are allowed still; zero if they are not.
    pub lease_left: Duration,
    /// Whether the group sleeps.
    pub quiet: bool,
    /// The last comparison with the other replicas, if there was one since the start.
    pub check: Option<CheckStatus>,
    /// What a leader knows of the members; empty for the others.
    pub members: Vec<MemberProgress>,
}

/// What a replica is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It takes part.
    Serving,
    /// It knows its name and waits for a snapshot.
    Uninitialised,
    /// A snapshot replaces what it holds.
    Installing,
    /// Its data are not what its log belongs to: it waits for a snapshot.
    Lost,
    /// It is about to become part of its neighbour.
    Merging,
    /// It goes.
    Leaving,
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberProgress {
    /// The member.
    pub peer: PeerId,
    /// Its log equals the leader's up to here.
    pub matched: Index,
    /// How entries flow to it.
    pub flow: FlowStatus,
    /// Whether it was heard of late.
    pub alive: bool,
}

/// How a comparison of replicas stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckStatus {
    /// What this replica came to.
    pub hash: RegionHash,
    /// Whether the leader's was the same. Had it been another one, the store would have stopped.
    pub agreed: bool,
}
