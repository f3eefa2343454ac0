//! The shard: owner of a store's replicas, driven by messages and by being told the time.
//!
//! A turn takes everything that waits, lets each touched replica turn it into raft's work once, and
//! publishes what changed. So load makes batches bigger and idleness makes them smaller; there is
//! no batching timer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Index, Instant, Prng, Region, RegionId, StoreId, Term};
use raft::Ready;
use storage::log::LogReader;

use crate::apply::{Applied, ApplyInput};
use crate::input::{
    Birth, Job, Outbox, Proposal, ReadRequest, RegionReport, Report, ShardInput, SplitRequest,
};
use crate::replica::Replica;
use crate::states::{self, ApplyState};
use crate::view::RegionViews;
use crate::{Fatal, RegionError, bootstrap};

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
    cuts: Vec<(RegionId, Index, Term)>,
}

/// The owner of a store's replicas.
pub struct Shard {
    config: ShardConfig,
    store_id: StoreId,
    replicas: BTreeMap<RegionId, Replica>,
    touched: BTreeSet<RegionId>,
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
            let replica = self.replicas.get_mut(&id).expect("only replicas of ours are touched");
            replica.ready(now, &mut self.ready, out);
            self.views.publish(replica.view());
        }
        self.sync_engine(now, out);
        self.next_tick
    }

    /// Whether somebody waits for the applier: a read for its index, or a new leader for the first
    /// entry of its term. Otherwise the next [`ShardInput::Applied`] may come late.
    pub fn awaits_applied(&self) -> bool {
        self.replicas.values().any(Replica::awaits_applied)
    }

    fn take(&mut self, input: ShardInput, out: &mut Outbox) {
        match input {
            ShardInput::Message(message) => {
                let id = message.region_id;
                self.with_replica(id, |replica| replica.step(message));
            }
            ShardInput::Propose(proposal) => self.propose(proposal, out),
            ShardInput::ReadIndex(request) => self.read_index(request, out),
            ShardInput::Split(request) => self.split(request, out),
            ShardInput::Create(birth) => self.create(birth, out),
            ShardInput::Log(mut batch, done) => {
                out.log.batch.merge(&mut batch);
                out.log.done.push(done);
            }
            ShardInput::Persisted(tickets) => {
                for (id, ticket) in tickets {
                    self.with_replica(id, |replica| replica.persisted(ticket));
                }
            }
            ShardInput::Applied(applied) => self.applied(&applied, out),
            ShardInput::EngineSynced => self.engine_synced(out),
            ShardInput::DiskFull(full) => self.disk_full = full,
        }
    }

    /// Runs `f` on the replica, if there is one, and looks at what became of it at the end of the
    /// turn.
    fn with_replica(&mut self, id: RegionId, f: impl FnOnce(&mut Replica)) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            f(replica);
            self.touched.insert(id);
        }
    }

    fn propose(&mut self, proposal: Proposal, out: &mut Outbox) {
        let id = proposal.header.region_id;
        if self.disk_full && !id.is_system() {
            out.replies.push((proposal.reply, Err(RegionError::DiskFull(self.store_id))));
            return;
        }
        match self.replicas.get_mut(&id) {
            Some(replica) => replica.propose(proposal, out),
            None => out.replies.push((proposal.reply, Err(RegionError::RegionNotFound(id)))),
        }
        self.touch(id);
    }

    fn read_index(&mut self, request: ReadRequest, out: &mut Outbox) {
        let id = request.header.region_id;
        match self.replicas.get_mut(&id) {
            Some(replica) => replica.read_index(&request.header, request.reply, out),
            None => out.replies.push((request.reply, Err(RegionError::RegionNotFound(id)))),
        }
        self.touch(id);
    }

    fn split(&mut self, request: SplitRequest, out: &mut Outbox) {
        let id = request.header.region_id;
        match self.replicas.get_mut(&id) {
            Some(replica) => replica.split(request, out),
            None => out.replies.push((request.reply, Err(RegionError::RegionNotFound(id)))),
        }
        self.touch(id);
    }

    /// The replica of a region that was cut off one of ours. After a power loss the engine may have
    /// forgotten the split and its log may be there already: then it goes on with that.
    fn born(&mut self, region: Arc<Region>, out: &mut Outbox) {
        let id = region.id;
        let hard_state = match self.log.state(id) {
            Some(state) => match states::decode_raft_state(id, &state) {
                Ok(hard_state) => hard_state,
                Err(cause) => return out.fatal = Some(Fatal::raft(id, &cause)),
            },
            None => {
                bootstrap::initial_log(&mut out.log.batch, id);
                bootstrap::initial_hard_state()
            }
        };
        // It begins to exist once its log does.
        out.log.births.push(Birth { region, apply: ApplyState::initial(), hard_state });
    }

    fn touch(&mut self, id: RegionId) {
        if self.replicas.contains_key(&id) {
            self.touched.insert(id);
        }
    }

    fn create(&mut self, birth: Birth, out: &mut Outbox) {
        let (id, region, apply) = (birth.region.id, birth.region.clone(), birth.apply);
        assert!(!self.replicas.contains_key(&id), "region {id} is here already");
        let log = self.log.clone();
        match Replica::new(birth, self.store_id, log, &self.config, &mut self.prng) {
            Ok(mut replica) => {
                out.apply.push(ApplyInput::Create(region, apply));
                replica.campaign_if_alone();
                self.replicas.insert(id, replica);
                self.touched.insert(id);
            }
            Err(fatal) => out.fatal = Some(fatal),
        }
    }

    fn applied(&mut self, applied: &[Applied], out: &mut Outbox) {
        self.unsynced = true;
        for applied in applied {
            let leads = self.replicas.get(&applied.region_id).is_some_and(Replica::is_leader);
            for region in &applied.births {
                self.born(region.clone(), out);
                // Placement hears of the parts before the region gives up its range: no key is
                // without a region in between. This store leads them, unless another one is faster.
                if leads {
                    out.reports.push(Report::Leads(RegionReport::of_birth(region, self.store_id)));
                }
            }
            self.with_replica(applied.region_id, |replica| replica.applied(applied, out));
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Outbox) {
        // A driver that slept too long catches up on one tick, not on all: a burst of ticks would
        // be an election.
        self.next_tick = now + self.config.tick;
        for (id, replica) in &mut self.replicas {
            replica.tick();
            replica.compact_log(&self.config, out);
            replica.report_again(now, self.config.report_interval, out);
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
            replica.wants_cut().map(|(index, term)| (*id, index, term))
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
        for (id, index, term) in sync.cuts {
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            replica.cut(index);
            out.log.batch.truncate(id, index, term);
            out.log.purge = true;
        }
    }
}
