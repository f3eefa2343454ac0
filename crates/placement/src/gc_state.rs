//! What may be collected: safe points, and the barriers that hold them back.
//!
//! ```text
//!    versions    old ──────────────────────────────────────────────> new
//!                    GC safe point <= txn safe point <= every live barrier
//!    collected for good ──┘   reads refused ──┘   somebody still reads from here on
//! ```
//!
//! Invariants: both safe points only grow; the GC safe point never passes the transaction safe
//! point; the latter never passes a live barrier, and no barrier is set below it.
//!
//! All keyspaces share one state, that of the null keyspace, but for those that ask in their config
//! for one of their own. The older API speaks of "service safe points"; those are barriers of the
//! null keyspace, and the one named `gc_worker` is the transaction safe point itself, so that old
//! and new callers respect each other. `gc_safe_point` holds that API, `gc_barrier` the newer one.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::pdpb;

use crate::rows::{self, RowKey};
use crate::{PlacementError, RowChanges};

/// The state of all keyspaces that have none of their own, and of data outside keyspaces.
pub(crate) const NULL_KEYSPACE: u32 = u32::MAX;
/// The service whose safe point is the transaction safe point.
pub(crate) const GC_WORKER: &str = "gc_worker";
/// A barrier with this end never expires.
const NEVER_MS: u64 = u64::MAX;

/// The two safe points of a keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SafePoints {
    /// Reads below it are refused.
    pub(crate) txn: u64,
    /// Versions below it that nobody can see may be collected.
    pub(crate) gc: u64,
}

/// Holds the transaction safe point back while somebody needs old versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The safe point may reach it but not pass it.
    pub(crate) ts: u64,
    ends_at_ms: u64,
}

impl Barrier {
    /// A barrier that expires after `ttl_s` seconds; with the largest number, never.
    pub(crate) fn new(ts: u64, ttl_s: i64, wall_ms: u64) -> Self {
        let ttl_s = u64::try_from(ttl_s).expect("callers refuse negative ones");
        assert!(ttl_s > 0, "a barrier that never was");
        let ends_at_ms = match ttl_s.checked_mul(1_000) {
            Some(ttl_ms) => wall_ms.saturating_add(ttl_ms),
            None => NEVER_MS,
        };
        Self { ts, ends_at_ms }
    }

    pub(crate) fn is_live(&self, wall_ms: u64) -> bool {
        self.ends_at_ms > wall_ms
    }

    /// Whole seconds until it expires; the largest number if it never does.
    pub(crate) fn ttl_s(&self, wall_ms: u64) -> i64 {
        if self.ends_at_ms == NEVER_MS {
            return i64::MAX;
        }
        let left_ms = self.ends_at_ms.saturating_sub(wall_ms);
        i64::try_from(left_ms.div_ceil(1_000)).unwrap_or(i64::MAX)
    }

    /// As it travels.
    pub(crate) fn to_wire(self, id: &str, wall_ms: u64) -> pdpb::GcBarrierInfo {
        let (barrier_ts, ttl_seconds) = (self.ts, self.ttl_s(wall_ms));
        pdpb::GcBarrierInfo { barrier_id: id.to_owned(), barrier_ts, ttl_seconds }
    }

    /// As it travels, if it holds for all keyspaces.
    pub(crate) fn to_global_wire(self, id: &str, wall_ms: u64) -> pdpb::GlobalGcBarrierInfo {
        let (barrier_ts, ttl_seconds) = (self.ts, self.ttl_s(wall_ms));
        pdpb::GlobalGcBarrierInfo { barrier_id: id.to_owned(), barrier_ts, ttl_seconds }
    }

    fn row(self) -> Bytes {
        assert!(self.ends_at_ms > 0, "a barrier that never was");
        rows::pair(self.ts, self.ends_at_ms)
    }
}

/// The safe points and barriers of all keyspaces.
#[derive(Debug, Default)]
pub(crate) struct GcStates {
    safe_points: BTreeMap<u32, SafePoints>,
    barriers: BTreeMap<(u32, String), Barrier>,
    /// They hold for all keyspaces.
    global_barriers: BTreeMap<String, Barrier>,
}

impl GcStates {
    pub(crate) fn apply_put(&mut self, row: &RowKey, value: &Bytes) -> Result<(), PlacementError> {
        let (first, second) = rows::read_pair(row, value)?;
        let barrier = Barrier { ts: first, ends_at_ms: second };
        match row {
            RowKey::GcState(keyspace) => {
                let (old, new) =
                    (self.safe_points(*keyspace), SafePoints { txn: first, gc: second });
                if new.txn < old.txn || new.gc < old.gc || new.gc > new.txn {
                    return Err(row.bad(format!("safe points go from {old:?} to {new:?}")));
                }
                self.safe_points.insert(*keyspace, new);
            }
            RowKey::GcBarrier(keyspace, id) => {
                self.barriers.insert((*keyspace, id.clone()), barrier);
            }
            RowKey::GlobalGcBarrier(id) => {
                self.global_barriers.insert(id.clone(), barrier);
            }
            _ => unreachable!("{row:?} is no row of this module"),
        }
        Ok(())
    }

