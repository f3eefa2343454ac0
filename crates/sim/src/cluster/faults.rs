//! What goes wrong, and within which bounds: a healthy cluster must survive all of it.
//!
//! The bounds (the atlas):
//! - Messages: anything may happen to them, but that they change.
//! - Processes: any number of them may pause or end at any time.
//! - Power: what was not synced may be lost, torn or kept, on any number of nodes.
//! - Disks: a sync may fail on any node; its process ends. Bits flip at rest, or a machine is lost,
//!   on one node at a time: the next one when every region has three voters on other stores again.
//!   A bit flips on a log whose end is vouched for, so that the damage can be told from a torn end.
//!   One flips in a snapshot that has arrived where two other voters are left.
//! - Clocks: monotonic ones run up to two per cent fast or slow and may jump ahead, but never stop
//!   or go back: leases rest on that. Wall clocks may do anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base::{PeerRole, Prng, RegionId, StoreId};
use storage::disk::Disk;

use super::event::{Actor, Event, Slot};
use super::network::{Damage, Kind};
use super::process::Machine;
use super::world::{World, ms};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Messages and calls are lost.
    Loss,
    /// Messages come twice.
    Duplicates,
    /// Messages come very late, after those that were sent later.
    Stragglers,
    /// One node does not hear another one.
    CutOneWay,
    /// Two groups of nodes do not hear each other.
    Partition,
    /// Nobody hears a node, nor does it hear anybody.
    Isolate,
    /// Messages between two nodes are slow.
    SlowLink,
    /// One kind of message does not reach a node.
    Filter,
    /// The files of snapshots are cut short on their way, or a bit of them flips, on their way or
    /// once they are there.
    SnapshotDamage,
    /// A process stands still.
    Pause,
    /// One thread of a process stands still.
    Stall,
    /// A process ends.
    Kill,
    /// A process ends between two effects of a turn.
    KillMidTurn,
    /// A machine loses power.
    PowerLoss,
    /// A machine loses power between two effects of a turn.
    PowerLossMidTurn,
    /// All machines lose power.
    Blackout,
    /// A disk is a hundred times slower.
    SlowDisk,
    /// A sync fails.
    FailedSync,
    /// A disk is full.
    FullDisk,
    /// A bit flips on a disk while its node does not run.
    BitFlip,
    /// A machine is lost with all that it had; another one takes its place.
    Wipe,
    /// A monotonic clock jumps ahead.
    ClockJump,
    /// A wall clock is set.
    WallJump,
    /// A wall clock stops.
    WallStop,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Loss,
        Self::Duplicates,
        Self::Stragglers,
        Self::CutOneWay,
        Self::Partition,
        Self::Isolate,
        Self::SlowLink,
        Self::Filter,
        Self::SnapshotDamage,
        Self::Pause,
        Self::Stall,
        Self::Kill,
        Self::KillMidTurn,
        Self::PowerLoss,
        Self::PowerLossMidTurn,
        Self::Blackout,
        Self::SlowDisk,
        Self::FailedSync,
        Self::FullDisk,
        Self::BitFlip,
        Self::Wipe,
        Self::ClockJump,
        Self::WallJump,
        Self::WallStop,
    ];

    /// As it is written in lists.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// The end of a fault.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    Loss,
    Duplicates,
    Stragglers,
    Cut(Vec<(Slot, Slot)>),
    SlowLink(Slot, Slot),
    Filter,
    Damage,
    Disk(Slot),
    Wipe(Slot),
    Wall(Slot),
}

pub(crate) struct Faults {
    prng: Prng,
    /// A sync was told to fail, or the disk is full, so the process may end by itself.
    expected: BTreeSet<Slot>,
    /// A bit was flipped.
    flipped: BTreeSet<Slot>,
}

impl Faults {
    pub(crate) fn new(prng: Prng) -> Self {
        Self { prng, expected: BTreeSet::new(), flipped: BTreeSet::new() }
    }

    /// Whether the process may end by itself.
    pub(crate) fn is_expected(&self, slot: Slot) -> bool {
        self.expected.contains(&slot)
    }

    pub(crate) fn may_be_damaged(&self, slot: Slot) -> bool {
        self.flipped.contains(&slot)
    }
}

impl World {
    /// The next fault.
    pub(crate) fn fault(&mut self) {
        if self.healing || self.plan.faults.is_empty() {
            return;
        }
        let pause = self.plan.fault_interval;
        let jitter = self.faults.prng.below(pause.as_nanos() as u64);
        self.queue.after(pause / 2 + Duration::from_nanos(jitter), Event::Fault);
        let at = self.faults.prng.below(self.plan.faults.len() as u64) as usize;
        let fault = self.plan.faults[at];
        if self.inflict(fault) {
            let now = self.now();
            self.trace.line(now, None, None, "fault", || fault.name());
            self.totals.fault(fault);
        }
    }

