//! Admin traffic beside what the placement driver orders: splits, changes of members, transfers,
//! merges, comparisons of replicas, regions that are closed for a flashback.

use std::sync::Arc;

use base::{Cut, Peer, PeerChange, PeerId, PeerRole, Region, RegionId, StoreId, TimeStamp};
use bytes::Bytes;
use proto::pdpb;
use store::split_check::SplitWanted;
use store::{
    ChangePeersRequest, FlashbackRequest, MergeRequest, RegionRequest, RegionView, RequestHeader,
    ShardInput, SplitRequest, TransferRequest,
};

use super::boot::header;
use super::event::{Event, Purpose, Request, Slot};
use super::faults::Fault;
use super::process::reply_to;
use super::txn::some_key;
use super::workload::split_key;
use super::world::{Wait, World, ms};

/// Ids of peers that are not the placement driver's begin here.
const PEER_IDS: u64 = 1 << 60;

/// Regions that a run makes at most.
const REGIONS_MAX: usize = 24;

/// Keys that are drawn until one lies in a region.
const KEY_DRAWS: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminKind {
    /// A region is cut.
    Split,
    /// Its members change.
    Change,
    /// Another one leads.
    Transfer,
    /// It becomes a part of its neighbour.
    Merge,
    /// Its replicas are compared.
    Check,
    /// It is closed for a flashback, for a while.
    Flashback,
}

impl AdminKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Split, Self::Change, Self::Transfer, Self::Merge, Self::Check, Self::Flashback];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Change => "change",
            Self::Transfer => "transfer",
            Self::Merge => "merge",
            Self::Check => "check",
            Self::Flashback => "flashback",
        }
    }
}

fn header_of(view: &RegionView) -> RequestHeader {
    RequestHeader::new(view.region.id, view.peer, view.region.epoch)
}

impl World {
    /// The next admin request.
    pub(crate) fn admin(&mut self) {
        if self.healing {
            return;
        }
        let pause = self.plan.admin_interval;
        let jitter = self.prng.below(pause.as_nanos() as u64);
        self.queue.after(pause / 2 + std::time::Duration::from_nanos(jitter), Event::Admin);
        self.open_regions();
        if self.prng.one_in(6) {
            return self.burst();
        }
        let kind = match self.prng.below(13) {
            0..3 => AdminKind::Split,
            3..6 => AdminKind::Change,
            6..8 => AdminKind::Transfer,
            8..11 => AdminKind::Merge,
            11 => AdminKind::Flashback,
            _ => AdminKind::Check,
        };
        if !self.plan.options.admin.contains(&kind) {
            return;
        }
        match kind {
            AdminKind::Split => self.split(),
            AdminKind::Change => self.change(),
            AdminKind::Transfer => self.transfer(),
            AdminKind::Merge => self.merge(),
            AdminKind::Check => self.check_replicas(),
            AdminKind::Flashback => self.close_region(),
        }
    }

    /// Something is done to a region that is led on a node.
    pub(crate) fn something_on(&mut self, slot: Slot) {
        match self.prng.one_in(2) {
            _ if self.healing => {}
            true => self.change_on(slot),
            false => self.admin_on(slot),
        }
    }

    /// The members of a region that is led on a node change now, if that may be done.
    fn change_on(&mut self, slot: Slot) {
        let led = self.some_region_led_on(slot);
        if let Some(view) = led.filter(|_| self.plan.options.admin.contains(&AdminKind::Change)) {
            self.change_somehow(slot, &view);
        }
    }

    /// A region that is led on a node is cut now, or becomes a part of another one, if that may be
    /// done.
    pub(crate) fn admin_on(&mut self, slot: Slot) {
        let Some(view) = self.some_region_led_on(slot) else { return };
        let may = |kind| self.plan.options.admin.contains(&kind);
        let (split, merge) = (may(AdminKind::Split), may(AdminKind::Merge));
        if merge
            && (!split || self.prng.one_in(3))
            && let Some(target) = self.some_neighbour(&view.region)
        {
            self.merge_into(slot, &view, target);
        } else if split {
            self.split_somewhere(slot, &view);
        }
    }

