//! A whole store in one thread, on a memory disk and the memory engine, and several of them with a
//! network in between. Time is a number, and every step is the test's own, so that a test can stop
//! the world anywhere.

#![allow(dead_code, reason = "each test file uses its part")]

mod cluster;
mod keeper;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use cluster::{Cluster, cut, everything, learner, remove, voter, word};
pub(crate) use keeper::Keeper;

use base::{Epoch, Instant, KeyRange, Peer, PeerId, Prng, Region, RegionId, StoreId};
use bytes::Bytes;
use pontoon_store as store;
use storage::disk::MemoryDisk;
use storage::engine::{Cf, Engine, IterOptions, MemoryEngine};
use storage::keys;
use storage::log::{LogBatch, LogOptions, LogReader, RaftLog};
use store::bootstrap;
use store::snapshot::{SnapshotFolder, SnapshotKey};
use store::split_check::SplitWanted;
use store::{
    Applier, ApplyInput, ApplyOutbox, Job, LocalState, LogOutbox, LogWriter, Outbox, Proposal,
    RaftMessage, ReadRequest, RegionError, RegionReport, RegionView, RegionViews, ReplyTo, Report,
    RequestHeader, Shard, ShardConfig, ShardInput, SnapshotCredit, StoreAlive, StoreIdent,
    WriteResult, Writes,
};

pub(crate) const REGION: RegionId = RegionId(2);
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What outlives a process: the disk and the engine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub store_id: StoreId,
    pub disk: MemoryDisk,
    pub engine: MemoryEngine,
}

impl Machine {
    pub(crate) fn new(store_id: u64) -> Self {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::with_disk(Arc::new(disk.clone()));
        Self { store_id: StoreId(store_id), disk, engine }
    }

    /// The power goes: what was not synced may be lost, torn or kept.
    pub(crate) fn power_loss(&self, prng: &mut Prng) {
        self.disk.power_loss(prng);
        self.engine.power_loss(prng);
    }

    /// The process ends without a word: everything that was written is there.
    pub(crate) fn kill(&self) {
        self.disk.kill();
        self.engine.kill();
    }

    pub(crate) fn open_log(&self) -> RaftLog {
        let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
        RaftLog::open(Arc::new(self.disk.clone()), Path::new("log"), options).expect("it opens")
    }

    /// What the log on the disk says, for a look while a store runs on it.
    pub(crate) fn open_log_reader(&self) -> LogReader {
        let image = Machine { disk: self.disk.image(), ..self.clone() };
        image.open_log().reader()
    }

    /// Gives the store its identity, and nothing else.
    pub(crate) fn join(&self) {
        let ident =
            StoreIdent { cluster_id: base::ClusterId(7), store_id: self.store_id, api_version: 0 };
        bootstrap::bootstrap_store(&self.engine, &ident).expect("empty");
    }

    /// Writes what a bootstrap writes for a region of these peers.
    pub(crate) fn found(&self, region: &Region) {
        self.join();
        bootstrap::prepare_region(&self.engine, region).expect("the engine works");
        let mut batch = LogBatch::new();
        bootstrap::initial_log(&mut batch, region.id);
        let mut log = self.open_log();
        log.write(&batch).expect("the log works");
        log.sync().expect("the log works");
        bootstrap::clear_prepared(&self.engine).expect("the engine works");
    }

    /// A running store on what this machine holds.
    pub(crate) fn start(&self, config: ShardConfig) -> Node {
        Node::start(self.clone(), config)
    }
}

/// A region with one voter on each of these stores; the peer on store `n` has the id `100 + n`.
pub(crate) fn region_on(stores: &[u64]) -> Region {
    let peers = stores.iter().map(|&id| Peer::voter(PeerId(100 + id), StoreId(id)));
    Region { peers: peers.collect(), ..Region::first(REGION, Peer::voter(PeerId(1), StoreId(1))) }
}

/// A running store. Every queue between the actors is open to the test.
pub(crate) struct Node {
    pub machine: Machine,
    pub views: Arc<RegionViews>,
    pub shard: Shard,
    pub writer: LogWriter,
    pub applier: Applier,
    pub inbox: Vec<ShardInput>,
    pub apply_inbox: Vec<ApplyInput>,
    pub jobs: VecDeque<Job>,
    pub folder: SnapshotFolder,
    pub sent: VecDeque<RaftMessage>,
    /// Signs of life that leave.
    pub alive: VecDeque<StoreAlive>,
    /// Words about room for snapshots that leave.
    pub credits: VecDeque<SnapshotCredit>,
    pub out: Outbox,
    /// What placement was last told of the regions led here, and what was not done yet.
    pub led: BTreeMap<RegionId, RegionReport>,
    pub wants: Vec<SplitWanted>,
    /// Regions whose log lies here without a replica.
    pub orphans: BTreeSet<RegionId>,
    /// Who keeps something in memory for the regions led here.
    pub keeper: Keeper,
    pub fatal: Option<String>,
}

