//! The store thread: drives the shard, and the log writer behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::Instant;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use storage::log::Preparer;
use store::{Applied, ApplyInput, LogOutbox, LogWrite, LogWriter, Outbox, Shard, ShardInput};

use super::disk_thread::DiskJob;
use super::job_threads::JobQueues;
use super::{OnFatal, OnLeading, OnReport, StoreInput};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::transport::Transport;

/// Inputs that one turn takes; more stay for the next.
const TURN_INPUTS_MAX: usize = 4_096;

pub(super) struct StoreThread {
    pub(super) shard: Shard,
    pub(super) log_writer: LogWriter,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inbox: Receiver<StoreInput>,
    pub(super) clients: Arc<AtomicUsize>,
    pub(super) applied: Receiver<Vec<Applied>>,
    pub(super) awaited: Arc<AtomicBool>,
    pub(super) apply: Sender<ApplyInput>,
    pub(super) jobs: JobQueues,
    /// Its tasks end with this thread.
    pub(super) transport: Transport,
    pub(super) preparer: Preparer,
    /// Set while the disk thread is asked for a segment.
    pub(super) segment_asked: Arc<AtomicBool>,
    pub(super) on_report: OnReport,
    pub(super) on_leading: OnLeading,
    pub(super) on_fatal: OnFatal,
}

/// What a turn needs, kept from turn to turn.
#[derive(Default)]
struct Turn {
    inputs: Vec<ShardInput>,
    out: Outbox,
    log_writes: Vec<LogWrite>,
    log_out: LogOutbox,
    stop: bool,
}

impl StoreThread {
    pub(super) fn run(mut self) {
        let mut turn = Turn::default();
        let mut wake = Instant::ZERO;
        loop {
            if turn.inputs.is_empty() {
                self.wait(wake, &mut turn);
            }
            self.collect(&mut turn);
            wake = self.shard.turn(self.clock.now(), &mut turn.inputs, &mut turn.out);
            if let Err(fatal) = self.drain(&mut turn) {
                return (self.on_fatal)(fatal.to_string());
            }
            if turn.stop && turn.inputs.is_empty() {
                return self.log_writer.idle(&mut turn.log_out);
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, wake: Instant, turn: &mut Turn) {
        // Ask to be woken first, then look once more: a notice that comes in between is seen either
        // way.
        self.awaited.store(self.shard.awaits_applied(), Ordering::SeqCst);
        if !self.applied.is_empty() {
            return;
        }
        let timeout = wake.since(self.clock.now());
        if timeout == Duration::ZERO {
            return;
        }
        match self.inbox.recv_timeout(timeout) {
            Ok(input) => self.take(input, turn),
            Err(RecvTimeoutError::Timeout) => self.log_writer.idle(&mut turn.log_out),
            Err(RecvTimeoutError::Disconnected) => turn.stop = true,
        }
    }

    fn collect(&mut self, turn: &mut Turn) {
        while let Ok(applied) = self.applied.try_recv() {
            turn.inputs.push(ShardInput::Applied(applied));
        }
        while turn.inputs.len() < TURN_INPUTS_MAX {
            let Ok(input) = self.inbox.try_recv() else { break };
            self.take(input, turn);
        }
    }

    fn take(&mut self, input: StoreInput, turn: &mut Turn) {
        match input {
            StoreInput::Shard(input) => {
                if input.is_request() {
                    self.clients.fetch_sub(1, Ordering::Relaxed);
                }
                turn.inputs.push(input);
            }
            StoreInput::Messages(messages, _credit) => {
                turn.inputs.extend(messages.into_iter().map(ShardInput::Message));
            }
            StoreInput::Look => {}
            StoreInput::Stop => turn.stop = true,
        }
    }

    /// Carries out what the shard wants. The applier gets its work before this thread goes to sleep
    /// in the log's sync.
    fn drain(&mut self, turn: &mut Turn) -> Result<(), store::Fatal> {
        let out = &mut turn.out;
        if let Some(fatal) = out.fatal.take().or(turn.log_out.fatal.take()) {
            return Err(fatal);
        }
        self.transport.send(&mut out.send);
        self.transport.send_alive(&mut out.alive);
        self.transport.send_credits(&mut out.credits);
        for input in out.apply.drain(..) {
            // The applier outlives this thread unless it failed, and then it has told why.
            let _ = self.apply.send(input);
        }
        for (reply, result) in out.replies.drain(..) {
            reply.answer(result);
        }
        for (reply, status) in out.inspected.drain(..) {
            reply.answer(status);
        }
        for report in out.reports.drain(..) {
            (self.on_report)(report);
        }
        out.leading.drain(..).for_each(|event| (self.on_leading)(event));
        for job in out.jobs.drain(..) {
            self.jobs.send(job);
        }
        if !out.log.is_empty() {
            self.write_log(turn)?;
        }
        Ok(())
    }

    fn write_log(&mut self, turn: &mut Turn) -> Result<(), store::Fatal> {
        turn.log_writes.push(std::mem::take(&mut turn.out.log));
        self.log_writer.turn(&mut turn.log_writes, &mut turn.log_out);
        let out = &mut turn.log_out;
        if let Some(fatal) = out.fatal.take() {
            return Err(fatal);
        }
        self.metrics.log(&self.log_writer.stats());
        if self.preparer.is_needed() && !self.segment_asked.swap(true, Ordering::AcqRel) {
            let _ = self.jobs.disk.send(DiskJob::PrepareSegment);
        }
        self.transport.send(&mut out.send);
        out.done.drain(..).for_each(|done| done());
        turn.inputs.extend(out.births.drain(..).map(ShardInput::Create));
        if !out.persisted.is_empty() {
            turn.inputs.push(ShardInput::Persisted(std::mem::take(&mut out.persisted)));
        }
        Ok(())
    }
}
