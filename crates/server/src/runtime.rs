//! The threads that drive a store's actors, and the mailboxes between them.
//!
//! ```text
//!   callers ──mailbox──> [store thread: Shard + LogWriter] ──> [apply thread: Applier] ──> callers
//!                           ^  │  write + fdatasync inline             │
//!                           ├──┼─────── applied notices ───────────────┤
//!                           │  ├─ jobs <──────────────────────── jobs ─┘
//!                           │  ▼
//!                           ├─ [disk thread]: engine syncs, the log's next segment
//!                           ├─ [job threads]: snapshots are made and installed, data is removed
//!   other stores <── Transport ── messages, snapshots ──> other stores
//! ```
//!
//! While the store thread sleeps in `fdatasync`, proposals pile up in its mailbox; its next turn
//! makes them one entry and one sync. That is the group commit, and there is no timer in it. The
//! applier has a thread of its own, so that an engine that stalls does not stop ticks and
//! heartbeats.
//!
//! Applied notices do not wake the store thread unless somebody waits for them: with one client a
//! wake-up more would be a good part of a put's price.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use base::{ClusterId, StoreId};
use crossbeam_channel::{Receiver, Sender};
use storage::engine::Engine;
use storage::log::Preparer;
use store::snapshot::{BUILDS_MAX, SnapshotFolder};
use store::{
    Applied, Applier, ApplyInput, Job, LeaderEvent, LogWriter, RaftMessage, Report, Shard,
    ShardInput,
};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::Clock;
use crate::gc::Gc;
use crate::metrics::Metrics;
use crate::transport::{Inbox, QueueLimits, Resolver, SnapshotLimits, Transport, TransportParts};
use apply_thread::ApplyThread;
use disk_thread::{DiskJob, DiskThread};
use job_threads::{JobQueues, JobThread};

mod apply_thread;
mod disk_thread;
mod job_threads;
mod store_thread;

/// Client requests that may wait in the mailbox; beyond that they are refused as busy.
const CLIENT_INPUTS_MAX: usize = 65_536;

/// What a thread that stops on a failure tells the node.
pub(crate) type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// What a store tells the placement driver.
pub(crate) type OnReport = Box<dyn Fn(Report) + Send>;

/// What a store tells whoever keeps something in memory for regions that are led here. Called on
/// the store thread: it must be quick and must not block.
pub(crate) type OnLeading = Box<dyn Fn(LeaderEvent) + Send>;

enum StoreInput {
    Shard(ShardInput),
    /// From other stores. The credit is given back with the turn that takes them.
    Messages(Vec<RaftMessage>, OwnedSemaphorePermit),
    /// There is something in the channel of applied notices.
    Look,
    Stop,
}

/// The way in to the store thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox {
    inputs: Sender<StoreInput>,
    /// Client requests in `inputs`.
    clients: Arc<AtomicUsize>,
}

impl Mailbox {
    /// Hands a client's request over, or gives it back if too many wait already or the store has
    /// stopped.
    pub(crate) fn request(&self, input: ShardInput) -> Result<(), Box<ShardInput>> {
        if self.clients.fetch_add(1, Ordering::Relaxed) >= CLIENT_INPUTS_MAX {
            self.clients.fetch_sub(1, Ordering::Relaxed);
            return Err(Box::new(input));
        }
        self.tell(input)
    }

    /// Hands over what is not a client's request. Gives it back if the store has stopped.
    pub(crate) fn tell(&self, input: ShardInput) -> Result<(), Box<ShardInput>> {
        self.inputs.send(StoreInput::Shard(input)).map_err(|error| match error.0 {
            StoreInput::Shard(input) => Box::new(input),
            _ => unreachable!("what was sent comes back"),
        })
    }
}

impl Inbox for Mailbox {
    // A store that has stopped needs to know nothing more.
    fn messages(&self, messages: Vec<RaftMessage>, credit: OwnedSemaphorePermit) {
        let _ = self.inputs.send(StoreInput::Messages(messages, credit));
    }

    fn tell(&self, input: ShardInput) {
        let _ = Mailbox::tell(self, input);
    }
}

