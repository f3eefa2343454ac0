//! Pauses between attempts.

use std::time::Duration;

use base::Prng;

/// Pauses that double, each made up to a quarter shorter so that many do not come at once.
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    prng: Prng,
}

impl Backoff {
    /// The first pause, about, and the longest. Those who wait for the same need other seeds.
    pub(crate) fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, next: first, prng: Prng::new(seed) }
    }

    /// The pause before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        let percent = 75 + self.prng.below(26) as u32;
        pause * percent / 100
    }

    /// Starts anew: the attempt was a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest, 1);
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= first && pauses[0] >= first * 3 / 4);
        assert!(pauses.iter().all(|pause| *pause <= longest));
        assert!(pauses[19] >= longest * 3 / 4);
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