    fn some_node(&mut self) -> Slot {
        self.faults.prng.below(self.nodes.len() as u64) as usize
    }

    /// How long a fault lasts.
    fn some_time(&mut self) -> Duration {
        let most = [300, 1_500, 4_000, 12_000][self.faults.prng.below(4) as usize];
        ms(1 + self.faults.prng.below(most))
    }

    fn mend_later(&mut self, mend: Mend) -> bool {
        let after = self.some_time();
        self.queue.after(after, Event::Mend(mend));
        true
    }

    /// Does it, if it can be done now.
    pub(crate) fn inflict(&mut self, fault: Fault) -> bool {
        let slot = self.some_node();
        let runs = self.nodes[slot].process.is_some();
        match fault {
            Fault::Loss | Fault::Duplicates | Fault::Stragglers => self.bad_messages(fault),
            Fault::CutOneWay | Fault::Partition | Fault::Isolate => self.cut(fault, slot),
            Fault::SlowLink => {
                let other = self.some_node();
                let delay = ms(self.faults.prng.below(1_500));
                self.network.slow.insert((slot, other), delay);
                slot != other && self.mend_later(Mend::SlowLink(slot, other))
            }
            Fault::Filter => {
                let kinds = Kind::ALL;
                let kind = kinds[self.faults.prng.below(kinds.len() as u64) as usize];
                self.network.filter = Some((slot, kind));
                self.mend_later(Mend::Filter)
            }
            Fault::SnapshotDamage => {
                let damages = [Damage::Flip, Damage::Cut, Damage::Rot];
                self.network.damage = Some(damages[self.faults.prng.below(3) as usize]);
                self.mend_later(Mend::Damage)
            }
            Fault::Pause | Fault::Stall => runs && self.halt(fault, slot),
            Fault::Kill | Fault::PowerLoss => {
                runs && {
                    self.crash(slot, fault == Fault::PowerLoss);
                    true
                }
            }
            Fault::KillMidTurn | Fault::PowerLossMidTurn => {
                let effects = self.faults.prng.below(60) as u32;
                self.nodes[slot].doomed = Some((effects, fault == Fault::PowerLossMidTurn));
                runs
            }
            Fault::Blackout => self.blackout(),
            Fault::SlowDisk | Fault::FailedSync | Fault::FullDisk => {
                runs && self.bad_disk(fault, slot)
            }
            Fault::BitFlip => runs && self.may_lose(slot) && self.flip_bit(slot),
            Fault::Wipe => {
                runs && self.may_lose(slot) && {
                    self.crash(slot, true);
                    self.is_damaged(slot);
                    true
                }
            }
            Fault::ClockJump | Fault::WallJump | Fault::WallStop => self.bad_clock(fault, slot),
        }
    }

    fn blackout(&mut self) -> bool {
        for slot in 0..self.nodes.len() {
            if self.nodes[slot].process.is_some() {
                self.crash(slot, true);
            }
        }
        true
    }

    fn bad_clock(&mut self, fault: Fault, slot: Slot) -> bool {
        match fault {
            Fault::ClockJump => {
                let by = self.some_time();
                self.nodes[slot].clock.jump(by);
                true
            }
            Fault::WallJump => {
                let offset = self.faults.prng.below(40_000) as i64 - 20_000;
                self.nodes[slot].clock.set_wall(offset);
                true
            }
            _ => {
                let now = self.now();
                self.nodes[slot].clock.stop_wall(now);
                self.mend_later(Mend::Wall(slot))
            }
        }
    }

    fn bad_messages(&mut self, fault: Fault) -> bool {
        let loss = self.plan.loss;
        match fault {
            Fault::Loss => {
                self.network.loss = Some(loss);
                self.mend_later(Mend::Loss)
            }
            Fault::Duplicates => {
                self.network.duplicates = Some(loss);
                self.mend_later(Mend::Duplicates)
            }
            _ => {
                self.network.stragglers = Some(loss);
                self.mend_later(Mend::Stragglers)
            }
        }
    }

