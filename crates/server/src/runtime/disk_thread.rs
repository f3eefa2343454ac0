//! The disk thread: work on the disk that nobody should wait for in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;
use storage::engine::Engine;
use storage::log::Preparer;
use store::ShardInput;

use super::{Mailbox, OnFatal};

/// What the other threads ask for.
pub(super) enum DiskJob {
    /// Sync the engine, then tell the shard.
    SyncEngine,
    /// Prepare the log's next segment, so that the log's writer need not.
    PrepareSegment,
}

pub(super) struct DiskThread {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) preparer: Preparer,
    /// Set while a `PrepareSegment` is on its way.
    pub(super) segment_asked: Arc<AtomicBool>,
    pub(super) inbox: Receiver<DiskJob>,
    pub(super) store: Mailbox,
    pub(super) on_fatal: OnFatal,
}

impl DiskThread {
    /// Runs until the store thread is gone.
    pub(super) fn run(self) {
        for job in &self.inbox {
            match job {
                DiskJob::SyncEngine => match self.engine.sync() {
                    Ok(()) => drop(self.store.tell(ShardInput::EngineSynced)),
                    Err(error) => return (self.on_fatal)(format!("the engine failed: {error}")),
                },
                DiskJob::PrepareSegment => {
                    if let Err(error) = self.preparer.prepare() {
                        // The writer will try itself, and fail for good if it cannot either.
                        tracing::warn!(%error, "the log's next segment is not prepared");
                    }
                    self.segment_asked.store(false, Ordering::Release);
                }
            }
        }
    }
}
