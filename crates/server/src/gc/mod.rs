//! GC on a node: when it learns of safe points, and what then collects.
//!
//! ```text
//!   placement ── safe points, every gc.poll-interval ──> GcState ──> RocksDB's compactions ask it
//!                                          │
//!                                          └─ moved? ──> "gc" thread: sweeps region after region
//!   jobs (data of a region removed), DeleteRange, UnsafeDestroyRange ──> "gc" thread: compacts
//! ```
//!
//! What garbage is and why each replica may drop it by itself is on the page of `txn::gc`. One rule
//! binds the threads of a node: a step of a sweep reads the engine and deletes what it found, and
//! must not have a region's data replaced in between. Whoever replaces or removes the data of
//! ranges holds [`Gc::replacing`], and so does a step.

mod destroy;
mod poll;
mod sweeper;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{KeyRange, TimeStamp};
use crossbeam_channel::{Receiver, Sender};
use storage::engine::{Cf, GarbageRule};
use storage::keys;
use txn::gc::{GcRule, GcState};
use txn::mvcc::Key;
use txn::{Abort, KeyError};

use crate::errors::Refusal;

pub(crate) use poll::Poll;
pub(crate) use sweeper::{Sweeper, SweeperThread};

/// Tasks that wait for the "gc" thread.
const TASKS_MAX: usize = 1_024;

/// What the "gc" thread is asked.
#[derive(Debug)]
pub(crate) enum GcTask {
    /// Safe points have moved: look at all regions.
    Sweep,
    /// Much was deleted in this range (engine form): give the space back.
    Compact(Cf, KeyRange),
    /// The node stops.
    Stop,
}

fn refused(error: Abort) -> Refusal {
    KeyError::Abort(error).into()
}

/// What the parts of a node share about GC. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gc {
    state: Arc<GcState>,
    replacing: Arc<Mutex<()>>,
    tasks: (Sender<GcTask>, Receiver<GcTask>),
    stopping: Arc<AtomicBool>,
}

impl Gc {
    /// Knows of no safe point.
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(GcState::new()),
            replacing: Arc::default(),
            tasks: crossbeam_channel::bounded(TASKS_MAX),
            stopping: Arc::default(),
        }
    }

    /// What the store knows of safe points.
    pub(crate) fn state(&self) -> &GcState {
        &self.state
    }

    /// Refuses a transaction or a read at `ts` of `key` that comes too late.
    pub(crate) fn check(&self, key: &Key, ts: TimeStamp) -> Result<(), Refusal> {
        self.state.check(key.data(), ts).map_err(refused)
    }

    /// The same for keys from `start` (region form) on, which lie in one keyspace if in any.
    pub(crate) fn check_range(&self, start: &[u8], ts: TimeStamp) -> Result<(), Refusal> {
        self.state.check(&keys::data_key(start), ts).map_err(refused)
    }

    /// For the engine, and for those who compare replicas.
    pub(crate) fn rule(&self) -> Arc<dyn GarbageRule> {
        Arc::new(GcRule::new(self.state.clone()))
    }

    /// Held while data of ranges are replaced or removed outside the log, and by a step of a sweep.
    pub(crate) fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands something to the "gc" thread. If too much waits there already it is left to the engine
    /// and to the next move of a safe point.
    pub(crate) fn ask(&self, task: GcTask) {
        if self.tasks.0.try_send(task).is_err() {
            tracing::debug!("the gc thread is busy");
        }
    }

    /// The node stops: nothing more is begun.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.ask(GcTask::Stop);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