    fn cut(&mut self, fault: Fault, slot: Slot) -> bool {
        let count = self.nodes.len();
        let mut links = Vec::new();
        match fault {
            Fault::CutOneWay => {
                let other = (slot + 1 + self.faults.prng.below(count as u64 - 1) as usize) % count;
                links.push((slot, other));
            }
            Fault::Isolate => {
                for other in (0..count).filter(|other| *other != slot) {
                    links.extend([(slot, other), (other, slot)]);
                }
            }
            _ => {
                let sides: Vec<bool> = (0..count).map(|_| self.faults.prng.one_in(2)).collect();
                for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
                    if sides[a] != sides[b] {
                        links.push((a, b));
                    }
                }
            }
        }
        self.network.cut.extend(links.iter().copied());
        !links.is_empty() && self.mend_later(Mend::Cut(links))
    }

    fn halt(&mut self, fault: Fault, mut slot: Slot) -> bool {
        if fault == Fault::Stall
            && self.faults.prng.one_in(2)
            && let Some((led, _)) = self.some_leader()
        {
            slot = led;
        }
        let until = self.now() + self.some_time();
        if fault == Fault::Pause {
            self.nodes[slot].paused_until = until;
            return true;
        }
        let actors = [Actor::Applier, Actor::Applier, Actor::Log, Actor::Range, Actor::Build];
        let actors = [&actors[..], &Actor::ALL[..]].concat();
        let mut actor = actors[self.faults.prng.below(actors.len() as u64) as usize];
        if !self.plan.options.admin.is_empty() && self.faults.prng.one_in(2) {
            // What is asked for now comes to the others long before it comes to this one.
            if self.faults.prng.one_in(2) {
                actor = Actor::Applier;
            }
            self.admin_soon(slot);
        }
        self.nodes[slot].stalled = Some((actor, until));
        if actor == Actor::Log {
            self.lose_unsynced(slot);
        }
        true
    }

    /// Something is asked for on the node, and once more in a moment.
    fn admin_soon(&mut self, slot: Slot) {
        self.admin_on(slot);
        let soon = ms(5 + self.faults.prng.below(60));
        self.queue.after(soon, Event::AdminOn(slot));
    }

    /// Where much is not synced a loss of power takes much, now and then.
    fn lose_unsynced(&mut self, slot: Slot) {
        if self.plan.faults.contains(&Fault::PowerLossMidTurn) && self.faults.prng.one_in(3) {
            let effects = 20 + self.faults.prng.below(300) as u32;
            self.nodes[slot].doomed = Some((effects, true));
        }
    }

    fn bad_disk(&mut self, fault: Fault, slot: Slot) -> bool {
        let disk = self.nodes[slot].machine.disk.clone();
        match fault {
            Fault::SlowDisk => {
                self.nodes[slot].disk_factor = 100;
                if !self.plan.options.admin.is_empty() && self.faults.prng.one_in(2) {
                    self.admin_soon(slot);
                }
                if self.faults.prng.one_in(2) {
                    self.merge_from(slot);
                }
                self.lose_unsynced(slot);
                self.mend_later(Mend::Disk(slot))
            }
            Fault::FailedSync => {
                self.faults.expected.insert(slot);
                disk.fail_syncs_after(self.faults.prng.below(20));
                true
            }
            _ => {
                self.faults.expected.insert(slot);
                let room = self.faults.prng.below(200 << 10);
                disk.set_capacity(Some(disk.used() + room));
                self.mend_later(Mend::Disk(slot))
            }
        }
    }

    /// Whether the node's data may go: every region has three voters, none of them on a store that
    /// is lost, everybody agrees on that, and nothing is going on.
    fn may_lose(&mut self, slot: Slot) -> bool {
        let others_run =
            self.nodes.iter().all(|node| node.process.is_some() && node.views().is_some());
        if !others_run || !self.network.cut.is_empty() || self.nodes[slot].store_id.is_none() {
            return false;
        }
        let mut led = BTreeSet::new();
        let views: Vec<_> =
            self.nodes.iter().filter_map(|node| node.views()).flat_map(|v| v.all()).collect();
        for view in &views {
            let peers = &view.region.peers;
            let voters = peers.iter().filter(|peer| peer.role == PeerRole::Voter).count();
            let lost = |id: &StoreId| self.lost_stores.contains(id);
            if voters < 3 || peers.iter().any(|p| lost(&p.store_id) || p.role != PeerRole::Voter) {
                return false;
            }
            if !view.has_data {
                return false;
            }
            let same = views.iter().filter(|other| other.region == view.region).count();
            if same != peers.len() || view.applied != self.checks.last_committed(view.region.id) {
                return false;
            }
            if view.is_leader() {
                led.insert(view.region.id);
            }
        }
        // While a node starts, what it alone has is not seen yet; the placement driver's region is
        // everywhere.
        led.contains(&RegionId::SYSTEM) && views.iter().all(|view| led.contains(&view.region.id))
    }

    /// Stops the node in order, then flips a bit of its log.
    fn flip_bit(&mut self, slot: Slot) -> bool {
        let Some(core) = self.nodes[slot].core() else { return false };
        let mut out = store::LogOutbox::default();
        core.writer.turn(&mut core.log_inbox, &mut out);
        core.writer.idle(&mut out);
        if out.fatal.is_some() {
            return false;
        }
        self.crash(slot, false);
        let disk = &self.nodes[slot].machine.disk;
        let names = disk.list(Path::new("log")).expect("the folder is there");
        let name = &names[self.faults.prng.below(names.len() as u64) as usize];
        let path = Path::new("log").join(name);
        let size = disk.contents(&path).map_or(0, |bytes| bytes.len() as u64);
        if size > 0 {
            // Most of a file is still empty: nearer to its begin there is more.
            let within = 1 + self.faults.prng.below(size);
            disk.flip_bit(&path, 8 * self.faults.prng.below(within) + self.faults.prng.below(8));
            self.faults.flipped.insert(slot);
        }
        true
    }

    /// Nodes like to end right after they promised something, or where something is half done: one
    /// time in so many.
    pub(crate) fn tempted(&mut self, slot: Slot, times: u64) {
        let power = self.plan.faults.contains(&Fault::PowerLossMidTurn);
        let may = power || self.plan.faults.contains(&Fault::KillMidTurn);
        if may && !self.healing && self.faults.prng.one_in(times) {
            let effects = self.faults.prng.below(4) as u32;
            self.nodes[slot].doomed.get_or_insert((effects, power));
        }
    }

    /// The process ends; the power may go too. It starts again after a while.
    pub(crate) fn crash(&mut self, slot: Slot, power: bool) {
        let now = self.now();
        self.trace.line(now, Some(slot), None, "crash", || format!("power loss: {power}"));
        let node = &mut self.nodes[slot];
        node.life += 1;
        node.doomed = None;
        node.stalled = None;
        node.paused_until = base::Instant::ZERO;
        if let Some(mut process) = node.process.take() {
            let writes = process.core.as_mut().filter(|core| !core.log_inbox.is_empty());
            if let Some(core) = writes.filter(|_| power && self.faults.prng.one_in(2)) {
                // It was about to write: some of it may be there, none of it is synced.
                node.machine.disk.fail_syncs_after(0);
                core.writer.turn(&mut core.log_inbox, &mut store::LogOutbox::default());
            }
        }
        node.machine.disk.repair_syncs();
        node.machine.end(power.then_some(&mut self.faults.prng));
        self.faults.expected.remove(&slot);
        self.restart_later(slot);
    }

    /// The process starts again after a while.
    pub(crate) fn restart_later(&mut self, slot: Slot) {
        let node = &mut self.nodes[slot];
        if node.process.take().is_some() {
            node.life += 1;
            node.machine.end(None);
        }
        let life = node.life;
        if node.held {
            return;
        }
        let after = match self.faults.prng.one_in(4) {
            _ if self.healing => ms(200),
            // Before anybody has noticed.
            true => ms(1 + self.faults.prng.below(60)),
            false => self.some_time(),
        };
        self.queue.after(after, Event::Start(slot, life));
    }

    /// The node says that it cannot go on.
    pub(crate) fn stop_on(&mut self, slot: Slot, text: &str) {
        let now = self.now();
        self.trace.line(now, Some(slot), None, "stop", || text.to_owned());
        let room = self.nodes[slot].machine.disk.available(Path::new("log"));
        let expected = self.faults.expected.contains(&slot)
            || self.faults.flipped.contains(&slot)
            || room.is_ok_and(|room| room < u64::MAX);
        assert!(expected, "no node fails by itself: node {slot}: {text}");
        // After a failed sync nobody knows what is on the disk.
        self.crash(slot, true);
    }

    /// What is on the disk cannot be used any more: another machine will take its place.
    pub(crate) fn is_damaged(&mut self, slot: Slot) {
        let node = &mut self.nodes[slot];
        if node.process.take().is_some() {
            node.life += 1;
        }
        node.damaged = true;
        self.faults.flipped.remove(&slot);
        let after = if self.healing { ms(100) } else { self.some_time() };
        self.queue.after(after, Event::Mend(Mend::Wipe(slot)));
    }

    /// A fault ends.
    pub(crate) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Loss => self.network.loss = None,
            Mend::Duplicates => self.network.duplicates = None,
            Mend::Stragglers => self.network.stragglers = None,
            Mend::Cut(links) => self.network.cut.retain(|link| !links.contains(link)),
            Mend::SlowLink(from, to) => drop(self.network.slow.remove(&(from, to))),
            Mend::Filter => self.network.filter = None,
            Mend::Damage => self.network.damage = None,
            Mend::Disk(slot) => {
                self.nodes[slot].disk_factor = 1;
                self.nodes[slot].machine.disk.set_capacity(None);
            }
            Mend::Wipe(slot) => self.wipe(slot),
            Mend::Wall(slot) => self.nodes[slot].clock.set_wall(0),
        }
    }

    fn wipe(&mut self, slot: Slot) {
        let node = &mut self.nodes[slot];
        if !node.damaged {
            return;
        }
        node.damaged = false;
        node.machine = Machine::new();
        node.disk_factor = 1;
        if let Some(store) = node.store_id.take() {
            self.stores.remove(&store);
            self.lost_stores.insert(store);
        }
        self.start(slot);
    }
}
