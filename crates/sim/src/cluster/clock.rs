//! A node's two clocks. The monotonic one starts with the process and may run a little fast or
//! slow, and may jump ahead (the machine was asleep). The wall clock may do anything.

use std::time::Duration;

use base::Instant;

/// What the wall clocks show at the begin of a run, in milliseconds since 1970.
const WALL_START_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// The process began at this true time.
    began: Instant,
    /// What it has jumped ahead since.
    ahead: Duration,
    /// How much faster than true time it runs, in millionths.
    drift_ppm: i64,
    wall_offset_ms: i64,
    /// Where the wall clock stands still.
    wall_stopped: Option<u64>,
}

impl Clock {
    pub(crate) fn new(drift_ppm: i64) -> Self {
        let (began, ahead) = (Instant::ZERO, Duration::ZERO);
        Self { began, ahead, drift_ppm, wall_offset_ms: 0, wall_stopped: None }
    }

    /// A process begins.
    pub(crate) fn restart(&mut self, now: Instant) {
        (self.began, self.ahead) = (now, Duration::ZERO);
    }

    /// What the monotonic clock shows at the true time `now`.
    pub(crate) fn local(&self, now: Instant) -> Instant {
        let passed = i128::from(now.0 - self.began.0);
        let shown = passed * (1_000_000 + i128::from(self.drift_ppm)) / 1_000_000;
        Instant(u64::try_from(shown).expect("no clock runs backwards")) + self.ahead
    }

    /// The true time at which it will show `local`.
    pub(crate) fn true_time(&self, local: Instant) -> Instant {
        let passed = i128::from(local.since(Instant::ZERO + self.ahead).as_nanos() as u64);
        let passed = passed * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm)) + 1;
        Instant(self.began.0 + u64::try_from(passed).expect("forwards"))
    }

    /// The monotonic clock jumps ahead.
    pub(crate) fn jump(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// Milliseconds since 1970, as the wall clock believes.
    pub(crate) fn wall_ms(&self, now: Instant) -> u64 {
        self.wall_stopped.unwrap_or_else(|| {
            (WALL_START_MS + now.0 / 1_000_000).saturating_add_signed(self.wall_offset_ms)
        })
    }

    pub(crate) fn set_wall(&mut self, offset_ms: i64) {
        (self.wall_offset_ms, self.wall_stopped) = (offset_ms, None);
    }

    pub(crate) fn stop_wall(&mut self, now: Instant) {
        self.wall_stopped = Some(self.wall_ms(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_time_is_when_the_clock_shows_it() {
        for drift in [-30_000, 0, 1, 30_000] {
            let mut clock = Clock::new(drift);
            clock.restart(Instant(5_000));
            for shown in [0, 1, 999, 123_456_789] {
                let at = clock.true_time(Instant(shown));
                assert!(clock.local(at) >= Instant(shown), "{drift} {shown}");
                assert!(clock.local(at).0 <= shown + 2, "{drift} {shown}");
            }
        }
    }
}
