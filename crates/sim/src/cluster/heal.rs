//! The end of a run: everything works again, and within a stated time all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{KeyRange, PeerRole, RegionId};
use bytes::Bytes;
use storage::disk::Disk;
use storage::engine::{Cf, Engine, IterOptions};
use storage::keys;
use store::RegionView;

use super::boot::Boot;
use super::checks::{hash_region, region_on_disk};
use super::event::{Event, Slot};
use super::process::Machine;
use super::txn::hash_live;
use super::world::{World, ms};

/// All must be well so long after the last fault. Replacing a store that is gone takes most of it.
pub(crate) const HEAL_LIMIT: Duration = Duration::from_secs(180);

/// How often is looked.
const LOOK_MS: u64 = 500;

/// Time for what has no one waiting: files are thrown away, logs shrink.
const REST_MS: u64 = 4_000;

impl World {
    /// The last fault is over. Clients finish, everything is checked.
    pub(crate) fn heal(&mut self) {
        let began = self.now();
        self.healing = true;
        self.network.heal();
        for slot in 0..self.nodes.len() {
            let node = &mut self.nodes[slot];
            node.machine.disk.set_capacity(None);
            node.machine.disk.repair_syncs();
            node.clock.set_wall(0);
            (node.disk_factor, node.doomed, node.stalled) = (1, None, None);
            node.held = false;
            node.paused_until = node.paused_until.min(began);
            if node.damaged {
                self.queue.after(ms(10), Event::Mend(super::faults::Mend::Wipe(slot)));
            } else if node.process.is_none() {
                let life = node.life;
                self.queue.after(ms(10), Event::Start(slot, life));
            }
        }
        for client in 0..self.clients.len() {
            self.queue.after(ms(1), Event::Client(client));
        }
        self.recorder.end_all();
        self.until_well(began + HEAL_LIMIT);
        self.heal_txns();
        self.totals.heal_ms = self.now().since(began).as_millis() as u64;
        self.stays_well();
        // What is left of regions that are gone may stay until the next start.
        for slot in 0..self.nodes.len() {
            self.crash(slot, false);
        }
        let end = self.now() + ms(REST_MS);
        self.run_until(end);
        self.until_well(end + HEAL_LIMIT);
        self.stays_well();
        self.check_leftovers();
    }

    /// All stays well for a while, and is looked at.
    fn stays_well(&mut self) {
        let end = self.now() + ms(REST_MS);
        self.run_until(end);
        self.compare_all();
    }

    /// All is well, and all replicas hold the same. At any moment the cluster may have begun
    /// something by itself: a region that grew is cut, a store that the placement driver has not
    /// heard for too long, by the end of the faults, is replaced. It is to come to an end.
    pub(crate) fn compare_all(&mut self) {
        self.until_well(self.now() + HEAL_LIMIT);
        self.check_equal();
    }

    /// Goes on until all is well.
    pub(crate) fn until_well(&mut self, limit: base::Instant) {
        loop {
            let Err(reason) = self.is_well() else { return };
            assert!(self.now() < limit, "liveness: {reason}");
            self.open_regions();
            let end = self.now() + ms(LOOK_MS);
            self.run_until(end);
        }
    }

    /// Whether every client is done, every region led, complete and the same everywhere.
    pub(crate) fn is_well(&self) -> Result<(), String> {
        for (slot, node) in self.nodes.iter().enumerate() {
            let ready = node.process.as_ref().is_some_and(|p| matches!(p.boot, Boot::Ready));
            if !ready {
                let boot = node.process.as_ref().map(|process| process.boot.name());
                return Err(format!("node {slot} is not ready: {boot:?}"));
            }
        }
        let hosts = self.nodes.iter().filter_map(|node| node.process.as_ref()?.core.as_ref());
        if hosts.filter(|core| core.host.led.is_some()).count() != 1 {
            return Err("the placement driver does not run on one node".to_owned());
        }
        let led = self.led()?;
        for (slot, view) in led.values() {
            self.is_region_well(*slot, view)?;
        }
        for (slot, node) in self.nodes.iter().enumerate() {
            let views = node.views().map(|views| views.all()).unwrap_or_default();
            let stray = views.iter().find(|view| !led.contains_key(&view.region.id));
            if let Some(view) = stray {
                return Err(format!("node {slot} has a replica that nobody leads: {view:?}"));
            }
        }
        if let Some(client) = self.busy_txn_client() {
            return Err(format!("transactional client {client} is not done"));
        }
        match self.clients.iter().position(|client| !client.is_done()) {
            Some(client) => Err(format!("client {client} is not done")),
            None => Ok(()),
        }
    }

    /// The regions by id, with their leaders; they hold all keys.
    pub(crate) fn led(&self) -> Result<BTreeMap<RegionId, (Slot, Arc<RegionView>)>, String> {
        let mut led = BTreeMap::new();
        for (slot, node) in self.nodes.iter().enumerate() {
            let local = self.local(slot);
            let views = node.views().map(|views| views.all()).unwrap_or_default();
            // A leader whose group sleeps has no lease.
            let sleeps = self.plan.sleep_ticks > 0;
            let leads = |view: &Arc<RegionView>| match sleeps {
                true => view.serves_reads,
                false => view.has_lease(local),
            };
            for view in views.into_iter().filter(leads) {
                let (id, term) = (view.region.id, view.term);
                if led.get(&id).is_none_or(|(_, known): &(Slot, Arc<RegionView>)| known.term < term)
                {
                    led.insert(id, (slot, view));
                }
            }
        }
        let data = led.values().filter(|(_, view)| !view.region.id.is_system());
        let mut ranges: Vec<KeyRange> = data.map(|(_, view)| view.region.range.clone()).collect();
        if !led.contains_key(&RegionId::SYSTEM) {
            return Err("nobody leads the system region".to_owned());
        }
        ranges.sort_unstable();
        let mut next = Bytes::new();
        for (i, range) in ranges.iter().enumerate() {
            if range.start != next {
                return Err(format!("nobody serves the keys from {next:?} to {:?}", range.start));
            }
            next = range.end.clone();
            if next.is_empty() && i + 1 < ranges.len() {
                return Err("two regions hold the last key".to_owned());
            }
        }
        match ranges.is_empty() || !next.is_empty() {
            true => Err(format!("nobody serves the keys from {next:?} on")),
            false => Ok(led),
        }
    }

