//! The one seam to the disk: how a node reads its own log. Writes leave through
//! [`Persist`](crate::Persist).

use std::sync::Arc;

use base::{Entry, Index, Term};

use crate::message::LogPos;
use crate::quorum::ConfState;
use crate::ready::HardState;

/// The durable log of one group, read only.
///
/// Promises that the node relies on:
/// 1. What was reported by `persisted` can be read, until it is replaced by a later write or
///    compacted.
/// 2. Only entries that were reported as applied are compacted, or that a snapshot covers which was
///    installed. `first_index` never goes back.
/// 3. `term` answers exactly: below `first_index - 1` [`StorageError::Compacted`], at `first_index
///    - 1` the term of the last compacted entry, above `last_index` [`StorageError::Unavailable`].
///
/// Only entries that left the node's memory are asked for: those of a slow follower, and those
/// above `applied` at a start.
pub trait Storage {
    /// What the node starts from.
    fn initial_state(&self) -> Result<InitialState, StorageError>;

    /// Index of the first entry that is still there, or would be: one above the last compacted
    /// entry.
    fn first_index(&self) -> Result<Index, StorageError>;

    /// Index of the last entry; `first_index - 1` if there is none.
    fn last_index(&self) -> Result<Index, StorageError>;

    /// Term of the entry at `index`.
    fn term(&self, index: Index) -> Result<Term, StorageError>;

    /// The entries of `low..high`, but no more than fit into `bytes_max` after the first one. Never
    /// empty if `low < high`.
    fn entries(
        &self,
        low: Index,
        high: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError>;
}

/// What a node starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialState {
    /// The hard state; the default if none was ever written.
    pub hard_state: HardState,
    /// The members as of the applied index.
    pub conf: ConfState,
}

/// Why an entry or a term cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// It lies before the log's first entry. Whoever needs it needs a snapshot.
    #[error("compacted")]
    Compacted,
    /// It lies behind the log's last entry.
    #[error("not there yet")]
    Unavailable,
    /// It is another than what was written there.
    #[error("it answered with entry {0}")]
    Wrong(LogPos),
    /// It could not be read.
    #[error("read failed: {0}")]
    Io(Arc<dyn std::error::Error + Send + Sync>),
}

/// Storage did not keep a promise; the group cannot go on. Who operates the node must act.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "storage broke its promise that {promise} (index {index}, log ends in term {term}): {cause}"
)]
pub struct Failure {
    /// What was relied on.
    pub promise: &'static str,
    /// The index that was asked for.
    pub index: Index,
    /// The term of the log's last entry, as far as it is known; else zero.
    pub term: Term,
    /// What storage answered.
    pub cause: StorageError,
}
