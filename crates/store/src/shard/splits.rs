//! The shard's part in splits that nobody asked for: which regions are looked at when, and what
//! becomes of it. See [`split_check`](crate::split_check).

use base::{Instant, RegionId};

use super::Shard;
use crate::input::{Outbox, Report};
use crate::job::Job;
use crate::replica::Replica;
use crate::split_check::{SplitChecked, load};

impl Shard {
    /// The replica was touched: perhaps it wants to be looked at.
    pub(super) fn note_growth(&mut self, id: RegionId, now: Instant) {
        let config = &self.checks.config;
        let replica = self.replicas.get_mut(&id);
        if !id.is_system() && replica.is_some_and(|replica| replica.wants_look(now, config)) {
            self.checks.waiting.insert(id);
        }
    }

    /// Has those looked at that wait for it, and once a second sees what is asked of regions.
    pub(super) fn check_splits(&mut self, now: Instant, out: &mut Outbox) {
        if self.checks.begin_pass(now) {
            self.start_looks(now, out);
        }
        if now >= self.checks.next_load {
            self.checks.next_load = now + load::LOOK_INTERVAL;
            self.look_at_load(now, out);
            self.early.age();
        }
    }

    fn start_looks(&mut self, now: Instant, out: &mut Outbox) {
        let config = self.checks.config.clone();
        for id in std::mem::take(&mut self.checks.waiting) {
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            if !replica.wants_look(now, &config) {
                continue;
            }
            if self.checks.may_start() && replica.is_look_due(now) {
                self.checks.started();
                out.jobs.push(Job::CheckSplit(replica.begin_look(now, &config)));
            } else {
                self.checks.waiting.insert(id);
            }
        }
    }

    fn look_at_load(&mut self, now: Instant, out: &mut Outbox) {
        let Some(limits) = self.checks.config.load else { return };
        // Nobody asks anything of those that sleep.
        for id in self.awake.ids().iter().filter(|id| !id.is_system()) {
            let replica = self.replicas.get_mut(id).expect("only those who are here are awake");
            if let Some(wanted) = replica.look_at_load(now, &limits) {
                tracing::info!(region = %id, "hot: to be split");
                out.reports.push(Report::WantsSplit(wanted));
            }
        }
    }

    /// A look has ended.
    pub(super) fn split_checked(&mut self, checked: SplitChecked, out: &mut Outbox) {
        self.checks.ended();
        let config = self.checks.config.clone();
        let wanted = self.replica(checked.region_id);
        let wanted = wanted.and_then(|replica: &mut Replica| replica.end_look(checked, &config));
        out.reports.extend(wanted.map(Report::WantsSplit));
    }
}
