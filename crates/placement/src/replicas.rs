//! The replica checker: what a region lacks, told from how it is now. Pure code.
//!
//! ```text
//!   [v1]        + stores 2, 3     add learner on 2 ─> add learner on 3 ─> both have caught up:
//!   [v1 l2 l3]                    promote one ─> promote the other
//!   [v1 v2 x3]  + store 4         add learner on 4 ─> caught up: promote ─> remove the peer on 3
//! ```
//!
//! It remembers nothing: each step is told from the region's last heartbeat, so a placement driver
//! that takes over goes on where the last one stopped. Rules, in their order:
//!
//! 1. A joint state that was left standing is left.
//! 2. Learners that are of no use go: on a lost store, or more than are wanted.
//! 3. A region has `wanted` copies, or as many as there are stores fit to hold one. A copy begins
//!    as a learner.
//! 4. Learners become voters once they have caught up and only when enough of them have: a region
//!    does not stay with a number of voters that tolerates no more failures than one less would.
//!    With **two stores** a region therefore has one voter and one learner. Two voters would stop
//!    with either store, one stops with one of them; and when the third store comes, the second
//!    copy is there already.
//! 5. A voter too many goes, and one on a lost or leaving store once `wanted` others are there. A
//!    voter is never taken away without replacement: a region of three with one store lost stays
//!    as it is until there is a fourth store.
//! 6. The leader is never removed: another voter leads first.
//!
//! A store is *lost* when it was silent for longer than `max_store_down`, *leaving* when somebody
//! takes it out of the cluster. One that is merely silent keeps its copies and gets no new ones.

use std::collections::BTreeMap;

use base::{Peer, PeerId, PeerRole, StoreId};

use crate::RegionInfo;

/// New copies that a store may be catching up with at once.
pub(crate) const ADDS_PER_STORE_MAX: u64 = 8;

/// What a store is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// It may get new copies.
    Takes,
    /// Its copies count, and it gets no new ones: it is silent, new, or short of space.
    Keeps,
    /// Its copies do not count and are replaced.
    Lost,
}

/// A store, as far as the checker cares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreView {
    pub(crate) fitness: Fitness,
    /// Copies it has, and is about to get.
    pub(crate) copies: u64,
    /// Copies that it is catching up with, and is about to get.
    pub(crate) adding: u64,
}

/// The cluster, as far as the checker cares.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) stores: BTreeMap<StoreId, StoreView>,
    /// Copies that a region should have.
    pub(crate) wanted: usize,
}

/// The next step for a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    LeaveJoint,
    AddLearner(StoreId),
    Promote(Peer),
    Remove(PeerId),
    TransferLeader(Peer),
}

impl View {
    fn fitness(&self, store: StoreId) -> Fitness {
        self.stores.get(&store).map_or(Fitness::Lost, |store| store.fitness)
    }

    /// Takes down that a store will get a copy, so that the next region goes elsewhere.
    pub(crate) fn count_add(&mut self, store: StoreId) {
        // A store that somebody named may be fuller or busier than the checker would choose.
        let store = self.stores.get_mut(&store).expect("it is a store of the cluster");
        store.copies += 1;
        store.adding += 1;
    }
}

/// The peers of a region by what they are good for.
struct Copies {
    leader: PeerId,
    voters: Vec<Peer>,
    lost_voters: Vec<Peer>,
    learners: Vec<Peer>,
    /// Those of `learners` that have caught up.
    ready: Vec<Peer>,
    lost_learners: Vec<Peer>,
    pending: Vec<PeerId>,
    in_joint_state: bool,
}

impl Copies {
    fn of(view: &View, region: &RegionInfo, leader: PeerId) -> Self {
        let pending: Vec<_> = region.pending_peers.iter().map(|peer| PeerId(peer.id)).collect();
        let peers: Vec<Peer> = region.meta.peers.iter().map(proto::peer_from_proto).collect();
        let is_joint =
            |peer: &Peer| matches!(peer.role, PeerRole::IncomingVoter | PeerRole::DemotingVoter);
        let in_joint_state = peers.iter().any(is_joint);
        let lost = |peer: &Peer| view.fitness(peer.store_id) == Fitness::Lost;
        let (learners, voters): (Vec<_>, Vec<_>) =
            peers.into_iter().partition(|peer| peer.role == PeerRole::Learner);
        let (lost_voters, voters) = voters.into_iter().partition(lost);
        let (lost_learners, learners): (Vec<_>, Vec<_>) = learners.into_iter().partition(lost);
        let ready = learners.iter().copied().filter(|peer| !pending.contains(&peer.id)).collect();
        assert!(learners.len() + lost_learners.len() <= region.meta.peers.len(), "peers from air");
        let (lost_voters, lost_learners): (Vec<Peer>, _) = (lost_voters, lost_learners);
        Self {
            leader,
            voters,
            lost_voters,
            learners,
            ready,
            lost_learners,
            pending,
            in_joint_state,
        }
    }
}

