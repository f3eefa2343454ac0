//! The turns of a node's actors, and what becomes of what leaves them.

use std::path::Path;
use std::time::Duration;

use base::{Peer, PeerId, PeerRole, Region, RegionId, StoreId};
use storage::disk::Disk;
use store::snapshot::{SnapshotData, SnapshotReader};
use store::{ApplyInput, ApplyOutbox, Job, LogOutbox, Outbox, RaftMessage, ShardInput};

use super::event::{Actor, Event, Slot, Timer};
use super::network::Damage;
use super::process::{Core, DiskJob};
use super::world::{World, ms};

/// Inputs that may wait for an actor.
const INBOX_MAX: usize = 20_000;

/// Inputs of a shard behind which messages of other stores are dropped, as the transport's credit
/// does in production.
const MESSAGES_MAX: usize = 10_000;

/// Writes that may wait for the log before a shard waits with them. In production one thread is
/// both, and a shard takes no turn while the log is written.
const LOG_WRITES_MAX: usize = 2_000;

/// Of so many snapshots that begin to be installed, and splits, one is followed by an end of the
/// process, where there may be one.
const HALVES: u64 = 16;

/// Room on the disk below which writes are refused.
const RESERVE_BYTES: u64 = 64 << 10;

impl World {
    /// The actor has something to do: it runs soon.
    pub(crate) fn wake(&mut self, slot: Slot, actor: Actor) {
        let micros = match actor {
            Actor::Shard => 1 + self.prng.below(self.plan.shard_delay.as_micros() as u64),
            Actor::Applier => 1 + self.prng.below(self.plan.apply_delay.as_micros() as u64),
            Actor::Log => {
                let sync = self.plan.sync_delay.as_micros() as u64;
                (sync / 2 + self.prng.below(sync)) * u64::from(self.nodes[slot].disk_factor)
            }
            Actor::Disk => {
                let sync = self.plan.sync_delay.as_micros() as u64;
                (sync + self.prng.below(sync)) * u64::from(self.nodes[slot].disk_factor)
            }
            Actor::Build | Actor::Check | Actor::Range => {
                (100 + self.prng.below(2_000)) * u64::from(self.nodes[slot].disk_factor)
            }
        };
        self.wake_after(slot, actor, Duration::from_micros(micros));
    }

    /// It runs so much later, which is not now.
    fn wake_after(&mut self, slot: Slot, actor: Actor, delay: Duration) {
        let (at, life) = (self.now() + delay, self.nodes[slot].life);
        let Some(core) = self.nodes[slot].core() else { return };
        let wake = &mut core.wakes[actor as usize];
        if wake.is_some_and(|wake| wake <= at) {
            return;
        }
        *wake = Some(at);
        // A shard comes back to its next tick after each turn until then: one event does for all.
        let last = &mut core.last_wakes[actor as usize];
        if *last != Some(at) {
            *last = (*last).max(Some(at));
            self.queue.at(at, Event::Wake(slot, life, actor));
        }
    }

    /// The actor takes its turn, if this is when it is due.
    pub(crate) fn turn(&mut self, slot: Slot, actor: Actor) {
        let now = self.now();
        let node = &mut self.nodes[slot];
        let stalled = node.stalled.filter(|(which, _)| *which == actor).map(|(_, until)| until);
        let not_before = stalled.unwrap_or_default().max(node.paused_until);
        let Some(core) = node.core() else { return };
        if core.wakes[actor as usize] != Some(now) {
            return;
        }
        core.wakes[actor as usize] = None;
        if actor == Actor::Shard && core.log_inbox.len() >= LOG_WRITES_MAX {
            // The turn of the log wakes it.
            return;
        }
        if not_before > now {
            return self.wake_after(slot, actor, not_before.since(now));
        }
        self.totals.turns += 1;
        match actor {
            Actor::Shard => self.turn_shard(slot),
            Actor::Log => self.turn_log(slot),
            Actor::Applier => self.turn_applier(slot),
            Actor::Disk => self.turn_disk(slot),
            Actor::Build | Actor::Check | Actor::Range => self.turn_job(slot, actor),
        }
        if self.nodes[slot].core().is_some_and(|core| core.has_work(actor)) {
            self.wake(slot, actor);
        }
    }

