//! A cluster that does what a story says, step by step.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{Instant, PeerChange, PeerId, PeerRole, Region, RegionId, StoreId};
use bytes::Bytes;
use store::RegionView;

use crate::cluster::Options;
use crate::cluster::event::Slot;
use crate::cluster::history::{Done, Op};
use crate::cluster::world::{World, ms};

/// Virtual time after which a step that does not come about has failed.
const STEP_MS: u64 = 30_000;

/// How often is looked.
const LOOK_MS: u64 = 10;

pub(crate) struct Script {
    pub(crate) world: World,
}

impl Script {
    /// Nodes that run, share their regions and are well.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let options = Options {
            nodes: Some(nodes),
            clients: Some(0),
            faults: BTreeSet::new(),
            admin: BTreeSet::new(),
            log_entries_max: Some(10),
            sleep_ticks: Some(0),
            transactions: Some(false),
            ..Options::default()
        };
        let mut world = World::new(seed, &options);
        // Regions are cut when the story says so.
        world.plan.region_max_keys = 1_000_000;
        world.add_client();
        world.begin();
        let mut script = Self { world };
        script.run(2_000);
        script.well();
        script
    }

    /// Time passes.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        let end = self.world.now() + ms(milliseconds);
        self.world.run_until(end);
    }

    fn limit(&self) -> Instant {
        self.world.now() + ms(STEP_MS)
    }

    /// Until all is well.
    pub(crate) fn well(&mut self) {
        let limit = self.world.now() + crate::cluster::heal::HEAL_LIMIT;
        self.world.until_well(limit);
    }

    /// Until `holds`.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        let limit = self.limit();
        while !holds(&self.world) {
            assert!(self.world.now() < limit, "liveness: {what} does not come about");
            self.run(LOOK_MS);
        }
    }

    /// Everything is healed, compared and checked.
    pub(crate) fn end(mut self) {
        self.world.heal();
        self.world.history.check();
    }

    fn op(&mut self, client: usize, op: Op) -> Option<Done> {
        self.world.clients[client].say(op);
        self.world.client_step(client);
        self.until("an answer", |world| world.clients[client].is_done());
        self.world.history.last().cloned()
    }

    /// Writes until it is acknowledged.
    pub(crate) fn put(&mut self, key: &str, value: &str) {
        let pairs = vec![(Bytes::from(key.to_owned()), Bytes::from(value.to_owned()))];
        for _ in 0..20 {
            let op = Op::Put { pairs: pairs.clone(), latched: false };
            if self.op(0, op) == Some(Done::Written) {
                return;
            }
        }
        panic!("liveness: nobody takes {key}");
    }

    pub(crate) fn delete(&mut self, key: &str) {
        let key = Bytes::from(key.to_owned());
        let done = self.op(0, Op::Delete { key, latched: false });
        assert_eq!(done, Some(Done::Written), "liveness: nobody deletes");
    }

    pub(crate) fn get(&mut self, key: &str) -> Option<String> {
        self.get_by(0, key)
    }

    /// One more client reads, who remembers where it last found the key. The first one is 0.
    pub(crate) fn get_by(&mut self, client: usize, key: &str) -> Option<String> {
        while self.world.clients.len() <= client {
            self.world.add_client();
        }
        for _ in 0..20 {
            let found = self.op(client, Op::Get(Bytes::from(key.to_owned())));
            if let Some(Done::Value(value)) = found {
                let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("text");
                return value.map(text);
            }
        }
        panic!("liveness: nobody reads {key}");
    }

    /// Asks for a timestamp. Whether it came.
    pub(crate) fn stamp(&mut self) -> bool {
        self.op(0, Op::Timestamps(1)) == Some(Done::Written)
    }

    /// The region that holds `key`, and where it is led, as soon as it is.
    pub(crate) fn leader(&mut self, key: &str) -> (Slot, Arc<RegionView>) {
        let key = key.to_owned();
        self.until("a leader", |world| find(world, &key).is_some());
        find(&self.world, &key).expect("just seen")
    }

    /// Nobody hears these nodes, and they hear only each other.
    pub(crate) fn part(&mut self, nodes: &[Slot]) {
        let all = 0..self.world.nodes.len();
        for (a, b) in all.clone().flat_map(|a| all.clone().map(move |b| (a, b))) {
            if nodes.contains(&a) != nodes.contains(&b) {
                self.world.network.cut.insert((a, b));
            }
        }
    }

    pub(crate) fn join(&mut self) {
        self.world.network.cut.clear();
    }

    /// The process ends, with the power or alone, and starts again.
    pub(crate) fn restart(&mut self, slot: Slot, power: bool) {
        self.world.crash(slot, power);
        self.until("a restart", |world| world.nodes[slot].views().is_some());
    }

    /// Until the group leads elsewhere.
    pub(crate) fn transfer(&mut self, key: &str, to: PeerId) {
        for _ in 0..20 {
            let (slot, view) = self.leader(key);
            if view.peer.id == to {
                return;
            }
            self.world.transfer_to(slot, &view, to);
            self.run(1_000);
        }
        panic!("liveness: {to} does not lead");
    }

    /// Until the members are changed so.
    pub(crate) fn change(&mut self, key: &str, changes: &[PeerChange]) {
        let (_, view) = self.leader(key);
        let (id, before) = (view.region.id, view.region.epoch.conf_ver);
        for _ in 0..60 {
            let (slot, view) = self.leader(key);
            assert_eq!(view.region.id, id, "the region is not cut");
            if view.region.epoch.conf_ver > before {
                return;
            }
            self.world.change_peers(slot, &view, changes.to_vec());
            self.run(300);
        }
        panic!("liveness: nobody does {changes:?}");
    }

    /// Until the region is cut at `key`.
    pub(crate) fn split(&mut self, key: &str) {
        for _ in 0..60 {
            let (slot, view) = self.leader(key);
            if view.region.range.start == key.as_bytes() {
                return;
            }
            self.world.ask_split(slot, &view, vec![Bytes::from(key.to_owned())]);
            self.run(500);
        }
        panic!("liveness: no cut at {key}");
    }

    /// Asks the region of `key` to become a part of `target`, once.
    pub(crate) fn ask_merge(&mut self, key: &str, target: &Region) {
        let (slot, view) = self.leader(key);
        self.world.merge_into(slot, &view, target.clone());
    }

    /// Until the region of `key` is a part of that of `target`.
    pub(crate) fn merge(&mut self, key: &str, target: &str) {
        for _ in 0..60 {
            let (source, target) = (self.leader(key).1, self.leader(target).1);
            if source.region.id == target.region.id {
                return;
            }
            self.ask_merge(key, &target.region);
            self.run(500);
        }
        panic!("liveness: {key} does not become a part of {target}");
    }

    /// From now on idle groups sleep after so many ticks.
    pub(crate) fn sleep_after(&mut self, ticks: u32) {
        self.world.plan.sleep_ticks = ticks;
        for slot in 0..self.world.nodes.len() {
            self.restart(slot, false);
        }
        self.well();
    }

    /// A node that runs and has no voter of the region of `key`.
    pub(crate) fn follower(&mut self, key: &str) -> (Slot, PeerId) {
        let (_, view) = self.leader(key);
        let voters = view.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
        let mut others = voters.filter(|peer| peer.id != view.peer.id);
        let peer = others.next().expect("it is not alone");
        (self.world.stores[&peer.store_id], peer.id)
    }

    pub(crate) fn store(&self, slot: Slot) -> StoreId {
        self.world.nodes[slot].store_id.expect("it has its name")
    }
}

fn find(world: &World, key: &str) -> Option<(Slot, Arc<RegionView>)> {
    world.nodes.iter().enumerate().find_map(|(slot, node)| {
        let views = node.views()?;
        let view = views.get(views.region_of(key.as_bytes())?)?;
        // A leader whose group sleeps has no lease.
        let leads = match world.plan.sleep_ticks > 0 {
            true => view.serves_reads,
            false => view.has_lease(world.local(slot)),
        };
        leads.then_some((slot, view))
    })
}

/// The region that holds `key` on a node, if it has a replica.
pub(crate) fn region_on(world: &World, slot: Slot, key: &str) -> Option<RegionId> {
    world.nodes[slot].views()?.region_of(key.as_bytes())
}
