//! Which records are garbage: a walk over family `write` in key order.

use std::sync::Arc;

use base::TimeStamp;
use storage::engine::{Fate, GarbageWalk, Gone};
use storage::keys;

use super::SafePoints;
use crate::mvcc::{Write, WriteKind, split_versioned};

/// The state of a walk: of the key it is at, whether a newer change at or below its safe point was
/// met. That a record is missing from the walk makes it leave more, never less.
#[derive(Debug)]
pub struct Walk {
    points: Arc<SafePoints>,
    /// The key whose records it is at, engine form.
    key: Vec<u8>,
    safe_point: TimeStamp,
    change_met: bool,
}

impl Walk {
    /// Before the first key.
    pub fn new(points: Arc<SafePoints>) -> Self {
        Self { points, key: Vec::new(), safe_point: TimeStamp(0), change_met: false }
    }

    /// Whether `key` (engine form, with its timestamp) is of the key that it is at.
    pub(super) fn is_at(&self, key: &[u8]) -> bool {
        split_versioned(key).is_ok_and(|(key, _)| key == self.key)
    }

    /// Whether the record at `key` of the key that it is at is not below its safe point.
    pub(super) fn is_young(&self, key: &[u8]) -> bool {
        split_versioned(key).is_ok_and(|(_, commit_ts)| commit_ts >= self.safe_point)
    }

    /// What becomes of a record. What is no record of ours stays.
    pub fn fate(&mut self, key: &[u8], value: &[u8]) -> Fate {
        if key.first() != Some(&keys::DATA_PREFIX) {
            return Fate::Stays;
        }
        let Ok((data, commit_ts)) = split_versioned(key) else { return Fate::Stays };
        if data != self.key {
            self.key.clear();
            self.key.extend_from_slice(data);
            self.safe_point = self.points.of(data);
            self.change_met = false;
        }
        if commit_ts > self.safe_point {
            return Fate::Stays;
        }
        let Ok(write) = Write::decode(value) else { return Fate::Stays };
        if commit_ts == self.safe_point {
            self.change_met |= write.kind.is_change();
            return Fate::Stays;
        }
        let newest = write.kind.is_change() && !self.change_met;
        self.change_met |= write.kind.is_change();
        let is_visible = write.kind == WriteKind::Put && write.passes_gc_fence(self.safe_point);
        if newest && is_visible {
            return Fate::Stays;
        }
        let value = write.has_long_value().then(|| {
            let mut place = data.to_vec();
            place.extend_from_slice(&(!write.start_ts.0).to_be_bytes());
            place
        });
        Fate::Goes(Gone { hides_older: newest, value })
    }
}

impl GarbageWalk for Walk {
    fn next(&mut self, key: &[u8], value: &[u8]) -> Fate {
        self.fate(key, value)
    }
}
