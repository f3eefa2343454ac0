//! The region map: which region holds which keys, as far as the leaders' heartbeats have told.
//!
//! ```text
//!    by start key   ├── region 2 ──┤├───── region 8 ─────┤        ├── region 5 ─────>
//!                   ""             "d"                   "m" gap  "q"
//!    by id          2 -> the same Arc     5 -> ...     8 -> ...
//! ```
//!
//! Regions never overlap. A part that was cut off a region and reports first takes its keys away
//! from it; the rest stays, as of before. There may be gaps: if the region reports before its part,
//! the part's keys belong to nobody here until it does. What is known of a region is immutable; a
//! heartbeat puts a new value in its place, so that readers hold what they got without a lock.
//!
//! Heartbeats travel by different ways and may come late or from a leader of the past. One is
//! stale, and changes nothing, if the map knows its region with a higher version, conf version or
//! term, or if it overlaps another region of a higher version. Otherwise it is the news, and what
//! it overlaps must be older: it leaves the map, or what is left of it stays.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Epoch, KeyRange, RegionId, StoreId};
use bytes::Bytes;
use proto::{epoch_from_proto, metapb, pdpb};

/// What passed through a region since the heartbeat before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes written by clients.
    pub written_bytes: u64,
    /// Keys written by clients.
    pub written_keys: u64,
    /// Bytes read by clients.
    pub read_bytes: u64,
    /// Keys read by clients.
    pub read_keys: u64,
}

/// What is known of a region. Never changed in place.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionInfo {
    /// Its descriptor. Has an epoch, a non-zero id and a range that can hold keys.
    pub meta: metapb::Region,
    /// Its leader; `None` until one has reported.
    pub leader: Option<metapb::Peer>,
    /// Peers that the leader has not heard of for a while.
    pub down_peers: Vec<pdpb::PeerStats>,
    /// Peers that are still catching up.
    pub pending_peers: Vec<metapb::Peer>,
    /// The leader's term; 0 if it was not told.
    pub term: u64,
    /// Rough size of the data in bytes; 0 if unknown.
    pub approximate_size: u64,
    /// Rough number of keys; 0 if unknown.
    pub approximate_keys: u64,
    /// Traffic in the last heartbeat's interval.
    pub flow: Flow,
}

impl RegionInfo {
    /// A region of which only the descriptor is known. Fails, and says what is wrong, if the
    /// descriptor cannot be that of a region on the map.
    pub(crate) fn new(meta: metapb::Region) -> Result<Self, &'static str> {
        if RegionId(meta.id).is_system() {
            return Err("the system region holds no keys of clients");
        }
        Self::bare(meta)
    }

    fn bare(meta: metapb::Region) -> Result<Self, &'static str> {
        if meta.id == 0 {
            return Err("the region's id is zero");
        }
        if meta.region_epoch.is_none() {
            return Err("the region has no epoch");
        }
        if KeyRange::new(meta.start_key.clone(), meta.end_key.clone()).is_empty() {
            return Err("the region can hold no key");
        }
        Ok(Self {
            meta,
            leader: None,
            down_peers: Vec::new(),
            pending_peers: Vec::new(),
            term: 0,
            approximate_size: 0,
            approximate_keys: 0,
            flow: Flow::default(),
        })
    }

    /// What a heartbeat tells, of any region, the system region too. Fails as [`new`](Self::new)
    /// does otherwise.
    pub(crate) fn reported(request: &pdpb::RegionHeartbeatRequest) -> Result<Self, &'static str> {
        let meta = request.region.clone().ok_or("no region in the heartbeat")?;
        let leader = request.leader.ok_or("no leader in the heartbeat")?;
        if !meta.peers.iter().any(|peer| peer.id == leader.id) {
            return Err("the leader is not one of the region's peers");
        }
        Ok(Self {
            leader: Some(leader),
            down_peers: request.down_peers.clone(),
            pending_peers: request.pending_peers.clone(),
            term: request.term,
            approximate_size: request.approximate_size,
            approximate_keys: request.approximate_keys,
            flow: Flow {
                written_bytes: request.bytes_written,
                written_keys: request.keys_written,
                read_bytes: request.bytes_read,
                read_keys: request.keys_read,
            },
            ..Self::bare(meta)?
        })
    }

    /// Its id.
    pub fn id(&self) -> RegionId {
        RegionId(self.meta.id)
    }

    /// Its keys, in the form in which they are split.
    pub fn range(&self) -> KeyRange {
        KeyRange::new(self.meta.start_key.clone(), self.meta.end_key.clone())
    }

    /// How often it changed.
    pub fn epoch(&self) -> Epoch {
        let epoch = self.meta.region_epoch.expect("checked when the value was made");
        epoch_from_proto(&epoch)
    }

    /// The leader's store, if a leader is known.
    pub fn leader_store(&self) -> Option<StoreId> {
        self.leader.as_ref().map(|leader| StoreId(leader.store_id))
    }

    /// Whether this is not older than what is known of the same region.
    pub(crate) fn check_after(&self, known: &RegionInfo) -> Result<(), Stale> {
        assert_eq!(self.id(), known.id(), "two different regions");
        let term_is_behind = self.term > 0 && self.term < known.term;
        let is_behind = term_is_behind || self.epoch().is_behind(&known.epoch());
        if is_behind && keep(Rule::StaleReports) {
            return Err(Stale {
                reported: (self.id(), self.epoch(), self.term),
                known: (known.id(), known.epoch(), known.term),
            });
        }
        Ok(())
    }

    fn is_before_end(&self, key: &[u8]) -> bool {
        self.meta.end_key.is_empty() || key < &self.meta.end_key[..]
    }
}

