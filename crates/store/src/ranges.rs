//! Which region holds a key: the ranges of the regions that have a replica here.

use std::collections::BTreeMap;

use base::{KeyRange, RegionId};
use bytes::Bytes;

/// The end of a range; an unbounded one is behind all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    At(Bytes),
    Unbounded,
}

impl End {
    fn of(range: &KeyRange) -> Self {
        if range.end.is_empty() { Self::Unbounded } else { Self::At(range.end.clone()) }
    }
}

/// Ranges that never overlap, found by their ends. The system region, whose keys are of another
/// space, is not among them.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    by_end: BTreeMap<End, (Bytes, RegionId)>,
    by_region: BTreeMap<RegionId, KeyRange>,
}

impl Ranges {
    /// The region's range is this from now on. Panics if another region has a part of it.
    pub(crate) fn set(&mut self, region: RegionId, range: &KeyRange) {
        if region.is_system() || self.by_region.get(&region) == Some(range) {
            return;
        }
        self.remove(region);
        let other = self.overlapping(range, region);
        assert!(other.is_none(), "region {region} {range:?} overlaps {other:?}");
        self.by_end.insert(End::of(range), (range.start.clone(), region));
        self.by_region.insert(region, range.clone());
    }

    pub(crate) fn remove(&mut self, region: RegionId) {
        if let Some(range) = self.by_region.remove(&region) {
            let removed = self.by_end.remove(&End::of(&range));
            assert_eq!(removed.map(|(_, id)| id), Some(region), "a range has one owner");
        }
    }

    /// The region that holds `key`.
    pub(crate) fn find(&self, key: &[u8]) -> Option<RegionId> {
        let behind = End::At(Bytes::copy_from_slice(key));
        let above = (std::ops::Bound::Excluded(behind), std::ops::Bound::Unbounded);
        let (_, (start, region)) = self.by_end.range(above).next()?;
        (&start[..] <= key).then_some(*region)
    }

    /// The region that ends at `key`, if there is one.
    pub(crate) fn ending_at(&self, key: &Bytes) -> Option<RegionId> {
        // The smallest key is no end.
        let end = (!key.is_empty()).then(|| End::At(key.clone()))?;
        self.by_end.get(&end).map(|(_, region)| *region)
    }

    /// A region other than `but` that holds a key of `range`.
    pub(crate) fn overlapping(&self, range: &KeyRange, but: RegionId) -> Option<RegionId> {
        let behind = End::At(range.start.clone());
        let above = (std::ops::Bound::Excluded(behind), std::ops::Bound::Unbounded);
        let mut candidates = self.by_end.range(above).map(|(_, found)| found);
        candidates
            .by_ref()
            .take_while(|(start, _)| range.is_before_end(start))
            .find(|(_, region)| *region != but)
            .map(|(_, region)| *region)
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = (RegionId, &KeyRange)> {
        self.by_region.iter().map(|(id, range)| (*id, range))
    }
}

#[cfg(test)]
mod tests {
    use base::Prng;

    use super::*;

    fn key(number: u64) -> Bytes {
        if number == 0 { Bytes::new() } else { Bytes::from(vec![number as u8]) }
    }

    /// Against a list that is searched from end to end.
    #[test]
    fn lookups_agree_with_a_search() {
        let mut prng = Prng::new(3);
        for _ in 0..300 {
            let mut ranges = Ranges::default();
            let mut list: Vec<(RegionId, KeyRange)> = Vec::new();
            for _ in 0..60 {
                let id = RegionId(1 + prng.below(8));
                let range = KeyRange::new(key(prng.below(12)), key(prng.below(12)));
                if range.is_empty() || prng.one_in(4) {
                    ranges.remove(id);
                    list.retain(|(other, _)| *other != id);
                    continue;
                }
                let others = list.iter().filter(|(other, _)| *other != id);
                let taken = others.clone().any(|(_, other)| other.overlaps(&range));
                assert_eq!(ranges.overlapping(&range, id).is_some(), taken, "{range:?} {list:?}");
                if !taken {
                    ranges.set(id, &range);
                    list.retain(|(other, _)| *other != id);
                    list.push((id, range));
                }
                for probe in 0..13 {
                    let key = key(probe);
                    let found = list.iter().find(|(_, range)| range.contains(&key));
                    assert_eq!(ranges.find(&key), found.map(|(id, _)| *id), "{key:?} {list:?}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "overlaps")]
    fn two_regions_never_share_a_key() {
        let mut ranges = Ranges::default();
        ranges.set(RegionId(1), &KeyRange::new("a", "c"));
        ranges.set(RegionId(2), &KeyRange::new("b", ""));
    }
}
