//! Goals: what somebody wants done to a region by hand, and the next step towards it.
//!
//! A goal outranks the replica checker as long as it stands. Like the checker it remembers nothing
//! on the way: each step is told from the region as it is now, so whatever a step came to, the next
//! one fits. When the goal is reached the checker looks at the region again, and takes back what it
//! does not like: a fourth voter goes, a third that was removed comes back.

use base::{Epoch, Peer, PeerChange, PeerId, PeerRole, RegionId, StoreId};
use bytes::Bytes;

use crate::order::Step;
use crate::replicas::Need;
use crate::{RegionInfo, RegionMap};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A voter on this store.
    AddPeer(StoreId),
    /// A copy on this store.
    AddLearner(StoreId),
    /// No copy on this store.
    RemovePeer(StoreId),
    /// The leader on this store.
    TransferLeader(StoreId),
    /// A voter on the second store, and none on the first.
    TransferPeer(StoreId, StoreId),
    /// Voters on these stores and no others.
    TransferRegion(Vec<StoreId>),
    /// Regions that begin at these keys.
    Split(Vec<Bytes>),
    /// To be a part of this neighbour.
    Merge(RegionId),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// An order in which a new peer may begin.
    Need(Need),
    /// An order.
    Step(Step),
    /// Nothing, until the region changes: why.
    Wait(String),
    /// The goal is reached.
    Done,
    /// It cannot be.
    Failed(String),
}

impl Goal {
    /// As PD spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddPeer(_) => "add-peer",
            Self::AddLearner(_) => "add-learner",
            Self::RemovePeer(_) => "remove-peer",
            Self::TransferLeader(_) => "transfer-leader",
            Self::TransferPeer(..) => "transfer-peer",
            Self::TransferRegion(_) => "transfer-region",
            Self::Split(_) => "split-region",
            Self::Merge(_) => "merge-region",
        }
    }

    /// The stores that it needs.
    pub(crate) fn stores(&self) -> Vec<StoreId> {
        match self {
            Self::AddPeer(store) | Self::AddLearner(store) | Self::TransferLeader(store) => {
                vec![*store]
            }
            Self::TransferPeer(_, to) => vec![*to],
            Self::TransferRegion(stores) => stores.clone(),
            Self::RemovePeer(_) | Self::Split(_) | Self::Merge(_) => Vec::new(),
        }
    }

    /// The other region that it changes.
    pub(crate) fn target(&self) -> Option<RegionId> {
        match self {
            Self::Merge(target) => Some(*target),
            _ => None,
        }
    }

    /// What comes next for `region`, which had the epoch `began` when the goal was set.
    pub(crate) fn next(&self, region: &RegionInfo, began: Epoch, map: &RegionMap) -> Next {
        let members = Members::of(region);
        let Some(leader) = members.leader else {
            return Next::Wait("nobody is known to lead it".to_owned());
        };
        if members.in_joint_state {
            return Next::Need(Need::LeaveJoint);
        }
        match self {
            Self::AddPeer(store) => members.add_voter(*store).unwrap_or(Next::Done),
            Self::AddLearner(store) => match members.on(*store) {
                Some(_) => Next::Done,
                None => Next::Need(Need::AddLearner(*store)),
            },
            Self::RemovePeer(store) => members.remove(*store, leader).unwrap_or(Next::Done),
            Self::TransferLeader(store) => members.lead(*store, leader).unwrap_or(Next::Done),
            Self::TransferPeer(from, to) => {
                let next = members.add_voter(*to).or_else(|| members.remove(*from, leader));
                next.unwrap_or(Next::Done)
            }
            Self::TransferRegion(stores) => members.exactly(stores, leader).unwrap_or(Next::Done),
            Self::Split(keys) => split(region, began, keys),
            Self::Merge(target) => merge(region, *target, map),
        }
    }
}

/// A region that is cut has another version.
fn split(region: &RegionInfo, began: Epoch, keys: &[Bytes]) -> Next {
    if region.epoch().version != began.version {
        return Next::Done;
    }
    let range = region.range();
    match keys.iter().find(|key| !range.contains(key) || **key == range.start) {
        Some(key) => Next::Failed(format!("key {key:?} is not inside of the region")),
        None => Next::Step(Step::Split(keys.to_vec())),
    }
}

