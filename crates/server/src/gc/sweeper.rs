//! The "gc" thread: sweeps, and compacts where much was deleted.
//!
//! It takes its time: after each step it rests for several times as long as the step took, so that
//! it costs a fraction of a core however much there is. A region in which nothing changed since it
//! was found clean is not looked at again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::{Index, KeyRange, RegionId};
use crossbeam_channel::RecvTimeoutError;
use storage::engine::{Cf, Engine, EngineError};
use storage::keys;
use store::{RECLAIM_BYTES_MIN, RegionView, RegionViews};
use txn::gc::{SafePoints, Sweep};

use super::{Gc, GcTask};
use crate::runtime::{OnFatal, spawn_aside};

/// Records that a step looks at.
const STEP_RECORDS: u64 = 4_096;

/// A step is followed by a rest of so many times its length ...
const REST_FACTOR: u32 = 4;
/// ... or of this one if half of what it saw was garbage.
const REST_FACTOR_BUSY: u32 = 1;

/// So many records gone from a region leave enough deletions behind to be merged away ...
const COMPACT_GONE_MIN: u64 = 10_000;
/// ... if they are one in so many of those looked at.
const COMPACT_GONE_SHARE: u64 = 4;

/// Where the thread works.
pub(crate) struct Sweeper {
    pub(crate) gc: Gc,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) views: Arc<RegionViews>,
    pub(crate) on_fatal: OnFatal,
}

/// What the thread knows from before.
#[derive(Default)]
struct Memory {
    clean: BTreeMap<RegionId, Clean>,
    /// Safe points moved while it was sweeping.
    again: bool,
}

/// The running thread.
pub(crate) struct SweeperThread {
    gc: Gc,
    thread: JoinHandle<()>,
}

impl SweeperThread {
    /// Ends what it is at, and waits for that.
    pub(crate) fn stop(self) {
        self.gc.stop();
        if self.thread.join().is_err() {
            tracing::error!("the gc thread panicked");
        }
    }
}

/// A region without anything that a later safe point could make garbage of, as of then.
#[derive(PartialEq, Eq)]
struct Clean {
    generation: (u64, u32),
    version: u64,
    applied: Index,
}

/// What to do next.
enum Then {
    GoOn,
    Stop,
}

impl Sweeper {
    /// Starts the thread.
    pub(crate) fn start(self) -> std::io::Result<SweeperThread> {
        let gc = self.gc.clone();
        let thread = spawn_aside("gc", move || self.run())?;
        Ok(SweeperThread { gc, thread })
    }

    fn run(self) {
        let mut memory = Memory::default();
        loop {
            let task = match std::mem::take(&mut memory.again) {
                true => GcTask::Sweep,
                false => self.gc.tasks.1.recv().expect("its own sender lives"),
            };
            match self.take(task, &mut memory) {
                Ok(Then::GoOn) if !self.gc.is_stopping() => {}
                Ok(_) => return,
                Err(error) => return (self.on_fatal)(error.to_string()),
            }
        }
    }

    fn take(&self, task: GcTask, memory: &mut Memory) -> Result<Then, EngineError> {
        match task {
            GcTask::Stop => return Ok(Then::Stop),
            GcTask::Compact(cf, range) => self.compact(cf, &range)?,
            GcTask::Sweep => return self.sweep(memory),
        }
        Ok(Then::GoOn)
    }

    fn compact(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        if self.engine.approximate_size(cf, range)? >= RECLAIM_BYTES_MIN {
            self.engine.compact_range(cf, range)?;
        }
        Ok(())
    }

    /// Looks at every region once.
    fn sweep(&self, memory: &mut Memory) -> Result<Then, EngineError> {
        let points = self.gc.state().used();
        memory.clean.retain(|id, _| self.views.get(*id).is_some());
        for view in self.views.all() {
            let id = view.region.id;
            let now = Clean {
                generation: view.generation,
                version: view.region.epoch.version,
                applied: view.applied,
            };
            if id.is_system() || !view.has_data || memory.clean.get(&id) == Some(&now) {
                continue;
            }
            match self.sweep_region(&view, &points, memory)? {
                None => return Ok(Then::Stop),
                Some(true) => drop(memory.clean.insert(id, now)),
                Some(false) => drop(memory.clean.remove(&id)),
            }
        }
        Ok(Then::GoOn)
    }

    /// Whether the region is clean now; `None`: the node stops.
    fn sweep_region(
        &self,
        view: &RegionView,
        points: &Arc<SafePoints>,
        memory: &mut Memory,
    ) -> Result<Option<bool>, EngineError> {
        let (start, end) = keys::data_range(view.region.id, &view.region.range);
        let range = KeyRange::new(start, end);
        let mut sweep = Sweep::new(range.clone(), points.clone());
        let (mut records, mut gone, mut young) = (0, 0, 0);
        while !sweep.is_done() {
            let began = Instant::now();
            let step = {
                let _replacing = self.gc.replacing();
                let step = sweep.step(&*self.engine.snapshot(), STEP_RECORDS)?;
                if !step.batch.is_empty() {
                    self.engine.write(&step.batch)?;
                }
                step
            };
            records += step.records;
            gone += step.gone;
            young += step.young;
            let busy = step.gone * 2 > step.records;
            let factor = if busy { REST_FACTOR_BUSY } else { REST_FACTOR };
            if self.rest(began.elapsed() * factor, memory)? {
                return Ok(None);
            }
        }
        if gone > 0 {
            tracing::debug!(region = %view.region.id, records, gone, "old versions dropped");
        }
        if gone >= COMPACT_GONE_MIN && gone >= records / COMPACT_GONE_SHARE {
            for cf in [Cf::Write, Cf::Default] {
                self.engine.compact_range(cf, &range)?;
            }
        }
        Ok(Some(young == 0 && sweep.left() == 0))
    }

    /// Rests, and does what else is asked for meanwhile. True: the node stops.
    fn rest(&self, time: Duration, memory: &mut Memory) -> Result<bool, EngineError> {
        let until = Instant::now() + time;
        loop {
            match self.gc.tasks.1.recv_deadline(until) {
                Ok(_) if self.gc.is_stopping() => return Ok(true),
                Ok(GcTask::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Ok(GcTask::Compact(cf, range)) => self.compact(cf, &range)?,
                Ok(GcTask::Sweep) => memory.again = true,
                Err(RecvTimeoutError::Timeout) => return Ok(false),
            }
        }
    }
}
