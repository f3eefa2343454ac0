//! Looking up single regions: by key, by the key behind it, by id, and many at once.

use std::sync::Arc;

use base::RegionId;
use proto::pdpb;

use crate::{Placement, PlacementError, RegionInfo};

impl Placement {
    /// GetRegion: the region that holds a key. An answer without a region says that none is known.
    pub fn get_region(
        &self,
        request: &pdpb::GetRegionRequest,
    ) -> Result<pdpb::GetRegionResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        Ok(self.found(self.regions.find(&request.region_key)))
    }

    /// GetPrevRegion: the region right before the one that holds a key.
    pub fn get_prev_region(
        &self,
        request: &pdpb::GetRegionRequest,
    ) -> Result<pdpb::GetRegionResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        Ok(self.found(self.regions.find_before(&request.region_key)))
    }

    /// GetRegionByID.
    pub fn get_region_by_id(
        &self,
        request: &pdpb::GetRegionByIdRequest,
    ) -> Result<pdpb::GetRegionResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        Ok(self.found(self.regions.get(RegionId(request.region_id))))
    }

    /// QueryRegion: one message of the stream, which asks for many regions at once. The two lists
    /// of ids are aligned with the lists of keys; 0 where no region is known.
    pub fn query_region(
        &self,
        request: &pdpb::QueryRegionRequest,
    ) -> Result<pdpb::QueryRegionResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let by_key: Vec<_> = request.keys.iter().map(|key| self.regions.find(key)).collect();
        let by_next: Vec<_> =
            request.prev_keys.iter().map(|key| self.regions.find_before(key)).collect();
        let by_id = request.ids.iter().map(|id| self.regions.get(RegionId(*id)));
        let found = by_key.iter().chain(&by_next).copied().chain(by_id).flatten();
        assert_eq!(by_key.len(), request.keys.len(), "aligned with the request");
        assert_eq!(by_next.len(), request.prev_keys.len(), "aligned with the request");
        let ids = |regions: &[Option<&Arc<RegionInfo>>]| {
            regions.iter().map(|region| region.map_or(0, |region| region.meta.id)).collect()
        };
        Ok(pdpb::QueryRegionResponse {
            header: Some(self.header()),
            key_id_map: ids(&by_key),
            prev_key_id_map: ids(&by_next),
            regions_by_id: found.map(|region| (region.meta.id, queried(region))).collect(),
        })
    }

    fn found(&self, region: Option<&Arc<RegionInfo>>) -> pdpb::GetRegionResponse {
        let header = Some(self.header());
        let Some(region) = region else {
            return pdpb::GetRegionResponse { header, ..Default::default() };
        };
        assert!(region.meta.region_epoch.is_some(), "clients cannot do without");
        pdpb::GetRegionResponse {
            header,
            region: Some(region.meta.clone()),
            leader: region.leader,
            down_peers: region.down_peers.clone(),
            pending_peers: region.pending_peers.clone(),
            buckets: None,
        }
    }
}

fn queried(region: &RegionInfo) -> pdpb::RegionResponse {
    assert!(region.meta.region_epoch.is_some(), "clients cannot do without");
    pdpb::RegionResponse {
        region: Some(region.meta.clone()),
        leader: region.leader,
        down_peers: region.down_peers.clone(),
        pending_peers: region.pending_peers.clone(),
        buckets: None,
    }
}
