//! The network: loses, doubles, reorders and delays messages, and is cut one way or both.

use std::collections::VecDeque;

use base::{PeerId, Prng};
use raft::{Body, LogPos, Message, Storage};

use super::cluster::Cluster;
use super::shape::Weather;
use super::totals::{Event, Totals};

/// Messages on the way; more are lost.
const WIRE_MAX: usize = 256;

/// Messages put aside; more go on as usual.
const LATE_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Network {
    wire: VecDeque<Message>,
    /// Messages that are very late.
    late: Vec<Message>,
    /// Nothing is lost any more.
    pub(crate) well: bool,
    /// Who is cut off from whom: for each sender a bit for each receiver.
    cuts: Vec<u64>,
}

/// What became of a message.
pub(crate) enum Fate {
    Arrives(Message),
    /// It is on the way no more.
    Lost(Message),
    /// It will come very late. If it is a snapshot: who sent it to whom.
    Later(Option<(PeerId, PeerId)>),
}

impl Cluster {
    /// Makes an `Append` say another part of the log of the leader that sent it, as one of another
    /// version could have: its entries may begin earlier or later, and be fewer or more.
    pub(crate) fn rewrite(&mut self, message: &mut Message) {
        let Body::Append { prev, entries, commit, .. } = &mut message.body else { return };
        if self.network.well || !self.prng.one_in(self.shape.weather.rewritten) {
            return;
        }
        let leader = &self.hosts[message.from.0 as usize - 1];
        let Some(node) = leader.node.as_ref().filter(|_| leader.seen.led == message.term) else {
            return;
        };
        let first = leader.disk.first_index().expect("in memory");
        let known = self.hosts[message.to.0 as usize - 1].seen.committed;
        let low = (first - 1).max(known.saturating_sub(1)).min(node.last_index());
        let from = low + self.prng.below(node.last_index() - low + 1);
        let Some(term) = node.term_at(from) else { return };
        let count = self.prng.below(4);
        let last = leader.disk.last_index().expect("in memory").min(node.last_index());
        let high = (from + count).min(last) + 1;
        let mut said = leader.disk.entries(from + 1, high, usize::MAX).unwrap_or_default();
        // The disk may lag behind.
        let lags = said.iter().position(|entry| node.term_at(entry.index) != Some(entry.term));
        said.truncate(lags.unwrap_or(said.len()));
        (*prev, *entries, *commit) = (LogPos { index: from, term }, said, node.committed());
        self.totals.count(Event::Rewritten, 1);
    }
}

impl Network {
    pub(crate) fn new(hosts: usize) -> Self {
        assert!(hosts < 64, "a bit for each host");
        Self { cuts: vec![0; hosts + 1], ..Self::default() }
    }

    /// Takes a message. If there are too many it comes back: it is lost.
    #[must_use]
    pub(crate) fn send(&mut self, message: Message) -> Option<Message> {
        if self.wire.len() >= WIRE_MAX && !self.well {
            return Some(message);
        }
        self.wire.push_back(message);
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wire.is_empty() && self.late.is_empty()
    }

    /// Messages on the way, but for those that are very late.
    pub(crate) fn len(&self) -> usize {
        self.wire.len()
    }

    /// The next message, mostly in order. `None` if there is none.
    pub(crate) fn next(
        &mut self,
        prng: &mut Prng,
        weather: &Weather,
        totals: &mut Totals,
    ) -> Option<Fate> {
        if !self.late.is_empty() && (self.wire.is_empty() || prng.one_in(15)) {
            let pick = prng.below(self.late.len() as u64) as usize;
            let message = self.late.swap_remove(pick);
            return Some(self.pass(message, totals));
        }
        if self.wire.len() > 1 && prng.one_in(weather.swapped) {
            let pick = prng.below(self.wire.len() as u64) as usize;
            self.wire.swap(0, pick);
        }
        if prng.one_in(weather.doubled) {
            let copy = self.wire.front()?.clone();
            totals.count(Event::Doubled, 1);
            self.wire.push_back(copy);
        }
        let message = self.wire.pop_front()?;
        if prng.one_in(weather.late) && self.late.len() < LATE_MAX {
            totals.count(Event::Late, 1);
            let snapshot = matches!(message.body, Body::Snapshot { .. });
            let ends = (message.from, message.to);
            self.late.push(message);
            return Some(Fate::Later(snapshot.then_some(ends)));
        }
        if prng.one_in(weather.lost) {
            totals.count(Event::Lost, 1);
            return Some(Fate::Lost(message));
        }
        Some(self.pass(message, totals))
    }

    fn pass(&self, message: Message, totals: &mut Totals) -> Fate {
        if self.is_cut(message.from, message.to) {
            totals.count(Event::LostToCut, 1);
            return Fate::Lost(message);
        }
        Fate::Arrives(message)
    }

    /// The next message in order, whatever the weather.
    pub(crate) fn next_in_order(&mut self) -> Option<Message> {
        self.wire.pop_front()
    }

    fn is_cut(&self, from: PeerId, to: PeerId) -> bool {
        self.cuts[from.0 as usize] & (1 << to.0) != 0
    }

    /// Nothing goes from `from` to `to` any more.
    pub(crate) fn cut(&mut self, from: PeerId, to: PeerId) {
        self.cuts[from.0 as usize] |= 1 << to.0;
    }

    /// All cuts end.
    pub(crate) fn mend(&mut self) {
        self.cuts.fill(0);
    }

    /// All cuts end, what is very late comes now, and there is room for everything.
    pub(crate) fn heal(&mut self) {
        self.well = true;
        self.mend();
        self.wire.extend(self.late.drain(..));
    }
}
