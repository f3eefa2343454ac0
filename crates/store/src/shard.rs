//! The shard: owner of a store's replicas, driven by messages and by being told the time.
//!
//! A turn takes everything that waits, lets each touched replica turn it into raft's work once, and
//! publishes what changed. So load makes batches bigger and idleness makes them smaller; there is
//! no batching timer.
//!
//! `life` how replicas come and go; `snapshots` the shard's part in making and installing them.

mod life;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Index, Instant, KeyRange, Prng, RegionId, StoreId, Term};
use raft::Ready;
use storage::log::LogReader;

use self::life::Grave;
pub(crate) use self::life::begin_log;
use crate::RegionError;
use crate::input::{Outbox, ShardInput};
use crate::job::Job;
use crate::log_writer::LogStep;
use crate::replica::Replica;
use crate::reply::ReplyTo;
use crate::view::RegionViews;

/// How a shard behaves.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Length of raft's tick. Default 100 ms.
    pub tick: Duration,
    /// Ticks without a leader after which a follower campaigns (between one and two times as many).
    /// Default 10.
    pub election_ticks: u32,
    /// Ticks between two rounds of heartbeats. Default 2.
    pub heartbeat_ticks: u32,
    /// A leader repeats its report to placement after this time. Default 60 s.
    pub report_interval: Duration,
    /// A region's log is compacted when it holds so many entries that are applied. Default 200,000.
    pub log_entries_max: u64,
    /// ... or when so many bytes were appended to it. Default 32 MiB.
    pub log_bytes_max: u64,
    /// The engine is synced at least so often while something is applied, so that a restart after a
    /// power loss has little to apply again. Default 5 s.
    pub sync_interval: Duration,
    /// Seed of the election timeouts.
    pub seed: u64,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            report_interval: Duration::from_secs(60),
            log_entries_max: 200_000,
            log_bytes_max: 32 << 20,
            sync_interval: Duration::from_secs(5),
            seed: 0,
        }
    }
}

impl ShardConfig {
    /// How long a confirmed round lets a leader read locally: one tick less than the shortest
    /// election timeout.
    pub fn lease(&self) -> Duration {
        self.tick * (self.election_ticks - 1)
    }
}

/// A sync of the engine on its way, and what may leave the log once it is done (rule W1).
struct EngineSync {
    cuts: Vec<Cut>,
}

/// What may leave a log: entries of this life of the region, up to this one.
struct Cut {
    region: RegionId,
    life: u64,
    to: (Index, Term),
}

/// The owner of a store's replicas.
pub struct Shard {
    config: ShardConfig,
    store_id: StoreId,
    replicas: BTreeMap<RegionId, Replica>,
    touched: BTreeSet<RegionId>,
    /// Cut off another region; their logs are being written. Whether their parent is led here.
    unborn: BTreeMap<RegionId, bool>,
    /// Regions whose replica here left, and their keys as long as there may be data.
    graves: BTreeMap<RegionId, Grave>,
    leaving: BTreeMap<RegionId, Option<KeyRange>>,
    /// Replicas that there were, to tell them apart.
    lives: u64,
    log: LogReader,
    views: Arc<RegionViews>,
    /// What a replica's raft wants done, filled anew for each.
    ready: Ready,
    prng: Prng,
    next_tick: Instant,
    disk_full: bool,
    sync: Option<EngineSync>,
    last_sync: Instant,
    /// Something was applied since the last sync was asked for.
    unsynced: bool,
}

impl Shard {
    /// A shard without replicas. `log` reads the log whose writer takes this shard's
    /// [`Outbox::log`]; `views` is where the replicas are made known.
    pub fn new(config: ShardConfig, log: LogReader, views: Arc<RegionViews>) -> Self {
        let prng = Prng::new(config.seed);
        Self {
            store_id: views.store_id(),
            config,
            replicas: BTreeMap::new(),
            touched: BTreeSet::new(),
            unborn: BTreeMap::new(),
            graves: BTreeMap::new(),
            leaving: BTreeMap::new(),
            lives: 0,
            log,
            views,
            ready: Ready::default(),
            prng,
            next_tick: Instant::ZERO,
            disk_full: false,
            sync: None,
            last_sync: Instant::ZERO,
            unsynced: false,
        }
    }

    /// Takes everything in `inbox` at `now`, adds what must be done to `out`, and says when to come
    /// back at the latest, if nothing arrives before. After a turn that set `fatal` the shard must
    /// not be used again.
    pub fn turn(&mut self, now: Instant, inbox: &mut Vec<ShardInput>, out: &mut Outbox) -> Instant {
        for input in inbox.drain(..) {
            self.take(input, out);
        }
        if now >= self.next_tick {
            self.tick(now, out);
        }
        for id in std::mem::take(&mut self.touched) {
            // It may have left after it was touched.
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            replica.ready(now, &mut self.ready, out);
            self.publish(id);
        }
        self.sync_engine(now, out);
        self.next_tick
    }

