//! Numbers with names, so that a store's id cannot be passed where a peer's is meant.

use std::fmt;

/// Position of an entry in a region's raft log. The first entry anyone proposes has index
/// [`limits::RAFT_INIT_LOG_INDEX`](crate::limits::RAFT_INIT_LOG_INDEX)` + 1`.
pub type Index = u64;

/// Raft term of a region's group. Zero: nothing has ever happened.
pub type Term = u64;

/// A cluster, drawn at random when its founder first starts; never zero. Every message between
/// nodes, and every answer of the placement driver, carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// A store (one node's data folder). Given out by the placement driver, never used twice, never
/// zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// A region. Given out by the placement driver, never used twice, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u64);

/// One replica of a region. A peer that left and comes back to the same store has a new id. Never
/// zero; zero in a message or hard state means "nobody".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StoreId {
    /// The store that founds a cluster. It exists before the placement driver that would otherwise
    /// number it.
    pub const FOUNDER: StoreId = StoreId(1);
}

impl RegionId {
    /// The region that holds the placement driver's rows. Its id is not one the placement driver
    /// can give out, because it exists before the placement driver does.
    pub const SYSTEM: RegionId = RegionId(u64::MAX);

    /// Whether this is [`RegionId::SYSTEM`].
    pub fn is_system(self) -> bool {
        self == Self::SYSTEM
    }
}

impl PeerId {
    /// Nobody: the leader when none is known, the vote when none was given.
    pub const NONE: PeerId = PeerId(0);

    /// The founder's replica of the system region, reserved like the region's own id.
    pub const SYSTEM_FOUNDER: PeerId = PeerId(u64::MAX);
}
