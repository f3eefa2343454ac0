//! What everybody but a region's shard may know of it: an immutable [`RegionView`], replaced as a
//! whole.
//!
//! The shard publishes a new view at the end of a turn in which something changed that readers go
//! by. Readers on other threads take the `Arc` they find: it may lag behind the shard, never lead
//! it. A local read looks twice, before and after it takes its data, and is valid only if the
//! *second* look still finds a leader with a valid lease in the same term and epoch
//! ([`RegionView::still_readable`]).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base::{Epoch, Index, Instant, KeyRange, Peer, Region, RegionId, StoreId, Term};

use crate::RegionError;
use crate::ranges::Ranges;

/// Where a request is addressed to, from its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The region.
    pub region_id: RegionId,
    /// The replica the client takes for the leader.
    pub peer: Peer,
    /// The region's epoch as the client knows it. `None` never matches.
    pub epoch: Option<Epoch>,
    /// The leader's term as the client knows it; zero if it does not care.
    pub term: Term,
}

/// A region as of the end of its shard's last turn.
#[derive(Clone, Debug)]
pub struct RegionView {
    /// The descriptor: the applier's, at most as new as its own.
    pub region: Arc<Region>,
    /// The replica on this store.
    pub peer: Peer,
    /// Who leads, if known.
    pub leader: Option<Peer>,
    /// Raft term.
    pub term: Term,
    /// The replica here has applied up to this index; what readers see in the engine is at least as
    /// new.
    pub applied: Index,
    /// Whether local reads are allowed before `lease_until`: the replica leads and has applied an
    /// entry of its own term.
    pub serves_reads: bool,
    /// End of the lease.
    pub lease_until: Instant,
}

impl RegionView {
    /// Whether the replica here leads.
    pub fn is_leader(&self) -> bool {
        self.leader.is_some_and(|leader| leader.id == self.peer.id)
    }

    /// Whether a read may be answered from the engine at `now` without asking the group.
    pub fn has_lease(&self, now: Instant) -> bool {
        self.serves_reads && now < self.lease_until
    }

    /// The second look of a local read that began under `first`: same leadership, same key range,
    /// lease still valid after the data was taken.
    pub fn still_readable(&self, first: &RegionView, now: Instant) -> bool {
        self.term == first.term
            && self.region.epoch.version == first.region.epoch.version
            && self.has_lease(now)
    }

    /// Whether the request may go to this replica as the leader. The checks are made in the order
    /// that clients rely on (peer, leader, term, epoch); the first that fails is returned.
    pub fn check(&self, header: &RequestHeader) -> Result<(), RegionError> {
        let region = self.region.id;
        if header.peer.id != self.peer.id {
            let (requested, actual) = (header.peer.id, self.peer.id);
            return Err(RegionError::MismatchPeerId { region, requested, actual });
        }
        if !self.is_leader() {
            return Err(RegionError::NotLeader { region, leader: self.leader });
        }
        if header.term != 0 && header.term + 1 < self.term {
            return Err(RegionError::StaleCommand(region));
        }
        self.check_epoch(header.epoch)
    }

    /// Whether `epoch` speaks of the same key range: only `version` counts for requests on data.
    pub fn check_epoch(&self, epoch: Option<Epoch>) -> Result<(), RegionError> {
        if epoch.is_some_and(|epoch| epoch.version == self.region.epoch.version) {
            return Ok(());
        }
        Err(RegionError::EpochNotMatch { current: vec![self.region.clone()] })
    }

    /// Whether `key` lies in the region.
    pub fn check_key(&self, key: &[u8]) -> Result<(), RegionError> {
        if self.region.range.contains(key) {
            return Ok(());
        }
        let key = bytes::Bytes::copy_from_slice(key);
        Err(RegionError::KeyNotInRegion { key, region: self.region.clone() })
    }
}

