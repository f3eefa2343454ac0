//! Safe timestamps: up to which time the replicas of this store know everything.
//!
//! ```text
//!   the leader's store                                  a follower's store
//!     take a timestamp from placement
//!     no commit below it is computed here any more
//!     take a snapshot of the engine
//!     claims(): leader, term, epoch, applied in it ───> checks(): is it so? learns what the last
//!     a quorum says yes: <──────────────────── yes ──── confirmed claim of the same region said
//!     (timestamp below the oldest lock, applied) is confirmed
//! ```
//!
//! Whoever had written something before the timestamp was taken was answered by a leader that had
//! applied it. If a quorum still follows the claimant *after* that, nobody led a later term at that
//! moment; so all of it is among what the claimant has applied by then. Whoever has applied as
//! much knows everything up to the timestamp. Neither leases nor clocks are needed, and groups
//! that sleep are not woken.
//!
//! Transactions that are not committed yet may still be, at an earlier timestamp. Where could that
//! come from? A client that takes its commit timestamp from placement has all its locks by then, so
//! they are in the snapshot, and the region's safe timestamp stays below the oldest of them. A
//! store that computes one goes above all reads, and a claim begins as a read at the timestamp;
//! what it had computed before is locked in memory or in the snapshot. This crate knows nothing of
//! locks: whoever confirms a claim says how far the timestamp is lowered.
//!
//! A region that is being cut or merged claims nothing: its keys may be written elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Epoch, Index, KeyRange, PeerId, Region, RegionId, StoreId, Term, TimeStamp};
use storage::engine::{Cf, EngineError, Snapshot};
use storage::keys;

use crate::members;
use crate::states::ApplyState;
use crate::view::{RegionView, RegionViews};

/// Positions that wait until the replica here has applied that much; more are not kept.
const PENDING_MAX: usize = 4;

/// Whoever has applied the entry knows everything up to the timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SafePoint {
    /// The timestamp; zero if none is known.
    pub ts: TimeStamp,
    /// The entry.
    pub applied: Index,
}

/// What a leader says of itself to the stores of its followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderClaim {
    /// The region.
    pub region_id: RegionId,
    /// The leader.
    pub peer: PeerId,
    /// Its term.
    pub term: Term,
    /// The region's epoch.
    pub epoch: Epoch,
    /// What was confirmed the last time.
    pub safe: SafePoint,
}

/// A claim on its way to be confirmed.
#[derive(Clone, Debug)]
pub struct OpenClaim {
    /// What the others are asked.
    pub claim: LeaderClaim,
    /// Whom to ask: the stores of the other members. None: the leader is the region.
    pub stores: Vec<StoreId>,
    /// What the leader had applied in the snapshot.
    applied: Index,
    view: Arc<RegionView>,
}

impl OpenClaim {
    /// The region as its leader knew it: the keys whose locks count.
    pub fn region(&self) -> &Arc<Region> {
        &self.view.region
    }
}

/// What is known of one replica.
#[derive(Debug)]
struct Progress {
    /// Of these data, and of these keys.
    generation: (u64, u32),
    version: u64,
    safe: SafePoint,
    pending: Vec<SafePoint>,
}

impl Progress {
    fn is_of(&self, view: &RegionView) -> bool {
        (self.generation, self.version) == (view.generation, view.region.epoch.version)
    }

    /// What the replica has applied by now counts.
    fn advance(&mut self, applied: Index) {
        for point in self.pending.extract_if(.., |point| point.applied <= applied) {
            if point.ts > self.safe.ts {
                self.safe = point;
            }
        }
    }
}

/// The safe timestamps of a store's replicas.
#[derive(Debug, Default)]
pub struct SafeTimes {
    known: Mutex<BTreeMap<RegionId, Progress>>,
}

impl SafeTimes {
    /// Up to where the replica of `view` knows everything; zero if that is not known. What was
    /// learnt of other data or other keys does not count.
    pub fn of(&self, view: &RegionView) -> TimeStamp {
        self.point_of(view).ts
    }

