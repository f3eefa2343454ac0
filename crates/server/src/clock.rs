//! The node's clocks. The only place that reads them; everything below is told the time.

use std::time::{SystemTime, UNIX_EPOCH};

use base::Instant;

/// Monotonic time since the node started, and wall time. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts counting.
    pub(crate) fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Monotonic time since the start.
    pub(crate) fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant(u64::try_from(nanos).expect("no process runs 584 years"))
    }

    /// Milliseconds since 1970. May jump, also backwards.
    pub(crate) fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).expect("the year is below 500,000,000")
    }

    /// Seconds since 1970. May jump, also backwards.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.wall_ms() / 1000
    }
}
