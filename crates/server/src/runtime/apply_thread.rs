//! The apply thread: drives the applier.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use store::{Applier, ApplyInput, ApplyOutbox};

use super::job_threads::JobQueues;
use super::{AppliedNotices, OnFatal};
use crate::metrics::Metrics;

/// Tasks that one turn takes; more stay for the next.
const TURN_INPUTS_MAX: usize = 1_024;

pub(super) struct ApplyThread {
    pub(super) applier: Applier,
    pub(super) inbox: Receiver<ApplyInput>,
    pub(super) notices: AppliedNotices,
    pub(super) jobs: JobQueues,
    pub(super) metrics: Arc<Metrics>,
    pub(super) on_fatal: OnFatal,
}

impl ApplyThread {
    /// Runs until every sender is gone and everything they sent is applied.
    pub(super) fn run(mut self) {
        let mut inputs = Vec::new();
        let mut out = ApplyOutbox::default();
        while let Ok(first) = self.inbox.recv() {
            inputs.push(first);
            inputs.extend(self.inbox.try_iter().take(TURN_INPUTS_MAX - 1));
            self.applier.turn(&mut inputs, &mut out);
            if let Some(fatal) = out.fatal.take() {
                return (self.on_fatal)(fatal.to_string());
            }
            for (reply, result) in out.replies.drain(..) {
                reply.answer(result);
            }
            for job in out.jobs.drain(..) {
                self.jobs.send(job);
            }
            self.metrics.keys_written(self.applier.keys_written());
            if !out.applied.is_empty() {
                self.notices.send(std::mem::take(&mut out.applied));
            }
        }
    }
}