    fn some_region_led_on(&mut self, slot: Slot) -> Option<Arc<RegionView>> {
        let views = self.nodes[slot].views().map(|views| views.all()).unwrap_or_default();
        let led = views.into_iter().filter(|v| v.is_leader() && !v.region.id.is_system());
        let mut led: Vec<_> = led.collect();
        (!led.is_empty()).then(|| led.swap_remove(self.prng.below(led.len() as u64) as usize))
    }

    /// A region that a running store believes to lead, and where.
    pub(crate) fn some_leader(&mut self) -> Option<(Slot, Arc<RegionView>)> {
        let mut led = Vec::new();
        for (slot, node) in self.nodes.iter().enumerate() {
            let Some(views) = node.views() else { continue };
            let views = views.all().into_iter().filter(|view| view.is_leader());
            led.extend(views.map(|view| (slot, view)));
        }
        (!led.is_empty()).then(|| led.swap_remove(self.prng.below(led.len() as u64) as usize))
    }

    fn split(&mut self) {
        let Some((slot, view)) = self.some_leader() else { return };
        self.split_somewhere(slot, &view);
    }

    pub(crate) fn split_somewhere(&mut self, slot: Slot, view: &RegionView) {
        let count = self.nodes[slot].views().map_or(0, |views| views.all().len());
        if view.region.id.is_system() || count > REGIONS_MAX {
            return;
        }
        let (keys, range) = (self.plan.keys, &view.region.range);
        let txns = self.plan.txn.is_some();
        let (most, prng) = (1 + self.prng.below(2) as usize, &mut self.prng);
        let fits = |key: &Bytes| range.contains(key) && range.start != *key;
        let drawn = (0..KEY_DRAWS).map(|_| match txns && prng.one_in(2) {
            true => txn::mvcc::Key::new(some_key(prng)).region(),
            false => split_key(prng, keys),
        });
        let mut cuts: Vec<Bytes> = drawn.filter(fits).take(most).collect();
        cuts.sort_unstable();
        cuts.dedup();
        self.ask_split(slot, view, cuts);
    }

    /// A store wants to cut a region.
    pub(crate) fn wants_split(&mut self, slot: Slot, wanted: &SplitWanted) {
        let views = self.nodes[slot].views();
        let view = views.and_then(|views| views.get(wanted.region.id));
        let count = views.map_or(0, |views| views.all().len());
        let Some(view) = view.filter(|_| count <= REGIONS_MAX) else { return };
        if view.region == wanted.region {
            self.totals.split_wishes += 1;
            // Not between the two keys of a pair, which is written as one.
            let apart = |key: &Bytes| Bytes::copy_from_slice(key.strip_suffix(b"+").unwrap_or(key));
            let mut keys: Vec<Bytes> = wanted.keys.iter().map(apart).collect();
            keys.retain(|key| *key > view.region.range.start);
            keys.dedup();
            self.ask_split(slot, &view, keys);
        }
    }

    /// Cuts the region at these keys, once the placement driver has given out ids.
    pub(crate) fn ask_split(&mut self, slot: Slot, view: &RegionView, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        let request = pdpb::AskBatchSplitRequest {
            header: header(),
            region: Some(proto::region_to_proto(&view.region)),
            split_count: keys.len() as u32,
            ..Default::default()
        };
        let purpose = Purpose::Split { region: view.region.id, keys };
        self.ask_placement(slot, Request::AskSplit(Box::new(request)), purpose);
    }

    pub(crate) fn split_with(
        &mut self,
        slot: Slot,
        region: RegionId,
        keys: &[Bytes],
        ids: &[pdpb::SplitId],
    ) {
        let Some(view) = self.nodes[slot].views().and_then(|views| views.get(region)) else {
            return;
        };
        let cuts = keys.iter().zip(ids).map(|(key, id)| Cut {
            key: key.clone(),
            region_id: RegionId(id.new_region_id),
            peer_ids: id.new_peer_ids.iter().map(|id| PeerId(*id)).collect(),
        });
        let cuts = cuts.collect();
        let number = self.wait(slot, Wait::Admin(AdminKind::Split));
        let reply = reply_to(&self.results, number);
        let request = SplitRequest { header: header_of(&view), cuts, reply };
        self.tell(slot, ShardInput::Split(request));
    }

    fn change(&mut self) {
        let Some((slot, view)) = self.some_leader() else { return };
        if view.region.id.is_system() && self.prng.one_in(2) {
            return;
        }
        self.change_somehow(slot, &view);
    }

