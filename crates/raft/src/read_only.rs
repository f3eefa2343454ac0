//! Reads without a log entry: the leader proves by a round of heartbeats that it still is one.
//!
//! A *round* is a numbered broadcast. Every `Append` and `Heartbeat` carries the number of the
//! latest round, and every answer echoes the number of what it answers. Once a quorum has echoed a
//! round, no other leader had been elected when the round began. A request gets the commit index of
//! the moment at which it came, and waits for a round that began after that. Requests that come
//! between two `Ready`s share a round, but each keeps its own index.
//!
//! The commit index of a new leader may be older than what its predecessor had committed. So
//! nothing is answered before an entry of the leader's own term is committed, and requests that
//! came before get the index of that moment.

use std::collections::VecDeque;

use base::{Index, PeerId};

/// A request that waits.
struct Read {
    from: PeerId,
    context: u64,
    round: u64,
    /// `None` as long as the leader's own commit index may be old.
    index: Option<Index>,
}

/// A request that may be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) from: PeerId,
    pub(crate) context: u64,
    pub(crate) index: Index,
}

/// The leader's requests, in order of arrival.
#[derive(Default)]
pub(crate) struct Reads {
    queue: VecDeque<Read>,
}

impl Reads {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The index of the latest request, if it has one.
    pub(crate) fn last_index(&self) -> Option<Index> {
        self.queue.back().and_then(|read| read.index)
    }

    /// A request comes, and `round` is the next one to begin.
    pub(crate) fn ask(&mut self, from: PeerId, context: u64, round: u64, index: Option<Index>) {
        assert!(self.queue.back().is_none_or(|last| last.round <= round), "rounds only grow");
        self.queue.push_back(Read { from, context, round, index });
    }

    /// An entry of the leader's own term is committed for the first time, at or below `index`.
    pub(crate) fn settle(&mut self, index: Index) {
        for read in &mut self.queue {
            read.index.get_or_insert(index);
        }
    }

    /// The next request that `confirmed` answers.
    pub(crate) fn pop(&mut self, confirmed: u64) -> Option<Answer> {
        let read = self.queue.front()?;
        let answer = Answer { from: read.from, context: read.context, index: read.index? };
        if read.round > confirmed {
            return None;
        }
        self.queue.pop_front();
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_keeps_its_own_index_and_waits_for_its_round() {
        let mut reads = Reads::default();
        let me = PeerId(1);
        reads.ask(me, 10, 3, None);
        assert_eq!(reads.pop(9), None, "the own term has committed nothing");
        reads.settle(7);
        reads.ask(me, 11, 3, Some(8));
        reads.ask(me, 12, 4, Some(8));
        assert_eq!(reads.pop(2), None);
        assert_eq!(reads.pop(3), Some(Answer { from: me, context: 10, index: 7 }));
        assert_eq!(reads.pop(3), Some(Answer { from: me, context: 11, index: 8 }));
        assert_eq!(reads.pop(3), None);
        assert_eq!(reads.pop(4), Some(Answer { from: me, context: 12, index: 8 }));
        assert_eq!(reads.len(), 0);
    }
}