/// The next step for `region`; `None` if it has what it should, if nothing can be done now, or if
/// nobody is known to lead it.
pub(crate) fn need(view: &View, region: &RegionInfo) -> Option<Need> {
    let leader = PeerId(region.leader.as_ref()?.id);
    let copies = Copies::of(view, region, leader);
    if copies.in_joint_state {
        return Some(Need::LeaveJoint);
    }
    let needed = useless_learner(view, &copies)
        .map(Need::Remove)
        .or_else(|| missing_copy(view, region, &copies).map(Need::AddLearner))
        .or_else(|| promotion(view, region, &copies).map(Need::Promote))
        .or_else(|| superfluous_voter(view, &copies));
    assert!(needed != Some(Need::Remove(leader)), "the leader is never removed");
    needed
}

/// A leader that was demoted leads until it notices, and is left alone until then.
fn useless_learner(view: &View, copies: &Copies) -> Option<PeerId> {
    let follows = |peer: &&Peer| peer.id != copies.leader;
    let lost = copies.lost_learners.iter().find(follows);
    let too_many = copies.voters.len() + copies.learners.len() > view.wanted;
    let extra = copies.learners.iter().rfind(follows).filter(|_| too_many);
    lost.or(extra).map(|peer| peer.id)
}

/// Copies that the region can have: it counts those that it has, and the stores that take one.
fn reachable(view: &View, region: &RegionInfo, copies: &Copies) -> usize {
    let counted = copies.voters.len() + copies.learners.len();
    (counted + takers(view, region).count()).min(view.wanted)
}

/// The stores that may get a copy of the region.
fn takers<'a>(
    view: &'a View,
    region: &'a RegionInfo,
) -> impl Iterator<Item = (&'a StoreId, &'a StoreView)> {
    let has_peer = |id: StoreId| region.meta.peers.iter().any(|peer| peer.store_id == id.0);
    view.stores.iter().filter(move |(id, store)| store.fitness == Fitness::Takes && !has_peer(**id))
}

/// Where the next copy goes: to the store that has the fewest.
fn missing_copy(view: &View, region: &RegionInfo, copies: &Copies) -> Option<StoreId> {
    if copies.voters.len() + copies.learners.len() >= reachable(view, region, copies) {
        return None;
    }
    let free = takers(view, region).filter(|(_, store)| store.adding < ADDS_PER_STORE_MAX);
    let (id, _) = free.min_by_key(|(id, store)| (store.copies, **id))?;
    Some(*id)
}

fn promotion(view: &View, region: &RegionInfo, copies: &Copies) -> Option<Peer> {
    let reachable = reachable(view, region, copies);
    // A number of voters that is even and not asked for tolerates no more than one less.
    let voters = if reachable < view.wanted && reachable.is_multiple_of(2) {
        reachable.saturating_sub(1)
    } else {
        reachable
    };
    let missing = voters.saturating_sub(copies.voters.len());
    let peer = copies.ready.first().filter(|_| missing > 0 && copies.ready.len() >= missing)?;
    assert!(peer.role == PeerRole::Learner, "a voter is one already");
    Some(Peer { role: PeerRole::Voter, ..*peer })
}

fn superfluous_voter(view: &View, copies: &Copies) -> Option<Need> {
    let Copies { voters, lost_voters, leader, pending, .. } = copies;
    let is_leader = |peer: &&Peer| peer.id == *leader;
    if let Some(lost) = lost_voters.first().filter(|_| voters.len() >= view.wanted) {
        // A store that leaves still works, and may lead.
        let Some(leads) = lost_voters.iter().find(is_leader) else {
            return Some(Need::Remove(lost.id));
        };
        let other = lost_voters.iter().find(|peer| peer.id != leads.id);
        let heir = voters.iter().find(|peer| !pending.contains(&peer.id)).copied();
        return other.map(|peer| Need::Remove(peer.id)).or_else(|| heir.map(Need::TransferLeader));
    }
    if voters.len() <= view.wanted {
        return None;
    }
    let copies_on = |peer: &&Peer| view.stores.get(&peer.store_id).map_or(0, |store| store.copies);
    let others = voters.iter().filter(|peer| !is_leader(peer));
    let fullest = others.max_by_key(|peer| (pending.contains(&peer.id), copies_on(peer)));
    fullest.map(|peer| Need::Remove(peer.id))
}