    pub(crate) fn change_somehow(&mut self, slot: Slot, view: &RegionView) {
        let careful = self.is_careful();
        let count = 1 + self.prng.below(3) / 2 + self.prng.below(2);
        let changes: Vec<_> = (0..count).filter_map(|_| self.some_change(view, careful)).collect();
        self.change_peers(slot, view, changes);
    }

    /// Whoever may lose a store for good must not be left with too few replicas elsewhere.
    pub(crate) fn is_careful(&self) -> bool {
        self.plan.faults.iter().any(|fault| fault.loses_stores())
    }

    /// A reader stands still for long. Often the replica that it reads goes meanwhile, or leads no
    /// more.
    pub(crate) fn meanwhile(&mut self, slot: Slot, read: &RegionView) {
        let may = |kind| self.plan.options.admin.contains(&kind);
        let (change, transfer) = (may(AdminKind::Change), may(AdminKind::Transfer));
        let led = self.leader_of(read.region.id).filter(|_| !self.healing);
        let Some((at, view)) = led.filter(|_| self.prng.one_in(2)) else { return };
        let Some(peer) = view.region.peer(read.peer.id).copied() else { return };
        if at == slot && transfer {
            self.transfer_somewhere(at, &view);
        } else if at != slot && change && (peer.role == PeerRole::Learner || !self.is_careful()) {
            self.change_peers(at, &view, vec![PeerChange::Remove(peer.id)]);
        }
    }

    pub(crate) fn change_peers(&mut self, slot: Slot, view: &RegionView, changes: Vec<PeerChange>) {
        let now = self.now();
        let region = Some(view.region.id);
        self.trace.line(now, Some(slot), region, "admin", || format!("{changes:?}"));
        let number = self.wait(slot, Wait::Admin(AdminKind::Change));
        let reply = reply_to(&self.results, number);
        let request = ChangePeersRequest { header: header_of(view), changes, reply };
        self.tell(slot, ShardInput::ChangePeers(request));
    }

    fn some_change(&mut self, view: &RegionView, careful: bool) -> Option<PeerChange> {
        let peers = &view.region.peers;
        let peer = peers[self.prng.below(peers.len() as u64) as usize];
        match self.prng.below(5) {
            0 | 1 if peers.len() < 4 => {
                let store_id = self.some_free_store(view)?;
                let id = self.next_peer();
                let role = PeerRole::Learner;
                Some(match self.prng.one_in(4) && !careful {
                    true => PeerChange::AddVoter(Peer::voter(id, store_id)),
                    false => PeerChange::AddLearner(Peer { id, store_id, role }),
                })
            }
            2 if peer.role == PeerRole::Learner => {
                Some(PeerChange::AddVoter(Peer { role: PeerRole::Voter, ..peer }))
            }
            3 if peer.role == PeerRole::Voter && !careful => {
                Some(PeerChange::AddLearner(Peer { role: PeerRole::Learner, ..peer }))
            }
            4 if !careful || peer.role == PeerRole::Learner => Some(PeerChange::Remove(peer.id)),
            _ => None,
        }
    }

    /// A store without a replica of the region.
    pub(crate) fn some_free_store(&mut self, view: &RegionView) -> Option<StoreId> {
        let free = self.stores.keys().filter(|id| view.region.peer_on(**id).is_none());
        let mut free: Vec<StoreId> = free.copied().collect();
        (!free.is_empty()).then(|| free.swap_remove(self.prng.below(free.len() as u64) as usize))
    }

    /// The name of a new peer.
    pub(crate) fn next_peer(&mut self) -> PeerId {
        PeerId(PEER_IDS + self.next_number())
    }

    fn merge(&mut self) {
        let Some((slot, view)) = self.some_leader() else { return };
        if !view.region.id.is_system()
            && let Some(target) = self.some_neighbour(&view.region)
        {
            self.merge_into(slot, &view, target);
        }
    }

    /// A neighbour as the store that is ahead knows it.
    pub(crate) fn some_neighbour(&mut self, region: &Region) -> Option<Region> {
        let mut found: Vec<Arc<Region>> = Vec::new();
        for node in &self.nodes {
            let views = node.views().map(|views| views.all()).unwrap_or_default();
            for other in views.into_iter().map(|view| view.region.clone()) {
                let is_other = other.id != region.id && !other.id.is_system();
                if !is_other || other.range.join(&region.range).is_none() {
                    continue;
                }
                match found.iter_mut().find(|known| known.id == other.id) {
                    Some(known) if known.epoch.is_behind(&other.epoch) => *known = other,
                    Some(_) => {}
                    None => found.push(other),
                }
            }
        }
        if found.is_empty() {
            return None;
        }
        let at = self.prng.below(found.len() as u64) as usize;
        Some((*found.swap_remove(at)).clone())
    }

