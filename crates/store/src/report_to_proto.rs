//! What a region's leader tells, as it is sent to the placement driver.

use proto::pdpb;

use crate::input::RegionReport;

impl RegionReport {
    /// The heartbeat of the region, under the cluster's `header`. Members that are not in its
    /// descriptor any more are left out.
    pub fn to_proto(&self, header: Option<pdpb::RequestHeader>) -> pdpb::RegionHeartbeatRequest {
        let peer = |id| self.region.peer(id).map(proto::peer_to_proto);
        let down = self.down.iter().filter_map(|(id, down_seconds)| {
            Some(pdpb::PeerStats { peer: Some(peer(*id)?), down_seconds: *down_seconds })
        });
        pdpb::RegionHeartbeatRequest {
            header,
            region: Some(proto::region_to_proto(&self.region)),
            leader: Some(proto::peer_to_proto(&self.leader)),
            down_peers: down.collect(),
            pending_peers: self.pending.iter().filter_map(|id| peer(*id)).collect(),
            term: self.term,
            bytes_written: self.written_bytes,
            keys_written: self.written_keys,
            bytes_read: self.read_bytes,
            keys_read: self.read_keys,
            approximate_size: self.approximate_bytes,
            approximate_keys: self.approximate_keys,
            ..Default::default()
        }
    }
}
