//! Timestamps: strictly growing, over restarts and whatever the wall clock does.
//!
//! The physical part follows the wall clock and never goes back. Timestamps are handed out from
//! memory, below a bound that was saved before:
//!
//! ```text
//!    ────────── given out ──────────┤ last          free          ├ bound (saved)
//!                                   └── the next batch begins here or at the clock's millisecond
//! ```
//!
//! A new leader knows the bound alone and starts at it: above everything the old one gave out, and
//! at most [`WINDOW_MS`] ahead of the clock.
//!
//! A batch does not straddle a millisecond, since clients compute `logical - count + 1`; only one
//! that is larger than a millisecond's supply has to. When the present millisecond has too few
//! left, the batch waits for the clock. If the clock was set back, waiting for it to catch up could
//! take hours, so the physical part then moves on by itself, by one for each millisecond the clock
//! shows: it never runs away from the clock.

use base::TimeStamp;
use base::rule::{Rule, keep};

use crate::rows::RowKey;
use crate::{Change, Placement, RowChanges};

/// How far ahead of use the bound is saved, in milliseconds: the rhythm of the saves under load,
/// and how far a new leader's first timestamp may lie ahead of the clock.
pub const WINDOW_MS: u64 = 3_000;

/// What one millisecond can give out: batches up to this size lie within one.
pub const BATCH_MAX: u32 = 1 << TimeStamp::LOGICAL_BITS;

const _: () = assert!(BATCH_MAX as u64 == TimeStamp::LOGICAL_MAX + 1);

/// The physical part has 46 bits (the year 4199); a clock beyond that is broken.
const PHYSICAL_END: u64 = 1 << (64 - TimeStamp::LOGICAL_BITS);

/// Why no timestamp can be given out right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TsoWait {
    /// The saved bound is reached: run [`Placement::plan_tso_window`] as a write, then ask again.
    Window,
    /// This millisecond is used up: ask again when the wall clock shows the next.
    NextMillisecond,
}

#[derive(Debug)]
pub(crate) struct Tso {
    /// The largest that was given out, or might have been by an earlier leader.
    last: TimeStamp,
    /// Saved; all physical parts stay below it.
    bound_ms: u64,
    /// What the wall clock showed when the physical part last grew.
    moved_at_ms: Option<u64>,
}

impl Tso {
    pub(crate) fn new() -> Self {
        Self { last: TimeStamp(0), bound_ms: 0, moved_at_ms: None }
    }

    /// The bound was saved, or read when a leader starts.
    pub(crate) fn save(&mut self, bound_ms: u64) -> Result<(), &'static str> {
        if bound_ms < self.bound_ms {
            return Err("goes back");
        }
        if bound_ms >= PHYSICAL_END {
            return Err("is not a time");
        }
        self.bound_ms = bound_ms;
        Ok(())
    }

    /// The rows were read: whatever lies below the bound may have been given out.
    pub(crate) fn start(&mut self) {
        assert!(self.last.0 == 0, "timestamps were given out before the rows were read");
        if keep(Rule::StampsAboveBound) {
            self.last = TimeStamp::compose(self.bound_ms, 0);
        }
    }

    /// The largest of a batch of `count`.
    pub(crate) fn take(&mut self, wall_ms: u64, count: u32) -> Result<TimeStamp, TsoWait> {
        assert!(count > 0, "a batch of no timestamps");
        let (first, moves) = self.first(wall_ms, count).ok_or(TsoWait::NextMillisecond)?;
        let last = TimeStamp(first.0 + u64::from(count) - 1);
        assert!(first > self.last, "{first} was given out: the last is {}", self.last);
        if last.physical_ms() >= self.bound_ms {
            return Err(TsoWait::Window);
        }
        if moves {
            self.moved_at_ms = Some(wall_ms);
        }
        assert!(self.moved_at_ms.is_some() || !moves, "a move leaves its time");
        assert!(last.0 - first.0 + 1 == u64::from(count), "the batch is whole");
        self.last = last;
        Ok(last)
    }

    /// Where a batch of `count` would begin, and whether the physical part grows for it.
    fn first(&self, wall_ms: u64, count: u32) -> Option<(TimeStamp, bool)> {
        assert!(wall_ms < PHYSICAL_END, "the wall clock shows {wall_ms} ms");
        let physical_ms = self.last.physical_ms();
        assert!(physical_ms <= self.bound_ms, "timestamps beyond the saved bound");
        if wall_ms > physical_ms {
            return Some((TimeStamp::compose(wall_ms, 0), true));
        }
        if self.last.logical() + u64::from(count) <= TimeStamp::LOGICAL_MAX {
            return Some((TimeStamp(self.last.0 + 1), false));
        }
        let may_move = count <= BATCH_MAX && self.moved_at_ms != Some(wall_ms);
        may_move.then(|| (TimeStamp::compose(physical_ms + 1, 0), true))
    }

    /// The bound to save for a batch of `count`; `None` if the saved one will do.
    fn next_bound(&self, wall_ms: u64, count: u32) -> Option<u64> {
        let in_next_ms = || TimeStamp::compose(self.last.physical_ms() + 1, 0);
        let first = self.first(wall_ms, count).map_or_else(in_next_ms, |(first, _)| first);
        let needed_ms = TimeStamp(first.0 + u64::from(count) - 1).physical_ms();
        assert!(needed_ms >= self.last.physical_ms(), "time goes back");
        (needed_ms >= self.bound_ms).then_some(needed_ms + WINDOW_MS)
    }
}

impl Placement {
    /// Takes `count` timestamps (not 0) at the wall clock's `wall_ms` and returns the largest; with
    /// up to [`BATCH_MAX`] of them, the others have the same physical part and the logical parts
    /// right below. Nothing is taken when the answer is to wait.
    pub fn timestamps(&mut self, wall_ms: u64, count: u32) -> Result<TimeStamp, TsoWait> {
        self.tso.take(wall_ms, count)
    }

    /// Plans to raise the bound so that [`timestamps`](Self::timestamps) can go on with this batch;
    /// no rows if another batch has seen to it meanwhile. It is planned and committed like any
    /// other write, so that a bound never gives way to a lower one.
    pub fn plan_tso_window(&self, wall_ms: u64, count: u32) -> Change<()> {
        let mut rows = RowChanges::default();
        if let Some(bound_ms) = self.tso.next_bound(wall_ms, count) {
            assert!(bound_ms > self.tso.bound_ms, "a bound gives way to a lower one");
            rows.put_u64(&RowKey::TsoBound, bound_ms);
        }
        Change { rows, reply: () }
    }
}
