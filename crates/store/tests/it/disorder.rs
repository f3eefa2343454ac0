//! Everything at once, in an order drawn from a seed: writes, changes of members, transfers,
//! splits, lost messages, cut off stores, stops and power losses. When calm returns every region is
//! whole, all its replicas are equal, and nothing that was acknowledged is lost.

use pontoon_store as store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::common::{Cluster, Node, Slot, TICK, cut, header_of, learner, remove, voter};
use base::{Instant, PeerChange, PeerRole, Prng, RegionId, StoreId, TimeStamp};
use storage::engine::{Cf, Engine};
use storage::keys;
use store::{
    ChangePeersRequest, FlashbackRequest, MergeRequest, Proposal, Purpose, RegionView,
    RequestHeader, ShardConfig, ShardInput, SplitRequest, TransferRequest, Writes,
};

const STORES: u64 = 5;

/// A counter that grows with each write: at most one write is open.
#[derive(Default)]
struct Register {
    acknowledged: u64,
    open: Option<(u64, Slot)>,
    last: u64,
}

impl Register {
    fn settle(&mut self) {
        if let Some((value, slot)) = &self.open {
            match slot.answer() {
                None => return,
                Some(Ok(())) => self.acknowledged = *value,
                Some(Err(_)) => {}
            }
            self.open = None;
        }
    }
}

fn flashback(node: &mut Node, view: &RegionView, began: Option<TimeStamp>) -> Slot {
    let slot = Slot::default();
    let request = FlashbackRequest { header: header_of(view), began, reply: slot.reply() };
    node.inbox.push(ShardInput::Flashback(request));
    slot
}

fn value_of(node: &Node, key: &[u8]) -> u64 {
    let found = node.machine.engine.get(Cf::Write, &keys::data_key(key)).expect("readable");
    found.map_or(0, |value| u64::from_be_bytes(value[..].try_into().expect("eight bytes")))
}

