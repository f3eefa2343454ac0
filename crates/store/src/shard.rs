//! The shard: owner of a store's replicas, driven by messages and by being told the time.
//!
//! A turn takes everything that waits, lets each touched replica turn it into raft's work once, and
//! publishes what changed. So load makes batches bigger and idleness makes them smaller; there is
//! no batching timer.
//!
//! `life` how replicas come and go; `orphans` logs without one; `awake` which of them tick;
//! `log_budget` what the log may hold; `snapshots` the shard's part in making and installing them,
//! `credits` which may be made.

mod awake;
mod credits;
mod early;
mod life;
mod log_budget;
mod merge;
mod orphans;
mod snapshots;
mod splits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::rule::{Rule, keep};
use base::{Index, Instant, KeyRange, Prng, RegionId, StoreId, Term};
use raft::Ready;
use storage::engine::{GarbageRule, KeepAll};
use storage::log::LogReader;

use self::awake::Awake;
use self::early::Early;
use self::life::Grave;
pub(crate) use self::life::begin_log;
use crate::RegionError;
use crate::input::{Outbox, RegionRequest, ShardInput, SnapshotCredit};
use crate::inspection::{InspectReply, Inspection};
use crate::job::Job;
use crate::log_writer::LogStep;
use crate::replica::{Replica, Step};
use crate::reply::ReplyTo;
use crate::snapshot::Credits;
use crate::split_check::{Checks, SplitConfig};
use crate::view::RegionViews;

/// How a shard behaves.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Length of raft's tick. Default 50 ms.
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
    /// Bytes of the logs of all regions of the store. From half of it on, regions forget what all
    /// living members have, the largest logs first; beyond it, what is applied here, and whoever
    /// lacks it gets a snapshot. The files take up to twice as much. Default 1 GiB.
    pub log_store_bytes_max: u64,
    /// The engine is synced at least so often while something is applied, so that a restart after a
    /// power loss has little to apply again. Default 5 s.
    pub sync_interval: Duration,
    /// Snapshots that are received or installed here at once. Default 8.
    pub snapshots_in_max: usize,
    /// When regions are cut unasked.
    pub split: SplitConfig,
    /// A group in which nothing happened for so many ticks goes to sleep; never if zero. Default
    /// 20.
    pub sleep_ticks: u32,
    /// A split, a merge or a transfer waits so many ticks at most until what is kept in memory for
    /// the region is handed over ([`LeaderEvent`](crate::LeaderEvent)). Zero: nobody keeps
    /// anything. Default 0.
    pub hand_over_ticks: u32,
    /// What stores may collect without telling the region: replicas that are compared leave it out.
    pub garbage: Arc<dyn GarbageRule>,
    /// Seed of the election timeouts, and what tells this start of the store from others.
    pub seed: u64,
    /// The one rule of raft that its replicas break, for tests that must find it.
    #[cfg(feature = "mutations")]
    pub breaks: Option<raft::Rule>,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            report_interval: Duration::from_secs(60),
            log_entries_max: 200_000,
            log_bytes_max: 32 << 20,
            log_store_bytes_max: 1 << 30,
            sync_interval: Duration::from_secs(5),
            snapshots_in_max: 8,
            split: SplitConfig::default(),
            sleep_ticks: 20,
            hand_over_ticks: 0,
            garbage: Arc::new(KeepAll),
            seed: 0,
            #[cfg(feature = "mutations")]
            breaks: None,
        }
    }
}

impl ShardConfig {
    /// How long a confirmed round lets a leader read locally: one tick less than the shortest
    /// election timeout.
    pub fn lease(&self) -> Duration {
        if !keep(Rule::LeaseEndsBeforeTimeout) {
            return self.tick * (2 * self.election_ticks);
        }
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
    awake: Awake,
    /// Cut off another region; their logs are being written. Whether their parent is led here.
    unborn: BTreeMap<RegionId, bool>,
    /// Regions whose replica here left, and their keys as long as there may be data.
    graves: BTreeMap<RegionId, Grave>,
    leaving: BTreeMap<RegionId, Option<KeyRange>>,
    /// Snapshots that were given to raft in this turn, with their keys.
    admitted: Vec<(RegionId, KeyRange)>,
    credits: Credits,
    /// Who asked for one in this turn.
    asks: Vec<SnapshotCredit>,
    /// Replicas that wait for something of a merge.
    merging: BTreeSet<RegionId>,
    /// Replicas that there were, to tell them apart.
    lives: u64,
    log: LogReader,
    views: Arc<RegionViews>,
    checks: Checks,
    early: Early,
    /// What a replica's raft wants done, filled anew for each.
    ready: Ready,
    prng: Prng,
    next_tick: Instant,
    next_orphans: Instant,
    disk_full: bool,
    /// The store is about to stop.
    handing_over: bool,
    /// Looked at when the turn is done.
    inspections: Vec<(RegionId, InspectReply)>,
    sync: Option<EngineSync>,
    last_sync: Instant,
    /// Something was applied since the last sync was asked for.
    unsynced: bool,
}

impl Shard {
    /// A shard without replicas. `log` reads the log whose writer takes this shard's
    /// [`Outbox::log`]; `views` is where the replicas are made known.
    pub fn new(config: ShardConfig, log: LogReader, views: Arc<RegionViews>) -> Self {
        let mut prng = Prng::new(config.seed);
        let awake = Awake::new(views.store_id(), prng.next_u64(), &config);
        Self {
            store_id: views.store_id(),
            awake,
            checks: Checks::new(config.split.clone()),
            early: Early::default(),
            credits: Credits::new(config.snapshots_in_max),
            asks: Vec::new(),
            config,
            replicas: BTreeMap::new(),
            touched: BTreeSet::new(),
            unborn: BTreeMap::new(),
            graves: BTreeMap::new(),
            leaving: BTreeMap::new(),
            admitted: Vec::new(),
            merging: BTreeSet::new(),
            lives: 0,
            log,
            views,
            ready: Ready::default(),
            prng,
            next_tick: Instant::ZERO,
            next_orphans: Instant::ZERO,
            disk_full: false,
            handing_over: false,
            inspections: Vec::new(),
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
            if let Some(replica) = self.replicas.get_mut(&id) {
                replica.ready(now, &mut self.ready, out);
                self.publish(id);
                self.note_growth(id, now);
            }
            self.settle(id);
        }
        self.admitted.clear();
        self.answer_signs_of_life(out);
        self.answer_asks(out);
        self.check_splits(now, out);
        self.inspect(now, out);
        self.sync_engine(now, out);
        self.next_tick
    }

