//! What a read was told is so for ever: the versions of its keys, as they are in the end, show the
//! same for its timestamp.
//!
//! A lock that a read should have met becomes a version below it; one that it passed, because it
//! was told that its transaction commits above, must do so. Most of these go unnoticed by whoever
//! looks at values alone: the balance is the same, or nobody reads the other key.
//!
//! | read | what it is held against |
//! | --- | --- |
//! | at a timestamp, wherever, whatever it passes by | the version for this timestamp |
//! | of the newest version, without a timestamp | there is such a version |
//! | below the safe point | nothing: what it found may be collected |
//! | of what is committed alone | nothing: it makes no promise |

use std::collections::BTreeMap;
use std::sync::Arc;

use base::TimeStamp;
use bytes::Bytes;
use storage::engine::{Cf, Engine, Snapshot};
use store::RegionView;
use txn::mvcc::{Isolation, Key, ReadOptions, Row, Value, Write, WriteKind};

use crate::cluster::event::Slot;
use crate::cluster::world::World;

/// A value that a read found, or none. Where it was taken out of a lock its commit timestamp is 0.
type Found = Option<Value>;

/// What a read found of one key.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(super) key: Key,
    pub(super) found: Found,
}

/// What was found of each of these keys, but for those that are locked.
pub(super) fn of_keys(keys: &[Key], rows: &[Row]) -> Vec<Sight> {
    let row_of = |key: &Key| rows.iter().find(|row| row.key == *key.user());
    let sight = |key: &Key| {
        let found = match row_of(key).map(|row| &row.outcome) {
            None => None,
            Some(outcome) => Some(outcome.as_ref().ok()?.clone()),
        };
        Some(Sight { key: key.clone(), found })
    };
    keys.iter().filter_map(sight).collect()
}

/// What a scan found. Of the keys that it did not find nothing is said.
pub(super) fn of_rows(rows: &[Row]) -> Vec<Sight> {
    let found = rows.iter().filter_map(|row| Some((&row.key, row.outcome.as_ref().ok()?)));
    let sight = |(key, value): (&Bytes, &Value)| Sight {
        key: Key::new(key.clone()),
        found: Some(value.clone()),
    };
    found.map(sight).collect()
}

/// All that was ever read.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By key and timestamp.
    at: BTreeMap<Key, BTreeMap<TimeStamp, Found>>,
    /// By key and commit timestamp.
    newest: BTreeMap<Key, BTreeMap<TimeStamp, Bytes>>,
}

impl Seen {
    /// A read was answered. Some of what lies below `safe_point` may be collected already, and
    /// whoever got his data from there may not know.
    pub(super) fn answered(
        &mut self,
        read: &ReadOptions,
        sights: Vec<Sight>,
        safe_point: TimeStamp,
    ) {
        if read.isolation != Isolation::Snapshot || read.ts < safe_point {
            return;
        }
        for Sight { key, found } in sights {
            if read.ts != TimeStamp::MAX {
                self.saw(key, read.ts, found);
            } else if let Some(value) = found.filter(|value| value.commit_ts.0 > 0) {
                self.newest.entry(key).or_default().insert(value.commit_ts, value.value);
            }
        }
    }

    fn saw(&mut self, key: Key, at: TimeStamp, found: Found) {
        let before = self.at.entry(key.clone()).or_default().entry(at).or_insert(found.clone());
        assert!(
            is_same(before, &found),
            "what was read is so for ever: {key:?} at {at} was {before:?}, and then {found:?}"
        );
        // Out of a lock: now it is known when that was committed.
        if before.as_ref().is_some_and(|value| value.commit_ts.0 == 0) {
            *before = found;
        }
    }
}

/// Whether both may be the same version.
fn is_same(one: &Found, other: &Found) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            let from_lock = one.commit_ts.0 == 0 || other.commit_ts.0 == 0;
            one.value == other.value && (from_lock || one.commit_ts == other.commit_ts)
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// All records of a key, the newest first.
type Versions = Vec<(TimeStamp, Write)>;

impl World {
    /// What was read is what the leaders of regions show.
    pub(super) fn check_seen(&self, leaders: &[(Slot, Arc<RegionView>)]) {
        for (slot, view) in leaders {
            let mut all: BTreeMap<Key, Versions> = BTreeMap::new();
            for (key, at, write) in self.records_of(*slot, view) {
                all.entry(key).or_default().push((at, write));
            }
            let snapshot = self.nodes[*slot].machine.engine.snapshot();
            let nothing = Versions::new();
            let is_here = |key: &Key| view.region.range.contains(key.region_slice());
            for (key, sights) in self.seen.at.iter().filter(|(key, _)| is_here(key)) {
                let versions = all.get(key).unwrap_or(&nothing);
                self.check_key(&*snapshot, key, versions, sights);
            }
            for (key, values) in self.seen.newest.iter().filter(|(key, _)| is_here(key)) {
                for (at, value) in values.range(self.fates.safe_point()..) {
                    let sight = Some(Value { value: value.clone(), commit_ts: *at });
                    let versions = all.get(key).unwrap_or(&nothing);
                    let shown = shown(&*snapshot, key, versions, *at);
                    assert!(
                        is_same(&sight, &shown),
                        "what was read is so for ever: the newest {key:?} was {sight:?}, and in \
                         the end that is {shown:?}"
                    );
                }
            }
        }
    }

    fn check_key(
        &self,
        snapshot: &dyn Snapshot,
        key: &Key,
        versions: &Versions,
        sights: &BTreeMap<TimeStamp, Found>,
    ) {
        for (at, found) in sights.range(self.fates.safe_point()..) {
            let shown = shown(snapshot, key, versions, *at);
            assert!(
                is_same(found, &shown),
                "what was read is so for ever: {key:?} at {at} was {found:?}, and in the end it \
                 is {shown:?}"
            );
        }
    }
}

/// What the versions of a key show at a timestamp.
fn shown(snapshot: &dyn Snapshot, key: &Key, versions: &Versions, at: TimeStamp) -> Found {
    let mut changes = versions.iter().filter(|(ts, write)| *ts <= at && write.kind.is_change());
    let (commit_ts, write) = changes.next()?;
    if write.kind != WriteKind::Put || !write.passes_gc_fence(at) {
        return None;
    }
    let long = || snapshot.get(Cf::Default, &key.versioned_data(write.start_ts));
    let value = match &write.short_value {
        Some(value) => value.clone(),
        None => long().expect("readable").expect("a value lies where its record says"),
    };
    Some(Value { value, commit_ts: *commit_ts })
}