fn merge(region: &RegionInfo, target: RegionId, map: &RegionMap) -> Next {
    let Some(target) = map.get(target) else {
        return Next::Failed(format!("region {target} is not known"));
    };
    let (source, target) = (region.range(), proto::region_from_proto(&target.meta));
    let touches = |end: &Bytes, start: &Bytes| !end.is_empty() && end == start;
    let after = touches(&source.end, &target.range.start);
    if !after && !touches(&target.range.end, &source.start) {
        return Next::Failed(format!(
            "region {} is no neighbour of region {}",
            target.id,
            region.id()
        ));
    }
    let places = |peers: &mut dyn Iterator<Item = Peer>| {
        let mut places: Vec<_> = peers.map(|peer| (peer.store_id, peer.role)).collect();
        places.sort_unstable();
        places
    };
    let ours = places(&mut region.meta.peers.iter().map(proto::peer_from_proto));
    if ours != places(&mut target.peers.iter().copied()) {
        let text = format!("the copies of region {} lie on other stores", target.id);
        return Next::Failed(text);
    }
    Next::Step(Step::Merge(target))
}

/// The members of a region.
struct Members {
    leader: Option<PeerId>,
    peers: Vec<Peer>,
    pending: Vec<PeerId>,
    in_joint_state: bool,
}

impl Members {
    fn of(region: &RegionInfo) -> Self {
        let peers: Vec<Peer> = region.meta.peers.iter().map(proto::peer_from_proto).collect();
        let is_joint =
            |peer: &Peer| matches!(peer.role, PeerRole::IncomingVoter | PeerRole::DemotingVoter);
        Self {
            leader: region.leader.as_ref().map(|leader| PeerId(leader.id)),
            pending: region.pending_peers.iter().map(|peer| PeerId(peer.id)).collect(),
            in_joint_state: peers.iter().any(is_joint),
            peers,
        }
    }

    fn on(&self, store: StoreId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.store_id == store)
    }

    fn voters(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.role == PeerRole::Voter)
    }

    fn is_pending(&self, peer: &Peer) -> bool {
        self.pending.contains(&peer.id)
    }

    /// `None`: there is a voter.
    fn add_voter(&self, store: StoreId) -> Option<Next> {
        match self.on(store) {
            None => Some(Next::Need(Need::AddLearner(store))),
            Some(peer) if peer.role == PeerRole::Voter => None,
            Some(peer) if self.is_pending(peer) => {
                Some(Next::Wait(format!("peer {} on store {store} is catching up", peer.id)))
            }
            Some(peer) => Some(Next::Need(Need::Promote(Peer { role: PeerRole::Voter, ..*peer }))),
        }
    }

    /// `None`: it leads.
    fn lead(&self, store: StoreId, leader: PeerId) -> Option<Next> {
        match self.on(store) {
            Some(peer) if peer.id == leader => None,
            Some(peer) if peer.role != PeerRole::Voter => {
                Some(Next::Failed(format!("peer {} on store {store} has no vote", peer.id)))
            }
            Some(peer) if self.is_pending(peer) => {
                Some(Next::Wait(format!("peer {} on store {store} is catching up", peer.id)))
            }
            Some(peer) => Some(Next::Need(Need::TransferLeader(*peer))),
            None => Some(Next::Failed(format!("it has no peer on store {store}"))),
        }
    }

    /// `None`: there is no copy.
    fn remove(&self, store: StoreId, leader: PeerId) -> Option<Next> {
        let peer = self.on(store)?;
        let others = || self.voters().filter(|other| other.id != peer.id);
        if peer.role == PeerRole::Voter && others().next().is_none() {
            let text = format!("peer {} on store {store} is its only voter", peer.id);
            return Some(Next::Failed(text));
        }
        if peer.id == leader {
            let heir = others().find(|other| !self.is_pending(other));
            return Some(match heir {
                Some(heir) => Next::Need(Need::TransferLeader(*heir)),
                None => Next::Wait("no other voter has caught up to lead it".to_owned()),
            });
        }
        if peer.role == PeerRole::Voter && self.voters().count() == 2 {
            // One of two is demoted before it goes: the leader would refuse anything else.
            let learner = Peer { role: PeerRole::Learner, ..*peer };
            return Some(Next::Step(Step::ChangePeers(vec![PeerChange::AddLearner(learner)])));
        }
        Some(Next::Need(Need::Remove(peer.id)))
    }

    /// `None`: that is how it is.
    fn exactly(&self, stores: &[StoreId], leader: PeerId) -> Option<Next> {
        let missing = stores.iter().find_map(|store| self.add_voter(*store));
        let leads = self.peers.iter().find(|peer| peer.id == leader);
        let extra = || self.peers.iter().find(|peer| !stores.contains(&peer.store_id));
        missing.or_else(|| {
            let heir = || {
                let stays =
                    |peer: &&Peer| stores.contains(&peer.store_id) && !self.is_pending(peer);
                self.voters().find(stays).map(|heir| Next::Need(Need::TransferLeader(*heir)))
            };
            match leads.filter(|peer| !stores.contains(&peer.store_id)) {
                Some(_) => heir().or(Some(Next::Wait("nobody can lead it there yet".to_owned()))),
                None => self.remove(extra()?.store_id, leader),
            }
        })
    }
}
