//! Time as a number.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point of monotonic time in nanoseconds since some start of the driver's choice (in production:
/// the start of the process; in the simulator: the start of the run). Code below the driver never
/// asks a clock, it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The driver's start.
    pub const ZERO: Instant = Instant(0);
    /// Later than all others: never.
    pub const MAX: Instant = Instant(u64::MAX);

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, delta: Duration) -> Instant {
        Instant(self.0 + u64::try_from(delta.as_nanos()).expect("delta is below 584 years"))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, delta: Duration) -> Instant {
        let nanos = u64::try_from(delta.as_nanos()).expect("delta is below 584 years");
        Instant(self.0.saturating_sub(nanos))
    }
}