impl Node {
    fn start(mut machine: Machine, config: ShardConfig) -> Self {
        machine.engine = machine.engine.with_garbage(config.garbage.clone());
        let mut log = machine.open_log();
        let recovered =
            store::recover(&machine.engine, &log.reader(), machine.store_id).expect("recovers");
        if !recovered.log_repairs.is_empty() {
            log.write(&recovered.log_repairs).expect("the log works");
            log.sync().expect("the log works");
        }
        let applying = recovered.births.iter().filter(|b| b.local == LocalState::Applying);
        let installing = applying.map(|birth| {
            let (index, term) = birth.apply.truncated;
            SnapshotKey { region: birth.region.id, term, index }
        });
        let (disk, keep) = (Arc::new(machine.disk.clone()), installing.collect::<Vec<_>>());
        let folder = SnapshotFolder::open(disk, Path::new("snap"), &keep).expect("it opens");
        let views = Arc::new(RegionViews::new(machine.store_id));
        let shard = Shard::new(config, log.reader(), views.clone());
        let applier = Applier::new(Arc::new(machine.engine.clone()));
        let inbox = recovered.births.into_iter().map(ShardInput::Create).collect();
        Self {
            machine,
            views,
            shard,
            writer: LogWriter::new(log),
            applier,
            inbox,
            apply_inbox: Vec::new(),
            jobs: VecDeque::new(),
            folder,
            sent: VecDeque::new(),
            alive: VecDeque::new(),
            credits: VecDeque::new(),
            out: Outbox::default(),
            led: BTreeMap::new(),
            wants: Vec::new(),
            orphans: BTreeSet::new(),
            keeper: Keeper::default(),
            fatal: None,
        }
    }

    /// The process ends: callers learn that nothing is known of their requests.
    pub(crate) fn stop(&mut self) {
        self.inbox.clear();
        self.apply_inbox.clear();
        self.jobs.clear();
        self.sent.clear();
        self.alive.clear();
        self.credits.clear();
        self.out = Outbox::default();
    }

    /// The shard takes what waits for it; what it wants written stays in `out.log`.
    pub(crate) fn turn_shard(&mut self, now: Instant) {
        self.shard.turn(now, &mut self.inbox, &mut self.out);
        let out = &mut self.out;
        self.sent.extend(out.send.drain(..));
        self.alive.extend(out.alive.drain(..));
        self.credits.extend(out.credits.drain(..));
        self.apply_inbox.append(&mut out.apply);
        self.jobs.extend(out.jobs.drain(..));
        out.replies.drain(..).for_each(|(reply, result)| reply.answer(result));
        for report in out.reports.drain(..) {
            match report {
                Report::Leads(report) => drop(self.led.insert(report.region.id, report)),
                Report::Lost(region) => drop(self.led.remove(&region)),
                Report::WantsSplit(wanted) => self.wants.push(wanted),
                Report::Orphan(region) => drop(self.orphans.insert(region)),
            }
        }
        for event in out.leading.drain(..) {
            self.inbox.extend(self.keeper.hear(event));
        }
        self.fatal = self.fatal.take().or(out.fatal.take().map(|fatal| fatal.to_string()));
    }

    /// The log writer makes durable what the shard wanted written.
    pub(crate) fn turn_log(&mut self) {
        if self.out.log.is_empty() {
            return;
        }
        let mut out = LogOutbox::default();
        self.writer.turn(&mut vec![std::mem::take(&mut self.out.log)], &mut out);
        self.fatal = self.fatal.take().or(out.fatal.map(|fatal| fatal.to_string()));
        self.sent.extend(out.send);
        out.done.into_iter().for_each(|done| done());
        self.inbox.extend(out.births.into_iter().map(ShardInput::Create));
        if !out.persisted.is_empty() {
            self.inbox.push(ShardInput::Persisted(out.persisted));
        }
    }