    /// The region shall become a part of `target`.
    pub(crate) fn merge_into(&mut self, slot: Slot, view: &RegionView, target: Region) {
        let (now, region) = (self.now(), Some(view.region.id));
        self.trace.line(now, Some(slot), region, "admin", || format!("merge into {target:?}"));
        let number = self.wait(slot, Wait::Admin(AdminKind::Merge));
        let reply = reply_to(&self.results, number);
        let request = MergeRequest { header: header_of(view), target, reply };
        self.tell(slot, ShardInput::Merge(request));
    }

    /// A region lets nothing in until the next admin request.
    fn close_region(&mut self) {
        let Some((slot, view)) = self.some_leader() else { return };
        if !view.region.id.is_system() {
            self.close(slot, &view);
        }
    }

    pub(crate) fn close(&mut self, slot: Slot, view: &RegionView) {
        let began = TimeStamp(self.next_number());
        self.flashback(slot, view, Some(began));
    }

    /// All regions that were closed are to be opened.
    pub(crate) fn open_regions(&mut self) {
        for slot in 0..self.nodes.len() {
            let views = self.nodes[slot].views().map(|views| views.all()).unwrap_or_default();
            for view in views.into_iter().filter(|view| view.is_leader()) {
                if view.region.flashback.is_some() {
                    self.flashback(slot, &view, None);
                }
            }
        }
    }

    fn flashback(&mut self, slot: Slot, view: &RegionView, began: Option<TimeStamp>) {
        let (now, region) = (self.now(), Some(view.region.id));
        self.trace.line(now, Some(slot), region, "admin", || format!("flashback {began:?}"));
        let number = self.wait(slot, Wait::Admin(AdminKind::Flashback));
        let reply = reply_to(&self.results, number);
        let request = FlashbackRequest { header: header_of(view), began, reply };
        self.tell(slot, ShardInput::Flashback(request));
    }

    fn check_replicas(&mut self) {
        let Some((slot, view)) = self.some_leader() else { return };
        let number = self.wait(slot, Wait::Admin(AdminKind::Check));
        let reply = reply_to(&self.results, number);
        let request = RegionRequest { header: header_of(&view), reply };
        self.tell(slot, ShardInput::Check(request));
    }

    fn transfer(&mut self) {
        if let Some((slot, view)) = self.some_leader() {
            self.transfer_somewhere(slot, &view);
        }
    }

    fn transfer_somewhere(&mut self, slot: Slot, view: &RegionView) {
        let peers = &view.region.peers;
        let to = peers[self.prng.below(peers.len() as u64) as usize].id;
        self.transfer_to(slot, view, to);
        if self.prng.one_in(2) {
            // Who comes back has missed what happened meanwhile.
            let soon = ms(20 + self.prng.below(400));
            self.queue.after(soon, Event::HandOver(view.region.id, view.peer.id));
        }
    }

    /// Whoever leads the region hands over to `to`, if it is a member.
    pub(crate) fn hand_over(&mut self, region: RegionId, to: PeerId) {
        let led = self.nodes.iter().enumerate().find_map(|(slot, node)| {
            let view = node.views()?.get(region)?;
            (view.is_leader() && view.region.peer(to).is_some()).then_some((slot, view))
        });
        if let Some((slot, view)) = led.filter(|_| !self.healing) {
            self.transfer_to(slot, &view, to);
        }
    }

    pub(crate) fn transfer_to(&mut self, slot: Slot, view: &RegionView, to: PeerId) {
        let number = self.wait(slot, Wait::Admin(AdminKind::Transfer));
        let reply = reply_to(&self.results, number);
        let request = TransferRequest { header: header_of(view), to, reply };
        self.tell(slot, ShardInput::TransferLeader(request));
    }
}

impl Fault {
    /// Whether a store may be gone for good after it.
    pub(crate) fn loses_stores(self) -> bool {
        matches!(self, Self::Wipe | Self::BitFlip)
    }
}