/// Notices of the applier, and whether the store thread wants to be woken for them.
#[derive(Clone)]
struct AppliedNotices {
    sender: Sender<Vec<Applied>>,
    awaited: Arc<AtomicBool>,
    store: Sender<StoreInput>,
}

impl AppliedNotices {
    fn send(&self, applied: Vec<Applied>) {
        // The store thread may have stopped; then nobody needs to know.
        let _ = self.sender.send(applied);
        if self.awaited.swap(false, Ordering::SeqCst) {
            let _ = self.store.send(StoreInput::Look);
        }
    }
}

/// The running threads of a store.
pub(crate) struct Threads {
    mailbox: Mailbox,
    apply: Sender<ApplyInput>,
    store: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    jobs: JobQueues,
    stopping: Arc<AtomicBool>,
}

/// What the threads are made of.
pub(crate) struct Parts {
    pub(crate) shard: Shard,
    pub(crate) log_writer: LogWriter,
    pub(crate) engine: Arc<dyn Engine>,
    /// Opened after recovery: it must know which received snapshots are still to be installed.
    pub(crate) snapshots: SnapshotFolder,
    pub(crate) gc: Gc,
    pub(crate) peers: Peers,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) on_report: OnReport,
    pub(crate) on_leading: OnLeading,
    pub(crate) on_fatal: OnFatal,
}

/// What the way to the other stores needs to know.
pub(crate) struct Peers {
    pub(crate) cluster_id: ClusterId,
    pub(crate) store_id: StoreId,
    /// May answer `None` for as long as nobody can be asked: messages are dropped meanwhile. Called
    /// before each connection, so it should answer from memory or ask placement anew, not remember
    /// an address for ever.
    pub(crate) resolver: Resolver,
}

/// The receiving ends of what [`JobQueues`] has the sending ends of.
struct JobInboxes {
    disk: Receiver<DiskJob>,
    build: Receiver<Job>,
    check: Receiver<Job>,
    range: Receiver<Job>,
}

impl Threads {
    /// Starts them, and the transport: to be called from within a tokio runtime, on which its tasks
    /// will run.
    ///
    /// `Node::open` gives each of these the same [`SnapshotFolder`], opened with the engine's disk
    /// and the keys of the regions found Applying: [`Parts::snapshots`], and the `StoreHandle` from
    /// which the services take it for what arrives.
    pub(crate) fn start(parts: Parts) -> std::io::Result<Self> {
        let (inputs, store_inbox) = crossbeam_channel::unbounded();
        let (apply, apply_inbox) = crossbeam_channel::unbounded();
        let (applied, applied_inbox) = crossbeam_channel::unbounded();
        let (jobs, job_inboxes) = job_queues(parts.gc.clone());
        let mailbox = Mailbox { inputs: inputs.clone(), clients: Arc::default() };
        let awaited = Arc::new(AtomicBool::new(false));
        let notices = AppliedNotices { sender: applied, awaited: awaited.clone(), store: inputs };
        let stopping = Arc::new(AtomicBool::new(false));
        let segment_asked = Arc::default();
        let preparer = parts.log_writer.preparer();

        let others = Others { parts: &parts, mailbox: &mailbox, stopping: &stopping };
        let disk_thread = others.disk(job_inboxes.disk, preparer.clone(), &segment_asked);
        let apply_thread = others.apply(apply_inbox, notices, jobs.clone());
        let mut running =
            others.start_job_threads(job_inboxes.build, job_inboxes.check, job_inboxes.range)?;
        let transport = others.transport();
        let store_thread = store_thread::StoreThread {
            preparer,
            shard: parts.shard,
            log_writer: parts.log_writer,
            clock: parts.clock,
            metrics: parts.metrics,
            inbox: store_inbox,
            clients: mailbox.clients.clone(),
            applied: applied_inbox,
            awaited,
            apply: apply.clone(),
            jobs: jobs.clone(),
            transport,
            segment_asked,
            on_report: parts.on_report,
            on_leading: parts.on_leading,
            on_fatal: parts.on_fatal,
        };
        running.push(spawn("apply", move || apply_thread.run())?);
        running.push(spawn("disk", move || disk_thread.run())?);
        let store = Some(spawn("store", move || store_thread.run())?);
        Ok(Self { mailbox, apply, store, others: running, jobs, stopping })
    }

