//! Approximate: sizes as the engine knows them from its files, a few rows to see how large they
//! are, and keys that are found by halving.
//!
//! ```text
//!   range ── bytes in files and memory ──> too many? ── no ──> done; a few hundred rows were read
//!                                             │ yes
//!   for each piece: halve the space of keys between its bounds ── how much lies below? ── again,
//!   until what lies below is what is wanted; then the first row there is where to cut
//! ```
//!
//! What lies in files counts as it lies there, compressed. So a region whose data are easy to
//! compress grows larger than the bound says before it is cut.

use base::{KeyRange, Region};
use bytes::Bytes;
use storage::engine::{Cf, Engine, EngineError, IterOptions, Snapshot};
use storage::keys;

use super::rows::{Rows, user_key};
use super::{Found, Measure, SplitConfig};

/// Rows that are read to learn how large rows are, and so how many there may be.
const SAMPLE_ROWS: u64 = 256;

/// Halvings on the way to one key. The bytes of a key that two others of the region begin with do
/// not count, so that this many bits tell any two keys apart that are worth it.
const HALVINGS_MAX: u32 = 48;

/// One part in so many of a piece is near enough.
const TOLERANCE_PARTS: u64 = 32;

/// Bytes that the region's data take up, about, in all families.
pub fn size(engine: &dyn Engine, region: &Region, range: &KeyRange) -> Result<u64, EngineError> {
    let (start, end) = keys::data_range(region.id, range);
    between(engine, start, end)
}

fn between(engine: &dyn Engine, start: Vec<u8>, end: Vec<u8>) -> Result<u64, EngineError> {
    let range = KeyRange::new(start, end);
    let mut sum = 0;
    for cf in Cf::DATA {
        sum += engine.approximate_size(cf, &range)?;
    }
    Ok(sum)
}

/// Estimates the region.
pub(super) fn look(
    engine: &dyn Engine,
    region: &Region,
    config: &SplitConfig,
) -> Result<Found, EngineError> {
    let bytes = size(engine, region, &region.range)?;
    let row_bytes = row_bytes(engine, region)?;
    let keys = row_bytes.map_or(0, |row| bytes / row.max(1));
    let measure = Measure { bytes, keys };
    let too_large = bytes >= config.max_bytes || keys >= config.max_keys;
    let Some(row) = row_bytes.filter(|_| too_large) else {
        return Ok(Found { measure, keys: Vec::new() });
    };
    let piece = match bytes >= config.max_bytes {
        true => config.piece_bytes,
        false => config.piece_keys.saturating_mul(row),
    };
    let keys = cut(engine, region, bytes, piece.max(1), config)?;
    Ok(Found { measure, keys })
}

/// Bytes of a row, from the first few hundred; `None` if there is none.
fn row_bytes(engine: &dyn Engine, region: &Region) -> Result<Option<u64>, EngineError> {
    let snapshot = engine.snapshot();
    let mut rows = Rows::open(&*snapshot, region, &region.range)?;
    let (mut count, mut bytes) = (0, 0);
    let mut last = Vec::new();
    rows.each(|key, size| {
        if count == 0 || last != key {
            count += 1;
            last.clear();
            last.extend_from_slice(key);
        }
        bytes += size;
        count <= SAMPLE_ROWS
    })?;
    Ok((count > 0).then(|| bytes / count))
}

/// The keys at which pieces of about `piece` bytes begin, if all is `total`. A short rest stays
/// with the last piece.
fn cut(
    engine: &dyn Engine,
    region: &Region,
    total: u64,
    piece: u64,
    config: &SplitConfig,
) -> Result<Vec<Bytes>, EngineError> {
    let pieces = (total / piece).clamp(2, config.batch as u64 + 1);
    let mut keys: Vec<Bytes> = Vec::new();
    for number in 1..pieces {
        // If there are more pieces than keys may be named, the last one holds the rest.
        let below = if total / piece < 2 { total / 2 } else { number * piece };
        let Some(key) = find(engine, region, below, piece / TOLERANCE_PARTS)? else { continue };
        if keys.last().is_none_or(|last| *last < key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// The first user key with about `wanted` bytes below it; none if the region's first one is that.
fn find(
    engine: &dyn Engine,
    region: &Region,
    wanted: u64,
    tolerance: u64,
) -> Result<Option<Bytes>, EngineError> {
    let snapshot = engine.snapshot();
    let mut rows = Rows::open(&*snapshot, region, &region.range)?;
    let (start, _) = keys::data_range(region.id, &region.range);
    let Some((mut low, mut high)) = bounds(&*snapshot, region)? else { return Ok(None) };
    let first = user_key(keys::origin_key(&low).expect("the range has the prefix")).to_vec();
    for _ in 0..HALVINGS_MAX {
        let middle = middle(&low, &high);
        if middle <= low {
            break;
        }
        let below = between(engine, start.clone(), middle.clone())?;
        if below.abs_diff(wanted) <= tolerance {
            low = middle;
            break;
        }
        match below < wanted {
            true => low = middle,
            false => high = middle,
        }
    }
    rows.seek(&low)?;
    let mut found = None;
    rows.each(|key, _| {
        found = Some(Bytes::copy_from_slice(key));
        false
    })?;
    // What stands there may be in the middle of its versions: its user key is before it, and may be
    // the region's first.
    Ok(found.filter(|key| key[..] > first[..] && region.range.contains(key)))
}

/// A first and a last key.
type Bounds = (Vec<u8>, Vec<u8>);

/// The first and the last key of the region in the engine.
fn bounds(snapshot: &dyn Snapshot, region: &Region) -> Result<Option<Bounds>, EngineError> {
    let (start, end) = keys::data_range(region.id, &region.range);
    let mut bounds: Option<Bounds> = None;
    for cf in Cf::DATA {
        let options = IterOptions {
            fill_cache: false,
            ..IterOptions::within(KeyRange::new(start.clone(), end.clone()))
        };
        let mut cursor = snapshot.iter(cf, options)?;
        if !cursor.seek_to_first()? {
            continue;
        }
        let first = cursor.key().to_vec();
        cursor.seek_to_last()?;
        let last = cursor.key().to_vec();
        bounds = Some(match bounds {
            None => (first, last),
            Some((low, high)) => (low.min(first), high.max(last)),
        });
    }
    Ok(bounds)
}

/// A key about half-way between two, taken as fractions; at most eight bytes longer than what they
/// have in common.
fn middle(low: &[u8], high: &[u8]) -> Vec<u8> {
    let same = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        let rest = &key[same.min(key.len())..];
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(bytes)
    };
    let (a, b) = (number(low), number(high));
    let half = a + b.saturating_sub(a) / 2;
    let mut key = low[..same].to_vec();
    key.extend_from_slice(&half.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_half_way_lies_between() {
        assert_eq!(&middle(b"a", b"c")[..1], b"b");
        assert_eq!(&middle(b"key-1000", b"key-3000")[..5], b"key-2");
        let half = middle(b"", b"\xff");
        assert!(half.as_slice() > &b"\x70"[..] && half.as_slice() < &b"\x80"[..]);
        let (low, high) = (b"aaaaaaaaaaaa".to_vec(), b"aaaaaaaaaaab".to_vec());
        let half = middle(&low, &high);
        assert!(half > low && half < high);
    }
}
