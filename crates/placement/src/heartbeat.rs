//! Heartbeats: stores tell how they are, leaders tell what their regions look like.
//!
//! They change memory only. A new placement driver has heard of nothing but the first region and
//! learns the rest within one round of heartbeats.

use std::sync::Arc;

use base::{Instant, StoreId};
use proto::pdpb;

use crate::bootstrap::replication_status;
use crate::region_map::Stale;
use crate::{Placement, PlacementError, RegionInfo};

impl Placement {
    /// StoreHeartbeat: takes down the store's statistics, and tells it how the cluster sees it.
    pub fn store_heartbeat(
        &mut self,
        request: &pdpb::StoreHeartbeatRequest,
        now: Instant,
        wall_ms: u64,
    ) -> Result<pdpb::StoreHeartbeatResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let Some(stats) = &request.stats else {
            return Err(PlacementError::invalid("no statistics in the store's heartbeat"));
        };
        self.live_store(stats.store_id)?;
        let cluster_version = self.cluster.version_text();
        let header = self.header();

        let id = StoreId(stats.store_id);
        let store = self.cluster.stores.get_mut(&id).expect("found above");
        store.stats = Some(stats.clone());
        store.heard_at = store.heard_at.max(now);
        store.meta.last_heartbeat = nanos(wall_ms);
        assert_eq!(store.meta.id, stats.store_id, "stores are kept under their ids");
        Ok(pdpb::StoreHeartbeatResponse {
            header: Some(header),
            replication_status: Some(replication_status()),
            cluster_version,
            state: store.meta.node_state,
            ..Default::default()
        })
    }

    /// RegionHeartbeat: takes in what a leader tells about its region.
    ///
    /// `Ok` needs no answer. `Refused` (a stale or malformed report) goes back in a header and the
    /// stream goes on; `NotBootstrapped` goes back in a header and ends the stream; anything else
    /// fails it, such as a leader on a store that nobody knows.
    pub fn region_heartbeat(
        &mut self,
        request: &pdpb::RegionHeartbeatRequest,
    ) -> Result<(), PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let store_id = request.leader.as_ref().map_or(0, |leader| leader.store_id);
        if self.store(StoreId(store_id)).is_none() {
            let text = format!("invalid store ID {store_id}, not found");
            return Err(PlacementError::invalid(text));
        }
        let region = RegionInfo::reported(request)
            .map_err(|what| PlacementError::refused(format!("invalid region: {what}")))?;
        let id = region.id();
        self.take_in(region).map_err(|stale| PlacementError::refused(stale.to_string()))?;
        let known =
            if id.is_system() { &self.system_region } else { &self.regions.get(id).cloned() };
        self.operators.heard(known.as_ref().expect("it was just taken in"));
        Ok(())
    }

    /// The system region is no part of the map: clients have no business with it.
    fn take_in(&mut self, region: RegionInfo) -> Result<(), Stale> {
        if !region.id().is_system() {
            return self.regions.report(region);
        }
        if let Some(known) = &self.system_region {
            region.check_after(known)?;
        }
        self.system_region = Some(Arc::new(region));
        Ok(())
    }
}

/// Milliseconds as the nanoseconds of `metapb.Store.last_heartbeat`.
fn nanos(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
