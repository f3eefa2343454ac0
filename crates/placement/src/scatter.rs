//! Scattering regions over stores, and asking what is being done to a region.
//!
//! Nothing scatters yet. While there are no more stores than a region has copies, every region is
//! on all of them or about to be, so scattering is finished at once and says so; with more stores
//! it is refused rather than claimed.

use base::RegionId;
use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::{Placement, PlacementError, StoreInfo};

impl Placement {
    /// ScatterRegion, for a list of regions or (older form) for one.
    #[expect(deprecated, reason = "older clients still send the single id")]
    pub fn scatter_region(
        &self,
        request: &pdpb::ScatterRegionRequest,
    ) -> Result<pdpb::ScatterRegionResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let live_stores = self.stores().filter(|store: &&StoreInfo| !store.is_tombstone()).count();
        if live_stores > self.wanted_copies() {
            return Err(PlacementError::refused("regions cannot be scattered over so many stores"));
        }
        let is_known = |id: u64| self.regions.get(RegionId(id)).is_some();
        let (ids, header) = (&request.regions_id, Some(self.header()));
        if ids.is_empty() && request.region.is_none() && !is_known(request.region_id) {
            let text = format!("region {} is not known", request.region_id);
            return Err(PlacementError::refused_as(ErrorType::RegionNotFound, text));
        }
        let failed: Vec<u64> = ids.iter().copied().filter(|&id| !is_known(id)).collect();
        let done = ids.len() - failed.len();
        let finished_percentage = (done * 100).checked_div(ids.len()).unwrap_or(100) as u64;
        assert!(finished_percentage <= 100, "more than all");
        Ok(pdpb::ScatterRegionResponse { header, finished_percentage, failed_regions_id: failed })
    }

    /// GetOperator: what is being done to a region.
    pub fn get_operator(
        &self,
        request: &pdpb::GetOperatorRequest,
    ) -> Result<pdpb::GetOperatorResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        if let Some(order) = self.operators.order(RegionId(request.region_id)) {
            assert_eq!(order.region_id.0, request.region_id, "operators are kept by region");
            return Ok(pdpb::GetOperatorResponse {
                header: Some(self.header()),
                region_id: request.region_id,
                desc: order.name().into(),
                status: pdpb::OperatorStatus::Running.into(),
                kind: "region".into(),
            });
        }
        let text = format!("region {} has no operator", request.region_id);
        Err(PlacementError::refused_as(ErrorType::RegionNotFound, text))
    }
}
