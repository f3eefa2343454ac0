//! Why a node refuses.

use base::{Index, PeerId, Term};

use crate::conf_change::ConfChangeError;
use crate::storage::Failure;

/// Why a node could not be made. Who starts it must act.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// A configuration that makes no sense.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// What storage holds cannot have been written by a node.
    #[error("storage contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Storage could not be read, or lacks what it must have.
    #[error(transparent)]
    Storage(#[from] Failure),
}

/// Why a proposal was not taken. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The client must ask the leader.
    #[error("not the leader, which is {}", leader.map_or("unknown".into(), |id| id.to_string()))]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<PeerId>,
    },
    /// The client must ask the next leader, as soon as there is one.
    #[error("leadership is being handed over")]
    Transferring,
    /// Members cannot be changed like this, or not now.
    #[error(transparent)]
    ConfChange(#[from] ConfChangeError),
    /// The client must ask later: too many bytes wait to be committed and applied.
    #[error("too many proposals wait")]
    Busy,
}

/// Why entries from elsewhere were not taken. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// The entries are of no use to this log: it ends before the first of them.
    #[error("the log ends at {last}, before the entries begin")]
    Gap {
        /// The last entry of the log.
        last: Index,
    },
    /// A snapshot is on its way into the node, or wanted: try later.
    #[error("a snapshot comes first")]
    Restoring,
    /// They are no piece of a log, or of another group's.
    #[error("the entries contradict the log: {0}")]
    Contradiction(&'static str),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why leadership is not handed over. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Ask again when there is a leader.
    #[error("no leader is known")]
    NoLeader,
    /// Choose a voter.
    #[error("peer {to} is no voter")]
    NotVoter {
        /// Who was named.
        to: PeerId,
    },
}

/// Why a read index was not asked for. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// Ask again when there is a leader.
    #[error("no leader is known")]
    NoLeader,
    /// Ask again when some of the many pending requests are answered.
    #[error("too many reads wait")]
    Busy,
}

/// Why a snapshot that was made is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Drop it: the member caught up, left, was told of as failed, or this node leads no more.
    #[error("nobody waits for a snapshot to {to}")]
    NotWanted {
        /// For whom it was made.
        to: PeerId,
    },
    /// Drop it. It ends before the log begins, or was made at an entry that is not committed here;
    /// if the member still needs one, the next `Ready`s ask for another.
    #[error("a snapshot at {index} does not meet a log that begins at {first}")]
    Useless {
        /// The last entry that it covers.
        index: Index,
        /// The first entry of the leader's log.
        first: Index,
    },
}

/// Why no snapshot is asked for. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRequestError {
    /// A leader has nobody to ask. Hand leadership over first.
    #[error("the leader cannot ask for a snapshot")]
    Leader,
    /// There is nobody else.
    #[error("the only voter cannot ask for a snapshot")]
    SoleVoter,
}

/// Why a message was refused. It changed nothing but perhaps the term; the node goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The transport must deliver to the right node.
    #[error("the message is for {to}")]
    Misdirected {
        /// For whom it is.
        to: PeerId,
    },
    /// The sender is broken.
    #[error("{0}")]
    Malformed(&'static str),
    /// Two peers claim to lead one term: somebody's storage lost a vote. Operators must act.
    #[error("both {known} and {other} claim to lead term {term}")]
    TwoLeaders {
        /// The term.
        term: Term,
        /// The leader known so far.
        known: PeerId,
        /// The sender.
        other: PeerId,
    },
    /// The node has reported a failure of its storage and does nothing any more.
    #[error("the node has stopped")]
    Stopped,
}
