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

/// Where a region is cut, and what the new region to the left of that key is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first key that is no longer the new region's.
    pub key: Bytes,
    /// The new region.
    pub region_id: RegionId,
    /// Its peers, one for each of the old region's and in their order.
    pub peer_ids: Vec<PeerId>,
}

impl Region {
    /// The first region of a cluster: all keys, one voter, epoch 1/1.
    pub fn first(id: RegionId, peer: Peer) -> Self {
        Self { id, range: KeyRange::all(), epoch: INIT_EPOCH, peers: vec![peer] }
    }

    /// The region cut at the keys of `cuts`, which ascend and lie strictly inside. One new region
    /// for each takes the part to the left of it; the region itself keeps the right-most part. All
    /// of them have the same epoch: the version grows by the number of new regions. Returns the
    /// region, then the new ones from left to right; `None` if the keys or the ids do not fit.
    pub fn split(&self, cuts: &[Cut]) -> Option<(Region, Vec<Region>)> {
        let epoch = Epoch { version: self.epoch.version + cuts.len() as u64, ..self.epoch };
        let mut start = self.range.start.clone();
        let mut new_regions = Vec::with_capacity(cuts.len());
        for Cut { key, region_id, peer_ids } in cuts {
            if *key <= start || !self.range.contains(key) || peer_ids.len() != self.peers.len() {
                return None;
            }
            let peers = self.peers.iter().zip(peer_ids).map(|(peer, &id)| Peer { id, ..*peer });
            let range = KeyRange { start: start.clone(), end: key.clone() };
            new_regions.push(Region { id: *region_id, range, epoch, peers: peers.collect() });
            start = key.clone();
        }
        let range = KeyRange { start, end: self.range.end.clone() };
        Some((Region { range, epoch, ..self.clone() }, new_regions))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        let range = KeyRange::new("b", "y");
        let peers = vec![Peer::voter(PeerId(11), StoreId(1)), Peer::voter(PeerId(12), StoreId(2))];
        Region { id: RegionId(2), range, epoch: Epoch { conf_ver: 3, version: 7 }, peers }
    }

    fn cut(key: &'static str, id: u64) -> Cut {
        let peer_ids = vec![PeerId(id * 10), PeerId(id * 10 + 1)];
        Cut { key: Bytes::from(key), region_id: RegionId(id), peer_ids }
    }

    #[test]
    fn the_parts_cover_what_the_region_did() {
        let (right, new) = region().split(&[cut("f", 20), cut("m", 21)]).expect("they fit");
        let ranges: Vec<_> = new.iter().chain([&right]).map(|r| (r.id.0, &r.range)).collect();
        assert_eq!(ranges[0], (20, &KeyRange::new("b", "f")));
        assert_eq!(ranges[1], (21, &KeyRange::new("f", "m")));
        assert_eq!(ranges[2], (2, &KeyRange::new("m", "y")));
        let epoch = Epoch { conf_ver: 3, version: 9 };
        assert!(new.iter().chain([&right]).all(|region| region.epoch == epoch));
        assert_eq!(new[1].peer_on(StoreId(2)).map(|peer| peer.id), Some(PeerId(211)));
        assert_eq!(right.peers, region().peers);
    }

    #[test]
    fn cuts_that_do_not_fit_are_refused() {
        for keys in [&["b"][..], &["a"], &["y"], &["m", "f"], &["f", "f"]] {
            let cuts: Vec<_> = keys.iter().map(|key| cut(key, 20)).collect();
            assert_eq!(region().split(&cuts), None, "{keys:?}");
        }
        let one_peer = Cut { peer_ids: vec![PeerId(1)], ..cut("f", 20) };
        assert_eq!(region().split(&[one_peer]), None);
    }
}