    fn turn_shard(&mut self, slot: Slot) {
        let (now, local) = (self.now(), self.local(slot));
        let Some(core) = self.nodes[slot].core() else { return };
        assert!(core.inbox.len() < INBOX_MAX, "bounded queues: node {slot}'s shard");
        // One for all shards: its vectors are filled again and again.
        let mut out = std::mem::take(&mut self.outbox);
        let Core { shard, inbox, .. } = core;
        let wake = shard.turn(local, inbox, &mut out);
        if let Some(fatal) = out.fatal.take() {
            return self.stop_on(slot, &fatal.to_string());
        }
        let at = self.nodes[slot].clock.true_time(wake);
        self.wake_after(slot, Actor::Shard, at.since(now).max(Duration::from_nanos(1)));
        self.trace.shard(now, slot, &out);
        let Self { nodes, checks, .. } = self;
        checks.after_shard(now, slot, nodes, &out);
        self.drain_shard(slot, out);
    }

    fn drain_shard(&mut self, slot: Slot, mut out: Outbox) {
        let life = self.nodes[slot].life;
        for message in out.send.drain(..) {
            if !self.effect(slot) {
                return;
            }
            self.send(slot, message);
        }
        for alive in out.alive.drain(..) {
            if !self.effect(slot) {
                return;
            }
            self.send_alive(slot, alive);
        }
        for credit in out.credits.drain(..) {
            if !self.effect(slot) {
                return;
            }
            self.send_credit(slot, credit);
        }
        let log = std::mem::take(&mut out.log);
        if !log.is_empty() {
            if !self.effect(slot) {
                return;
            }
            self.core_of(slot).log_inbox.push(log);
            self.wake(slot, Actor::Log);
        }
        for input in out.apply.drain(..) {
            if !self.effect(slot) {
                return;
            }
            if matches!(input, ApplyInput::BeginInstall(_)) {
                self.tempted(slot, HALVES);
            }
            self.core_of(slot).apply_inbox.push(input);
            self.wake(slot, Actor::Applier);
        }
        for (reply, result) in out.replies.drain(..) {
            reply.answer(result);
        }
        for report in out.reports.drain(..) {
            if !self.effect(slot) {
                return;
            }
            self.report(slot, report);
            if self.nodes[slot].life != life {
                return;
            }
        }
        for event in out.leading.drain(..) {
            self.leading(slot, event);
        }
        self.drain_jobs(slot, out.jobs.drain(..));
        assert!(out.inspected.is_empty(), "nobody inspects replicas");
        self.outbox = out;
    }

    fn core_of(&mut self, slot: Slot) -> &mut Core {
        self.nodes[slot].core().expect("it takes its turn")
    }

