//! Bytes as decisions: where they end, everything is zero. Numbers lie mostly where they matter.

use base::{Entry, EntryKind, PeerId};
use bytes::Bytes;
use pontoon_raft::{ConfState, Joint, Leave, LogPos, RawNode, Snapshot};

/// Numbers at which arithmetic goes wrong, and those about the largest that a node takes.
const EXTREMES: [u64; 8] = [0, 1, 1 << 32, (1 << 62) - 1, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX];

/// What is left of the bytes.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// A number in `0..bound`, which is from 1 to 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Rarely true; never behind the end.
    pub fn one_in(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of `marks` or close to one; sometimes an extreme.
    pub fn number(&mut self, marks: &[u64]) -> u64 {
        let byte = self.byte();
        let mark = marks[usize::from(byte) % marks.len()];
        match byte {
            0..160 => mark,
            160..240 => mark.saturating_add_signed(self.pick(&[1, -1, 2, -2, 3, -3, 9])),
            _ => self.pick(&EXTREMES),
        }
    }

    /// Nobody, a peer of the usual ones, a stranger.
    pub fn peer(&mut self) -> PeerId {
        match self.byte() {
            255 => PeerId(u64::MAX),
            byte => PeerId(u64::from(byte % 9)),
        }
    }

    /// Another member of the node's group; sometimes anybody.
    pub fn member(&mut self, node: &RawNode) -> PeerId {
        let mut others = node.status().conf.members();
        others.retain(|id| *id != node.id());
        match self.one_in(8) || others.is_empty() {
            true => self.peer(),
            false => self.pick(&others),
        }
    }

    pub fn priority(&mut self) -> i64 {
        self.pick(&[0, 0, 0, 0, 1, -1, i64::MAX, i64::MIN])
    }

    pub fn data(&mut self) -> Bytes {
        let len = self.pick(&[0, 1, 1, 2, 5, 40]);
        (0..len).map(|_| self.byte()).collect()
    }

    pub fn kind(&mut self) -> EntryKind {
        use EntryKind::{ConfChange, ConfChangeV2, Normal};
        self.pick(&[Normal, Normal, Normal, Normal, ConfChange, ConfChangeV2])
    }

    /// An index of the node's log, or about it.
    pub fn index(&mut self, node: &RawNode, first: u64) -> u64 {
        let status = node.status();
        let (last, committed) = (status.last, status.committed);
        self.number(&[last, last, last, committed, status.applied, status.stable, first])
    }

    /// A position that the node's log has, or one that may contradict it.
    pub fn position(&mut self, node: &RawNode, first: u64) -> LogPos {
        let index = self.index(node, first);
        let term = node.term_at(index).filter(|_| !self.one_in(4));
        LogPos { index, term: term.unwrap_or_else(|| self.term(node)) }
    }

    pub fn term(&mut self, node: &RawNode) -> u64 {
        let (term, last) = (node.term(), node.term_at(node.last_index()).unwrap_or(0));
        self.number(&[term, term, term, term, term.saturating_add(1), last])
    }

    /// Entries behind `prev`, mostly as a leader of `term` would send them.
    pub fn entries(&mut self, prev: LogPos, term: u64) -> Vec<Entry> {
        let mut last = prev;
        let count = self.below(5);
        let mut entry = || {
            let index = last.index.saturating_add(1);
            let wild = self.one_in(16);
            let index = if wild { self.number(&[index]) } else { index };
            let term = match wild {
                true => self.number(&[last.term, term]),
                false => self.pick(&[last.term, term]),
            };
            last = LogPos { index, term };
            Entry { index, term, kind: self.kind(), data: self.data() }
        };
        (0..count).map(|_| entry()).collect()
    }

    pub fn snapshot(&mut self, node: &RawNode, first: u64) -> Snapshot {
        let pos = self.position(node, first);
        let conf = match self.below(4) {
            0 => self.any_conf(),
            1 => self.sound_conf(),
            _ => node.status().conf,
        };
        Snapshot { pos, conf, data: self.data() }
    }

    /// Any lists of peers, unsorted, doubled and contradictory ones among them.
    fn any_conf(&mut self) -> ConfState {
        let mut list = || -> Vec<PeerId> {
            let count = self.below(4);
            (0..count).map(|_| self.peer()).collect()
        };
        let (voters, learners, voters_outgoing, learners_next) = (list(), list(), list(), list());
        let joint = Joint { voters_outgoing, learners_next, leave: self.leave() };
        ConfState { voters, learners, joint: self.one_in(2).then(|| Box::new(joint)) }
    }

    /// Members as changes of members leave them: of one to five, perhaps between two sets.
    pub fn sound_conf(&mut self) -> ConfState {
        let mut conf = ConfState::of_voters(self.subset(&[]));
        if conf.voters.is_empty() {
            conf.voters.push(PeerId(1));
        }
        if self.one_in(4) {
            let voters_outgoing = self.subset(&[]);
            let mut learners_next = self.subset(&conf.voters);
            learners_next.retain(|id| voters_outgoing.contains(id));
            let joint = Joint { voters_outgoing, learners_next, leave: self.leave() };
            conf.joint = Some(Box::new(joint)).filter(|joint| !joint.voters_outgoing.is_empty());
        }
        if self.one_in(3) {
            conf.learners = self.subset(&conf.members());
        }
        conf
    }

    fn leave(&mut self) -> Leave {
        self.pick(&[Leave::Automatic, Leave::OnRequest])
    }

    /// Some of the peers 1 to 5 that are not among `others`.
    fn subset(&mut self, others: &[PeerId]) -> Vec<PeerId> {
        let bits = self.byte();
        let ids = (1..=5).filter(|id| bits >> (id - 1) & 1 == 1).map(PeerId);
        ids.filter(|id| !others.contains(id)).collect()
    }
}