    fn point_of(&self, view: &RegionView) -> SafePoint {
        let mut known = self.known();
        let progress = known.get_mut(&view.region.id).filter(|progress| progress.is_of(view));
        let Some(progress) = progress.filter(|_| view.has_data) else {
            return SafePoint::default();
        };
        progress.advance(view.applied);
        progress.safe
    }

    /// A quorum confirmed `point` for the region of `view`.
    pub fn learn(&self, view: &RegionView, point: SafePoint) {
        if point.ts == TimeStamp::default() || !view.has_data {
            return;
        }
        let mut known = self.known();
        let progress = known.entry(view.region.id).or_insert_with(|| Progress::new(view));
        if !progress.is_of(view) {
            *progress = Progress::new(view);
        }
        progress.advance(view.applied);
        if progress.pending.len() == PENDING_MAX {
            // A replica that lags comes to the earlier ones first.
            progress.pending.pop();
        }
        progress.pending.push(point);
        progress.advance(view.applied);
    }

    pub(crate) fn forget(&self, region: RegionId) {
        self.known().remove(&region);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<RegionId, Progress>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn new(view: &RegionView) -> Self {
        let (generation, version) = (view.generation, view.region.epoch.version);
        Self { generation, version, safe: SafePoint::default(), pending: Vec::new() }
    }
}

impl RegionViews {
    /// What the leaders here say of themselves. `snapshot` must be taken after the timestamp that
    /// is to become safe.
    pub fn claims(&self, snapshot: &dyn Snapshot) -> Result<Vec<OpenClaim>, EngineError> {
        let mut claims = Vec::new();
        for view in self.all().into_iter().filter(|view| view.serves_reads) {
            // The view may lag behind answers that were given; the snapshot does not.
            let (region_id, peer, term) = (view.region.id, view.peer.id, view.term);
            let Some(state) = snapshot.get(Cf::Raft, &keys::apply_state_key(region_id))? else {
                continue;
            };
            let Ok(ApplyState { applied, .. }) = ApplyState::decode(region_id, &state) else {
                tracing::warn!(region = %region_id, "its apply state cannot be read");
                continue;
            };
            let safe = self.safe_times().point_of(&view);
            let claim = LeaderClaim { region_id, peer, term, epoch: view.region.epoch, safe };
            let others = view.region.peers.iter().filter(|other| other.id != peer);
            let stores = others.map(|other| other.store_id).collect();
            claims.push(OpenClaim { claim, stores, applied, view });
        }
        Ok(claims)
    }

    /// Whether the claim is true as far as is known here. If so, what it says is learnt.
    pub fn check_claim(&self, claim: &LeaderClaim) -> bool {
        let Some(view) = self.get(claim.region_id) else { return false };
        let leader = view.leader.is_some_and(|leader| leader.id == claim.peer);
        let agrees = leader && view.term == claim.term && view.region.epoch == claim.epoch;
        if agrees {
            self.safe_times().learn(&view, claim.safe);
        }
        agrees
    }

    /// The stores of `by` said that the claim is true, after `ts` was taken, or a later timestamp
    /// that was lowered to `ts` for locks. If they are a quorum with this store, `ts` is safe.
    /// Returns whether they are.
    pub fn confirm_claim(&self, claim: &OpenClaim, ts: TimeStamp, by: &BTreeSet<StoreId>) -> bool {
        let region = &claim.view.region;
        let agrees = |id: PeerId| {
            let peer = region.peer(id).expect("raft's members are the region's");
            id == claim.claim.peer || by.contains(&peer.store_id)
        };
        let confirmed = members::conf_of(region).has_quorum(agrees);
        if confirmed {
            self.safe_times().learn(&claim.view, SafePoint { ts, applied: claim.applied });
        }
        confirmed
    }

    /// The least safe timestamp of those known of replicas here with keys in `range`; zero if none
    /// is known.
    pub fn least_safe_ts(&self, range: &KeyRange) -> TimeStamp {
        let views = self.all().into_iter();
        let within =
            views.filter(|view| !view.region.id.is_system() && view.region.range.overlaps(range));
        let known = within.map(|view| self.safe_times().of(&view));
        known.filter(|ts| *ts != TimeStamp::default()).min().unwrap_or_default()
    }
}
