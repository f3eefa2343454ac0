//! The threads that drive a store's actors, and the mailboxes between them.
//!
//! ```text
//!   callers ──mailbox──> [store thread: Shard + LogWriter] ──> [apply thread: Applier] ──> callers
//!                           ^  write + fdatasync inline                │
//!                           └────────── applied notices ───────────────┘
//!                        [disk thread]: engine syncs, the log's next segment
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

use crossbeam_channel::Sender;
use storage::engine::Engine;
use store::{Applied, Applier, ApplyInput, LogWriter, Report, Shard, ShardInput};

use crate::clock::Clock;
use crate::metrics::Metrics;

mod apply_thread;
mod disk_thread;
mod store_thread;

/// Client requests that may wait in the mailbox; beyond that they are refused as busy.
const CLIENT_INPUTS_MAX: usize = 65_536;

/// What a thread that stops on a failure tells the node.
pub(crate) type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// What a store tells the placement driver.
pub(crate) type OnReport = Box<dyn Fn(Report) + Send>;

enum StoreInput {
    Shard(ShardInput),
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
            StoreInput::Look | StoreInput::Stop => unreachable!("what was sent comes back"),
        })
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
}

/// What the threads are made of.
pub(crate) struct Parts {
    pub(crate) shard: Shard,
    pub(crate) log_writer: LogWriter,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) on_report: OnReport,
    pub(crate) on_fatal: OnFatal,
}

impl Threads {
    /// Starts them.
    pub(crate) fn start(parts: Parts) -> std::io::Result<Self> {
        let (inputs, store_inbox) = crossbeam_channel::unbounded();
        let (apply, apply_inbox) = crossbeam_channel::unbounded();
        let (applied, applied_inbox) = crossbeam_channel::unbounded();
        let (disk, disk_inbox) = crossbeam_channel::unbounded();
        let mailbox = Mailbox { inputs: inputs.clone(), clients: Arc::default() };
        let awaited = Arc::new(AtomicBool::new(false));
        let notices = AppliedNotices { sender: applied, awaited: awaited.clone(), store: inputs };

        let store_thread = store_thread::StoreThread {
            preparer: parts.log_writer.preparer(),
            shard: parts.shard,
            log_writer: parts.log_writer,
            clock: parts.clock,
            metrics: parts.metrics.clone(),
            inbox: store_inbox,
            clients: mailbox.clients.clone(),
            applied: applied_inbox,
            awaited,
            apply: apply.clone(),
            disk,
            segment_asked: Arc::default(),
            on_report: parts.on_report,
            on_fatal: parts.on_fatal.clone(),
        };
        let segment_asked = store_thread.segment_asked.clone();
        let apply_thread = apply_thread::ApplyThread {
            applier: Applier::new(parts.engine.clone()),
            inbox: apply_inbox,
            notices,
            metrics: parts.metrics,
            on_fatal: parts.on_fatal.clone(),
        };
        let disk_thread = disk_thread::DiskThread {
            engine: parts.engine,
            preparer: store_thread.preparer.clone(),
            segment_asked,
            inbox: disk_inbox,
            store: mailbox.clone(),
            on_fatal: parts.on_fatal,
        };

        Ok(Self {
            store: Some(spawn("store", move || store_thread.run())?),
            others: vec![
                spawn("apply", move || apply_thread.run())?,
                spawn("disk", move || disk_thread.run())?,
            ],
            mailbox,
            apply,
        })
    }

    /// The way in.
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Stops the threads in order: what was proposed before is written, what was committed is
    /// applied.
    pub(crate) fn stop(self) {
        let Self { mailbox, apply, store, others } = self;
        let _ = mailbox.inputs.send(StoreInput::Stop);
        drop(apply);
        for thread in store.into_iter().chain(others) {
            if thread.join().is_err() {
                tracing::error!("a store thread panicked");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
