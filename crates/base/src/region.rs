//! The descriptor of a region: what it is called, which keys it holds, who replicates it, and how
//! often that changed.
//!
//! A `Region` is a value. Nothing changes one in place: a split or a change of members makes a new
//! one, and the applier (crate `store`) alone decides which is current. Everybody else holds an
//! `Arc` that may lag and never leads.

use std::fmt;

use bytes::Bytes;

use crate::{KeyRange, PeerId, RegionId, StoreId, TimeStamp};

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
    /// Set while the data is being flashed back (made what it was at some time): when that began.
    /// Nobody else changes the region meanwhile, nor reads it as of then or later. Not counted by
    /// the epoch.
    pub flashback: Option<TimeStamp>,
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

/// What becomes of one replica of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// A new replica that votes, or a learner that is promoted.
    AddVoter(Peer),
    /// A new replica that does not vote, or a voter that is demoted.
    AddLearner(Peer),
    /// The replica goes.
    Remove(PeerId),
}

impl PeerChange {
    /// Whose replica it is about.
    pub fn peer_id(&self) -> PeerId {
        match self {
            Self::AddVoter(peer) | Self::AddLearner(peer) => peer.id,
            Self::Remove(id) => *id,
        }
    }
}

impl Region {
    /// The first region of a cluster: all keys, one voter, epoch 1/1.
    pub fn first(id: RegionId, peer: Peer) -> Self {
        let (range, peers) = (KeyRange::all(), vec![peer]);
        Self { id, range, epoch: INIT_EPOCH, peers, flashback: None }
    }

    /// The region cut at the keys of `cuts`, which ascend and lie strictly inside. One new region
    /// for each takes the part to the left of it; the region itself keeps the right-most part. All
    /// of them have the same epoch: the version grows by the number of new regions. Returns the
    /// region, then the new ones from left to right; `None` if the keys or the ids do not fit, or
    /// while it is flashed back.
    pub fn split(&self, cuts: &[Cut]) -> Option<(Region, Vec<Region>)> {
        if self.flashback.is_some() {
            return None;
        }
        let epoch = Epoch { version: self.epoch.version + cuts.len() as u64, ..self.epoch };
        let mut start = self.range.start.clone();
        let mut new_regions = Vec::with_capacity(cuts.len());
        for Cut { key, region_id, peer_ids } in cuts {
            if *key <= start || !self.range.contains(key) || peer_ids.len() != self.peers.len() {
                return None;
            }
            let peers = self.peers.iter().zip(peer_ids).map(|(peer, &id)| Peer { id, ..*peer });
            let range = KeyRange { start: start.clone(), end: key.clone() };
            let (id, peers) = (*region_id, peers.collect());
            new_regions.push(Region { id, range, epoch, peers, flashback: None });
            start = key.clone();
        }
        let range = KeyRange { start, end: self.range.end.clone() };
        Some((Region { range, epoch, ..self.clone() }, new_regions))
    }

