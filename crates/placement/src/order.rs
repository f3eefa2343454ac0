//! Orders: what the placement driver wants the leader of a region to do, and how that travels.
//!
//! An order is one step: its effect shows in the region's next heartbeat. It names the region as it
//! was when the order was made, and a leader that finds its region changed since then ignores it.
//! So an order that comes late or twice does no harm.

use base::{Epoch, Peer, PeerChange, PeerId, Region, RegionId, StoreId};
use bytes::Bytes;
use proto::{
    epoch_from_proto, epoch_to_proto, eraftpb, metapb, pdpb, peer_from_proto, peer_to_proto,
    region_from_proto, region_to_proto,
};

use crate::RegionInfo;

/// One step for one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The region.
    pub region_id: RegionId,
    /// Its epoch when the order was made; with another one the order is void.
    pub epoch: Epoch,
    /// Whom it is for: the leader when the order was made.
    pub leader: Peer,
    /// What to do.
    pub step: Step,
}

/// What an order asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Change members: one change at once, several by a joint change. None: leave the joint state.
    ChangePeers(Vec<PeerChange>),
    /// Let this voter lead.
    TransferLeader(Peer),
    /// Cut the region at these keys, in the form in which regions are split; at a key of the
    /// store's choice if there are none.
    Split(Vec<Bytes>),
    /// Become a part of this neighbour.
    Merge(Region),
}

impl Order {
    /// An order for `region` as it is known. `None` if nobody is known to lead it.
    pub(crate) fn new(region: &RegionInfo, step: Step) -> Option<Self> {
        let leader = peer_from_proto(region.leader.as_ref()?);
        assert!(leader.id != PeerId::NONE, "a leader without an id");
        Some(Self { region_id: region.id(), epoch: region.epoch(), leader, step })
    }

    /// Whether the region is still as it was when the order was made.
    pub(crate) fn fits(&self, region: &RegionInfo) -> bool {
        assert_eq!(self.region_id, region.id(), "an order for another region");
        let leader = region.leader.as_ref().map(|leader| PeerId(leader.id));
        region.epoch() == self.epoch && leader == Some(self.leader.id)
    }

    /// The store that is to get a new peer by this order.
    pub(crate) fn adds_to(&self) -> Option<StoreId> {
        let Step::ChangePeers(changes) = &self.step else { return None };
        changes.iter().find_map(|change| match change {
            PeerChange::AddLearner(peer) => Some(peer.store_id),
            PeerChange::AddVoter(_) | PeerChange::Remove(_) => None,
        })
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        let changes = match &self.step {
            Step::ChangePeers(changes) => changes,
            Step::TransferLeader(_) => return "transfer-leader",
            Step::Split(_) => return "split-region",
            Step::Merge(_) => return "merge-region",
        };
        match changes.first() {
            None => "leave-joint-state",
            Some(PeerChange::AddLearner(_)) => "add-learner",
            Some(PeerChange::AddVoter(_)) => "promote-learner",
            Some(PeerChange::Remove(_)) => "remove-peer",
        }
    }

    /// As it travels: the answer to a region heartbeat.
    pub fn to_wire(&self, header: pdpb::ResponseHeader) -> pdpb::RegionHeartbeatResponse {
        let mut response = pdpb::RegionHeartbeatResponse {
            header: Some(header),
            region_id: self.region_id.0,
            region_epoch: Some(epoch_to_proto(self.epoch)),
            target_peer: Some(peer_to_proto(&self.leader)),
            ..Default::default()
        };
        match &self.step {
            Step::ChangePeers(changes) => {
                let changes = changes.iter().map(change_to_wire).collect();
                response.change_peer_v2 = Some(pdpb::ChangePeerV2 { changes });
            }
            Step::TransferLeader(to) => {
                let (peer, peers) = (Some(peer_to_proto(to)), Vec::new());
                response.transfer_leader = Some(pdpb::TransferLeader { peer, peers });
            }
            Step::Split(keys) => {
                let policy = match keys.is_empty() {
                    true => pdpb::CheckPolicy::Approximate,
                    false => pdpb::CheckPolicy::Usekey,
                };
                let (policy, keys) = (policy.into(), keys.clone());
                response.split_region = Some(pdpb::SplitRegion { policy, keys });
            }
            Step::Merge(target) => {
                response.merge = Some(pdpb::Merge { target: Some(region_to_proto(target)) });
            }
        }
        response
    }

    /// The order that an answer holds. `None` if it holds none, or one of a kind that is not known
    /// here.
    pub fn from_wire(response: &pdpb::RegionHeartbeatResponse) -> Option<Self> {
        let epoch = response.region_epoch.as_ref()?;
        let step = if let Some(transfer) = &response.transfer_leader {
            let to = transfer.peer.as_ref().or(transfer.peers.first())?;
            Step::TransferLeader(peer_from_proto(to))
        } else if let Some(split) = &response.split_region {
            Step::Split(split.keys.clone())
        } else if let Some(merge) = &response.merge {
            Step::Merge(region_from_proto(merge.target.as_ref()?))
        } else if let Some(change) = &response.change_peer {
            Step::ChangePeers(vec![change_from_wire(change)?])
        } else {
            let changes = &response.change_peer_v2.as_ref()?.changes;
            Step::ChangePeers(changes.iter().map(change_from_wire).collect::<Option<_>>()?)
        };
        Some(Self {
            region_id: RegionId(response.region_id),
            epoch: epoch_from_proto(epoch),
            leader: peer_from_proto(response.target_peer.as_ref()?),
            step,
        })
    }
}

fn change_to_wire(change: &PeerChange) -> pdpb::ChangePeer {
    let (peer, kind) = match change {
        PeerChange::AddVoter(peer) => (peer_to_proto(peer), eraftpb::ConfChangeType::AddNode),
        PeerChange::AddLearner(peer) => {
            (peer_to_proto(peer), eraftpb::ConfChangeType::AddLearnerNode)
        }
        PeerChange::Remove(id) => {
            let peer = metapb::Peer { id: id.0, ..Default::default() };
            (peer, eraftpb::ConfChangeType::RemoveNode)
        }
    };
    pdpb::ChangePeer { peer: Some(peer), change_type: kind.into() }
}

fn change_from_wire(change: &pdpb::ChangePeer) -> Option<PeerChange> {
    let peer = peer_from_proto(change.peer.as_ref()?);
    Some(match eraftpb::ConfChangeType::try_from(change.change_type).ok()? {
        eraftpb::ConfChangeType::AddNode => PeerChange::AddVoter(peer),
        eraftpb::ConfChangeType::AddLearnerNode => PeerChange::AddLearner(peer),
        eraftpb::ConfChangeType::RemoveNode => PeerChange::Remove(peer.id),
    })
}