/// A heartbeat that is older than what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    reported: (RegionId, Epoch, u64),
    known: (RegionId, Epoch, u64),
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((id, epoch, term), (known_id, known_epoch, known_term)) = (self.reported, self.known);
        write!(
            f,
            "region is stale: region {id} epoch {epoch} term {term}, \
             known: region {known_id} epoch {known_epoch} term {known_term}"
        )
    }
}

/// What `new` leaves of an older region that it was cut off. Until that region itself reports,
/// whoever asks for its keys is sent there as before, under the epoch of before, and learns of the
/// split; else its keys would be nobody's for that long.
fn rest(old: &RegionInfo, new: &RegionInfo) -> Option<RegionInfo> {
    if old.id() == new.id() || old.epoch().version >= new.epoch().version {
        return None;
    }
    let (mut range, taken) = (old.range(), new.range());
    if !taken.end.is_empty() && range.is_before_end(&taken.end) {
        range.start = taken.end;
    } else if range.start < taken.start {
        range.end = taken.start;
    } else {
        return None;
    }
    assert!(!range.is_empty() && !range.overlaps(&new.range()), "what is left is beside it");
    let meta = metapb::Region { start_key: range.start, end_key: range.end, ..old.meta.clone() };
    Some(RegionInfo { meta, ..old.clone() })
}

/// How much of the cluster lies on one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLoad {
    /// Regions with a peer there.
    pub regions: u64,
    /// Regions whose leader is there.
    pub leaders: u64,
    /// Regions whose peer there is still catching up.
    pub pending: u64,
    /// Rough bytes of all peers there.
    pub region_size: u64,
    /// Rough bytes of the regions led there.
    pub leader_size: u64,
}

/// The regions by id and by start key. No two overlap.
#[derive(Clone, Debug, Default)]
pub struct RegionMap {
    by_id: BTreeMap<RegionId, Arc<RegionInfo>>,
    by_start: BTreeMap<Bytes, Arc<RegionInfo>>,
}

impl RegionMap {
    /// How many regions are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The region with this id.
    pub fn get(&self, id: RegionId) -> Option<&Arc<RegionInfo>> {
        self.by_id.get(&id)
    }