    /// The region after `changes`, whose number `conf_ver` grows by.
    ///
    /// One change takes effect at once. Several begin a joint change, in which old and new voters
    /// decide together until [`leave_joint`](Self::leave_joint): new voters are incoming, and a
    /// voter that is demoted *or removed* is demoting, so in the end a learner, which a later one
    /// may remove.
    ///
    /// `None` if they do not fit: no change at all, two of one replica, one that changes nothing, a
    /// second replica on a store, no voter left, a joint change in progress, or several changes of
    /// which none concerns a voter.
    pub fn change_peers(&self, changes: &[PeerChange]) -> Option<Region> {
        if changes.is_empty() || self.is_joint() {
            return None;
        }
        let joint = changes.len() > 1;
        let mut peers = self.peers.clone();
        for (at, change) in changes.iter().enumerate() {
            if changes[..at].iter().any(|earlier| earlier.peer_id() == change.peer_id()) {
                return None;
            }
            change_peer(&mut peers, change, joint)?;
        }
        let conf_ver = self.epoch.conf_ver + changes.len() as u64;
        let next = Region { peers, epoch: Epoch { conf_ver, ..self.epoch }, ..self.clone() };
        let decides = |peer: &Peer| matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter);
        (next.peers.iter().any(decides) && next.is_joint() == joint).then_some(next)
    }

    /// The region after the joint change; `conf_ver` grows by the number of replicas whose role
    /// changes. `None` if there is no joint change.
    pub fn leave_joint(&self) -> Option<Region> {
        let mut next = self.clone();
        for peer in &mut next.peers {
            peer.role = match peer.role {
                PeerRole::IncomingVoter => PeerRole::Voter,
                PeerRole::DemotingVoter => PeerRole::Learner,
                PeerRole::Voter | PeerRole::Learner => continue,
            };
            next.epoch.conf_ver += 1;
        }
        (next.epoch != self.epoch).then_some(next)
    }

    /// The region once it waits to become a part of a neighbour: both counters grow by one.
    pub fn prepare_merge(&self) -> Region {
        let Epoch { conf_ver, version } = self.epoch;
        let epoch = Epoch { conf_ver: conf_ver + 1, version: version + 1 };
        Region { epoch, ..self.clone() }
    }

    /// The region once it does not wait for that any more: the version grows by one.
    pub fn rollback_merge(&self) -> Region {
        let epoch = Epoch { version: self.epoch.version + 1, ..self.epoch };
        Region { epoch, ..self.clone() }
    }

    /// The region once it took over `source`: its version is above those of both. `None` if they
    /// are not neighbours, or not [alike](Self::has_members_like), or while one is flashed back.
    pub fn commit_merge(&self, source: &Region) -> Option<Region> {
        let flashback = self.flashback.or(source.flashback);
        if self.id == source.id || !self.has_members_like(source) || flashback.is_some() {
            return None;
        }
        let range = self.range.join(&source.range)?;
        let version = self.epoch.version.max(source.epoch.version) + 1;
        let epoch = Epoch { version, ..self.epoch };
        Some(Region { range, epoch, ..self.clone() })
    }

    /// Whether the regions have replicas on the same stores and in the same roles, neither of them
    /// being in a joint change.
    pub fn has_members_like(&self, other: &Region) -> bool {
        let roles = |region: &Region| {
            let mut roles: Vec<_> =
                region.peers.iter().map(|peer| (peer.store_id, peer.role)).collect();
            roles.sort_unstable();
            roles
        };
        !self.is_joint() && !other.is_joint() && roles(self) == roles(other)
    }

    /// Whether a joint change of members is in progress.
    pub fn is_joint(&self) -> bool {
        let joint = |role| matches!(role, PeerRole::IncomingVoter | PeerRole::DemotingVoter);
        self.peers.iter().any(|peer| joint(peer.role))
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

/// `None` if the change does not fit.
fn change_peer(peers: &mut Vec<Peer>, change: &PeerChange, joint: bool) -> Option<()> {
    let at = peers.iter().position(|peer| peer.id == change.peer_id());
    let (PeerChange::AddVoter(new) | PeerChange::AddLearner(new)) = change else {
        let at = at?;
        match peers[at].role {
            PeerRole::Voter if joint => peers[at].role = PeerRole::DemotingVoter,
            _ => drop(peers.remove(at)),
        }
        return Some(());
    };
    let votes = matches!(change, PeerChange::AddVoter(_));
    let role = match (votes, joint, at) {
        (true, false, _) => PeerRole::Voter,
        (true, true, _) => PeerRole::IncomingVoter,
        (false, true, Some(_)) => PeerRole::DemotingVoter,
        (false, _, _) => PeerRole::Learner,
    };
    let Some(at) = at else {
        let free = new.id != PeerId::NONE && peers.iter().all(|old| old.store_id != new.store_id);
        peers.push(Peer { role, ..*new });
        return free.then_some(());
    };
    let before = if votes { PeerRole::Learner } else { PeerRole::Voter };
    let old = &mut peers[at];
    let fits = old.role == before && old.store_id == new.store_id;
    old.role = role;
    fits.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        let range = KeyRange::new("b", "y");
        let peers = vec![Peer::voter(PeerId(11), StoreId(1)), Peer::voter(PeerId(12), StoreId(2))];
        let epoch = Epoch { conf_ver: 3, version: 7 };
        Region { id: RegionId(2), range, epoch, peers, flashback: None }
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

    fn peer(id: u64, store: u64, role: PeerRole) -> Peer {
        Peer { id: PeerId(id), store_id: StoreId(store), role }
    }

    fn roles(region: &Region) -> Vec<(u64, PeerRole)> {
        region.peers.iter().map(|peer| (peer.id.0, peer.role)).collect()
    }

    #[test]
    fn one_change_takes_effect_at_once() {
        use PeerRole::*;
        let learner = peer(13, 3, Learner);
        let grown = region().change_peers(&[PeerChange::AddLearner(learner)]).expect("it fits");
        assert_eq!(roles(&grown), [(11, Voter), (12, Voter), (13, Learner)]);
        assert_eq!(grown.epoch, Epoch { conf_ver: 4, version: 7 });
        let promoted = grown.change_peers(&[PeerChange::AddVoter(learner)]).expect("it fits");
        assert_eq!(roles(&promoted), [(11, Voter), (12, Voter), (13, Voter)]);
        let smaller = promoted.change_peers(&[PeerChange::Remove(PeerId(11))]).expect("it fits");
        assert_eq!(roles(&smaller), [(12, Voter), (13, Voter)]);
        let demoted = smaller.change_peers(&[PeerChange::AddLearner(learner)]).expect("it fits");
        assert_eq!(roles(&demoted), [(12, Voter), (13, Learner)]);
        assert_eq!(demoted.epoch, Epoch { conf_ver: 7, version: 7 });
        assert_eq!(demoted.change_peers(&[PeerChange::Remove(PeerId(12))]), None, "the last voter");
        assert_eq!(demoted.leave_joint(), None);
    }

    #[test]
    fn several_changes_go_through_a_joint_state() {
        use PeerRole::*;
        let new = peer(13, 3, Voter);
        let changes = [PeerChange::AddVoter(new), PeerChange::Remove(PeerId(11))];
        let joint = region().change_peers(&changes).expect("they fit");
        assert_eq!(roles(&joint), [(11, DemotingVoter), (12, Voter), (13, IncomingVoter)]);
        assert_eq!(joint.epoch.conf_ver, 5);
        assert!(joint.is_joint());
        assert_eq!(joint.change_peers(&[PeerChange::Remove(PeerId(12))]), None, "one at a time");
        let left = joint.leave_joint().expect("it is joint");
        assert_eq!(roles(&left), [(11, Learner), (12, Voter), (13, Voter)]);
        assert_eq!(left.epoch, Epoch { conf_ver: 7, version: 7 });
    }

    #[test]
    fn changes_that_do_not_fit_are_refused() {
        use PeerChange::*;
        let voter = |id, store| AddVoter(peer(id, store, PeerRole::Voter));
        let learner = |id, store| AddLearner(peer(id, store, PeerRole::Learner));
        let refused: [&[PeerChange]; 9] = [
            &[],
            &[voter(11, 1)],
            &[voter(13, 1)],
            &[learner(11, 2)],
            &[Remove(PeerId(9))],
            &[voter(0, 3)],
            &[voter(13, 3), Remove(PeerId(13))],
            &[learner(13, 3), learner(14, 4)],
            &[Remove(PeerId(11)), Remove(PeerId(12))],
        ];
        for changes in refused {
            assert_eq!(region().change_peers(changes), None, "{changes:?}");
        }
    }

    #[test]
    fn a_merge_counts() {
        let (right, left) = region().split(&[cut("m", 20)]).expect("it fits");
        let waits = left[0].prepare_merge();
        assert_eq!(waits.epoch, Epoch { conf_ver: 4, version: 9 });
        assert_eq!(waits.rollback_merge().epoch, Epoch { conf_ver: 4, version: 10 });
        let whole = right.commit_merge(&waits).expect("they are neighbours");
        assert_eq!(whole.epoch, Epoch { conf_ver: 3, version: 10 });
        assert_eq!((&whole.range, whole.id), (&KeyRange::new("b", "y"), right.id));
        assert_eq!(waits.commit_merge(&right).expect("either way").range, whole.range);
    }

    #[test]
    fn only_like_neighbours_merge() {
        let (right, left) = region().split(&[cut("f", 20), cut("m", 21)]).expect("they fit");
        assert_eq!(right.commit_merge(&left[0]), None, "another one lies between them");
        assert_eq!(right.commit_merge(&right), None);
        let learner = PeerChange::AddLearner(peer(13, 3, PeerRole::Learner));
        let other = right.change_peers(&[learner]).expect("it fits");
        assert_eq!(other.commit_merge(&left[1]), None, "another store");
        let demoted = right.change_peers(&[PeerChange::AddLearner(right.peers[0])]);
        assert_eq!(demoted.expect("it fits").commit_merge(&left[1]), None, "another role");
    }
}
