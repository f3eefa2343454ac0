//! Deleting whole ranges, with no regard to transactions: of dropped tables and the like.

use base::{KeyRange, RegionId};
use bytes::Bytes;
use storage::engine::Cf;
use storage::keys;

use super::{Changes, Outcome};
use crate::mvcc::{Key, Reader};
use crate::{Mutation, TxnError};

/// Removes all versions and locks of a range of one region, through its log.
#[derive(Clone, Debug)]
pub struct DeleteRange {
    /// First key that goes, user form. Empty: from the first one.
    pub start: Bytes,
    /// First key that stays, user form. Empty: none does.
    pub end: Bytes,
    /// Replicate the command, delete nothing.
    pub notify_only: bool,
}

impl DeleteRange {
    /// Refused if the range is not all in the region.
    pub fn run(&self, reader: &Reader<'_>) -> Result<Outcome<()>, TxnError> {
        let (range, asked) = (&reader.region().range, region_range(&self.start, &self.end));
        if !range.covers(&asked) {
            let outside = if asked.start < range.start { asked.start } else { asked.end };
            return Err(TxnError::KeyNotInRegion { key: outside });
        }
        let mut changes = Changes::default();
        if !self.notify_only && !asked.is_empty() {
            let (start, end) = (&asked.start, &asked.end);
            changes.writes.extend(Cf::DATA.map(|cf| Mutation::DeleteRange {
                cf,
                start: start.clone(),
                end: end.clone(),
            }));
        }
        Ok(Outcome { reply: (), changes })
    }
}

/// What UnsafeDestroyRange removes from a store's engine, whatever its regions: engine form, end
/// never empty. The bounds are user keys; empty means unbounded. Locks that are only in memory go
/// too, by key: the caller asks each region's structures for what lies in the range.
///
/// Whole table files may be dropped from `default` and `write`. Not from `lock`, where which keys
/// of the range are left must be certain: a lock that comes back would be taken for somebody's.
pub fn destroyed_ranges(start: &Bytes, end: &Bytes) -> [(Cf, KeyRange); Cf::DATA.len()] {
    let range = region_range(start, end);
    // Any region but the system region: their data share one prefix.
    let any = RegionId(RegionId::SYSTEM.0.wrapping_add(1));
    let (start, end) = keys::data_range(any, &range);
    assert!(!end.is_empty(), "unbounded means the end of the data, not of the engine");
    Cf::DATA.map(|cf| (cf, KeyRange::new(start.clone(), end.clone())))
}

fn region_range(start: &Bytes, end: &Bytes) -> KeyRange {
    let bound = |user: &Bytes| {
        if user.is_empty() { Bytes::new() } else { Key::new(user.clone()).region() }
    };
    KeyRange::new(bound(start), bound(end))
}
