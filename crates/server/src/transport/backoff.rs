//! Pauses between attempts.

use std::time::Duration;

use base::Prng;

/// The first pause, about.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest. A store that comes back is reached within this time: a group may wait for its vote.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Pauses that double, each made up to a quarter shorter so that many do not come at once.
pub(super) struct Backoff {
    next: Duration,
    prng: Prng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { next: PAUSE_MIN, prng: Prng::new(seed) }
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        let percent = 75 + self.prng.below(26) as u32;
        pause * percent / 100
    }

    /// Starts anew: the attempt was a success.
    pub(super) fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut backoff = Backoff::new(1);
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= PAUSE_MIN && pauses[0] >= PAUSE_MIN * 3 / 4);
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX));
        assert!(pauses[19] >= PAUSE_MAX * 3 / 4);
        backoff.reset();
        assert!(backoff.pause() <= PAUSE_MIN);
    }
}
