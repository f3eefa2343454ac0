//! What peers of one group say to each other.
//!
//! A closed enum: what cannot be meant cannot be written. Turning it into bytes is the transport's
//! business.
//!
//! | request | answered by | the answer leaves |
//! | --- | --- | --- |
//! | `PreVote` | `PreVoteResponse` | as soon as the own term is durable |
//! | `Vote` | `VoteResponse` | once the vote is durable |
//! | `Append` | `AppendResponse` | once the entries are durable |
//! | `Heartbeat` | `HeartbeatResponse` | as soon as the own term is durable |
//! | `ReadIndex` | `ReadIndexResponse` | once a round of heartbeats came back |
//! | `TransferLeader` | `TimeoutNow`, to the one who shall lead | once that one has the whole log |
//! | `TimeoutNow` | a `Vote` | once the own vote is durable |
//! | `Snapshot` | `AppendResponse` | once the snapshot is installed |
//! | `SnapshotRequest` | `Snapshot` | once the driver has made one |
//! | `Propose` | nothing | |
//! | `Quiesce` | nothing if all is well, else `HeartbeatResponse` | at once |
//! | `PreVote`, `Vote` | `Committed`, beside a refusal | as soon as the own term is durable |
//! | any of an old term | `TermOver` | as soon as the own term is durable |

use base::{Entry, Index, PeerId, Term};
use bytes::Bytes;

use crate::snapshot::Snapshot;

/// One message from one peer of the group to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it. Need not be a member that the receiver knows: the receiver's membership may
    /// lag.
    pub from: PeerId,
    /// Who must get it. A node refuses what is meant for another.
    pub to: PeerId,
    /// The sender's term; but in a `PreVote`, and in a granting `PreVoteResponse`, the term that
    /// the sender of the `PreVote` would campaign for, which is nobody's term yet. Never zero.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// A position in a log: an index and the term of the entry there.
///
/// Raft's log matching: two logs that agree at a position agree on everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPos {
    /// The entry's index. Zero: before the first entry that ever was.
    pub index: Index,
    /// The entry's term.
    pub term: Term,
}

impl LogPos {
    fn largest(&self) -> u64 {
        self.index.max(self.term)
    }

    /// Whether a log that ends here holds everything that is committed in a log that ends at
    /// `other`, as far as anyone can tell from the ends alone: the later last term wins, then the
    /// longer log (Raft paper, section 5.4.1).
    pub fn is_up_to_date_with(&self, other: &LogPos) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

impl std::fmt::Display for LogPos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// Indexes, terms and rounds that no group will ever reach; what a message says beyond is nonsense.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

impl Message {
    /// Which rule the message breaks in itself, if any.
    pub(crate) fn broken_rule(&self) -> Option<&'static str> {
        if self.from == PeerId::NONE || self.from == self.to || self.term == 0 {
            return Some("a message from nobody, from oneself, or of no term");
        }
        let largest = match &self.body {
            Body::PreVote { last, .. } => last.largest(),
            Body::Vote { last, released, .. } => last.largest().max(released.unwrap_or(0)),
            Body::Append { prev, entries, commit, round } => {
                let last = entries.last().map_or(0, |entry| entry.index.max(entry.term));
                prev.largest().max(last).max(*commit).max(*round)
            }
            Body::AppendResponse { outcome: AppendOutcome::Matched(index), round } => {
                *index.max(round)
            }
            Body::AppendResponse { outcome: AppendOutcome::Conflict { prev, hint }, round } => {
                hint.largest().max(*prev).max(*round)
            }
            Body::Heartbeat { commit, round } => *commit.max(round),
            Body::HeartbeatResponse { round } | Body::TimeoutNow { round } => *round,
            Body::ReadIndexResponse { index, .. } => *index,
            Body::Snapshot { snapshot, round } => snapshot.pos.largest().max(*round),
            Body::SnapshotRequest { at_least } => *at_least,
            Body::Quiesce { commit } => *commit,
            Body::Committed { upto } => upto.largest(),
            _ => 0,
        };
        let sound = largest.max(self.term) < NUMBER_MAX;
        (!sound).then_some("a message with an index, a term or a round that cannot be")
    }
}

