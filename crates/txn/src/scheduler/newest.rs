//! How new the newest record of a key can be, so that a prewrite need not look.
//!
//! An optimistic prewrite looks for records at or above its start: commits that it did not see, and
//! its own rollback. That is a seek in the largest family for each key, to find, nearly always,
//! nothing. But a leader knows what it proposed itself, and of everything else that it is older:
//!
//! - Records written before the leadership (and version of the keys) began: at most as new as a
//!   timestamp that placement gave out afterwards, plus what stores believe of clients' made-up
//!   ones ([`Limits::ahead_ms`]). That is the region's floor.
//! - Records written since: each was noted here, under its key's latch, before it was proposed.
//!
//! Keys share slots by their hashes, so a slot may be too new for a key, and never too old.
//!
//! [`Limits::ahead_ms`]: super::Limits::ahead_ms

use base::TimeStamp;
use base::rule::{Rule, keep};
use storage::engine::Cf;

use crate::Mutation;
use crate::latches::hash;
use crate::mvcc::split_versioned;

/// Half a mebibyte; pages of it that nobody touches are nowhere.
const SLOTS: usize = 1 << 16;

/// See the page of this module.
#[derive(Debug)]
pub(super) struct Newest {
    /// By hash.
    slots: Box<[u64]>,
}

impl Newest {
    /// Nothing was written yet.
    pub(super) fn new() -> Self {
        Self { slots: vec![0; SLOTS].into() }
    }

    /// These writes are about to be proposed.
    pub(super) fn note(&mut self, writes: &[Mutation]) {
        for write in writes {
            if let Mutation::Put { cf: Cf::Write, key, .. } = write
                && let Ok((key, ts)) = split_versioned(key)
                && keep(Rule::NoteRecords)
            {
                let slot = &mut self.slots[slot_of(key)];
                *slot = (*slot).max(ts.0);
            }
        }
    }

    /// No record of `key` (region form) that was noted is newer.
    pub(super) fn bound(&self, key: &[u8]) -> TimeStamp {
        TimeStamp(self.slots[slot_of(key)])
    }
}

fn slot_of(key: &[u8]) -> usize {
    let hash = hash(key);
    (hash ^ (hash >> 32)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::Key;

    fn record(key: &Key, ts: u64) -> Mutation {
        let value = bytes::Bytes::new();
        Mutation::Put { cf: Cf::Write, key: key.versioned_region(TimeStamp(ts)), value }
    }

    #[test]
    fn a_bound_is_the_newest_record_and_never_falls() {
        let (key, other) = (Key::new("a"), Key::new("b"));
        let mut newest = Newest::new();
        newest.note(&[record(&key, 7), record(&key, 5)]);
        newest.note(&[record(&key, 6)]);
        assert_eq!(newest.bound(key.region_slice()), TimeStamp(7));
        assert_eq!(newest.bound(other.region_slice()), TimeStamp(0));
    }

    #[test]
    fn locks_and_values_are_no_records() {
        let key = Key::new("a");
        let (value, at) = (bytes::Bytes::new(), key.versioned_region(TimeStamp(9)));
        let mut newest = Newest::new();
        newest.note(&[
            Mutation::Put { cf: Cf::Default, key: at.clone(), value: value.clone() },
            Mutation::Put { cf: Cf::Lock, key: key.region(), value },
            Mutation::Delete { cf: Cf::Write, key: at },
        ]);
        assert_eq!(newest.bound(key.region_slice()), TimeStamp(0));
    }
}
