//! The descriptor of a region: what it is called, which keys it holds, who replicates it, and how
//! often that changed.
//!
//! A `Region` is a value. Nothing changes one in place: a split or a change of members makes a new
//! one, and the applier (crate `store`) alone decides which is current. Everybody else holds an
//! `Arc` that may lag and never leads.

use std::fmt;

use bytes::Bytes;

use crate::{KeyRange, PeerId, RegionId, StoreId};

/// Epoch of the first region of a cluster: both counters at one (`INIT_EPOCH_VER`,
/// `INIT_EPOCH_CONF_VER`).
pub const INIT_EPOCH: Epoch = Epoch { conf_ver: 1, version: 1 };

/// How often a region changed. Both counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Grows with every change of members.
    pub conf_ver: u64,
    /// Grows with every change of the key range: split, merge.
    pub version: u64,
}

impl Epoch {
    /// Whether this epoch is behind `other` in one of the counters, so that what was learnt under
    /// it may be outdated.
    pub fn is_behind(&self, other: &Epoch) -> bool {
        self.conf_ver < other.conf_ver || self.version < other.version
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.conf_ver, self.version)
    }
}

/// What a replica does in its group. The two middle roles exist while a joint change of members is
/// in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerRole {
    /// Votes and counts towards the quorum.
    #[default]
    Voter,
    /// Receives the log, never votes.
    Learner,
    /// Will be a voter when the joint change ends.
    IncomingVoter,
    /// Was a voter and will be a learner when the joint change ends.
    DemotingVoter,
}

/// A replica of a region on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The replica's own id.
    pub id: PeerId,
    /// The store it lies on.
    pub store_id: StoreId,
    /// What it does there.
    pub role: PeerRole,
}

impl Peer {
    /// A voting replica.
    pub fn voter(id: PeerId, store_id: StoreId) -> Self {
        Self { id, store_id, role: PeerRole::Voter }
    }
}

/// The descriptor of a region. See the module's page for who may make a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Never changes.
    pub id: RegionId,
    /// The keys it holds, in the form in which they are stored and split (encoded keys for
    /// transactions and API V2).
    pub range: KeyRange,
    /// Counts the changes of `peers` and `range`.
    pub epoch: Epoch,
    /// The replicas, in no particular order; at most one a store. Empty: the region is known by its
    /// id alone.
    pub peers: Vec<Peer>,
}

impl Region {
    /// The first region of a cluster: all keys, one voter, epoch 1/1.
    pub fn first(id: RegionId, peer: Peer) -> Self {
        Self { id, range: KeyRange::all(), epoch: INIT_EPOCH, peers: vec![peer] }
    }

    /// The replica on `store`, if there is one.
    pub fn peer_on(&self, store: StoreId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.store_id == store)
    }

    /// The replica with this id, if it is a member.
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// First key.
    pub fn start(&self) -> &Bytes {
        &self.range.start
    }

    /// First key that is no longer inside; empty for unbounded.
    pub fn end(&self) -> &Bytes {
        &self.range.end
    }
}