struct Run {
    seed: u64,
    prng: Prng,
    cluster: Cluster,
    registers: BTreeMap<Vec<u8>, Register>,
    next_id: u64,
    done: BTreeMap<&'static str, u32>,
    slots: Vec<(&'static str, Slot)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let config = ShardConfig {
            seed,
            log_entries_max: 5 + prng.below(30),
            election_ticks: 10,
            sleep_ticks: [0, 3, 20][prng.below(3) as usize],
            report_interval: TICK * 10,
            hand_over_ticks: [0, 4][prng.below(2) as usize],
            ..ShardConfig::default()
        };
        let members = 1 + prng.below(3);
        let mut cluster = Cluster::with(STORES, members, config);
        cluster.leader();
        let keys = (0..24u8).map(|i| (vec![b'a' + i], Register::default()));
        let (slots, done) = (Vec::new(), BTreeMap::new());
        Self { seed, prng, cluster, registers: keys.collect(), next_id: 20, done, slots }
    }

    /// A region that a store believes to lead, and the store's place.
    fn some_leader(&mut self) -> Option<(usize, Arc<RegionView>)> {
        let mut led = Vec::new();
        for (at, node) in self.cluster.nodes.iter().enumerate() {
            if !self.cluster.down.contains(&node.machine.store_id) {
                let views = node.views.all().into_iter().filter(|view| view.is_leader());
                led.extend(views.map(|view| (at, view)));
            }
        }
        (!led.is_empty()).then(|| led.swap_remove(self.prng.below(led.len() as u64) as usize))
    }

    fn write(&mut self) {
        let Some((at, view)) = self.some_leader() else { return };
        let mut inside: Vec<_> =
            self.registers.iter_mut().filter(|(key, _)| view.region.range.contains(key)).collect();
        if inside.is_empty() {
            return;
        }
        let (key, register) = inside.swap_remove(self.prng.below(inside.len() as u64) as usize);
        register.settle();
        if register.open.is_some() {
            return;
        }
        register.last += 1;
        let slot = Slot::default();
        let mut writes = Writes::new();
        let value = register.last.to_be_bytes();
        writes.put(Cf::Write, key, &value);
        writes.put(Cf::Default, &[&key[..], &value].concat(), b"");
        if register.last > 2 {
            writes.delete(Cf::Default, &[&key[..], &(register.last - 2).to_be_bytes()].concat());
        }
        let purpose = match view.region.flashback.is_some() && self.prng.one_in(2) {
            true => Purpose::Flashback,
            false => Purpose::Any,
        };
        let header = RequestHeader { purpose, ..header_of(&view) };
        let proposal = Proposal { header, writes, only_in_term: None, reply: slot.reply() };
        register.open = Some((register.last, slot.clone()));
        self.cluster.nodes[at].inbox.push(ShardInput::Propose(proposal));
        self.slots.push(("write", slot));
    }

    fn change(&mut self) {
        let Some((at, view)) = self.some_leader() else { return };
        let one = |run: &mut Self| -> Option<PeerChange> {
            let peers = &view.region.peers;
            let peer = peers[run.prng.below(peers.len() as u64) as usize];
            let free = (1..=STORES).filter(|id| view.region.peer_on(StoreId(*id)).is_none());
            let free: Vec<u64> = free.collect();
            run.next_id += 1;
            match run.prng.below(5) {
                0 | 1 if !free.is_empty() && peers.len() < 4 => {
                    let store = free[run.prng.below(free.len() as u64) as usize];
                    let id = 1_000 + run.next_id;
                    Some(if run.prng.one_in(4) { voter(id, store) } else { learner(id, store) })
                }
                2 if peer.role == PeerRole::Learner => Some(voter(peer.id.0, peer.store_id.0)),
                3 if peer.role == PeerRole::Voter => Some(learner(peer.id.0, peer.store_id.0)),
                4 => Some(remove(peer.id.0)),
                _ => None,
            }
        };
        let count = 1 + self.prng.below(3) / 2 + self.prng.below(2);
        let changes: Vec<_> = (0..count).filter_map(|_| one(self)).collect();
        let slot = Slot::default();
        let request = ChangePeersRequest { header: header_of(&view), changes, reply: slot.reply() };
        self.cluster.nodes[at].inbox.push(ShardInput::ChangePeers(request));
        self.slots.push(("change", slot));
    }

    fn transfer(&mut self) {
        let Some((at, view)) = self.some_leader() else { return };
        let peers = &view.region.peers;
        let to = peers[self.prng.below(peers.len() as u64) as usize].id;
        let slot = Slot::default();
        let request = TransferRequest { header: header_of(&view), to, reply: slot.reply() };
        self.cluster.nodes[at].inbox.push(ShardInput::TransferLeader(request));
        self.slots.push(("transfer", slot));
    }

    fn split(&mut self) {
        let Some((at, view)) = self.some_leader() else { return };
        let mut keys: Vec<_> = (0..=self.prng.below(2)).map(|_| self.prng.below(24)).collect();
        keys.sort_unstable();
        let cuts = keys.into_iter().map(|key| {
            self.next_id += 1;
            cut(&view.region, &[b'a' + key as u8], 10 * self.next_id)
        });
        let cuts = cuts.collect();
        let slot = Slot::default();
        let request = SplitRequest { header: header_of(&view), cuts, reply: slot.reply() };
        self.cluster.nodes[at].inbox.push(ShardInput::Split(request));
        self.slots.push(("split", slot));
    }

    /// A region shall become a part of one of its neighbours, as somebody knows it.
    fn merge(&mut self) {
        let Some((at, view)) = self.some_leader() else { return };
        let next = |other: &RegionView| {
            let (ours, theirs) = (&view.region, &other.region);
            let meets = ours.end() == theirs.start() && !ours.end().is_empty()
                || theirs.end() == ours.start() && !theirs.end().is_empty();
            meets && theirs.has_members_like(ours)
        };
        let all = self.cluster.nodes.iter().flat_map(|node| node.views.all());
        let mut targets: Vec<_> = all.filter(|other| next(other)).collect();
        if targets.is_empty() {
            return;
        }
        let target = targets.swap_remove(self.prng.below(targets.len() as u64) as usize);
        let slot = Slot::default();
        let target = (*target.region).clone();
        let request = MergeRequest { header: header_of(&view), target, reply: slot.reply() };
        self.cluster.nodes[at].inbox.push(ShardInput::Merge(request));
        self.slots.push(("merge", slot));
    }

    /// A region is closed for a flashback, or opened again.
    fn flashback(&mut self) {
        let Some((at, view)) = self.some_leader() else { return };
        let began = match view.region.flashback.is_some() {
            true if self.prng.one_in(8) => Some(TimeStamp(self.prng.below(100))),
            false if self.prng.one_in(3) => Some(TimeStamp(self.prng.below(100))),
            _ => None,
        };
        self.slots.push(("flashback", flashback(&mut self.cluster.nodes[at], &view, began)));
    }

    fn stop_or_start(&mut self) {
        let store = 1 + self.prng.below(STORES);
        if self.cluster.down.contains(&StoreId(store)) {
            return self.cluster.start(store);
        }
        if self.cluster.down.len() < 2 {
            let mut prng = Prng::new(self.prng.next_u64());
            let power = prng.one_in(2);
            self.cluster.stop(store, power.then_some(&mut prng));
            *self.done.entry("stop").or_default() += 1;
        }
    }

    fn happen(&mut self, loss: u64) {
        match self.prng.below(40) {
            0..18 => self.write(),
            18..22 => self.change(),
            22..24 => self.transfer(),
            24..26 => self.split(),
            26 | 27 => self.merge(),
            28 => self.stop_or_start(),
            30 => self.flashback(),
            29 => {
                self.cluster.cut.clear();
                if self.prng.one_in(2) {
                    self.cluster.cut.push(StoreId(1 + self.prng.below(STORES)));
                }
            }
            _ => {}
        }
        for _ in 0..30 + self.prng.below(200) {
            self.cluster.step(&mut self.prng, loss);
        }
        self.cluster.now = self.cluster.now + TICK;
        self.check_leases();
    }

    /// No key is served by two stores, and whoever serves one has all that was acknowledged.
    fn check_leases(&mut self) {
        for register in self.registers.values_mut() {
            register.settle();
        }
        let mut serving: Vec<(StoreId, Arc<RegionView>)> = Vec::new();
        for node in &self.cluster.nodes {
            let store = node.machine.store_id;
            if self.cluster.down.contains(&store) {
                continue;
            }
            let (views, ranges) = (node.views.all().into_iter(), node.views.ranges());
            for view in views.clone() {
                let range = (view.region.id, view.region.range.clone());
                assert!(ranges.contains(&range), "seed {}: {range:?} on {store}", self.seed);
            }
            for view in views.filter(|view| view.has_lease(self.cluster.now)) {
                let other = serving.iter().find(|(other, served)| {
                    *other != store && served.region.range.overlaps(&view.region.range)
                });
                assert!(other.is_none(), "seed {}: {store} {view:?} {other:?}", self.seed);
                for (key, register) in &self.registers {
                    if view.region.range.contains(key) {
                        let (found, least) = (value_of(node, key), register.acknowledged);
                        assert!(found >= least, "seed {}: {key:?} stale on {store}", self.seed);
                    }
                }
                serving.push((store, view));
            }
        }
    }

    /// Calm returns: all stores run, all messages arrive.
    fn calm(&mut self) -> Vec<RegionId> {
        self.cluster.cut.clear();
        for store in std::mem::take(&mut self.cluster.down) {
            self.cluster.down.insert(store);
            self.cluster.start(store.0);
        }
        for _ in 0..100 {
            self.open_all();
            self.cluster.ticks(10);
            self.cluster.rouse();
            self.cluster.tick();
            if let Some(regions) = self.whole() {
                return regions;
            }
        }
        let views = self.cluster.nodes.iter().map(|node| (node.machine.store_id, node.views.all()));
        for (store, views) in views {
            for view in views {
                let (region, peers) = (&view.region, &view.region.peers);
                let peers: Vec<_> = peers.iter().map(|p| (p.id.0, p.store_id.0, p.role)).collect();
                println!(
                    "{store}: {} {:?} {} {peers:?} leader {:?} term {} applied {} lease {:?}",
                    region.id,
                    region.range,
                    region.epoch,
                    view.leader.map(|p| p.id.0),
                    view.term,
                    view.applied,
                    view.lease_until
                );
            }
        }
        panic!("seed {}: regions do not come together at {:?}", self.seed, self.cluster.now);
    }

    /// No region stays closed.
    fn open_all(&mut self) {
        for node in &mut self.cluster.nodes {
            let views = node.views.all().into_iter();
            for view in views.filter(|view| view.is_leader() && view.region.flashback.is_some()) {
                flashback(node, &view, None);
            }
        }
    }

    /// The regions that are led, if they hold all keys.
    fn whole(&self) -> Option<Vec<RegionId>> {
        let mut found = BTreeMap::new();
        for node in &self.cluster.nodes {
            for view in node.views.all() {
                if view.has_lease(self.cluster.now) {
                    found.insert(view.region.start().clone(), view.region.clone());
                }
            }
        }
        let mut next = bytes::Bytes::new();
        let mut regions = Vec::new();
        for (start, region) in found {
            if start != next {
                return None;
            }
            next = region.end().clone();
            regions.push(region.id);
        }
        (!regions.is_empty() && next.is_empty()).then_some(regions)
    }

    fn check(&mut self) {
        let regions = self.calm();
        self.cluster.ticks(150);
        for id in &regions {
            let region = self.cluster.check_equal(*id);
            let leader = self.cluster.leader_of(*id);
            let node = &self.cluster.nodes[leader];
            for (key, register) in &mut self.registers {
                if !region.range.contains(key) {
                    continue;
                }
                register.settle();
                let (found, least) = (value_of(node, key), register.acknowledged);
                assert!(found >= least, "seed {}: {key:?} {found} < {least}", self.seed);
            }
        }
        self.check_leftovers(&regions.into_iter().collect());
        for (what, slot) in &self.slots {
            if slot.is_ok() {
                *self.done.entry(what).or_default() += 1;
            }
        }
    }

    /// No store holds replicas or data that no region counts; data perhaps until its next start.
    fn check_leftovers(&mut self, regions: &BTreeSet<RegionId>) {
        for store in 1..=STORES {
            self.cluster.stop(store, None);
            self.cluster.start(store);
        }
        self.cluster.ticks(30);
        self.cluster.find_owners();
        self.cluster.ticks(5);
        for node in &self.cluster.nodes {
            let id = node.machine.store_id;
            let mut rows = node.contents(RegionId(2), &crate::common::everything());
            for view in node.views.all() {
                assert!(regions.contains(&view.region.id), "seed {}: {view:?}", self.seed);
                let own = node.contents(view.region.id, &view.region.range);
                rows.retain(|row| !own.contains(row));
            }
            assert_eq!(rows, [], "seed {}: data of nobody on store {id}", self.seed);
            let log = node.machine.open_log_reader();
            for region in log.regions().into_iter().filter(|id| log.last_index(*id) > 0) {
                let lives = node.views.get(region).is_some();
                assert!(lives, "seed {}: a log of {region} on store {id}", self.seed);
            }
            let left = storage::disk::Disk::list(&node.machine.disk, Path::new("snap"));
            let left = left.expect("a folder");
            let received = left.iter().find(|name| name.starts_with("received"));
            assert_eq!(received, None, "seed {}: files on store {id}", self.seed);
        }
    }
}

fn run(seed: u64) -> Run {
    let mut run = Run::new(seed);
    assert!(run.cluster.now > Instant::ZERO);
    let loss = [0, 0, 10, 5][run.prng.below(4) as usize];
    for _ in 0..250 {
        run.happen(loss);
    }
    run.check();
    run
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("SEED").unwrap_or(0);
    first..first + number("SEEDS").unwrap_or(60)
}

#[test]
fn calm_after_any_disorder() {
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    let mut snapshots = 0;
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| run(seed));
        let run = run.unwrap_or_else(|_| panic!("seed {seed} failed"));
        snapshots += run.cluster.snapshots.len();
        run.done.into_iter().for_each(|(what, count)| *done.entry(what).or_default() += count);
    }
    println!("{done:?}, {snapshots} snapshots");
    if seeds().count() > 20 {
        assert!(done["change"] > 20 && done["split"] > 20 && snapshots > 20, "{done:?}");
        assert!(done["flashback"] > 20, "{done:?}");
    }
}