    fn is_region_well(&self, slot: Slot, view: &Arc<RegionView>) -> Result<(), String> {
        let (region, wanted) = (&view.region, self.nodes.len().min(3));
        let voters = region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count();
        if voters != region.peers.len() || voters != wanted {
            return Err(format!(
                "region {} has other members than it should: {region:?}",
                region.id
            ));
        }
        for peer in &region.peers {
            let Some(&at) = self.stores.get(&peer.store_id) else {
                return Err(format!("region {} is on a lost store: {region:?}", region.id));
            };
            let theirs = self.nodes[at].views().and_then(|views| views.get(region.id));
            // A view may not show yet what is written.
            let written = region_on_disk(&self.nodes[at].machine, region.id);
            let same = theirs.as_ref().is_some_and(|theirs| {
                theirs.peer.id == peer.id
                    && theirs.region == *region
                    && theirs.applied == view.applied
                    && written.is_some_and(|(_, applied)| applied == view.applied)
            });
            if !same {
                return Err(format!("node {at} is behind node {slot}: {theirs:?} {view:?}"));
            }
        }
        for (other, node) in self.nodes.iter().enumerate() {
            let theirs = node.views().and_then(|views| views.get(region.id));
            if theirs.is_some() && node.store_id.and_then(|id| region.peer_on(id)).is_none() {
                return Err(format!("node {other} keeps a replica of {region:?}"));
            }
        }
        Ok(())
    }

    /// All replicas of a region hold the same, and logs have shrunk.
    fn check_equal(&mut self) {
        let led = match self.led() {
            Ok(led) => led,
            Err(reason) => panic!("liveness: it does not stay well: {reason}"),
        };
        self.totals.regions = led.len() as u64;
        let collects = self.plan.txn.is_some_and(|plan| plan.collects());
        let safe_point = collects.then(|| self.last_safe_point());
        for (id, (slot, view)) in &led {
            let hash_all = |machine: &Machine| {
                let (region, collects) = (&view.region, safe_point.is_some());
                let live = safe_point.map(|ts| hash_live(machine, region, ts));
                (hash_region(machine, region, collects), live)
            };
            let expected = hash_all(&self.nodes[*slot].machine);
            for peer in &view.region.peers {
                let at = self.stores[&peer.store_id];
                let machine = &self.nodes[at].machine;
                let found = region_on_disk(machine, *id);
                let region = found.as_ref().map(|(region, _)| region);
                assert_eq!(region, Some(&*view.region), "equal replicas: region {id} on node {at}");
                assert_eq!(
                    hash_all(machine),
                    expected,
                    "equal replicas: region {id} on nodes {slot} and {at}"
                );
            }
        }
    }

    /// No store holds data of no region, or files that nobody waits for, or a log that is too long.
    fn check_leftovers(&mut self) {
        for (slot, node) in self.nodes.iter().enumerate() {
            let views = node.views().expect("it runs").all();
            let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = views
                .iter()
                .filter(|view| !view.region.id.is_system())
                .map(|view| keys::data_range(view.region.id, &view.region.range))
                .collect();
            ranges.sort_unstable();
            for cf in Cf::DATA {
                for key in all_data_keys(&node.machine.engine, cf) {
                    let owned = ranges.iter().any(|(start, end)| *start <= key && key < *end);
                    assert!(owned, "no leftovers: {key:?} in {cf:?} of node {slot} is nobody's");
                }
            }
            let files = node.machine.disk.list(Path::new("snap")).expect("the folder is there");
            let left: BTreeSet<&String> =
                files.iter().filter(|name| name.starts_with("received")).collect();
            assert!(left.is_empty(), "no leftovers: {left:?} on node {slot}");
            self.check_logs(slot, &views);
        }
    }

    fn check_logs(&self, slot: Slot, views: &[Arc<RegionView>]) {
        let disk = self.nodes[slot].machine.disk.image();
        let machine = super::process::Machine { disk, ..self.nodes[slot].machine.clone() };
        let log = machine.open_log(0).expect("a copy of a log opens").reader();
        for view in views {
            let id = view.region.id;
            let (first, last) = (log.first_index(id), log.last_index(id));
            let most = 2 * self.plan.log_entries_max + 50;
            let held = last + 1 - first;
            assert!(held <= most, "log budget: region {id} on node {slot}: {first}..={last}");
            assert!(view.applied <= last, "applied <= last: region {id} on node {slot}");
        }
    }
}

fn all_data_keys(engine: &dyn Engine, cf: Cf) -> Vec<Vec<u8>> {
    let (start, end) = keys::data_range(RegionId(1), &KeyRange::all());
    let snapshot = engine.snapshot();
    let options = IterOptions::within(KeyRange::new(start, end));
    let mut cursor = snapshot.iter(cf, options).expect("readable");
    let mut keys = Vec::new();
    let mut valid = cursor.seek_to_first().expect("readable");
    while valid {
        keys.push(cursor.key().to_vec());
        valid = cursor.next().expect("readable");
    }
    keys
}