    /// The region that holds `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let (_, region) =
            self.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        assert!(region.meta.start_key <= key, "the index is by start key");
        region.is_before_end(key).then_some(region)
    }

    /// The region that ends where the one that holds `key` begins.
    pub fn find_before(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let start = &self.find(key)?.meta.start_key;
        let before = (Bound::Unbounded, Bound::Excluded(&start[..]));
        let (_, region) = self.by_start.range::<[u8], _>(before).next_back()?;
        assert!(!region.is_before_end(start), "two regions overlap");
        (region.meta.end_key == start).then_some(region)
    }

    /// The regions that share a key with `range`, in order.
    pub fn overlapping(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<RegionInfo>> {
        let first = self.find(&range.start).map_or(&range.start, |region| &region.meta.start_key);
        let range = range.clone();
        self.by_start
            .range::<[u8], _>((Bound::Included(&first[..]), Bound::Unbounded))
            .map(|(_, region)| region)
            .take_while(move |region| {
                !range.is_empty() && range.is_before_end(&region.meta.start_key)
            })
    }

    /// All regions by start key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegionInfo>> {
        self.by_start.values()
    }

    /// The ids of the regions in `range`, in order.
    pub(crate) fn ids(
        &self,
        range: (Bound<RegionId>, Bound<RegionId>),
    ) -> impl Iterator<Item = RegionId> {
        self.by_id.range(range).map(|(id, _)| *id)
    }

    /// How much of what is known lies on each store that holds any of it.
    pub fn store_loads(&self) -> BTreeMap<StoreId, StoreLoad> {
        let mut loads: BTreeMap<StoreId, StoreLoad> = BTreeMap::new();
        assert_eq!(self.by_id.len(), self.by_start.len(), "the two indexes differ");
        for region in self.iter() {
            for peer in &region.meta.peers {
                let load = loads.entry(StoreId(peer.store_id)).or_default();
                load.regions += 1;
                load.region_size += region.approximate_size;
            }
            if let Some(store) = region.leader_store() {
                let load = loads.entry(store).or_default();
                load.leaders += 1;
                load.leader_size += region.approximate_size;
            }
            for peer in &region.pending_peers {
                loads.entry(StoreId(peer.store_id)).or_default().pending += 1;
            }
        }
        loads
    }

    /// Takes in what a heartbeat told, unless it is stale.
    pub(crate) fn report(&mut self, mut region: RegionInfo) -> Result<(), Stale> {
        self.check(&region)?;
        if let Some(known) = self.get(region.id()) {
            // A leader that has not measured yet says zero.
            if region.approximate_size == 0 {
                region.approximate_size = known.approximate_size;
            }
            if region.approximate_keys == 0 {
                region.approximate_keys = known.approximate_keys;
            }
        }
        let (id, epoch) = (region.id(), region.epoch());
        self.put(region);
        assert!(self.get(id).is_some_and(|known| known.epoch() == epoch), "it is on the map");
        Ok(())
    }

    /// Puts a region on the map and takes off what it replaces or overlaps.
    pub(crate) fn put(&mut self, region: RegionInfo) {
        let range = region.range();
        let mut gone: Vec<_> = self.overlapping(&range).cloned().collect();
        gone.extend(self.get(region.id()).cloned());
        for old in gone {
            self.remove(old.id());
            if let Some(rest) = rest(&old, &region) {
                self.insert(rest);
            }
        }
        assert!(self.overlapping(&range).next().is_none(), "something overlaps still");
        self.insert(region);
    }

    fn insert(&mut self, region: RegionInfo) {
        let region = Arc::new(region);
        let replaced = self.by_start.insert(region.meta.start_key.clone(), region.clone());
        assert!(replaced.is_none(), "two regions start at the same key");
        self.by_id.insert(region.id(), region);
        assert_eq!(self.by_id.len(), self.by_start.len(), "the two indexes differ");
    }

    fn remove(&mut self, id: RegionId) {
        let Some(region) = self.by_id.remove(&id) else {
            return; // It overlapped its own older self and is gone already.
        };
        let same = self.by_start.remove(&region.meta.start_key);
        assert!(same.is_some_and(|same| same.id() == id), "region {id} is in one index only");
    }

    fn check(&self, region: &RegionInfo) -> Result<(), Stale> {
        let epoch = region.epoch();
        assert!(!region.id().is_system(), "checked when the value was made");
        let stale = |known: &RegionInfo| Stale {
            reported: (region.id(), epoch, region.term),
            known: (known.id(), known.epoch(), known.term),
        };
        let range = region.range();
        let mut others = self.overlapping(&range).filter(|other| other.id() != region.id());
        if let Some(newer) = others.find(|other| epoch.version < other.epoch().version) {
            return Err(stale(newer));
        }
        self.get(region.id()).map_or(Ok(()), |known| region.check_after(known))
    }
}
