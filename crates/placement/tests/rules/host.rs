//! The fake host, and short ways to make messages.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{ClusterId, Instant, TimeStamp};
use bytes::Bytes;
use pontoon_placement::{Change, Placement, PlacementError, RowChanges, TsoWait};
use proto::pdpb::ErrorType;
use proto::{metapb, pdpb};

pub(crate) const CLUSTER: ClusterId = ClusterId(7_001);

/// Runs writes one at a time over a map of rows.
pub(crate) struct Host {
    pub(crate) rows: BTreeMap<Bytes, Bytes>,
    pub(crate) placement: Placement,
    pub(crate) now: Instant,
    pub(crate) wall_ms: u64,
}

impl Host {
    /// A cluster that nobody has bootstrapped.
    pub(crate) fn new() -> Self {
        let (now, wall_ms) = (Instant::ZERO, 1_700_000_000_000);
        let placement = Placement::load(CLUSTER, [], now, wall_ms).unwrap();
        Self { rows: BTreeMap::new(), placement, now, wall_ms }
    }

    /// A cluster with store 1 and region 2 (peer 3), led by store 1.
    pub(crate) fn bootstrapped() -> Self {
        let mut host = Self::new();
        host.alloc(2);
        let request = bootstrap_request(1, 2, 3);
        let wall_ms = host.wall_ms;
        host.write(|placement| placement.bootstrap(&request, wall_ms)).unwrap();
        host.heartbeat(region(2, "", "", 1)).unwrap();
        host
    }

    /// Plans, applies, commits.
    pub(crate) fn write<R>(
        &mut self,
        plan: impl FnOnce(&Placement) -> Result<Change<R>, PlacementError>,
    ) -> Result<R, PlacementError> {
        let change = plan(&self.placement)?;
        self.apply(&change.rows);
        self.placement.commit(&change.rows);
        Ok(change.reply)
    }

    pub(crate) fn apply(&mut self, rows: &RowChanges) {
        for (key, value) in rows.iter() {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
    }

    /// Another leader takes over: all but the rows is gone. The order of rows must not matter.
    pub(crate) fn restart(&mut self) {
        let rows = self.rows.iter().rev().map(|(key, value)| (key.clone(), value.clone()));
        self.placement = Placement::load(CLUSTER, rows, self.now, self.wall_ms).unwrap();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.wall_ms += u64::try_from(time.as_millis()).unwrap();
    }

    pub(crate) fn alloc(&mut self, count: u32) -> u64 {
        let request = pdpb::AllocIdRequest { header: header(), count };
        self.write(|placement| placement.alloc_id(&request)).unwrap().id
    }

    /// Timestamps as the server takes them: waits and saves as told.
    pub(crate) fn timestamps(&mut self, count: u32) -> TimeStamp {
        loop {
            match self.placement.timestamps(self.wall_ms, count) {
                Ok(last) => return last,
                Err(TsoWait::NextMillisecond) => self.wall_ms += 1,
                Err(TsoWait::Window) => {
                    let change = self.placement.plan_tso_window(self.wall_ms, count);
                    self.write(|_| Ok(change)).unwrap();
                }
            }
        }
    }

    pub(crate) fn put_store(&mut self, store: metapb::Store) -> Result<(), PlacementError> {
        let request = pdpb::PutStoreRequest { header: header(), store: Some(store) };
        self.write(|placement| placement.put_store(&request)).map(drop)
    }

    pub(crate) fn store(&self, store_id: u64) -> Result<metapb::Store, PlacementError> {
        let request = pdpb::GetStoreRequest { header: header(), store_id };
        self.placement.get_store(&request).map(|response| response.store.unwrap())
    }

    /// A heartbeat of the region's first peer as leader.
    pub(crate) fn heartbeat(&mut self, region: metapb::Region) -> Result<(), PlacementError> {
        self.placement.region_heartbeat(&heartbeat(region))
    }

    /// The region with this key, as a client sees it.
    pub(crate) fn get_region(&self, key: &str) -> pdpb::GetRegionResponse {
        let request = pdpb::GetRegionRequest {
            header: header(),
            region_key: Bytes::copy_from_slice(key.as_bytes()),
            need_buckets: false,
        };
        self.placement.get_region(&request).unwrap()
    }

    /// Ids of the regions on the map, in the order of their keys.
    pub(crate) fn map(&self) -> Vec<u64> {
        self.placement.regions().iter().map(|region| region.meta.id).collect()
    }
}

pub(crate) fn header() -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id: CLUSTER.0, ..Default::default() })
}

pub(crate) fn store(id: u64) -> metapb::Store {
    metapb::Store {
        id,
        address: format!("127.0.0.1:{}", 20_000 + id),
        version: "8.5.0".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn peer(id: u64, store_id: u64) -> metapb::Peer {
    metapb::Peer { id, store_id, ..Default::default() }
}

/// A region with one peer, of id `id + 1`, on store 1; conf version 1.
pub(crate) fn region(id: u64, start: &str, end: &str, version: u64) -> metapb::Region {
    metapb::Region {
        id,
        start_key: Bytes::copy_from_slice(start.as_bytes()),
        end_key: Bytes::copy_from_slice(end.as_bytes()),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers: vec![peer(id + 1, 1)],
        ..Default::default()
    }
}

pub(crate) fn heartbeat(region: metapb::Region) -> pdpb::RegionHeartbeatRequest {
    pdpb::RegionHeartbeatRequest {
        header: header(),
        leader: region.peers.first().copied(),
        region: Some(region),
        term: 6,
        ..Default::default()
    }
}

pub(crate) fn bootstrap_request(store_id: u64, id: u64, peer_id: u64) -> pdpb::BootstrapRequest {
    let mut first = region(id, "", "", 1);
    first.peers = vec![peer(peer_id, store_id)];
    pdpb::BootstrapRequest { header: header(), store: Some(store(store_id)), region: Some(first) }
}

/// How a refusal is classed in the header.
pub(crate) fn kind(error: &PlacementError) -> ErrorType {
    error.in_header().expect("travels in a header").r#type()
}
