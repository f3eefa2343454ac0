//! How long to wait before trying again, and when to stop.

use std::time::Duration;

use base::{Instant, Prng};

const FIRST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);

/// Waits that double up to half a second, until a point of time. Each is shortened by chance to
/// between a half and all of it, so that those who failed together do not try together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    deadline: Instant,
    tries: u32,
}

impl Backoff {
    /// Waits that end before `deadline`.
    pub(crate) fn until(deadline: Instant) -> Backoff {
        Backoff { next: FIRST, deadline, tries: 0 }
    }

    /// How long to wait now; none when it is too late for another try.
    pub(crate) fn next_wait(&mut self, now: Instant, prng: &mut Prng) -> Option<Duration> {
        self.tries += 1;
        let half = self.next / 2;
        let wait = half + Duration::from_nanos(prng.below(half.as_nanos() as u64 + 1));
        if now + wait >= self.deadline {
            return None;
        }
        self.next = (self.next * 2).min(LONGEST);
        Some(wait)
    }

    /// How often a wait was asked for: once for each failed try.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let (mut now, mut prng) = (Instant(7), Prng::new(1));
        let mut backoff = Backoff::until(now + Duration::from_secs(3));
        let mut waits = Vec::new();
        while let Some(wait) = backoff.next_wait(now, &mut prng) {
            waits.push(wait);
            now = now + wait;
        }
        let mut longest = FIRST;
        for wait in &waits {
            assert!(*wait >= longest / 2 && *wait <= longest, "{waits:?}");
            longest = (longest * 2).min(LONGEST);
        }
        assert!(now < Instant(7) + Duration::from_secs(3));
        assert!(waits.len() > 11 && backoff.tries() as usize == waits.len() + 1, "{waits:?}");
    }
}