    /// The applier takes what waits for it.
    pub(crate) fn turn_applier(&mut self) {
        let mut out = ApplyOutbox::default();
        self.applier.turn(&mut self.apply_inbox, &mut out);
        self.fatal = self.fatal.take().or(out.fatal.map(|fatal| fatal.to_string()));
        out.replies.into_iter().for_each(|(reply, result)| reply.answer(result));
        self.jobs.extend(out.jobs);
        if !out.applied.is_empty() {
            self.inbox.push(ShardInput::Applied(out.applied));
        }
    }

    /// Does the job that waits longest.
    pub(crate) fn run_job(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        match job.run(&self.machine.engine, &self.folder) {
            Ok(answer) => self.inbox.extend(answer),
            Err(fatal) => self.fatal = self.fatal.take().or(Some(fatal.to_string())),
        }
    }

    pub(crate) fn run_jobs(&mut self) {
        while !self.jobs.is_empty() {
            self.run_job();
        }
    }

    /// Everything until nobody has anything to do.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            self.turn_shard(now);
            self.turn_log();
            self.turn_applier();
            self.run_jobs();
            if self.inbox.is_empty() && self.out.log.is_empty() && self.apply_inbox.is_empty() {
                return;
            }
            assert_eq!(self.fatal, None);
        }
    }

    pub(crate) fn view(&self) -> Arc<RegionView> {
        self.views.get(REGION).expect("the region is here")
    }

    /// What the engine holds of the range, family by family.
    pub(crate) fn contents(&self, region: RegionId, range: &KeyRange) -> Vec<(Cf, Bytes, Bytes)> {
        let (start, end) = keys::data_range(region, range);
        let snapshot = self.machine.engine.snapshot();
        let mut rows = Vec::new();
        for cf in Cf::DATA {
            let options = IterOptions::within(KeyRange::new(start.clone(), end.clone()));
            let mut cursor = snapshot.iter(cf, options).expect("readable");
            let mut valid = cursor.seek_to_first().expect("readable");
            while valid {
                let (key, value) = (cursor.key().to_vec().into(), cursor.value().to_vec().into());
                rows.push((cf, key, value));
                valid = cursor.next().expect("readable");
            }
        }
        rows
    }

    pub(crate) fn header(&self) -> RequestHeader {
        header_of(&self.view())
    }

    /// Puts `key`; the answer appears in the slot.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Slot {
        let mut writes = Writes::new();
        writes.put(Cf::Default, key, value);
        let header = self.header();
        self.propose(header, writes)
    }

    pub(crate) fn propose(&mut self, header: RequestHeader, writes: Writes) -> Slot {
        let slot = Slot::default();
        let proposal = Proposal { header, writes, only_in_term: None, reply: slot.reply() };
        self.inbox.push(ShardInput::Propose(proposal));
        slot
    }

    pub(crate) fn read_index(&mut self) -> Slot {
        let slot = Slot::default();
        let (header, reply) = (self.header(), slot.reply());
        self.inbox.push(ShardInput::ReadIndex(ReadRequest { header, any_replica: false, reply }));
        slot
    }

    /// Asks the replica here for leave to read, whether it leads or not.
    pub(crate) fn replica_read(&mut self, region: RegionId) -> Slot {
        let slot = Slot::default();
        let view = self.views.get(region).expect("the region is here");
        let (header, reply) = (header_of(&view), slot.reply());
        self.inbox.push(ShardInput::ReadIndex(ReadRequest { header, any_replica: true, reply }));
        slot
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.machine.engine.get(Cf::Default, &keys::data_key(key)).expect("readable")
    }
}

pub(crate) fn header_of(view: &RegionView) -> RequestHeader {
    RequestHeader::new(view.region.id, view.peer, view.region.epoch)
}

/// Where an answer appears.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot(Arc<Mutex<Vec<WriteResult>>>);

impl Slot {
    pub(crate) fn reply(&self) -> ReplyTo {
        let slot = self.0.clone();
        ReplyTo::new(move |result| slot.lock().expect("one thread").push(result))
    }

    /// The answer, if there is one. Panics if there are two.
    pub(crate) fn answer(&self) -> Option<WriteResult> {
        let answers = self.0.lock().expect("one thread");
        assert!(answers.len() <= 1, "answered twice: {answers:?}");
        answers.first().cloned()
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.answer() == Some(Ok(()))
    }

    pub(crate) fn error(&self) -> RegionError {
        self.answer().expect("answered").expect_err("refused")
    }
}

pub(crate) const OTHER_EPOCH: Epoch = Epoch { conf_ver: 1, version: 9 };