    /// The way in.
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Stops the threads in order: what was proposed before is written, what was committed is
    /// applied.
    pub(crate) fn stop(self) {
        let Self { mailbox, apply, store, others, jobs, stopping } = self;
        stopping.store(true, Ordering::Relaxed);
        let _ = mailbox.inputs.send(StoreInput::Stop);
        drop((apply, jobs));
        for thread in store.into_iter().chain(others) {
            if thread.join().is_err() {
                tracing::error!("a store thread panicked");
            }
        }
    }
}

/// Makes the threads beside the store thread, and the transport.
struct Others<'a> {
    parts: &'a Parts,
    mailbox: &'a Mailbox,
    stopping: &'a Arc<AtomicBool>,
}

impl Others<'_> {
    fn apply(
        &self,
        inbox: Receiver<ApplyInput>,
        notices: AppliedNotices,
        jobs: JobQueues,
    ) -> ApplyThread {
        ApplyThread {
            applier: Applier::new(self.parts.engine.clone()),
            inbox,
            notices,
            jobs,
            metrics: self.parts.metrics.clone(),
            on_fatal: self.parts.on_fatal.clone(),
        }
    }

    fn disk(
        &self,
        inbox: Receiver<DiskJob>,
        preparer: Preparer,
        segment_asked: &Arc<AtomicBool>,
    ) -> DiskThread {
        DiskThread {
            engine: self.parts.engine.clone(),
            preparer,
            segment_asked: segment_asked.clone(),
            inbox,
            store: self.mailbox.clone(),
            on_fatal: self.parts.on_fatal.clone(),
        }
    }

    fn start_job_threads(
        &self,
        build: Receiver<Job>,
        check: Receiver<Job>,
        range: Receiver<Job>,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let thread = |inbox| JobThread {
            engine: self.parts.engine.clone(),
            snapshots: self.parts.snapshots.clone(),
            gc: self.parts.gc.clone(),
            inbox,
            store: self.mailbox.clone(),
            stopping: self.stopping.clone(),
            on_fatal: self.parts.on_fatal.clone(),
        };
        let (build, check, range) = (thread(build), thread(check), thread(range));
        let mut running = vec![spawn_aside("range", move || range.run())?];
        running.push(spawn_aside("check", move || check.run())?);
        for number in 0..BUILDS_MAX {
            let thread = build.clone();
            running.push(spawn_aside(&format!("build-{number}"), move || thread.run())?);
        }
        Ok(running)
    }

    fn transport(&self) -> Transport {
        let Peers { cluster_id, store_id, resolver } = &self.parts.peers;
        let parts = TransportParts {
            cluster_id: *cluster_id,
            store_id: *store_id,
            resolver: resolver.clone(),
            inbox: Arc::new(self.mailbox.clone()),
            snapshots: self.parts.snapshots.clone(),
            metrics: self.parts.metrics.clone(),
            queue_limits: QueueLimits::default(),
            snapshot_limits: SnapshotLimits::default(),
        };
        Transport::start(parts, Handle::current())
    }
}

fn job_queues(gc: Gc) -> (JobQueues, JobInboxes) {
    let (disk, disk_inbox) = crossbeam_channel::unbounded();
    let (build, build_inbox) = crossbeam_channel::unbounded();
    let (check, check_inbox) = crossbeam_channel::unbounded();
    let (range, range_inbox) = crossbeam_channel::unbounded();
    let inboxes =
        JobInboxes { disk: disk_inbox, build: build_inbox, check: check_inbox, range: range_inbox };
    (JobQueues { disk, build, check, range, gc }, inboxes)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// How much nicer those threads are that read or write whole regions.
const ASIDE: i32 = 10;

/// A thread that leaves the processor to those who serve requests.
pub(crate) fn spawn_aside(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    spawn(name, move || {
        // On Linux this is for the calling thread alone. Where it is refused, all are alike.
        if let Err(error) = rustix::process::setpriority_process(None, ASIDE) {
            tracing::debug!(%error, "a thread keeps its priority");
        }
        run();
    })
}
