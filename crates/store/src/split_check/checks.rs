//! Which regions to look at next, and what their leaders know of their size.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, RegionId, Term};

use super::{Measure, SplitConfig};

/// Looks that are under way at once. Others wait; after a restart every region is looked at.
const RUNNING_MAX: usize = 16;

/// How often it is seen to those that wait.
const PASS_INTERVAL: Duration = Duration::from_millis(100);

/// The regions of a shard that want to be looked at.
pub(crate) struct Checks {
    pub(crate) config: Arc<SplitConfig>,
    pub(crate) waiting: BTreeSet<RegionId>,
    running: usize,
    next_pass: Instant,
    pub(crate) next_load: Instant,
}

impl Checks {
    pub(crate) fn new(config: SplitConfig) -> Self {
        Self {
            config: Arc::new(config),
            waiting: BTreeSet::new(),
            running: 0,
            next_pass: Instant::ZERO,
            next_load: Instant::ZERO,
        }
    }

    /// Whether it is time to see to those that wait.
    pub(crate) fn begin_pass(&mut self, now: Instant) -> bool {
        let begins = !self.waiting.is_empty() && now >= self.next_pass;
        if begins {
            self.next_pass = now + PASS_INTERVAL;
        }
        begins
    }

    pub(crate) fn may_start(&self) -> bool {
        self.running < RUNNING_MAX
    }

    pub(crate) fn started(&mut self) {
        assert!(self.may_start(), "too many looks at once");
        self.running += 1;
    }

    pub(crate) fn ended(&mut self) {
        self.running = self.running.checked_sub(1).expect("a look that was started ends once");
    }
}

/// What a leader knows of the size of its region.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// The term in which it leads.
    term: Term,
    measured: Option<Measure>,
    /// Written since.
    bytes: u64,
    keys: u64,
    /// What placement was told.
    told: Measure,
    /// A look is under way.
    running: bool,
    /// It was too large when last looked at.
    too_large: bool,
    /// Not before this.
    due_at: Instant,
}

impl Growth {
    /// The replica leads in `term`. What it knew as a follower is nothing.
    pub(crate) fn lead(&mut self, term: Term, now: Instant, config: &SplitConfig) {
        if self.term != term {
            let (due_at, running) = (now + config.interval, self.running);
            *self = Self { term, due_at, running, ..Self::default() };
        }
    }

    /// The region is another one from now on: it is looked at soon.
    pub(crate) fn changed(&mut self) {
        *self = Self { term: self.term, running: self.running, ..Self::default() };
    }

    pub(crate) fn written(&mut self, bytes: u64, keys: u64) {
        self.bytes += bytes;
        self.keys += keys;
    }

    /// Whether the region should be looked at, sooner or later.
    pub(crate) fn wants_look(&self, config: &SplitConfig) -> bool {
        let grew = config.is_growth(self.bytes, self.keys);
        !self.running && (self.measured.is_none() || self.too_large || grew)
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.due_at
    }

    /// A look begins: what is written from now on may not be seen by it.
    pub(crate) fn begin(&mut self, now: Instant, config: &SplitConfig) {
        assert!(!self.running, "one look at a region at a time");
        self.running = true;
        self.due_at = now + config.interval;
        (self.bytes, self.keys) = (0, 0);
    }

    /// A look has ended, perhaps one at the region as it was before, or one that failed.
    pub(crate) fn end(&mut self, found: Option<Measure>, too_large: bool) {
        self.running = false;
        if let Some(measure) = found {
            self.measured = Some(measure);
            self.too_large = too_large;
        }
    }

    /// How much there is, about; zero if that is not known yet.
    pub(crate) fn measure(&self) -> Measure {
        let Some(measured) = self.measured else { return Measure::default() };
        Measure { bytes: measured.bytes + self.bytes, keys: measured.keys + self.keys }
    }

    /// Placement is told now.
    pub(crate) fn tell(&mut self) -> Measure {
        self.told = self.measure();
        self.told
    }

    /// Whether what placement was told is not true any more.
    pub(crate) fn is_news(&self, config: &SplitConfig) -> bool {
        let now = self.measure();
        let differ = |a: u64, b: u64| (a == 0) != (b == 0);
        config.is_growth(now.bytes.abs_diff(self.told.bytes), now.keys.abs_diff(self.told.keys))
            || differ(now.bytes, self.told.bytes)
    }
}