/// The kinds of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me in this term?" Changes nothing at the receiver.
    PreVote {
        /// The end of the sender's log.
        last: LogPos,
        /// The sender's [`priority`](crate::Config::priority).
        priority: i64,
    },
    /// The answer to a `PreVote`. A refusal carries the refuser's own term.
    PreVoteResponse {
        /// Whether the sender would vote for the asker.
        granted: bool,
    },
    /// "Vote for me in this term." The sender has made its own vote durable.
    Vote {
        /// The end of the sender's log.
        last: LogPos,
        /// The sender's [`priority`](crate::Config::priority).
        priority: i64,
        /// The leader of the term before asked for this election, and with it gave up every lease
        /// that rests on rounds up to this one. Whoever follows it and has seen no later round may
        /// vote in spite of the lease.
        released: Option<u64>,
    },
    /// The answer to a `Vote`. If granted the vote is durable.
    VoteResponse {
        /// Whether the sender voted for the asker.
        granted: bool,
    },
    /// The leader's log after `prev`. Without entries it probes, or carries the commit index.
    Append {
        /// Where the entries attach. The receiver refuses if its log differs there.
        prev: LogPos,
        /// Consecutive entries from `prev.index + 1` on; may be none.
        entries: Vec<Entry>,
        /// The leader's commit index. The receiver may commit up to it, as far as this message
        /// proves its log equal.
        commit: Index,
        /// The leader's latest round, to be echoed.
        round: u64,
    },
    /// The answer to an `Append`.
    AppendResponse {
        /// What became of it.
        outcome: AppendOutcome,
        /// The round of the `Append`.
        round: u64,
    },
    /// The leader lives. Carries no entries.
    Heartbeat {
        /// The leader's commit index, cut to what the receiver is known to hold.
        commit: Index,
        /// The round that this heartbeat belongs to, to be echoed.
        round: u64,
    },
    /// The answer to a `Heartbeat`: the sender follows the leader, and votes for nobody within an
    /// election timeout.
    HeartbeatResponse {
        /// The round of the `Heartbeat`.
        round: u64,
    },
    /// A follower asks its leader for an index to read at.
    ReadIndex {
        /// The follower's name for the request.
        context: u64,
    },
    /// The answer to a `ReadIndex`, to the one who asked.
    ReadIndexResponse {
        /// The name of the request.
        context: u64,
        /// Whoever has applied the log up to here may answer the read.
        index: Index,
    },
    /// Asks the leader to hand over to `to`.
    TransferLeader {
        /// Who shall lead.
        to: PeerId,
    },
    /// The leader asks the receiver, whose log is complete, to campaign at once, and gives up every
    /// lease that rests on rounds up to this one.
    TimeoutNow {
        /// The leader's latest round. Whoever has seen a later one must not obey: the leader has
        /// changed its mind.
        round: u64,
    },
    /// What the receiver lacks is no longer in the leader's log. Whoever carries this message
    /// carries the state machine too, see [`Snapshot::data`].
    Snapshot {
        /// The state to take over.
        snapshot: Box<Snapshot>,
        /// The leader's latest round, to be echoed.
        round: u64,
    },
    /// A follower whose state machine is damaged asks its leader for a snapshot.
    SnapshotRequest {
        /// The end of the follower's log, which the snapshot must cover.
        at_least: Index,
    },
    /// A member passes a proposal on to the leader.
    Propose {
        /// The command.
        data: Bytes,
    },
    /// The whole group has nothing to do: stop ticking until something happens.
    Quiesce {
        /// The last entry of the leader's log. It is committed, and everybody has it.
        commit: Index,
    },
    /// Beside a refused vote: what the refuser knows to be committed of that which the asker may
    /// have. Whoever was left alone by a change of members that it does not know to be committed
    /// would else ask for ever: those who left may have longer logs, and need not come back.
    Committed {
        /// This entry, and all before it, are committed.
        upto: LogPos,
    },
    /// The receiver spoke as leader, or asked for a pre-vote, in a term that is over: the sender's
    /// is later.
    TermOver,
}

impl Body {
    /// Whether only the leader of the message's term says this.
    pub fn is_from_leader(&self) -> bool {
        matches!(
            self,
            Self::Append { .. }
                | Self::Heartbeat { .. }
                | Self::Snapshot { .. }
                | Self::Quiesce { .. }
        )
    }
}

/// What became of an `Append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's up to this index, durably.
    Matched(Index),
    /// The follower's log differs from the leader's at `prev`.
    Conflict {
        /// Index of the refused `prev`, by which the leader tells a late answer.
        prev: Index,
        /// The last position of the follower's log that may agree with the leader's: at or below
        /// `prev`, with a term not above that of `prev`. The leader goes back at least to its own
        /// last entry of a term not above the hint's.
        hint: LogPos,
    },
}
