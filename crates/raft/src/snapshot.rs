//! Snapshots: how a member gets what is no longer in the leader's log (Raft paper, section 7).
//!
//! ```text
//!  leader: next entry compacted        driver: makes it, at leisure       member
//!  ─ Ready::snapshots_wanted ─────────────> snapshot_made(to, snapshot)
//!                                           └─ message Snapshot ──────────> Persist::snapshot
//!                                              data on a stream of its own      │ installed
//!  <──────────── snapshot_sent / snapshot_failed                                ▼
//!  <─────────────────────────────────────────── AppendResponse matched ─── persisted(ticket)
//! ```
//!
//! The core knows where a snapshot stands and who the members are at that point. What is in it is
//! the driver's business. Making one takes as long as it takes: meanwhile the member gets
//! heartbeats, and the leader goes on.

use base::{Index, PeerId};
use bytes::Bytes;

use crate::message::LogPos;
use crate::quorum::ConfState;

/// The state of the group after an applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub pos: LogPos,
    /// The members at that entry.
    pub conf: ConfState,
    /// The state machine, or what its receiver needs to fetch it. The core passes it on.
    pub data: Bytes,
}

/// A member needs a snapshot. Answer with [`snapshot_made`](crate::RawNode::snapshot_made) or
/// [`snapshot_failed`](crate::RawNode::snapshot_failed), now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotWanted {
    /// The member.
    pub to: PeerId,
    /// The snapshot must cover at least this entry, which is never zero. It may not be applied here
    /// yet: then wait.
    pub at_least: Index,
}
