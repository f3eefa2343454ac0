//! Splits: a leader asks for the ids of the regions to be born, splits, and reports.
//!
//! Ids are all it gets here. The map learns of the new regions from their heartbeats, whichever
//! comes first: what a report says may already be outdated when it arrives.

use std::collections::BTreeMap;

use base::RegionId;
use bytes::Bytes;
use proto::pdpb::ErrorType;
use proto::{epoch_from_proto, metapb, pdpb};
use semver::Version;

use crate::order::{Order, Step};
use crate::{Change, Placement, PlacementError, RowChanges};

/// Most regions that one call may ask ids for.
const SPLIT_COUNT_MAX: u32 = 1 << 16;
/// The first version whose stores know batch splits.
const BATCH_SPLIT_SINCE: Version = Version::new(2, 1, 0);

/// How far the regions are cut at keys that somebody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Borders {
    /// The regions that end at one of the keys.
    pub left: Vec<u64>,
    /// Keys at which no region begins.
    pub missing: usize,
    /// For the leaders of the regions that hold these.
    pub orders: Vec<Order>,
}

impl Placement {
    /// SplitRegions: how far the regions are cut at `keys`, which are in the form in which regions
    /// are split and ascend, and what is to be told to whom so that they are.
    pub fn borders(
        &self,
        header: Option<&pdpb::RequestHeader>,
        keys: &[Bytes],
    ) -> Result<Borders, PlacementError> {
        self.check_bootstrapped(header)?;
        assert!(keys.is_sorted(), "keys ascend");
        let mut borders = Borders::default();
        let mut inside: BTreeMap<RegionId, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            match self.regions.find(key) {
                Some(region) if region.meta.start_key == *key => {
                    borders.left.extend(self.regions.find_before(key).map(|left| left.id().0));
                }
                found => {
                    borders.missing += 1;
                    if let Some(region) = found {
                        inside.entry(region.id()).or_default().push(key.clone());
                    }
                }
            }
        }
        let order = |(id, keys)| Order::new(self.regions.get(id)?, Step::Split(keys));
        borders.orders.extend(inside.into_iter().filter_map(order));
        assert!(borders.orders.len() <= borders.missing, "one order a region at most");
        Ok(borders)
    }

    /// AskBatchSplit: ids for `split_count` new regions and their peers, these in the order of the
    /// region's own.
    pub fn ask_batch_split(
        &self,
        request: &pdpb::AskBatchSplitRequest,
    ) -> Result<Change<pdpb::AskBatchSplitResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        if self.cluster.version.as_ref().is_none_or(|version| version < &BATCH_SPLIT_SINCE) {
            let version = self.cluster.version_text();
            let text = format!("stores of version {version} cannot split into many at once");
            return Err(PlacementError::refused_as(ErrorType::IncompatibleVersion, text));
        }
        let mut rows = RowChanges::default();
        let ids = self.plan_split(request.region.as_ref(), request.split_count, &mut rows)?;
        assert_eq!(ids.len(), request.split_count as usize, "one for each new region");
        let reply = pdpb::AskBatchSplitResponse { header: Some(self.header()), ids };
        Ok(Change { rows, reply })
    }

    /// AskSplit: the older form, for one new region.
    pub fn ask_split(
        &self,
        request: &pdpb::AskSplitRequest,
    ) -> Result<Change<pdpb::AskSplitResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let mut rows = RowChanges::default();
        let mut ids = self.plan_split(request.region.as_ref(), 1, &mut rows)?;
        assert!(ids.len() == 1 && !rows.is_empty(), "ids leave only after they are saved");
        let id = ids.pop().expect("one was asked for");
        let reply = pdpb::AskSplitResponse {
            header: Some(self.header()),
            new_region_id: id.new_region_id,
            new_peer_ids: id.new_peer_ids,
        };
        Ok(Change { rows, reply })
    }

    /// ReportBatchSplit: the regions that a split made, from left to right.
    pub fn report_batch_split(
        &self,
        request: &pdpb::ReportBatchSplitRequest,
    ) -> Result<pdpb::ReportBatchSplitResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        check_siblings(&request.regions.iter().collect::<Vec<_>>())?;
        Ok(pdpb::ReportBatchSplitResponse { header: Some(self.header()) })
    }

    /// ReportSplit: the older form, for two halves.
    pub fn report_split(
        &self,
        request: &pdpb::ReportSplitRequest,
    ) -> Result<pdpb::ReportSplitResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        check_siblings(&request.left.iter().chain(&request.right).collect::<Vec<_>>())?;
        Ok(pdpb::ReportSplitResponse { header: Some(self.header()) })
    }

    fn plan_split(
        &self,
        region: Option<&metapb::Region>,
        count: u32,
        rows: &mut RowChanges,
    ) -> Result<Vec<pdpb::SplitId>, PlacementError> {
        let Some(region) = region else {
            let kind = ErrorType::RegionNotFound;
            return Err(PlacementError::refused_as(kind, "no region to split in the request"));
        };
        self.check_is_current(region)?;
        if count > SPLIT_COUNT_MAX {
            let text = format!("cannot split into {count} regions at once");
            return Err(PlacementError::refused(text));
        }
        let peers = region.peers.len() as u64;
        let total = u64::from(count) * (1 + peers);
        if total == 0 {
            return Ok(Vec::new());
        }
        let first = self.ids.plan(total, rows)?;
        let split = |at: u64| {
            let new_region_id = first + at * (1 + peers);
            let new_peer_ids = (new_region_id + 1..=new_region_id + peers).collect();
            pdpb::SplitId { new_region_id, new_peer_ids }
        };
        let ids: Vec<_> = (0..u64::from(count)).map(split).collect();
        let last = ids.last().expect("there is one at least");
        assert_eq!(last.new_region_id + peers, first + total - 1, "every id is used once");
        Ok(ids)
    }

    fn check_is_current(&self, region: &metapb::Region) -> Result<(), PlacementError> {
        let Some(known) = self.regions.get(RegionId(region.id)) else {
            return Err(PlacementError::refused(format!("region {} is not known", region.id)));
        };
        let epoch = epoch_from_proto(&region.region_epoch.unwrap_or_default());
        if epoch.is_behind(&known.epoch()) || region.peers.len() != known.meta.peers.len() {
            let text = format!(
                "region {} has epoch {epoch} and {} peers in the request, known are {} and {}",
                region.id,
                region.peers.len(),
                known.epoch(),
                known.meta.peers.len()
            );
            return Err(PlacementError::refused(text));
        }
        Ok(())
    }
}

/// Checks that at least two regions were reported and each ends where the next begins.
fn check_siblings(regions: &[&metapb::Region]) -> Result<(), PlacementError> {
    let adjacent = |pair: &[&metapb::Region]| {
        !pair[0].end_key.is_empty() && pair[0].end_key == pair[1].start_key
    };
    if regions.len() >= 2 && regions.windows(2).all(adjacent) {
        return Ok(());
    }
    Err(PlacementError::refused("invalid split: the regions are not side by side"))
}
