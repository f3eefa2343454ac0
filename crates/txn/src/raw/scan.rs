//! Scans: pairs in key order, forwards or backwards.
//!
//! ```text
//!   forward   start ├──────────►┤ end      first key `start`, up to but without `end`
//!   reverse     end ├◄──────────┤ start    first the key before `start`, down to and with `end`
//! ```
//!
//! The near bound is `start` in both cases: it must lie in the region or be the region's end. The
//! far bound is `end`; it may lie anywhere and is cut to the region. Empty means unbounded on
//! either side; so a reverse scan from the empty `start` belongs to the last region.

use base::KeyRange;
use bytes::Bytes;
use storage::engine::{Cf, IterOptions};
use storage::keys;

use super::{Damaged, Pair, RawError, View};

/// How many keys a scan looks at before it asks again whether to go on.
const KEYS_PER_QUESTION: usize = 256;

/// What to scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Where.
    pub cf: Cf,
    /// Where to begin, user form: the first key, or in reverse the first key above.
    pub start: Bytes,
    /// Where to end, user form: the first key above, or in reverse the last key.
    pub end: Bytes,
    /// The most pairs to return; 0 gives none. What is expired does not count.
    pub limit: usize,
    /// Leave values out.
    pub key_only: bool,
    /// From high to low keys.
    pub reverse: bool,
}

impl View<'_> {
    /// The pairs of one range.
    pub fn scan(&self, scan: &Scan) -> Result<Vec<Pair>, RawError> {
        let bounds = self.scan_bounds(&scan.start, &scan.end, scan.reverse)?;
        let mut pairs = PairBuffer::default();
        if scan.limit == 0 || bounds.is_empty() {
            return Ok(pairs.finish());
        }
        self.for_each_live(scan.cf, &bounds, scan.reverse, |key, value| {
            pairs.push(key, if scan.key_only { b"" } else { value });
            pairs.len() < scan.limit
        })?;
        Ok(pairs.finish())
    }

    /// The pairs of several scans, one after the other, each with its own limit.
    pub fn batch_scan(&self, scans: impl IntoIterator<Item = Scan>) -> Result<Vec<Pair>, RawError> {
        let mut pairs = Vec::new();
        for scan in scans {
            pairs.append(&mut self.scan(&scan)?);
        }
        Ok(pairs)
    }

    /// The keys of this region, in region form, that a scan from `start` to `end` covers.
    pub(super) fn scan_bounds(
        &self,
        start: &Bytes,
        end: &Bytes,
        reverse: bool,
    ) -> Result<KeyRange, RawError> {
        let (lower, upper) = if reverse { (end, start) } else { (start, end) };
        self.api.check_raw_range(lower, upper)?;
        let (near, far) = (self.api.region_bound(start), self.api.region_bound(end));
        let range = &self.region.range;
        let from_the_top = reverse && near.is_empty();
        let inside =
            if from_the_top { range.end.is_empty() } else { range.contains_or_ends_at(&near) };
        if !inside {
            return Err(RawError::KeyNotInRegion { key: near });
        }
        let asked = if reverse { KeyRange::new(far, near) } else { KeyRange::new(near, far) };
        Ok(range.intersect(&asked))
    }

    /// Shows `visit` the user key and the user value of each pair in `bounds` (region form) that is
    /// not expired, until it returns false.
    pub(super) fn for_each_live(
        &self,
        cf: Cf,
        bounds: &KeyRange,
        reverse: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RawError> {
        let (first, end) = keys::data_range(self.region.id, bounds);
        let options = IterOptions::within(KeyRange::new(first, end));
        let mut cursor = self.snapshot.iter(cf, options)?;
        let mut valid = if reverse { cursor.seek_to_last()? } else { cursor.seek_to_first()? };
        let mut seen = 0;
        while valid {
            if seen % KEYS_PER_QUESTION == 0 && (self.interrupted)() {
                return Err(RawError::Interrupted);
            }
            seen += 1;
            let region_key = keys::origin_key(cursor.key()).expect("the bounds have the prefix");
            assert!(bounds.contains(region_key), "the cursor left its bounds");
            let damaged = || RawError::Damaged { key: Bytes::copy_from_slice(region_key) };
            let value = self.api.live_raw_slice(cursor.value(), self.now_s);
            if let Some(value) = value.map_err(|Damaged| damaged())? {
                let key = self.api.user_key(region_key).ok_or_else(damaged)?;
                if !visit(&key, value) {
                    return Ok(());
                }
            }
            valid = if reverse { cursor.prev()? } else { cursor.next()? };
        }
        Ok(())
    }
}

/// Collects pairs in one buffer that all of them share in the end: two allocations a scan instead
/// of two a pair.
#[derive(Default)]
struct PairBuffer {
    bytes: Vec<u8>,
    /// Where each key and each value ends in `bytes`.
    ends: Vec<(usize, usize)>,
}

impl PairBuffer {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn finish(self) -> Vec<Pair> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let mut cut = |(key_end, end)| {
            let pair = Pair { key: bytes.slice(start..key_end), value: bytes.slice(key_end..end) };
            start = end;
            pair
        };
        self.ends.into_iter().map(&mut cut).collect()
    }
}