/// The views of all regions of this store, and which of them holds a key. Written by shards only.
#[derive(Debug)]
pub struct RegionViews {
    store_id: StoreId,
    inner: RwLock<Published>,
}

/// What one lock keeps together: a region with a view has its range among the ranges.
#[derive(Debug, Default)]
struct Published {
    views: BTreeMap<RegionId, Arc<RegionView>>,
    /// Also of regions that were just cut off another one and have no view yet.
    ranges: Ranges,
}

impl RegionViews {
    /// No region yet.
    pub fn new(store_id: StoreId) -> Self {
        Self { store_id, inner: RwLock::default() }
    }

    /// The store whose regions these are.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The region's view, if it has a replica here.
    pub fn get(&self, region: RegionId) -> Option<Arc<RegionView>> {
        self.read().views.get(&region).cloned()
    }

    /// All views, in the order of region ids.
    pub fn all(&self) -> Vec<Arc<RegionView>> {
        self.read().views.values().cloned().collect()
    }

    /// The region with a replica here that holds `key`, given in the form in which regions are
    /// split. Never the system region.
    pub fn region_of(&self, key: &[u8]) -> Option<RegionId> {
        self.read().ranges.find(key)
    }

    /// The ranges of all regions with a replica here, the system region's aside, in the order of
    /// ids. They do not overlap.
    pub fn ranges(&self) -> Vec<(RegionId, KeyRange)> {
        self.read().ranges.regions().map(|(id, range)| (id, range.clone())).collect()
    }

    /// A region other than `but` with a replica here that holds a key of `range`.
    pub(crate) fn overlapping(&self, range: &KeyRange, but: RegionId) -> Option<RegionId> {
        self.read().ranges.overlapping(range, but)
    }

    fn read(&self) -> RwLockReadGuard<'_, Published> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view a request is addressed to, after the checks of store, region and
    /// [`RegionView::check`].
    pub fn route(&self, header: &RequestHeader) -> Result<Arc<RegionView>, RegionError> {
        if header.peer.store_id != self.store_id {
            let (requested, actual) = (header.peer.store_id, self.store_id);
            return Err(RegionError::StoreNotMatch { requested, actual });
        }
        let not_found = RegionError::RegionNotFound(header.region_id);
        if header.region_id.is_system() {
            return Err(not_found);
        }
        let view = self.get(header.region_id).ok_or(not_found)?;
        view.check(header)?;
        Ok(view)
    }

    /// Replaces a region's view, and its range. Epoch, term and applied index never go back.
    pub(crate) fn publish(&self, view: RegionView) {
        self.write().publish(view);
    }

    /// Like [`publish`](Self::publish), when parts of the region were cut off as `births`: at no
    /// moment is a key without a region.
    pub(crate) fn split(&self, view: RegionView, births: &[Arc<Region>]) {
        let mut published = self.write();
        published.publish(view);
        for birth in births {
            published.ranges.set(birth.id, &birth.range);
        }
    }

    /// Parts that were cut off a region which is gone, or about to go.
    pub(crate) fn add(&self, births: &[Arc<Region>]) {
        let mut published = self.write();
        for birth in births {
            published.ranges.set(birth.id, &birth.range);
        }
    }

    /// The region has no replica here any more.
    pub(crate) fn remove(&self, region: RegionId) {
        let mut published = self.write();
        published.views.remove(&region);
        published.ranges.remove(region);
    }
}

impl Published {
    fn publish(&mut self, view: RegionView) {
        let id = view.region.id;
        if let Some(old) = self.views.get(&id).filter(|old| old.peer.id == view.peer.id) {
            assert!(
                !view.region.epoch.is_behind(&old.region.epoch),
                "region {id}: epoch went back"
            );
            assert!(view.term >= old.term, "region {id}: term went back");
            assert!(view.applied >= old.applied, "region {id}: applied index went back");
        }
        self.ranges.set(id, &view.region.range);
        self.views.insert(id, Arc::new(view));
    }
}