    fn drain_jobs(&mut self, slot: Slot, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            if !self.effect(slot) {
                return;
            }
            let actor = self.core_of(slot).job(job);
            self.wake(slot, actor);
        }
    }

    fn turn_log(&mut self, slot: Slot) {
        let now = self.now();
        let Some(core) = self.nodes[slot].core() else { return };
        assert!(core.log_inbox.len() < INBOX_MAX, "bounded queues: node {slot}'s log");
        if core.log_inbox.is_empty() {
            return;
        }
        let mut out = LogOutbox::default();
        let Core { writer, log_inbox, .. } = core;
        writer.turn(log_inbox, &mut out);
        if let Some(fatal) = out.fatal {
            return self.stop_on(slot, &fatal.to_string());
        }
        if core.preparer.is_needed() && !core.preparing {
            core.preparing = true;
            core.disk_jobs.push_back(DiskJob::PrepareSegment);
            self.wake(slot, Actor::Disk);
        }
        self.trace.line(now, Some(slot), None, "synced", || format!("{:?}", out.persisted));
        for message in out.send {
            if !self.effect(slot) {
                return;
            }
            self.send(slot, message);
        }
        if !self.effect(slot) {
            return;
        }
        out.done.into_iter().for_each(|done| done());
        let core = self.core_of(slot);
        core.inbox.extend(out.births.into_iter().map(ShardInput::Create));
        if !out.persisted.is_empty() {
            core.inbox.push(ShardInput::Persisted(out.persisted));
        }
        self.wake(slot, Actor::Shard);
    }

    fn turn_applier(&mut self, slot: Slot) {
        let now = self.now();
        let Some(core) = self.nodes[slot].core() else { return };
        assert!(core.apply_inbox.len() < INBOX_MAX, "bounded queues: node {slot}'s applier");
        let mut out = ApplyOutbox::default();
        let Core { applier, apply_inbox, .. } = core;
        applier.turn(apply_inbox, &mut out);
        if let Some(fatal) = out.fatal {
            return self.stop_on(slot, &fatal.to_string());
        }
        self.trace.applied(now, slot, &out);
        let Self { nodes, checks, .. } = self;
        checks.after_applier(slot, &nodes[slot], &out);
        for (reply, result) in out.replies {
            if !self.effect(slot) {
                return;
            }
            reply.answer(result);
        }
        if out.applied.iter().any(|applied| !applied.births.is_empty()) {
            self.tempted(slot, HALVES);
        }
        if !out.applied.is_empty() {
            if !self.effect(slot) {
                return;
            }
            self.tell(slot, ShardInput::Applied(out.applied));
        }
        self.drain_jobs(slot, out.jobs);
    }

    fn turn_disk(&mut self, slot: Slot) {
        let machine = self.nodes[slot].machine.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        match core.disk_jobs.pop_front() {
            Some(DiskJob::PrepareSegment) => {
                // The writer tries itself if this fails.
                let _ = core.preparer.prepare();
                core.preparing = false;
            }
            Some(DiskJob::Job(job)) => self.run_job(slot, &machine, job),
            None => {}
        }
    }

    fn turn_job(&mut self, slot: Slot, actor: Actor) {
        let machine = self.nodes[slot].machine.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        let job = match actor {
            Actor::Build => core.builds.pop_front(),
            Actor::Check => core.checks.pop_front(),
            _ => core.range_jobs.pop_front(),
        };
        if let Some(job) = job {
            self.run_job(slot, &machine, job);
        }
    }

    fn run_job(&mut self, slot: Slot, machine: &super::process::Machine, job: Job) {
        if !self.effect(slot) {
            return;
        }
        let now = self.now();
        self.trace.line(now, Some(slot), None, "job", || format!("{job:?}"));
        let core = self.core_of(slot);
        core.clears(&job);
        let folder = core.folder.clone();
        match job.run(&machine.engine, &folder) {
            Ok(Some(result)) => {
                if self.effect(slot) {
                    self.totals.job(&result);
                    self.job_done(&result);
                    self.tell(slot, result);
                }
            }
            Ok(None) => drop(self.effect(slot)),
            Err(fatal) => self.stop_on(slot, &fatal.to_string()),
        }
    }

    /// A raft message arrives.
    pub(crate) fn arrive(
        &mut self,
        slot: Slot,
        message: RaftMessage,
        files: Option<Box<SnapshotReader>>,
    ) {
        if self.nodes[slot].store_id != Some(message.to.store_id) {
            return;
        }
        let is_up = self.nodes[slot].core().is_some();
        if files.is_none() && self.is_flooded(slot) {
            return;
        }
        if let Some(files) = files {
            let arrived = is_up && self.take_files(slot, &message, *files);
            if let Some(from) = self.slot_of(message.from.store_id) {
                let life = self.nodes[from].life;
                self.snapshot_sent(from, life, message.clone(), arrived);
            }
            if !arrived {
                return;
            }
            self.totals.snapshots += 1;
        } else if !is_up {
            return self.unreachable(slot, message.from.store_id, message.to.store_id);
        }
        self.in_doubt(slot, &message);
        self.tell(slot, ShardInput::Message(message));
    }

    /// Whether a shard has so much to look at that the transport lets nothing more in.
    pub(crate) fn is_flooded(&mut self, slot: Slot) -> bool {
        self.nodes[slot].core().is_some_and(|core| core.inbox.len() >= MESSAGES_MAX)
    }

    fn unreachable(&mut self, at: Slot, from: StoreId, to: StoreId) {
        let Some(from) = self.slot_of(from).filter(|from| *from != at) else { return };
        if self.prng.one_in(4) {
            let life = self.nodes[from].life;
            self.queue.after(ms(1), Event::Unreachable(from, life, to));
        }
    }

    fn take_files(&mut self, slot: Slot, message: &RaftMessage, mut files: SnapshotReader) -> bool {
        let raft::Body::Snapshot { snapshot, .. } = &message.message.body else { return false };
        let damage = self.network.damage;
        let folder = self.core_of(slot).folder.clone();
        let Ok(mut writer) = folder.writer(message.region_id, snapshot) else { return false };
        while let Ok(Some(chunk)) = files.next_chunk() {
            let mut chunk = chunk.to_vec();
            match damage {
                Some(Damage::Cut) => return false,
                Some(Damage::Flip) => {
                    let at = self.prng.below(chunk.len() as u64) as usize;
                    chunk[at] ^= 1 << self.prng.below(8);
                }
                Some(Damage::Rot) | None => {}
            }
            if writer.write(&chunk).is_err() {
                return false;
            }
        }
        let arrived = writer.finish().is_ok();
        if arrived && damage == Some(Damage::Rot) && self.prng.one_in(2) {
            let data = SnapshotData::decode(message.region_id, &snapshot.data);
            if has_whole_majority(&data.expect("it was just read").region, message.to.id) {
                self.rot(slot, message.region_id);
            }
        }
        arrived
    }

    /// A bit of the files that just came for the region flips.
    fn rot(&mut self, slot: Slot, region: RegionId) {
        let (disk, folder) = (&self.nodes[slot].machine.disk, Path::new("snap"));
        let of_region = format!("received-{region}-");
        let mut names = disk.list(folder).expect("the folder is there");
        names.retain(|name| name.starts_with(&of_region) && name.ends_with(".sst"));
        if names.is_empty() {
            return;
        }
        let path = folder.join(&names[self.prng.below(names.len() as u64) as usize]);
        let size = disk.contents(&path).map_or(0, |bytes| bytes.len() as u64);
        if size > 0 {
            disk.flip_bit(&path, self.prng.below(8 * size));
        }
    }

    /// How much room there is: writes are refused before there is none.
    pub(crate) fn disk_watch(&mut self, slot: Slot) {
        let life = self.nodes[slot].life;
        let disk = self.nodes[slot].machine.disk.clone();
        let room = disk.available(Path::new("log"));
        let full = room.is_ok_and(|room| room < RESERVE_BYTES);
        let Some(core) = self.nodes[slot].core() else { return };
        if core.disk_full != full {
            core.disk_full = full;
            self.tell(slot, ShardInput::DiskFull(full));
        }
        self.queue.after(ms(1_000), Event::Timer(slot, life, Timer::DiskWatch));
    }
}

/// Whether enough others are left to decide without `peer`. Its log counts from the moment on at
/// which the snapshot has arrived, and its data may be lost then.
fn has_whole_majority(region: &Region, peer: PeerId) -> bool {
    let is_other = |other: &&Peer| other.role == PeerRole::Voter && other.id != peer;
    region.peers.iter().filter(is_other).count() >= 2
}