    pub(crate) fn apply_delete(&mut self, row: &RowKey) {
        let removed = match row {
            RowKey::GcBarrier(keyspace, id) => self.barriers.remove(&(*keyspace, id.clone())),
            RowKey::GlobalGcBarrier(id) => self.global_barriers.remove(id),
            _ => unreachable!("{row:?} is no row that goes away"),
        };
        assert!(removed.is_some(), "{row:?} was not there");
    }

    pub(crate) fn safe_points(&self, keyspace: u32) -> SafePoints {
        self.safe_points.get(&keyspace).copied().unwrap_or_default()
    }

    /// The highest transaction safe point of all keyspaces.
    pub(crate) fn highest_txn_safe_point(&self) -> u64 {
        self.safe_points.values().map(|points| points.txn).max().unwrap_or(0)
    }

    /// The live barriers of a keyspace by id, without the global ones.
    pub(crate) fn barriers(
        &self,
        keyspace: u32,
        wall_ms: u64,
    ) -> impl Iterator<Item = (&str, Barrier)> {
        self.barriers
            .range((keyspace, String::new())..)
            .take_while(move |((of, _), _)| *of == keyspace)
            .map(|((_, id), barrier)| (id.as_str(), *barrier))
            .filter(move |(_, barrier)| barrier.is_live(wall_ms))
    }

    /// The live barriers that hold for all keyspaces, by id.
    pub(crate) fn global_barriers(&self, wall_ms: u64) -> impl Iterator<Item = (&str, Barrier)> {
        let all = self.global_barriers.iter().map(|(id, barrier)| (id.as_str(), *barrier));
        all.filter(move |(_, barrier)| barrier.is_live(wall_ms))
    }

    /// The lowest live barrier that a keyspace's transaction safe point must not pass.
    pub(crate) fn blocker(&self, keyspace: u32, wall_ms: u64) -> Option<(&str, Barrier)> {
        let own = self.barriers(keyspace, wall_ms);
        own.chain(self.global_barriers(wall_ms)).min_by_key(|(_, barrier)| barrier.ts)
    }

    /// How far the transaction safe point can go towards `target`: up to the lowest barrier, never
    /// back.
    pub(crate) fn reachable_txn(&self, keyspace: u32, target: u64, wall_ms: u64) -> u64 {
        let limit = self.blocker(keyspace, wall_ms).map_or(u64::MAX, |(_, barrier)| barrier.ts);
        let reachable = self.safe_points(keyspace).txn.max(target.min(limit));
        assert!(reachable >= self.safe_points(keyspace).txn, "the safe point goes back");
        reachable
    }

    pub(crate) fn plan_safe_points(&self, keyspace: u32, new: SafePoints, rows: &mut RowChanges) {
        let old = self.safe_points(keyspace);
        assert!(new.txn >= old.txn && new.gc >= old.gc, "{old:?} would go back to {new:?}");
        assert!(new.gc <= new.txn, "{new:?}");
        if new != old {
            rows.put(&RowKey::GcState(keyspace), rows::pair(new.txn, new.gc));
        }
    }

    /// Plans a barrier, and that expired ones go away.
    pub(crate) fn plan_barrier(
        &self,
        keyspace: u32,
        id: &str,
        barrier: Barrier,
        wall_ms: u64,
        rows: &mut RowChanges,
    ) {
        assert!(barrier.ts >= self.safe_points(keyspace).txn, "a barrier below the safe point");
        self.plan_expiry(wall_ms, rows);
        rows.put(&RowKey::GcBarrier(keyspace, id.to_owned()), barrier.row());
    }

    /// Plans a barrier for all keyspaces, and that expired ones go away.
    pub(crate) fn plan_global_barrier(
        &self,
        id: &str,
        barrier: Barrier,
        wall_ms: u64,
        rows: &mut RowChanges,
    ) {
        assert!(barrier.ts >= self.highest_txn_safe_point(), "a barrier below a safe point");
        self.plan_expiry(wall_ms, rows);
        rows.put(&RowKey::GlobalGcBarrier(id.to_owned()), barrier.row());
    }

    /// Plans that a barrier goes away; returns it if it was there.
    pub(crate) fn plan_removal(
        &self,
        keyspace: u32,
        id: &str,
        rows: &mut RowChanges,
    ) -> Option<Barrier> {
        let barrier = *self.barriers.get(&(keyspace, id.to_owned()))?;
        rows.delete(&RowKey::GcBarrier(keyspace, id.to_owned()));
        Some(barrier)
    }

    /// The same for one that holds for all keyspaces.
    pub(crate) fn plan_global_removal(&self, id: &str, rows: &mut RowChanges) -> Option<Barrier> {
        let barrier = *self.global_barriers.get(id)?;
        rows.delete(&RowKey::GlobalGcBarrier(id.to_owned()));
        Some(barrier)
    }

    fn plan_expiry(&self, wall_ms: u64, rows: &mut RowChanges) {
        for ((keyspace, id), barrier) in &self.barriers {
            if !barrier.is_live(wall_ms) {
                rows.delete(&RowKey::GcBarrier(*keyspace, id.clone()));
            }
        }
        for (id, barrier) in &self.global_barriers {
            if !barrier.is_live(wall_ms) {
                rows.delete(&RowKey::GlobalGcBarrier(id.clone()));
            }
        }
    }
}
