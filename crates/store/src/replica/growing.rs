//! What a leader knows of its region's size and load, and what follows.

use std::sync::Arc;

use base::Instant;

use super::Replica;
use crate::apply::Applied;
use crate::split_check::{
    CheckSplit, LoadLimits, Measure, SplitChecked, SplitConfig, SplitReason, SplitWanted,
};

impl Replica {
    /// Whether the region should be looked at: it is led here, and grew or was never measured.
    pub(crate) fn wants_look(&mut self, now: Instant, config: &SplitConfig) -> bool {
        if !self.serves_reads() || self.leaving {
            return false;
        }
        self.growth.lead(self.node.term(), now, config);
        self.growth.wants_look(config)
    }

    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        self.growth.is_due(now)
    }

    pub(crate) fn begin_look(&mut self, now: Instant, config: &Arc<SplitConfig>) -> CheckSplit {
        self.growth.begin(now, config);
        CheckSplit { region: self.region.clone(), config: config.clone() }
    }

    /// Takes in what a look has found, and returns what is to be done about it.
    pub(crate) fn end_look(
        &mut self,
        checked: SplitChecked,
        config: &SplitConfig,
    ) -> Option<SplitWanted> {
        let same = checked.version == self.region.epoch.version && self.serves_reads();
        let found = checked.found.filter(|_| same);
        let too_large = found.as_ref().is_some_and(|found| !found.keys.is_empty());
        self.growth.end(found.as_ref().map(|found| found.measure), too_large);
        if self.growth.is_news(config) {
            // The world is told at once.
            self.reported = None;
        }
        let keys = found?.keys;
        too_large.then(|| self.wants_split(keys, SplitReason::Size))
    }

    /// A second has passed. A region with a single member has nowhere else to be led: cutting it
    /// would win nothing.
    pub(crate) fn look_at_load(
        &mut self,
        now: Instant,
        limits: &LoadLimits,
    ) -> Option<SplitWanted> {
        if !self.serves_reads() || self.leaving || self.region.peers.len() < 2 {
            return None;
        }
        let key = self.load.look(now, &self.traffic, limits, &self.region.range)?;
        Some(self.wants_split(vec![key], SplitReason::Load))
    }

    fn wants_split(&self, keys: Vec<bytes::Bytes>, reason: SplitReason) -> SplitWanted {
        SplitWanted { region: self.region.clone(), peer: self.peer, keys, reason }
    }

    /// Entries were applied.
    pub(super) fn grew(&mut self, applied: &Applied) {
        if self.node.is_leader() {
            self.growth.written(applied.written_bytes, applied.written_keys);
            self.load.written(applied.written_keys, applied.written_bytes, &applied.sampled_keys);
        }
    }

    /// How much the region holds, about, for the world.
    pub(super) fn tell_size(&mut self) -> Measure {
        self.growth.tell()
    }
}
