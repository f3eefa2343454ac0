//! How long to wait before trying again, and when to stop.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);

/// Waits that double up to half a second, until their sum exceeds a budget.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    left: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits of at most `budget` in all.
    pub(crate) fn new(budget: Duration) -> Backoff {
        Backoff { next: FIRST, left: budget, tries: 0 }
    }

    /// How long to wait now; none when the budget is spent.
    pub(crate) fn next_wait(&mut self) -> Option<Duration> {
        self.tries += 1;
        let wait = self.next;
        self.left = self.left.checked_sub(wait)?;
        self.next = (wait * 2).min(LONGEST);
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
        let mut backoff = Backoff::new(Duration::from_millis(1600));
        let mut waits = Vec::new();
        while let Some(wait) = backoff.next_wait() {
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
        assert_eq!(backoff.tries(), 11);
    }
}