    /// Whether somebody waits for the applier: a read for its index, a new leader for the first
    /// entry of its term, a replica for a step of its life. Otherwise the next
    /// [`ShardInput::Applied`] may come late.
    pub fn awaits_applied(&self) -> bool {
        self.replicas.values().any(Replica::awaits_applied)
    }

    fn take(&mut self, input: ShardInput, out: &mut Outbox) {
        match input {
            ShardInput::Message(message) => self.message(message, out),
            ShardInput::Propose(proposal) => {
                let id = proposal.header.region_id;
                if self.disk_full && !id.is_system() {
                    out.replies.push((proposal.reply, Err(RegionError::DiskFull(self.store_id))));
                } else if let Some(replica) = self.replica(id) {
                    replica.propose(proposal, out);
                } else {
                    not_found(id, proposal.reply, out);
                }
            }
            ShardInput::ReadIndex(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.read_index(&request.header, request.reply, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            ShardInput::Split(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.split(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            ShardInput::ChangePeers(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.change_peers(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            ShardInput::TransferLeader(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.transfer(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            notice => self.notice(notice, out),
        }
    }

    /// What others tell that nobody waits for.
    fn notice(&mut self, input: ShardInput, out: &mut Outbox) {
        match input {
            ShardInput::Create(birth) => self.create(&birth, out),
            ShardInput::Log(mut batch, done) => {
                out.log.batch.merge(&mut batch);
                out.log.done.push(done);
            }
            ShardInput::Persisted(steps) => {
                steps.into_iter().for_each(|(id, step)| self.persisted(id, step, out));
            }
            ShardInput::Applied(applied) => {
                self.unsynced = true;
                applied.iter().for_each(|applied| self.applied(applied, out));
            }
            ShardInput::EngineSynced => self.engine_synced(out),
            ShardInput::Unreachable(store) => {
                self.replicas.values_mut().for_each(|replica| replica.unreachable(store));
            }
            ShardInput::SnapshotBuilt { region_id, to, result } => {
                self.snapshot_built(region_id, to, result, out);
            }
            ShardInput::SnapshotSent { region_id, to, arrived } => {
                if let Some(replica) = self.replica(region_id) {
                    replica.snapshot_sent(to, arrived);
                }
            }
            ShardInput::SnapshotInstalled { region_id, result } => {
                if let Some(replica) = self.replica(region_id) {
                    replica.files_are_in(result, out);
                    self.publish(region_id);
                }
            }
            ShardInput::DataDestroyed(region) => self.data_destroyed(region, out),
            ShardInput::DiskFull(full) => self.disk_full = full,
            request => unreachable!("requests are taken elsewhere: {}", request.is_request()),
        }
    }

    /// The replica, to be looked at at the end of the turn. Not one that is about to leave.
    fn replica(&mut self, id: RegionId) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(&id).filter(|replica| !replica.is_leaving())?;
        self.touched.insert(id);
        Some(replica)
    }

    fn persisted(&mut self, id: RegionId, step: LogStep, out: &mut Outbox) {
        match step {
            LogStep::Written { life, ticket } => {
                if let Some(replica) = self.replica(id) {
                    replica.persisted(life, ticket);
                }
            }
            LogStep::Restarted => {
                if let Some(replica) = self.replica(id) {
                    replica.log_is_ready(out);
                }
            }
            LogStep::Removed => self.log_removed(id, out),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Outbox) {
        // A driver that slept too long catches up on one tick, not on all: a burst of ticks would
        // be an election.
        self.next_tick = now + self.config.tick;
        for (id, replica) in &mut self.replicas {
            replica.tick(&self.config, out);
            replica.compact_log(&self.config, out);
            replica.report_again(now, &self.config, out);
            self.touched.insert(*id);
        }
    }

    /// Asks for a sync of the engine when something may then leave the log, or when the last one is
    /// long ago.
    fn sync_engine(&mut self, now: Instant, out: &mut Outbox) {
        if self.sync.is_some() || !self.unsynced {
            return;
        }
        let wanted = |(id, replica): (&RegionId, &Replica)| {
            let to = replica.wants_cut()?;
            Some(Cut { region: *id, life: replica.life(), to })
        };
        let cuts: Vec<_> = self.replicas.iter().filter_map(wanted).collect();
        if cuts.is_empty() && now.since(self.last_sync) < self.config.sync_interval {
            return;
        }
        self.last_sync = now;
        self.unsynced = false;
        self.sync = Some(EngineSync { cuts });
        out.jobs.push(Job::SyncEngine);
    }

    /// Only what was applied when the sync was asked for may leave the log.
    fn engine_synced(&mut self, out: &mut Outbox) {
        let sync = self.sync.take().expect("a sync ends once and was asked for");
        for Cut { region, life, to: (index, term) } in sync.cuts {
            let replica = self.replicas.get_mut(&region).filter(|replica| replica.life() == life);
            if replica.is_some_and(|replica| replica.cut(index)) {
                out.log.batch.truncate(region, index, term);
                out.log.purge = true;
            }
        }
    }
}

fn not_found(region: RegionId, reply: ReplyTo, out: &mut Outbox) {
    out.replies.push((reply, Err(RegionError::RegionNotFound(region))));
}
