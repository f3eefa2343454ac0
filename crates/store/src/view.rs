//! What everybody but a region's shard may know of it: an immutable [`RegionView`], replaced as a
//! whole.
//!
//! The shard publishes a new view at the end of a turn in which something changed that readers go
//! by. Readers on other threads take the `Arc` they find: it may lag behind the shard, never lead
//! it. A local read looks twice, before and after it takes its data, and is valid only if the
//! *second* look still finds a leader with a valid lease in the same term and epoch
//! ([`RegionView::still_readable`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base::{Epoch, Index, Instant, KeyRange, Peer, Region, RegionId, StoreId, Term, TimeStamp};

use crate::RegionError;
use crate::ranges::Ranges;
use crate::safe_time::SafeTimes;
use crate::split_check::Traffic;

/// Regions that an error names at most.
const SIBLINGS_MAX: usize = 16;

/// What a request is for. While a region is flashed back not everything is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Anything.
    #[default]
    Any,
    /// To read what was there at this timestamp.
    ReadAt(TimeStamp),
    /// A part of the flashback itself, which must have begun.
    Flashback,
}

impl Purpose {
    /// Of a request that changes something: only a flashback may while there is one.
    pub(crate) fn of_change(self) -> Self {
        match self {
            Self::Flashback => Self::Flashback,
            Self::Any | Self::ReadAt(_) => Self::Any,
        }
    }
}

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
    /// What it is for.
    pub purpose: Purpose,
}

impl RequestHeader {
    /// A request for a region of this epoch, of anything, in whatever term.
    pub fn new(region_id: RegionId, peer: Peer, epoch: Epoch) -> Self {
        Self { region_id, peer, epoch: Some(epoch), term: 0, purpose: Purpose::Any }
    }
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
    /// Whether local reads are allowed before `lease_until`: the replica leads, has applied an
    /// entry of its own term, and its keys are not about to become another region's.
    pub serves_reads: bool,
    /// End of the lease.
    pub lease_until: Instant,
    /// Where readers count what they read.
    pub traffic: Arc<Traffic>,
    /// Names what the replica here holds: another number, and a snapshot has taken its place. A
    /// number is never used again on this store.
    pub generation: (u64, u32),
    /// Whether the data here are whole. Not while a snapshot is taken in.
    pub has_data: bool,
}

impl RegionView {
    /// Whether the replica here leads.
    pub fn is_leader(&self) -> bool {
        self.leader.is_some_and(|leader| leader.id == self.peer.id)
    }

