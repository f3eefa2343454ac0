//! How fast snapshots may use a disk or a network: a token bucket that is told the time.

use base::Instant;

/// Spreads bytes over time. Whoever is about to use some says so and learns from when on it may.
///
/// The bucket fills with `bytes_per_second` and holds at most one second's worth; a piece larger
/// than that passes too, and everybody after it waits the longer.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the bucket was, or will be, exactly empty.
    empty_at: Instant,
}

impl Pace {
    /// A full bucket. `bytes_per_second` must not be zero.
    pub fn new(bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "nothing would ever pass");
        Self { bytes_per_second, empty_at: Instant::ZERO }
    }

    /// Takes `bytes` out; the answer is from when on they may be used, `now` if at once.
    pub fn take(&mut self, now: Instant, bytes: u64) -> Instant {
        let full_since = Instant(now.0.saturating_sub(self.time_for(self.bytes_per_second)));
        let begin = self.empty_at.max(full_since);
        self.empty_at = Instant(begin.0.saturating_add(self.time_for(bytes)));
        self.empty_at.max(now)
    }

    fn time_for(&self, bytes: u64) -> u64 {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_the_rest_keeps_the_rate() {
        let mut pace = Pace::new(1000);
        let now = Instant(100 * SECOND);
        assert_eq!(pace.take(now, 600), now);
        assert_eq!(pace.take(now, 400), now, "one second's worth is saved up");
        assert_eq!(pace.take(now, 500), Instant(now.0 + SECOND / 2));
        assert_eq!(pace.take(now, 2000), Instant(now.0 + SECOND * 5 / 2));
        // Later, nothing is owed any more, and no more than a second's worth was saved.
        let later = Instant(200 * SECOND);
        assert_eq!(pace.take(later, 1000), later);
        assert_eq!(pace.take(later, 1), Instant(later.0 + SECOND / 1000));
    }

    #[test]
    fn any_schedule_keeps_the_rate() {
        let mut prng = base::Prng::new(3);
        for _ in 0..200 {
            let rate = 1 + prng.below(1 << 20);
            let mut pace = Pace::new(rate);
            let (start, mut now, mut taken) = (Instant(50 * SECOND), Instant(50 * SECOND), 0u64);
            for _ in 0..100 {
                let bytes = prng.below(2 * rate);
                let allowed = pace.take(now, bytes);
                taken += bytes;
                assert!(allowed >= now);
                let most = rate
                    + (u128::from(rate) * u128::from(allowed.0 - start.0) / u128::from(SECOND))
                        as u64
                    + 101;
                assert!(taken <= most, "{taken} bytes, at most {most}");
                now = Instant(allowed.0 + prng.below(SECOND / 4));
            }
        }
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let mut pace = Pace::new(1);
        assert!(pace.take(Instant(0), u64::MAX) > Instant(SECOND));
        assert!(pace.take(Instant(0), 7) > Instant(SECOND));
    }
}
