//! The log writer: makes everything that waits durable with one write and one sync (group commit).
//!
//! It owns the raft log. What a [`LogWrite`] promises (`then`: messages that say "this is on my
//! disk") leaves only after the sync; the order is in the type, not in the caller's care.

use base::RegionId;
use base::rule::{Rule, keep};
use raft::Ticket;
use storage::log::{LogBatch, LogStats, Preparer, RaftLog};

use crate::Fatal;
use crate::input::{Birth, RaftMessage};

/// Called once what it came with is durable.
pub type Done = Box<dyn FnOnce() + Send>;

/// What of a region is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStep {
    /// What raft wanted written.
    Written {
        /// Which life of the region on this store the ticket is of: several may follow each other.
        life: u64,
        /// Raft's name for the write.
        ticket: Ticket,
    },
    /// The log begins behind a snapshot that is to be installed.
    Restarted,
    /// The log is gone.
    Removed,
}

/// What one turn of a shard wants written.
#[derive(Default)]
pub struct LogWrite {
    /// Entries, states, truncations.
    pub batch: LogBatch,
    /// Whose steps this completes.
    pub tickets: Vec<(RegionId, LogStep)>,
    /// Messages that may leave only once the batch is durable.
    pub then: Vec<RaftMessage>,
    /// Callers that wait for durability.
    pub done: Vec<Done>,
    /// Replicas that may begin to exist once their log does.
    pub births: Vec<Birth>,
    /// Whether the log should look for segments it no longer needs.
    pub purge: bool,
}

impl LogWrite {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self { batch, tickets, then: _, done, births, purge } = self;
        batch.is_empty() && tickets.is_empty() && done.is_empty() && births.is_empty() && !purge
    }
}

/// What leaves a turn of the log writer, in the order in which the driver takes it.
#[derive(Default)]
pub struct LogOutbox {
    /// Messages that promise durability.
    pub send: Vec<RaftMessage>,
    /// For the shards: these persistence steps are done.
    pub persisted: Vec<(RegionId, LogStep)>,
    /// Waiting callers, to be called.
    pub done: Vec<Done>,
    /// For the shards: the logs of these replicas are there.
    pub births: Vec<Birth>,
    /// The node must stop: a failed write or sync is never tried again.
    pub fatal: Option<Fatal>,
}

/// The owner of the raft log.
pub struct LogWriter {
    log: RaftLog,
    /// The last purge left something to do.
    purge_more: bool,
}

impl LogWriter {
    /// Takes the log over.
    pub fn new(log: RaftLog) -> Self {
        Self { log, purge_more: false }
    }

    /// Counters of the log for the driver to export.
    pub fn stats(&self) -> LogStats {
        self.log.stats()
    }

    /// Nothing waits: uses the time to write down that everything so far was synced, so that damage
    /// to the very last records is told from a write that never finished.
    pub fn idle(&mut self, out: &mut LogOutbox) {
        if let Err(cause) = self.log.vouch() {
            out.fatal = Some(Fatal::log(&cause));
        }
    }

    /// A handle with which a background job prepares the log's next segment.
    pub fn preparer(&self) -> Preparer {
        self.log.preparer()
    }

    /// Writes everything in `inbox`, syncs once, then lets messages and notices go. After a turn
    /// that set `fatal` the writer must not be used again.
    pub fn turn(&mut self, inbox: &mut Vec<LogWrite>, out: &mut LogOutbox) {
        if let Err(cause) = self.write(inbox) {
            out.fatal = Some(Fatal::log(&cause));
            return;
        }
        for mut write in inbox.drain(..) {
            out.send.append(&mut write.then);
            out.persisted.append(&mut write.tickets);
            out.done.append(&mut write.done);
            out.births.append(&mut write.births);
        }
    }

    fn write(&mut self, inbox: &[LogWrite]) -> Result<(), storage::log::LogError> {
        let mut wrote = false;
        for write in inbox.iter().filter(|write| !write.batch.is_empty()) {
            self.log.write(&write.batch)?;
            wrote = true;
        }
        if wrote && keep(Rule::SyncBeforeAcknowledging) {
            self.log.sync()?;
        }
        if self.purge_more || inbox.iter().any(|write| write.purge) {
            self.purge_more = self.log.purge()?.more;
        }
        Ok(())
    }
}
