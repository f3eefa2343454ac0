//! What is going to happen, by time; what was planned first comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use base::Instant;

use super::event::Event;

struct Due {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Events to come, and the time.
#[derive(Default)]
pub(crate) struct Queue {
    now: Instant,
    due: BinaryHeap<Reverse<Due>>,
    number: u64,
}

impl Queue {
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.number += 1;
        let at = at.max(self.now);
        self.due.push(Reverse(Due { at, number: self.number, event }));
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event, if there is one before `end`; time goes on to it.
    pub(crate) fn next(&mut self, end: Instant) -> Option<Event> {
        if self.due.peek().is_none_or(|due| due.0.at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse(due) = self.due.pop()?;
        self.now = due.at;
        Some(due.event)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}
