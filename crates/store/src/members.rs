//! Change of members: what an entry of kind `ConfChangeV2` holds, and what it means for a region
//! and for raft.
//!
//! ```text
//!   entry.data = eraftpb.ConfChangeV2 { transition, changes: [(type, peer id)],
//!                                       context = RaftCmdRequest { epoch, ChangePeerV2 } }
//!                empty: leave the joint change (raft proposes these itself)
//! ```
//!
//! Raft counts ids, a region knows stores and roles. The two are one fact: [`conf_of`] reads raft's
//! members off the region's roles, and a replica asserts after each change that they are those that
//! its raft node has.

use base::{Epoch, Peer, PeerChange, PeerId, PeerRole, Region, StoreId};
use bytes::Bytes;
use prost::Message;
use proto::{eraftpb, raft_cmdpb};
use raft::{ConfChange, ConfState, Joint, Leave, MemberChange};

use crate::command::{self, CommandError};

/// Whether `id` alone decides in the region.
pub(crate) fn is_sole_voter(region: &Region, id: PeerId) -> bool {
    let mut others = region.peers.iter().filter(|peer| peer.id != id);
    let is_voter = |peer: &Peer| peer.id == id && peer.role == PeerRole::Voter;
    region.peers.iter().any(is_voter) && others.all(|p| p.role == PeerRole::Learner)
}

/// The members as raft counts them.
pub(crate) fn conf_of(region: &Region) -> ConfState {
    let of = |roles: &[PeerRole]| -> Vec<PeerId> {
        let peers = region.peers.iter().filter(|peer| roles.contains(&peer.role));
        let mut ids: Vec<PeerId> = peers.map(|peer| peer.id).collect();
        ids.sort_unstable();
        ids
    };
    let joint = region.is_joint().then(|| {
        Box::new(Joint {
            voters_outgoing: of(&[PeerRole::Voter, PeerRole::DemotingVoter]),
            learners_next: of(&[PeerRole::DemotingVoter]),
            leave: Leave::Automatic,
        })
    });
    ConfState {
        voters: of(&[PeerRole::Voter, PeerRole::IncomingVoter]),
        learners: of(&[PeerRole::Learner]),
        joint,
    }
}

/// What `changes`, which fit the region, are to raft.
pub(crate) fn conf_change(region: &Region, changes: &[PeerChange]) -> ConfChange {
    let joint = changes.len() > 1;
    let voter = |id| region.peer(id).is_some_and(|peer| peer.role == PeerRole::Voter);
    let member = |change: &PeerChange| match *change {
        PeerChange::AddVoter(peer) => MemberChange::AddVoter(peer.id),
        PeerChange::AddLearner(peer) => MemberChange::AddLearner(peer.id),
        PeerChange::Remove(id) if joint && voter(id) => MemberChange::AddLearner(id),
        PeerChange::Remove(id) => MemberChange::Remove(id),
    };
    match changes {
        [] => ConfChange::Leave,
        [change] => ConfChange::One(member(change)),
        changes => ConfChange::Enter {
            changes: changes.iter().map(member).collect(),
            leave: Leave::Automatic,
        },
    }
}

/// The data of the entry that makes `changes` of `region`; none for leaving a joint change.
pub(crate) fn encode(region: &Region, changes: &[PeerChange]) -> Bytes {
    let (transition, members) = match conf_change(region, changes) {
        ConfChange::Leave => return Bytes::new(),
        ConfChange::One(change) => (eraftpb::ConfChangeTransition::Auto, vec![change]),
        ConfChange::Enter { changes, .. } => (eraftpb::ConfChangeTransition::Implicit, changes),
    };
    let requests = changes.iter().map(request).collect();
    let change_peer_v2 = raft_cmdpb::ChangePeerV2Request { changes: requests };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::ChangePeerV2 as i32,
        change_peer_v2: Some(change_peer_v2),
        ..Default::default()
    };
    eraftpb::ConfChangeV2 {
        transition: transition as i32,
        changes: members.iter().map(single).collect(),
        context: command::encode_admin(region.epoch, admin),
    }
    .encode_to_vec()
    .into()
}

fn request(change: &PeerChange) -> raft_cmdpb::ChangePeerRequest {
    use eraftpb::ConfChangeType as Type;
    let (change_type, peer) = match *change {
        PeerChange::AddVoter(peer) => (Type::AddNode, peer),
        PeerChange::AddLearner(peer) => (Type::AddLearnerNode, peer),
        PeerChange::Remove(id) => (Type::RemoveNode, Peer::voter(id, StoreId(0))),
    };
    let peer = Some(proto::peer_to_proto(&peer));
    raft_cmdpb::ChangePeerRequest { change_type: change_type as i32, peer }
}