    /// Whether the two say the same, of the same descriptor.
    fn says(&self, other: &Self) -> bool {
        let all = |view: &Self| {
            let leading = (view.term, view.serves_reads, view.lease_until);
            (view.peer, view.leader, leading, view.applied, view.generation, view.has_data)
        };
        all(self) == all(other)
            && Arc::ptr_eq(&self.region, &other.region)
            && Arc::ptr_eq(&self.traffic, &other.traffic)
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

    /// Whether what the replica here holds is still what it held in `first`, and more.
    pub fn has_same_data(&self, first: &RegionView) -> bool {
        self.has_data && first.has_data && self.generation == first.generation
    }

    /// Whether the request may go to this replica as the leader. The checks are made in the order
    /// that clients rely on (peer, leader, term, epoch, flashback); the first that fails is
    /// returned.
    pub fn check(&self, header: &RequestHeader) -> Result<(), RegionError> {
        self.check_leader(header)?;
        check_flashback(&self.region, header.purpose)
    }

    /// Like [`check`](Self::check), for a request that has nothing to do with the data.
    pub(crate) fn check_leader(&self, header: &RequestHeader) -> Result<(), RegionError> {
        self.check_peer(header)?;
        let region = self.region.id;
        if !self.is_leader() {
            return Err(RegionError::NotLeader { region, leader: self.leader });
        }
        self.check_term_and_epoch(header)
    }

    /// Like [`check`](Self::check), for a request that any replica may take.
    pub fn check_replica(&self, header: &RequestHeader) -> Result<(), RegionError> {
        self.check_peer(header)?;
        self.check_term_and_epoch(header)?;
        check_flashback(&self.region, header.purpose)
    }

    fn check_peer(&self, header: &RequestHeader) -> Result<(), RegionError> {
        if header.peer.id == self.peer.id {
            return Ok(());
        }
        let (requested, actual) = (header.peer.id, self.peer.id);
        Err(RegionError::MismatchPeerId { region: self.region.id, requested, actual })
    }

    fn check_term_and_epoch(&self, header: &RequestHeader) -> Result<(), RegionError> {
        let region = self.region.id;
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

/// Whether a region lets a request for this purpose in: while it is flashed back only what belongs
/// to that, and reads of before.
pub(crate) fn check_flashback(region: &Region, purpose: Purpose) -> Result<(), RegionError> {
    match (region.flashback, purpose) {
        (None, Purpose::Flashback) => Err(RegionError::FlashbackNotPrepared(region.id)),
        (None, _) | (Some(_), Purpose::Flashback) => Ok(()),
        (Some(began), Purpose::ReadAt(ts)) if ts < began => Ok(()),
        (Some(began), _) => Err(RegionError::FlashbackInProgress { region: region.id, began }),
    }
}

/// The views of all regions of this store, and which of them holds a key. Written by shards only.
#[derive(Debug)]
pub struct RegionViews {
    store_id: StoreId,
    inner: RwLock<Published>,
    /// How many regions are newborn: hardly ever any.
    newborns: AtomicUsize,
    safe_times: SafeTimes,
}

/// What one lock keeps together: a region with a view has its range among the ranges.
#[derive(Debug, Default)]
struct Published {
    views: BTreeMap<RegionId, Arc<RegionView>>,
    /// Also of regions that were just cut off another one and have no view yet.
    ranges: Ranges,
    /// Cut off a region that is led here, and without a leader as yet.
    newborn: BTreeMap<RegionId, Arc<Region>>,
    /// How often any of it was written.
    changes: u64,
}

impl RegionViews {
    /// No region yet.
    pub fn new(store_id: StoreId) -> Self {
        Self {
            store_id,
            inner: RwLock::default(),
            newborns: AtomicUsize::new(0),
            safe_times: SafeTimes::default(),
        }
    }

    /// The store whose regions these are.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// Up to which timestamps the replicas here know everything.
    pub fn safe_times(&self) -> &SafeTimes {
        &self.safe_times
    }

    /// The region's view, if it has a replica here.
    pub fn get(&self, region: RegionId) -> Option<Arc<RegionView>> {
        self.read().views.get(&region).cloned()
    }

    /// Whether the region was cut off one that is led here, and nobody leads it yet: somebody will
    /// in a moment, most likely here. Whoever asks for it should wait for that.
    pub fn is_newborn(&self, region: RegionId) -> bool {
        self.newborns.load(Ordering::Relaxed) > 0 && self.read().newborn.contains_key(&region)
    }

    /// Who learns that a region has changed learns of the regions that were cut off it as well, if
    /// they are led here.
    pub(crate) fn with_siblings(&self, error: RegionError) -> RegionError {
        let RegionError::EpochNotMatch { mut current } = error else { return error };
        let published = self.read();
        while let Some(sibling) = current.last().and_then(|region| published.sibling(region)) {
            current.push(sibling);
            if current.len() >= SIBLINGS_MAX {
                break;
            }
        }
        RegionError::EpochNotMatch { current }
    }

    /// All views, in the order of region ids.
    pub fn all(&self) -> Vec<Arc<RegionView>> {
        self.read().views.values().cloned().collect()
    }

    /// A number that grows with each change: whoever has looked at all views, and finds it the
    /// same, would see nothing new.
    pub fn changes(&self) -> u64 {
        self.read().changes
    }

    /// Shows all views, in the order of region ids. Nothing is published meanwhile.
    pub fn for_each(&self, look: impl FnMut(&Arc<RegionView>)) {
        self.read().views.values().for_each(look);
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
        let mut published = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        published.changes += 1;
        published
    }

    /// The view a request is addressed to, after the checks of store, region and
    /// [`RegionView::check`].
    pub fn route(&self, header: &RequestHeader) -> Result<Arc<RegionView>, RegionError> {
        let view = self.find(header)?;
        view.check(header).map_err(|error| self.with_siblings(error))?;
        Ok(view)
    }

    /// The view of the region that a request names, on the store that it names.
    pub(crate) fn find(&self, header: &RequestHeader) -> Result<Arc<RegionView>, RegionError> {
        if header.peer.store_id != self.store_id {
            let (requested, actual) = (header.peer.store_id, self.store_id);
            return Err(RegionError::StoreNotMatch { requested, actual });
        }
        let not_found = RegionError::RegionNotFound(header.region_id);
        if header.region_id.is_system() {
            return Err(not_found);
        }
        self.get(header.region_id).ok_or(not_found)
    }

    /// Replaces a region's view, and its range. Epoch, term and applied index never go back. A view
    /// that says what is known already disturbs nobody.
    pub(crate) fn publish(&self, view: RegionView) {
        if self.read().views.get(&view.region.id).is_some_and(|known| known.says(&view)) {
            return;
        }
        let mut published = self.write();
        published.publish(view);
        self.count_newborns(&published);
    }

    fn count_newborns(&self, published: &Published) {
        self.newborns.store(published.newborn.len(), Ordering::Relaxed);
    }

    /// Like [`publish`](Self::publish), when parts of the region were cut off as `births`: at no
    /// moment is a key without a region.
    ///
    /// Likewise when it took over the regions `taken`, whose replicas here are gone: at no moment
    /// has a key two regions.
    pub(crate) fn replace(&self, view: RegionView, births: &[Arc<Region>], taken: &[RegionId]) {
        let mut published = self.write();
        for taken in taken {
            published.views.remove(taken);
            published.ranges.remove(*taken);
            published.newborn.remove(taken);
        }
        let leads = view.is_leader();
        published.publish(view);
        for birth in births {
            published.ranges.set(birth.id, &birth.range);
            if leads {
                published.newborn.insert(birth.id, birth.clone());
            }
        }
        self.count_newborns(&published);
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
        published.newborn.remove(&region);
        self.count_newborns(&published);
        drop(published);
        self.safe_times.forget(region);
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
        if view.serves_reads || view.leader.is_some_and(|leader| leader.id != view.peer.id) {
            self.newborn.remove(&id);
        }
        self.ranges.set(id, &view.region.range);
        self.views.insert(id, Arc::new(view));
    }

    /// The region to the left that was cut off by the same split, if it is led here.
    fn sibling(&self, region: &Region) -> Option<Arc<Region>> {
        let id = self.ranges.ending_at(&region.range.start)?;
        let led = self.views.get(&id).filter(|view| view.is_leader()).map(|view| &view.region);
        let sibling = led.or(self.newborn.get(&id))?;
        (sibling.epoch.version == region.epoch.version).then(|| sibling.clone())
    }
}
