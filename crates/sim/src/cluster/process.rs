//! What runs on a node: the actors of a store, each with its inbox, and what surrounds them in
//! production (the home of the placement driver, the reporter, latches).

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base::{Instant, KeyRange, Prng, StoreId};
use bytes::Bytes;
use storage::disk::MemoryDisk;
use storage::engine::{GarbageRule, MemoryEngine};
use storage::log::{LogError, LogOptions, LogReader, Preparer, RaftLog};
use store::snapshot::{SnapshotFolder, SnapshotKey};
use store::{
    Applier, ApplyInput, Job, LocalState, LogWrite, LogWriter, Recovered, RegionViews, ReplyTo,
    Shard, ShardConfig, ShardInput, WriteResult,
};

use super::boot::Boot;
use super::clock::Clock;
use super::event::Actor;
use super::host::Host;
use super::reporter::Reporter;
use super::txn::TxnHost;

/// Length of a segment of the raft log: short, so that segments come and go.
const SEGMENT_BYTES: u64 = 16 << 10;

/// Answers of the store that somebody waits for, by number.
pub(crate) type Results = Arc<Mutex<Vec<(u64, WriteResult)>>>;

/// The way back for an answer.
pub(crate) fn reply_to(results: &Results, number: u64) -> ReplyTo {
    let results = results.clone();
    ReplyTo::new(move |result| results.lock().expect("one thread").push((number, result)))
}

/// What outlives a process: the disk and the engine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) disk: MemoryDisk,
    pub(crate) engine: MemoryEngine,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::with_disk(Arc::new(disk.clone()));
        Self { disk, engine }
    }

    /// The same, where this may be dropped.
    pub(crate) fn with_garbage(self, garbage: Arc<dyn GarbageRule>) -> Self {
        Self { engine: self.engine.with_garbage(garbage), ..self }
    }

    pub(crate) fn open_log(&self, salt: u64) -> Result<RaftLog, LogError> {
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, salt, ..LogOptions::default() };
        RaftLog::open(Arc::new(self.disk.clone()), Path::new("log"), options)
    }

    /// The folder of snapshots, swept but for those that are still to be installed.
    pub(crate) fn open_folder(
        &self,
        recovered: &Recovered,
    ) -> Result<SnapshotFolder, store::snapshot::SnapshotError> {
        let applying = recovered.births.iter().filter(|b| b.local == LocalState::Applying);
        let keep: Vec<_> = applying
            .map(|birth| {
                let (index, term) = birth.apply.truncated;
                SnapshotKey { region: birth.region.id, term, index }
            })
            .collect();
        SnapshotFolder::open(Arc::new(self.disk.clone()), Path::new("snap"), &keep)
    }

    /// The process ends; the power may go too.
    pub(crate) fn end(&self, power: Option<&mut Prng>) {
        match power {
            Some(prng) => {
                self.disk.power_loss(prng);
                self.engine.power_loss(prng);
            }
            None => {
                self.disk.kill();
                self.engine.kill();
            }
        }
    }
}

/// A place with a machine, on which a process runs or does not.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    /// The store there, once it has a name.
    pub(crate) store_id: Option<StoreId>,
    /// Processes that there were.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    pub(crate) clock: Clock,
    /// The process ends after so many more effects, with the power or alone.
    pub(crate) doomed: Option<(u32, bool)>,
    /// Nothing runs before this.
    pub(crate) paused_until: Instant,
    /// This actor does not run before that.
    pub(crate) stalled: Option<(Actor, Instant)>,
    /// How many times slower than usual the disk is.
    pub(crate) disk_factor: u32,
    /// What is on the disk is damaged: nothing runs here before it is wiped.
    pub(crate) damaged: bool,
    /// It shall not run for now.
    pub(crate) held: bool,
}

impl Node {
    pub(crate) fn new(drift_ppm: i64) -> Self {
        Self {
            machine: Machine::new(),
            store_id: None,
            life: 0,
            process: None,
            clock: Clock::new(drift_ppm),
            doomed: None,
            paused_until: Instant::ZERO,
            stalled: None,
            disk_factor: 1,
            damaged: false,
            held: false,
        }
    }

    pub(crate) fn core(&mut self) -> Option<&mut Core> {
        self.process.as_mut()?.core.as_mut()
    }

