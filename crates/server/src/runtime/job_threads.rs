//! The threads for what takes long: snapshots are made, installed and thrown away, data is removed.
//!
//! ```text
//!   store thread ─┐             ┌─ SyncEngine ──> disk thread (beside the log's segments)
//!                 ├── JobQueues ┼─ Reclaim ──> "gc" thread (crate::gc)
//!                 │             ├─ BuildSnapshot, ComputeHash ──> "build" threads, several at once
//!                 │             ├─ CheckSplit ──> "check" thread
//!   apply thread ─┘             └─ all others ──> "range" thread, one after the other
//! ```
//!
//! What writes to ranges of the engine or removes files keeps the order in which it was asked for:
//! a region's data may be removed, and the next one's snapshot installed in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::KeyRange;
use crossbeam_channel::{Receiver, Sender};
use storage::engine::{Cf, Engine};
use storage::keys;
use store::snapshot::{DestroyData, SnapshotFolder};
use store::{Fatal, Job, ShardInput};

use super::disk_thread::DiskJob;
use super::{Mailbox, OnFatal};
use crate::gc::{Gc, GcTask};

/// Where jobs go.
#[derive(Clone)]
pub(super) struct JobQueues {
    pub(super) disk: Sender<DiskJob>,
    pub(super) build: Sender<Job>,
    pub(super) check: Sender<Job>,
    pub(super) range: Sender<Job>,
    pub(super) gc: Gc,
}

impl JobQueues {
    /// Hands a job to the thread for its kind. That one outlives the caller unless it failed, and
    /// then it has told why.
    pub(super) fn send(&self, job: Job) {
        match job {
            Job::SyncEngine => drop(self.disk.send(DiskJob::SyncEngine)),
            Job::BuildSnapshot(_) | Job::ComputeHash(_) => drop(self.build.send(job)),
            Job::Reclaim(cf, range) => self.gc.ask(GcTask::Compact(cf, range)),
            Job::CheckSplit(_) => drop(self.check.send(job)),
            Job::InstallSnapshot(_) | Job::DiscardSnapshot(_) | Job::DestroyData(_) => {
                drop(self.range.send(job));
            }
        }
    }
}

/// One of the threads.
#[derive(Clone)]
pub(super) struct JobThread {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) snapshots: SnapshotFolder,
    pub(super) gc: Gc,
    pub(super) inbox: Receiver<Job>,
    pub(super) store: Mailbox,
    /// The node stops: what has not begun need not.
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) on_fatal: OnFatal,
}

impl JobThread {
    /// Runs until the threads that ask are gone.
    pub(super) fn run(self) {
        for job in &self.inbox {
            if self.stopping.load(Ordering::Relaxed) {
                continue;
            }
            let removed = match &job {
                Job::DestroyData(destroy) => Some(destroy.clone()),
                _ => None,
            };
            match self.run_job(job) {
                Ok(Some(result)) => drop(self.store.tell(result)),
                Ok(None) => {}
                Err(fatal) => return (self.on_fatal)(fatal.to_string()),
            }
            if let Some(DestroyData { region, range }) = removed {
                let (start, end) = keys::data_range(region, &range);
                for cf in Cf::DATA {
                    self.gc.ask(GcTask::Compact(cf, KeyRange::new(start.clone(), end.clone())));
                }
            }
        }
    }

    fn run_job(&self, job: Job) -> Result<Option<ShardInput>, Fatal> {
        let replaces = matches!(job, Job::InstallSnapshot(_) | Job::DestroyData(_));
        let _replacing = replaces.then(|| self.gc.replacing());
        job.run(&*self.engine, &self.snapshots)
    }
}
