//! What a node tells the placement driver, wherever that runs: that the store lives, and which
//! regions are led here.

use std::collections::BTreeMap;

use base::{Instant, RegionId, StoreId, Term};
use proto::pdpb;
use store::{RegionReport, Report, ShardInput};

use super::boot::header;
use super::event::{Caller, Event, Purpose, Reply, Request, Slot, Timer};
use super::world::{World, ms};

/// Time between two questions to the placement driver whether it is still there.
const BEAT_MS: u64 = 2_000;

/// Time until the next one is asked when nobody answers.
const RETRY_MS: u64 = 200;

/// Of so many questions one is a heartbeat of the store.
const BEATS_PER_HEARTBEAT: u64 = 5;

#[derive(Default)]
pub(crate) struct Reporter {
    /// The latest report of each region led here.
    led: BTreeMap<RegionId, RegionReport>,
    /// Where the placement driver runs, and in which term it told so.
    target: Option<(Slot, Term)>,
    beats: u64,
    beat_at: Option<Instant>,
}

impl World {
    /// Something to tell.
    pub(crate) fn report(&mut self, slot: Slot, report: Report) {
        match report {
            Report::Leads(report) => {
                if report.region.id.is_system() {
                    self.lead(slot, &report);
                    self.beat_soon(slot);
                }
                let Some(core) = self.nodes[slot].core() else { return };
                core.reporter.led.insert(report.region.id, report.clone());
                self.tell_placement(slot, &report);
            }
            Report::Lost(region) => {
                if region.is_system() {
                    self.step_down(slot);
                }
                let Some(core) = self.nodes[slot].core() else { return };
                core.reporter.led.remove(&region);
            }
            Report::WantsSplit(wanted) => self.wants_split(slot, &wanted),
            Report::Orphan(region) => self.find_owner(slot, region),
        }
    }

    /// What the leader of the region says of it, or that there is none.
    fn find_owner(&mut self, slot: Slot, region: RegionId) {
        let mut views = self.nodes.iter().filter_map(|node| node.views()?.get(region));
        let owner = views.find(|view| view.serves_reads).map(|view| (*view.region).clone());
        let stores = self.nodes.iter().filter_map(|node| node.store_id).collect();
        self.tell(
            slot,
            match owner {
                Some(owner) => ShardInput::OrphanKnown(owner),
                None => ShardInput::OrphanUnknown(region, stores),
            },
        );
    }

    fn tell_placement(&mut self, slot: Slot, report: &RegionReport) {
        let Some(core) = self.nodes[slot].core() else { return };
        let Some((target, _)) = core.reporter.target else { return };
        let heartbeat = report.to_proto(header());
        let purpose = Purpose::RegionHeartbeat(report.region.id);
        self.call_from(slot, target, Request::RegionHeartbeat(Box::new(heartbeat)), purpose);
    }

    /// The placement driver is asked whether it is there, soon.
    pub(crate) fn beat_soon(&mut self, slot: Slot) {
        self.beat_after(slot, 1);
    }

    /// Of several times at which to ask the first counts.
    pub(crate) fn beat_after(&mut self, slot: Slot, delay_ms: u64) {
        let (at, life) = (self.now() + ms(delay_ms), self.nodes[slot].life);
        let Some(core) = self.nodes[slot].core() else { return };
        if core.reporter.beat_at.is_none_or(|beat| beat > at) {
            core.reporter.beat_at = Some(at);
            self.queue.at(at, Event::Timer(slot, life, Timer::Beat));
        }
    }

    pub(crate) fn beat(&mut self, slot: Slot) {
        let now = self.now();
        let Some(core) = self.nodes[slot].core() else { return };
        if core.reporter.beat_at.is_none_or(|at| at > now) {
            return;
        }
        core.reporter.beat_at = None;
        core.reporter.beats += 1;
        let target = core.reporter.target;
        let due = core.reporter.beats.is_multiple_of(BEATS_PER_HEARTBEAT);
        match target {
            Some((target, _)) => {
                self.call_from(slot, target, Request::Alive, Purpose::Beat);
                if due {
                    self.store_heartbeat(slot, target);
                }
                self.beat_after(slot, BEAT_MS);
            }
            None => {
                let target = self.next_to_ask(slot);
                self.call_from(slot, target, Request::Alive, Purpose::Beat);
                self.beat_after(slot, RETRY_MS);
            }
        }
    }

    fn store_heartbeat(&mut self, slot: Slot, target: Slot) {
        let Some(store) = self.nodes[slot].store_id else { return };
        let (capacity, available) = (1 << 30, 1 << 29);
        let stats =
            pdpb::StoreStats { store_id: store.0, capacity, available, ..Default::default() };
        let stats = Some(stats);
        let heartbeat =
            pdpb::StoreHeartbeatRequest { header: header(), stats, ..Default::default() };
        let request = Request::StoreHeartbeat(Box::new(heartbeat));
        self.call_from(slot, target, request, Purpose::StoreHeartbeat);
    }

    /// The placement driver said that it is there; or it, or nobody, said that it is not.
    pub(crate) fn beat_reply(&mut self, slot: Slot, from: Slot, reply: Option<&Reply>) {
        let Some(core) = self.nodes[slot].core() else { return };
        match reply {
            Some(Reply::Alive(term)) => {
                if core.reporter.target == Some((from, *term)) {
                    return;
                }
                // A driver that has just begun knows no region.
                core.reporter.target = Some((from, *term));
                let led: Vec<_> = core.reporter.led.values().cloned().collect();
                led.iter().for_each(|report| self.tell_placement(slot, report));
                self.store_heartbeat(slot, from);
            }
            _ => {
                if core.reporter.target.is_none_or(|(target, _)| target == from) {
                    core.reporter.target = None;
                }
            }
        }
    }

    /// A heartbeat was taken or not: one that was not is sent again with a new driver.
    pub(crate) fn heartbeat_reply(
        &mut self,
        slot: Slot,
        from: Slot,
        region: Option<RegionId>,
        reply: Option<&Reply>,
    ) {
        match reply {
            Some(Reply::Done) => {}
            Some(Reply::Refused) if region.is_none() => {
                // A store that starts is not known yet.
                let Some(core) = self.nodes[slot].core() else { return };
                core.reporter.beats = BEATS_PER_HEARTBEAT - 1;
            }
            Some(Reply::Refused) => {}
            _ => {
                let Some(core) = self.nodes[slot].core() else { return };
                if core.reporter.target.is_some_and(|(target, _)| target == from) {
                    core.reporter.target = None;
                    self.beat_soon(slot);
                }
            }
        }
    }

    /// Asks the placement driver, where it is thought to be.
    pub(crate) fn ask_placement(&mut self, slot: Slot, request: Request, purpose: Purpose) {
        let known = self.nodes[slot].core().and_then(|core| core.reporter.target);
        let target = known.map_or_else(|| self.next_to_ask(slot), |(target, _)| target);
        self.call_from(slot, target, request, purpose);
    }

    fn next_to_ask(&mut self, slot: Slot) -> Slot {
        let count = self.nodes.len();
        let Some(process) = &mut self.nodes[slot].process else { return slot };
        process.ask = (process.ask + 1) % count;
        process.ask
    }

    fn call_from(&mut self, slot: Slot, to: Slot, request: Request, purpose: Purpose) {
        let caller = Caller::Node(slot, self.nodes[slot].life);
        self.call(caller, to, request, purpose, ms(1_500));
    }

    /// The store that lives at a place, for messages.
    pub(crate) fn slot_of(&self, store: StoreId) -> Option<Slot> {
        self.stores.get(&store).copied()
    }
}
