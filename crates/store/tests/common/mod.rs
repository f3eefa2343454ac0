//! A whole store in one thread, on a memory disk and the memory engine, and several of them with a
//! network in between. Time is a number, and every step is the test's own, so that a test can stop
//! the world anywhere.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Epoch, Instant, Peer, PeerId, Prng, Region, RegionId, StoreId};
use bytes::Bytes;
use pontoon_store as store;
use storage::disk::MemoryDisk;
use storage::engine::{Cf, Engine, MemoryEngine};
use storage::keys;
use storage::log::{LogBatch, LogOptions, LogReader, RaftLog};
use store::bootstrap;
use store::{
    Applier, ApplyInput, ApplyOutbox, Job, LogOutbox, LogWriter, Outbox, Proposal, RaftMessage,
    ReadRequest, RegionError, RegionView, RegionViews, ReplyTo, RequestHeader, Shard, ShardConfig,
    ShardInput, StoreIdent, WriteResult, Writes,
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
        let (disk, engine) = (MemoryDisk::new(), MemoryEngine::new());
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

    /// Writes what a bootstrap writes for a region of these peers.
    pub(crate) fn found(&self, region: &Region) {
        let ident =
            StoreIdent { cluster_id: base::ClusterId(7), store_id: self.store_id, api_version: 0 };
        bootstrap::bootstrap_store(&self.engine, &ident).expect("empty");
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
    pub jobs: Vec<Job>,
    pub sent: VecDeque<RaftMessage>,
    pub out: Outbox,
    pub fatal: Option<String>,
}

impl Node {
    fn start(machine: Machine, config: ShardConfig) -> Self {
        let mut log = machine.open_log();
        let recovered =
            store::recover(&machine.engine, &log.reader(), machine.store_id).expect("recovers");
        if !recovered.log_repairs.is_empty() {
            log.write(&recovered.log_repairs).expect("the log works");
            log.sync().expect("the log works");
        }
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
            jobs: Vec::new(),
            sent: VecDeque::new(),
            out: Outbox::default(),
            fatal: None,
        }
    }

    /// The shard takes what waits for it; what it wants written stays in `out.log`.
    pub(crate) fn turn_shard(&mut self, now: Instant) {
        self.shard.turn(now, &mut self.inbox, &mut self.out);
        let out = &mut self.out;
        self.sent.extend(out.send.drain(..));
        self.apply_inbox.append(&mut out.apply);
        self.jobs.append(&mut out.jobs);
        out.replies.drain(..).for_each(|(reply, result)| reply.answer(result));
        out.reports.clear();
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
        if !out.applied.is_empty() {
            self.inbox.push(ShardInput::Applied(out.applied));
        }
    }

    pub(crate) fn run_jobs(&mut self) {
        for Job::SyncEngine in self.jobs.drain(..) {
            self.machine.engine.sync().expect("the memory engine syncs");
            self.inbox.push(ShardInput::EngineSynced);
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
        let request = ReadRequest { header: self.header(), reply: slot.reply() };
        self.inbox.push(ShardInput::ReadIndex(request));
        slot
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.machine.engine.get(Cf::Default, &keys::data_key(key)).expect("readable")
    }
}

pub(crate) fn header_of(view: &RegionView) -> RequestHeader {
    RequestHeader {
        region_id: view.region.id,
        peer: view.peer,
        epoch: Some(view.region.epoch),
        term: 0,
    }
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

/// Several stores that share one region.
pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
    pub now: Instant,
    /// Stores that nobody hears and that hear nobody.
    pub cut: Vec<StoreId>,
}

impl Cluster {
    pub(crate) fn new(size: u64) -> Self {
        let stores: Vec<u64> = (1..=size).collect();
        let region = region_on(&stores);
        let nodes = stores.iter().map(|&id| {
            let machine = Machine::new(id);
            machine.found(&region);
            machine.start(ShardConfig { seed: id, ..ShardConfig::default() })
        });
        Self { nodes: nodes.collect(), now: Instant::ZERO, cut: Vec::new() }
    }

    /// Time passes by one tick, then everything that follows from it happens.
    pub(crate) fn tick(&mut self) {
        self.now = self.now + TICK;
        self.deliver();
    }

    /// Everything until nobody has anything to do or to say.
    pub(crate) fn deliver(&mut self) {
        loop {
            let mut messages = Vec::new();
            for node in &mut self.nodes {
                node.settle(self.now);
                messages.extend(node.sent.drain(..));
            }
            messages.retain(|message| {
                !self.cut.contains(&message.from.store_id)
                    && !self.cut.contains(&message.to.store_id)
            });
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let to = message.to.store_id;
                let node =
                    self.nodes.iter_mut().find(|n| n.machine.store_id == to).expect("a store");
                node.inbox.push(ShardInput::Message(message));
            }
        }
    }

    /// Ticks until one of the stores that are not cut off leads and serves reads; its place in
    /// `nodes`.
    pub(crate) fn leader(&mut self) -> usize {
        for _ in 0..200 {
            self.tick();
            let cut = self.cut.clone();
            let leads = |node: &Node| {
                !cut.contains(&node.machine.store_id) && node.view().has_lease(self.now)
            };
            if let Some(leader) = self.nodes.iter().position(leads) {
                return leader;
            }
        }
        panic!("no leader within 20 s");
    }
}

pub(crate) const OTHER_EPOCH: Epoch = Epoch { conf_ver: 1, version: 9 };
