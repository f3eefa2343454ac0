//! Bounds and starting points that more than one crate must agree on.

use crate::{Index, Term};

/// A region that is bootstrapped or born of a split starts its log at this index, so that a replica
/// with an empty log is always behind the log's start and asks for a snapshot first.
pub const RAFT_INIT_LOG_INDEX: Index = 5;

/// Term of the (absent) entry at [`RAFT_INIT_LOG_INDEX`].
pub const RAFT_INIT_LOG_TERM: Term = 5;

/// Longest key a client may write: 8 KiB.
pub const KEY_SIZE_MAX: usize = 8 << 10;

/// Largest proposal of one client request: 8 MiB.
pub const RAFT_ENTRY_SIZE_MAX: usize = 8 << 20;
