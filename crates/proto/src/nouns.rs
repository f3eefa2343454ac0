//! The nouns that every crate shares, to the wire and back: regions, epochs, replicas.

use base::{Epoch, KeyRange, Peer, PeerId, PeerRole, Region, RegionId, StoreId, TimeStamp};

use crate::metapb;

/// The descriptor as clients and the disk know it.
pub fn region_to_proto(region: &Region) -> metapb::Region {
    metapb::Region {
        id: region.id.0,
        start_key: region.range.start.clone(),
        end_key: region.range.end.clone(),
        region_epoch: Some(epoch_to_proto(region.epoch)),
        peers: region.peers.iter().map(peer_to_proto).collect(),
        is_in_flashback: region.flashback.is_some(),
        flashback_start_ts: region.flashback.unwrap_or_default().0,
        ..Default::default()
    }
}

/// The descriptor from a message or record; an absent epoch is 0/0.
pub fn region_from_proto(region: &metapb::Region) -> Region {
    Region {
        id: RegionId(region.id),
        range: KeyRange { start: region.start_key.clone(), end: region.end_key.clone() },
        epoch: region.region_epoch.as_ref().map(epoch_from_proto).unwrap_or_default(),
        peers: region.peers.iter().map(peer_from_proto).collect(),
        flashback: region.is_in_flashback.then_some(TimeStamp(region.flashback_start_ts)),
    }
}

/// The epoch as clients know it.
pub fn epoch_to_proto(epoch: Epoch) -> metapb::RegionEpoch {
    metapb::RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version }
}

/// The epoch from a message.
pub fn epoch_from_proto(epoch: &metapb::RegionEpoch) -> Epoch {
    Epoch { conf_ver: epoch.conf_ver, version: epoch.version }
}

/// The replica as clients know it.
pub fn peer_to_proto(peer: &Peer) -> metapb::Peer {
    let role = match peer.role {
        PeerRole::Voter => metapb::PeerRole::Voter,
        PeerRole::Learner => metapb::PeerRole::Learner,
        PeerRole::IncomingVoter => metapb::PeerRole::IncomingVoter,
        PeerRole::DemotingVoter => metapb::PeerRole::DemotingVoter,
    };
    metapb::Peer {
        id: peer.id.0,
        store_id: peer.store_id.0,
        role: role as i32,
        ..Default::default()
    }
}

/// The replica from a message; an unknown role is read as a voter's.
pub fn peer_from_proto(peer: &metapb::Peer) -> Peer {
    let role = match peer.role() {
        metapb::PeerRole::Voter => PeerRole::Voter,
        metapb::PeerRole::Learner => PeerRole::Learner,
        metapb::PeerRole::IncomingVoter => PeerRole::IncomingVoter,
        metapb::PeerRole::DemotingVoter => PeerRole::DemotingVoter,
    };
    Peer { id: PeerId(peer.id), store_id: StoreId(peer.store_id), role }
}
