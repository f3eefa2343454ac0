//! Failures after which the store must not go on.

use std::fmt;

use base::{Index, RegionId};
use storage::engine::EngineError;
use storage::log::LogError;

use crate::snapshot::SnapshotError;

/// A failed write or sync, or an entry that cannot be read: what is in memory may be ahead of the
/// disk for good. The driver stops the node with this text; nothing is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fatal {
    what: String,
    cause: String,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl Fatal {
    pub(crate) fn engine(cause: &EngineError) -> Self {
        Self { what: "the engine failed".to_owned(), cause: cause.to_string() }
    }

    pub(crate) fn log(cause: &LogError) -> Self {
        Self { what: "the raft log failed".to_owned(), cause: cause.to_string() }
    }

    pub(crate) fn snapshot(cause: &SnapshotError) -> Self {
        Self { what: "a job failed half way".to_owned(), cause: cause.to_string() }
    }

    pub(crate) fn raft(region: RegionId, cause: &dyn fmt::Display) -> Self {
        Self { what: format!("the raft group of region {region} failed"), cause: cause.to_string() }
    }

    /// The replicas of a region differ, and nobody can tell which of them are right.
    pub(crate) fn diverged(
        region: RegionId,
        index: Index,
        (ours, leaders): (&dyn fmt::Display, &dyn fmt::Display),
    ) -> Self {
        let what = format!("region {region} differs from its leader's replica at entry {index}");
        Self { what, cause: format!("the hash here is {ours}, the leader's is {leaders}") }
    }

    pub(crate) fn entry(region: RegionId, index: Index, cause: &dyn fmt::Display) -> Self {
        let what = format!("entry {index} of region {region} cannot be applied");
        Self { what, cause: cause.to_string() }
    }
}