    pub(crate) fn views(&self) -> Option<&Arc<RegionViews>> {
        Some(&self.process.as_ref()?.core.as_ref()?.views)
    }
}

/// A running process.
pub(crate) struct Process {
    pub(crate) boot: Boot,
    /// Whom to ask for the placement driver next.
    pub(crate) ask: usize,
    /// The store, once it is known which.
    pub(crate) core: Option<Core>,
}

/// What the disk thread does.
pub(crate) enum DiskJob {
    Job(Job),
    PrepareSegment,
}

/// A running store.
pub(crate) struct Core {
    pub(crate) views: Arc<RegionViews>,
    pub(crate) shard: Shard,
    pub(crate) writer: LogWriter,
    pub(crate) applier: Applier,
    pub(crate) preparer: Preparer,
    /// What is durable of the log.
    pub(crate) log: LogReader,
    /// Keys that were removed or replaced beneath their readers, one after the other.
    pub(crate) cleared: Vec<KeyRange>,
    pub(crate) preparing: bool,
    pub(crate) folder: SnapshotFolder,
    pub(crate) inbox: Vec<ShardInput>,
    pub(crate) log_inbox: Vec<LogWrite>,
    pub(crate) apply_inbox: Vec<ApplyInput>,
    pub(crate) disk_jobs: VecDeque<DiskJob>,
    pub(crate) builds: VecDeque<Job>,
    pub(crate) checks: VecDeque<Job>,
    pub(crate) range_jobs: VecDeque<Job>,
    /// When each actor will run.
    pub(crate) wakes: [Option<Instant>; Actor::ALL.len()],
    /// The latest time for which an event wakes each actor, or has.
    pub(crate) last_wakes: [Option<Instant>; Actor::ALL.len()],
    pub(crate) host: Host,
    pub(crate) reporter: Reporter,
    /// Keys whose holder reads before it writes.
    pub(crate) latches: BTreeSet<Bytes>,
    pub(crate) disk_full: bool,
    pub(crate) txn: TxnHost,
}

impl Core {
    pub(crate) fn new(
        machine: &Machine,
        store_id: StoreId,
        log: RaftLog,
        folder: SnapshotFolder,
        config: ShardConfig,
        txn: TxnHost,
    ) -> Self {
        let views = Arc::new(RegionViews::new(store_id));
        let shard = Shard::new(config, log.reader(), views.clone());
        let reader = log.reader();
        let writer = LogWriter::new(log);
        Self {
            views,
            shard,
            preparer: writer.preparer(),
            log: reader,
            cleared: Vec::new(),
            preparing: false,
            writer,
            applier: Applier::new(Arc::new(machine.engine.clone())),
            folder,
            inbox: Vec::new(),
            log_inbox: Vec::new(),
            apply_inbox: Vec::new(),
            disk_jobs: VecDeque::new(),
            builds: VecDeque::new(),
            checks: VecDeque::new(),
            range_jobs: VecDeque::new(),
            wakes: [None; Actor::ALL.len()],
            last_wakes: [None; Actor::ALL.len()],
            host: Host::default(),
            reporter: Reporter::default(),
            latches: BTreeSet::new(),
            disk_full: false,
            txn,
        }
    }

    /// Whether the actor has anything to do.
    pub(crate) fn has_work(&self, actor: Actor) -> bool {
        match actor {
            Actor::Shard => !self.inbox.is_empty(),
            Actor::Log => !self.log_inbox.is_empty(),
            Actor::Applier => !self.apply_inbox.is_empty(),
            Actor::Disk => !self.disk_jobs.is_empty(),
            Actor::Build => !self.builds.is_empty(),
            Actor::Check => !self.checks.is_empty(),
            Actor::Range => !self.range_jobs.is_empty(),
        }
    }

    /// Hands a job to the thread for its kind.
    pub(crate) fn job(&mut self, job: Job) -> Actor {
        match job {
            Job::SyncEngine => {
                self.disk_jobs.push_back(DiskJob::Job(job));
                Actor::Disk
            }
            Job::CheckSplit(_) => {
                self.checks.push_back(job);
                Actor::Check
            }
            Job::BuildSnapshot(_) | Job::ComputeHash(_) => {
                self.builds.push_back(job);
                Actor::Build
            }
            other => {
                self.range_jobs.push_back(other);
                Actor::Range
            }
        }
    }
}
