//! The regions that a client has learnt of, found by key.
//!
//! Keys here are placement keys. The ranges of the cached regions never overlap: a newer region
//! pushes out those that it overlaps, and an older one is not let in.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;
use proto::metapb;

/// A region as last heard of.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedRegion {
    /// The region's id.
    pub id: u64,
    /// Its version and configuration, sent with every request.
    pub epoch: metapb::RegionEpoch,
    /// Its placement keys.
    pub range: KeyRange,
    /// The peer that requests go to.
    pub leader: metapb::Peer,
}

impl CachedRegion {
    /// Takes over a region from the wire. Without a known leader requests go to its first peer,
    /// which tells of the leader. None if epoch or peers are missing.
    pub fn from_wire(region: metapb::Region, leader: Option<metapb::Peer>) -> Option<CachedRegion> {
        let leader =
            leader.filter(|peer| peer.id != 0).or_else(|| region.peers.first().copied())?;
        let range = KeyRange::new(region.start_key, region.end_key);
        Some(CachedRegion { id: region.id, epoch: region.region_epoch?, range, leader })
    }

    fn is_older_than(&self, other: &CachedRegion) -> bool {
        let (a, b) = (&self.epoch, &other.epoch);
        a.version < b.version || (a.version == b.version && a.conf_ver < b.conf_ver)
    }
}

/// Regions by their first key.
#[derive(Debug, Default)]
pub struct RegionCache {
    by_start: BTreeMap<Bytes, Arc<CachedRegion>>,
}

impl RegionCache {
    /// The region that holds `key`.
    pub fn holding(&self, key: &[u8]) -> Option<Arc<CachedRegion>> {
        let (_, region) =
            self.by_start.range::<[u8], _>(up_to(Bound::Included(key))).next_back()?;
        region.range.contains(key).then(|| region.clone())
    }

    /// The region that holds the keys right below `key`; an empty key means: the last region.
    pub fn below(&self, key: &[u8]) -> Option<Arc<CachedRegion>> {
        let (_, region) = match key {
            [] => self.by_start.last_key_value()?,
            _ => self.by_start.range::<[u8], _>(up_to(Bound::Excluded(key))).next_back()?,
        };
        let end = &region.range.end;
        (end.is_empty() || (!key.is_empty() && key <= &end[..])).then(|| region.clone())
    }

    /// Learns of a region. What it overlaps leaves, unless that is newer: then the new one is
    /// dropped.
    pub fn insert(&mut self, region: CachedRegion) -> Arc<CachedRegion> {
        let overlapping = self.overlapping(&region.range);
        let region = Arc::new(region);
        if overlapping.iter().any(|old| region.is_older_than(old)) {
            return region;
        }
        for old in overlapping {
            self.by_start.remove(&old.range.start);
        }
        self.by_start.insert(region.range.start.clone(), region.clone());
        region
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<Arc<CachedRegion>> {
        let from_before = self.by_start.range(..range.start.clone()).next_back();
        let from_within = self.by_start.range(range.start.clone()..);
        let candidates = from_before.into_iter().chain(from_within);
        let overlapping = candidates
            .take_while(|(start, _)| range.is_before_end(start))
            .filter(|(_, old)| old.range.overlaps(range));
        overlapping.map(|(_, old)| old.clone()).collect()
    }

    /// Sends what goes to this region to `leader` from now on, if the region is still the one that
    /// is cached.
    pub fn set_leader(&mut self, region: &Arc<CachedRegion>, leader: metapb::Peer) {
        if let Some(cached) = self.by_start.get_mut(&region.range.start)
            && Arc::ptr_eq(cached, region)
        {
            *cached = Arc::new(CachedRegion { leader, ..(**region).clone() });
        }
    }

    /// Forgets a region, if it is still the one that is cached.
    pub fn forget(&mut self, region: &Arc<CachedRegion>) {
        let start = &region.range.start;
        if self.by_start.get(start).is_some_and(|cached| Arc::ptr_eq(cached, region)) {
            self.by_start.remove(start);
        }
    }
}

fn up_to(bound: Bound<&[u8]>) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: u64, version: u64, start: &'static str, end: &'static str) -> CachedRegion {
        CachedRegion {
            id,
            epoch: metapb::RegionEpoch { conf_ver: 1, version },
            range: KeyRange::new(start, end),
            leader: metapb::Peer { id: id * 10, store_id: 1, ..Default::default() },
        }
    }

    fn id(region: Option<Arc<CachedRegion>>) -> Option<u64> {
        region.map(|region| region.id)
    }

    #[test]
    fn finds_by_key_from_both_sides() {
        let mut cache = RegionCache::default();
        cache.insert(region(1, 1, "", "b"));
        cache.insert(region(2, 1, "b", "d"));
        cache.insert(region(4, 1, "f", ""));
        let holding: Vec<_> = ["", "a", "b", "c", "d", "f", "z"]
            .map(|key| id(cache.holding(key.as_bytes())))
            .to_vec();
        assert_eq!(holding, [Some(1), Some(1), Some(2), Some(2), None, Some(4), Some(4)]);
        let below: Vec<_> = ["a", "b", "c", "d", "e", "f", "z", ""]
            .map(|key| id(cache.below(key.as_bytes())))
            .to_vec();
        assert_eq!(below, [Some(1), Some(1), Some(2), Some(2), None, None, Some(4), Some(4)]);
    }

    #[test]
    fn a_newer_region_pushes_out_what_it_overlaps() {
        let mut cache = RegionCache::default();
        cache.insert(region(1, 1, "", ""));
        cache.insert(region(1, 2, "", "m"));
        assert_eq!(id(cache.holding(b"z")), None);
        cache.insert(region(2, 2, "m", ""));
        // Heard late: the region as it was before the split.
        cache.insert(region(1, 1, "", ""));
        assert_eq!((id(cache.holding(b"a")), id(cache.holding(b"z"))), (Some(1), Some(2)));
        // A merge.
        cache.insert(region(2, 3, "", ""));
        assert_eq!((id(cache.holding(b"a")), id(cache.below(b""))), (Some(2), Some(2)));
        assert_eq!(cache.by_start.len(), 1);
    }

    #[test]
    fn only_the_region_meant_is_changed() {
        let mut cache = RegionCache::default();
        let old = cache.insert(region(1, 1, "", ""));
        cache.set_leader(&old, metapb::Peer { id: 11, store_id: 2, ..Default::default() });
        let new = cache.holding(b"a").expect("it was inserted");
        assert_eq!(new.leader.store_id, 2);
        cache.forget(&old);
        assert!(cache.holding(b"a").is_some(), "the old one was replaced before");
        cache.forget(&new);
        assert!(cache.holding(b"a").is_none());
    }

    #[test]
    fn a_region_without_leader_goes_to_its_first_peer() {
        let peer = metapb::Peer { id: 7, store_id: 3, ..Default::default() };
        let wire = metapb::Region {
            id: 2,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![peer],
            ..Default::default()
        };
        let none = Some(metapb::Peer::default());
        assert_eq!(CachedRegion::from_wire(wire.clone(), none).map(|r| r.leader), Some(peer));
        let bare = metapb::Region { region_epoch: None, ..wire };
        assert_eq!(CachedRegion::from_wire(bare, None), None);
    }
}
