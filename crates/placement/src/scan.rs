//! Looking up the regions of one range or of many.

use base::KeyRange;
use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::{Placement, PlacementError, RegionInfo};

impl Placement {
    /// ScanRegions: the regions that share a key with a range, in order.
    pub fn scan_regions(
        &self,
        request: &pdpb::ScanRegionsRequest,
    ) -> Result<pdpb::ScanRegionsResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let range = KeyRange::new(request.start_key.clone(), request.end_key.clone());
        let found = self.regions.overlapping(&range).take(limit(request.limit));
        let regions: Vec<pdpb::Region> = found.map(|region| scanned(region)).collect();
        assert!(regions.len() <= limit(request.limit), "more than was asked for");
        assert!(regions.iter().all(|region| region.leader.is_some()), "clients align the lists");
        Ok(pdpb::ScanRegionsResponse {
            header: Some(self.header()),
            // The same once more, for clients from before the field `regions`.
            region_metas: regions.iter().filter_map(|region| region.region.clone()).collect(),
            leaders: regions.iter().filter_map(|region| region.leader).collect(),
            regions,
        })
    }

    /// BatchScanRegions: the regions that share a key with any of several ranges, which must be in
    /// order and not overlap. With `contain_all_key_range` a gap is an error.
    pub fn batch_scan_regions(
        &self,
        request: &pdpb::BatchScanRegionsRequest,
    ) -> Result<pdpb::BatchScanRegionsResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let ranges = checked_ranges(&request.ranges)?;
        let mut scan = BatchScan { regions: Vec::new(), limit: limit(request.limit) };
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let without_gap = scan.add(self, range);
            if request.contain_all_key_range && !without_gap {
                let kind = ErrorType::RegionsNotContainAllKeyRange;
                let text = "the known regions do not hold all keys of the ranges";
                return Err(PlacementError::refused_as(kind, text));
            }
        }
        assert!(scan.regions.len() <= scan.limit, "more than was asked for");
        let regions = scan.regions.into_iter().map(scanned).collect();
        Ok(pdpb::BatchScanRegionsResponse { header: Some(self.header()), regions })
    }
}

/// The regions found so far, each once, at most `limit`.
struct BatchScan<'a> {
    regions: Vec<&'a RegionInfo>,
    limit: usize,
}

impl<'a> BatchScan<'a> {
    /// Adds the regions of a range. False if there is a gap before the limit is reached.
    fn add(&mut self, placement: &'a Placement, range: &KeyRange) -> bool {
        // All keys of the range below this one lie in regions; `None`: all keys.
        let mut held_to = Some(&range.start);
        let mut has_gap = false;
        assert!(!range.is_empty(), "an empty range has no regions");
        for region in placement.regions.overlapping(range) {
            if self.regions.last().is_none_or(|last| last.id() != region.id()) {
                if self.regions.len() == self.limit {
                    return !has_gap;
                }
                self.regions.push(region);
            }
            has_gap |= held_to.is_some_and(|held_to| region.meta.start_key > *held_to);
            held_to = Some(&region.meta.end_key).filter(|end| !end.is_empty());
        }
        let is_held = held_to.is_none_or(|held_to| !range.is_before_end(held_to));
        !has_gap && (is_held || self.regions.len() == self.limit)
    }
}

/// How many regions a request asks for: zero or less means all.
fn limit(limit: i32) -> usize {
    usize::try_from(limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX)
}

/// A region in a list. Its leader is always there, and empty if unknown: clients expect that.
fn scanned(region: &RegionInfo) -> pdpb::Region {
    pdpb::Region {
        region: Some(region.meta.clone()),
        leader: Some(region.leader.unwrap_or_default()),
        down_peers: region.down_peers.clone(),
        pending_peers: region.pending_peers.clone(),
        buckets: None,
    }
}

fn checked_ranges(ranges: &[pdpb::KeyRange]) -> Result<Vec<KeyRange>, PlacementError> {
    let ranges: Vec<KeyRange> = ranges
        .iter()
        .map(|range| KeyRange::new(range.start_key.clone(), range.end_key.clone()))
        .collect();
    if ranges.iter().any(|range| !range.end.is_empty() && range.start > range.end) {
        return Err(PlacementError::refused("invalid key range: it starts after its end"));
    }
    if ranges.windows(2).any(|pair| pair[0].is_before_end(&pair[1].start)) {
        let text = "invalid key ranges: they overlap or are not in order";
        return Err(PlacementError::refused(text));
    }
    Ok(ranges)
}