fn single(change: &MemberChange) -> eraftpb::ConfChangeSingle {
    use eraftpb::ConfChangeType as Type;
    let (change_type, id) = match *change {
        MemberChange::AddVoter(id) => (Type::AddNode, id),
        MemberChange::AddLearner(id) => (Type::AddLearnerNode, id),
        MemberChange::Remove(id) => (Type::RemoveNode, id),
    };
    eraftpb::ConfChangeSingle { change_type: change_type as i32, node_id: id.0 }
}

/// What an entry of kind `ConfChangeV2` says: the epoch under which the changes were proposed, and
/// the changes; `None` for leaving the joint change.
pub(crate) fn decode(data: &[u8]) -> Result<Option<(Epoch, Vec<PeerChange>)>, CommandError> {
    if data.is_empty() {
        return Ok(None);
    }
    let broken = |what| CommandError { what, offset: data.len() };
    let change = eraftpb::ConfChangeV2::decode(data).map_err(|_| broken("a change of members"))?;
    let command = raft_cmdpb::RaftCmdRequest::decode(change.context)
        .map_err(|_| broken("the command of a change of members"))?;
    let epoch = command.header.and_then(|header| header.region_epoch);
    let epoch = epoch.as_ref().map(proto::epoch_from_proto);
    let requests = command.admin_request.and_then(|admin| admin.change_peer_v2);
    let (Some(epoch), Some(requests)) = (epoch, requests) else {
        return Err(broken("epoch and changes of a change of members"));
    };
    let changes = requests.changes.iter().map(|request| {
        let peer = request.peer.as_ref().map(proto::peer_from_proto);
        let peer = peer.ok_or_else(|| broken("the peer of a change of members"))?;
        Ok(match request.change_type() {
            eraftpb::ConfChangeType::AddNode => PeerChange::AddVoter(peer),
            eraftpb::ConfChangeType::AddLearnerNode => PeerChange::AddLearner(peer),
            eraftpb::ConfChangeType::RemoveNode => PeerChange::Remove(peer.id),
        })
    });
    Ok(Some((epoch, changes.collect::<Result<_, CommandError>>()?)))
}

#[cfg(test)]
mod tests {
    use base::{KeyRange, Prng, RegionId};

    use super::*;

    fn region() -> Region {
        let peer = |id, role| Peer { id: PeerId(id), store_id: StoreId(id), role };
        let peers = vec![
            peer(1, PeerRole::Voter),
            peer(2, PeerRole::Voter),
            peer(3, PeerRole::Voter),
            peer(4, PeerRole::Learner),
        ];
        let epoch = Epoch { conf_ver: 5, version: 9 };
        Region { id: RegionId(7), range: KeyRange::all(), epoch, peers, flashback: None }
    }

    #[test]
    fn an_entry_comes_back() {
        let new = Peer { id: PeerId(9), store_id: StoreId(9), role: PeerRole::Voter };
        let changes = vec![PeerChange::AddVoter(new), PeerChange::Remove(PeerId(2))];
        for changes in [&changes[..1], &changes[1..], &changes] {
            let data = encode(&region(), changes);
            let (epoch, decoded) = decode(&data).expect("sound").expect("not a leave");
            assert_eq!((epoch, &decoded[..]), (region().epoch, changes));
        }
        assert_eq!(encode(&region(), &[]), Bytes::new());
        assert_eq!(decode(&[]), Ok(None));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let data = encode(&region(), &[PeerChange::Remove(PeerId(2))]);
        for at in 0..data.len() {
            let _ = decode(&data[..at]);
            for bit in 0..8 {
                let mut damaged = data.to_vec();
                damaged[at] ^= 1 << bit;
                let _ = decode(&damaged);
            }
        }
    }

    /// Raft's arithmetic of members and the region's agree, whatever happens.
    #[test]
    fn region_and_raft_agree_on_members() {
        let mut prng = Prng::new(4);
        let (mut applied, mut joint) = (0, 0);
        for _ in 0..500 {
            let mut region = region();
            for _ in 0..20 {
                let change = |prng: &mut Prng| {
                    let id = 1 + prng.below(7);
                    let peer = Peer::voter(PeerId(id), StoreId(id));
                    match prng.below(3) {
                        0 => PeerChange::AddVoter(peer),
                        1 => PeerChange::AddLearner(peer),
                        _ => PeerChange::Remove(peer.id),
                    }
                };
                let changes: Vec<_> = (0..prng.below(4)).map(|_| change(&mut prng)).collect();
                let next = match changes.is_empty() {
                    true => region.leave_joint(),
                    false => region.change_peers(&changes),
                };
                let Some(next) = next else { continue };
                let conf = conf_of(&region).after(&conf_change(&region, &changes));
                assert_eq!(conf, Ok(conf_of(&next)), "{changes:?} of {region:?}");
                (applied, joint) = (applied + 1, joint + u32::from(next.is_joint()));
                region = next;
            }
        }
        assert!(applied > 1_000 && joint > 100, "{applied} {joint}");
    }
}