    /// Whether somebody waits for the applier: a read for its index, a new leader for the first
    /// entry of its term, a replica for a step of its life. Otherwise the next
    /// [`ShardInput::Applied`] may come late.
    pub fn awaits_applied(&self) -> bool {
        self.awake.awaits_applied()
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
                Some(replica) => replica.read_index(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            ShardInput::Flashback(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.flashback(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            ShardInput::Split(request) => self.begin(Step::Split(request), out),
            ShardInput::ChangePeers(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.change_peers(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            ShardInput::TransferLeader(request) => self.begin(Step::Transfer(request), out),
            ShardInput::Merge(request) => self.begin(Step::Merge(request), out),
            ShardInput::Check(request) => self.check(request, out),
            ShardInput::CompactLog(request) => match self.replica(request.header.region_id) {
                Some(replica) => replica.compact_on_request(request, out),
                None => not_found(request.header.region_id, request.reply, out),
            },
            notice => self.notice(notice, out),
        }
    }

    /// Something that ends a leadership, or a region as it is.
    fn begin(&mut self, step: Step, out: &mut Outbox) {
        let (id, patience) = (step.region(), self.config.hand_over_ticks);
        match (self.replica(id), step) {
            (Some(replica), step) => replica.begin(step, patience, out),
            (None, step) => drop(step.into_reply().map(|reply| not_found(id, reply, out))),
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
            ShardInput::Alive(alive) => self.awake.hear(alive),
            ShardInput::Credit(credit) => self.credit(credit, out),
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
            ShardInput::SplitChecked(checked) => self.split_checked(checked, out),
            ShardInput::DataDestroyed(region) => self.data_destroyed(region, out),
            ShardInput::OrphanKnown(region) => self.orphan_known(region, out),
            ShardInput::OrphanUnknown(id, stores) => self.orphan_unknown(id, &stores, out),
            ShardInput::HashComputed { region_id, hash } => {
                if let Some(replica) = self.replica(region_id) {
                    replica.hash_computed(hash, out);
                }
            }
            ShardInput::Inspect(Inspection { region_id, reply }) => {
                self.inspections.push((region_id, reply));
            }
            ShardInput::HandOver => {
                self.handing_over = true;
                self.hand_over(out);
            }
            ShardInput::HandedOver { region_id, term, ticket } => {
                if let Some(replica) = self.replica(region_id) {
                    replica.handed_over(term, ticket, out);
                }
            }
            ShardInput::DiskFull(full) => self.disk_full = full,
            request => unreachable!("requests are taken elsewhere: {}", request.is_request()),
        }
    }

    fn check(&mut self, request: RegionRequest, out: &mut Outbox) {
        let horizon = self.config.garbage.horizon();
        match self.replica(request.header.region_id) {
            Some(replica) => replica.check_replicas(request, horizon, out),
            None => not_found(request.header.region_id, request.reply, out),
        }
    }

    /// The replica, to be looked at at the end of the turn. Not one that is about to leave.
    fn replica(&mut self, id: RegionId) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(&id).filter(|replica| !replica.is_leaving())?;
        self.touched.insert(id);
        if let Some(ticks) = self.awake.slept(id) {
            replica.slept(ticks);
        }
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
        self.tick_merges(out);
        self.tick_replicas(now, out);
        self.keep_log_budget(out);
        self.look_for_orphans(now, out);
        if self.handing_over {
            self.hand_over(out);
        }
    }

    /// Regions that could not be handed over, or came back, are tried again with every tick.
    fn hand_over(&mut self, out: &mut Outbox) {
        for (id, replica) in self.replicas.iter_mut().filter(|(_, r)| r.is_leader()) {
            replica.begin(Step::Stop, self.config.hand_over_ticks, out);
            self.touched.insert(*id);
        }
    }

    fn inspect(&mut self, now: Instant, out: &mut Outbox) {
        for (id, reply) in self.inspections.drain(..) {
            let replica = self.replicas.get(&id);
            let status = replica.map(|replica| replica.status(now, self.log.live_bytes_of(id)));
            out.inspected.push((reply, status));
        }
    }

    /// Asks for a sync of the engine when something may then leave the log, or when the last one is
    /// long ago.
    fn sync_engine(&mut self, now: Instant, out: &mut Outbox) {
        if self.sync.is_some() || !self.unsynced {
            return;
        }
        if !self.awake.wants_cuts() && now.since(self.last_sync) < self.config.sync_interval {
            return;
        }
        let cuts = self.cuts();
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
