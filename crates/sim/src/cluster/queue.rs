//! What is going to happen, by time; what was planned first comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use base::Instant;

use super::event::Event;

/// When an event is due, its number, and its place. Small, because a heap moves what it holds.
type Due = (Instant, u64, usize);

/// Events to come, and the time.
#[derive(Default)]
pub(crate) struct Queue {
    now: Instant,
    due: BinaryHeap<Reverse<Due>>,
    /// The events themselves, which lie still until they are due.
    places: Vec<Option<Event>>,
    /// Places without one.
    free: Vec<usize>,
    number: u64,
}

impl Queue {
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.number += 1;
        let at = at.max(self.now);
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(event);
        self.due.push(Reverse((at, self.number, place)));
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event, if there is one before `end`; time goes on to it.
    pub(crate) fn next(&mut self, end: Instant) -> Option<Event> {
        if self.due.peek().is_none_or(|Reverse((at, ..))| *at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse((at, _, place)) = self.due.pop()?;
        self.now = at;
        self.free.push(place);
        self.places[place].take()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}
