//! One machine: a disk and a state machine that outlive the node, and what is on its way to them.

use std::collections::VecDeque;

use base::{Entry, EntryKind, Index, Term};
use raft::{ConfState, HardState, LogPos, MemoryStorage, Persist, RawNode, Storage, Ticket};

use super::snapshots::Snapshots;

/// A host, running or not.
pub(crate) struct Host {
    pub(crate) disk: MemoryStorage,
    pub(crate) node: Option<RawNode>,
    /// Handed out, not durable.
    pub(crate) writes: VecDeque<Persist>,
    /// The last write that is durable, if the node does not know.
    pub(crate) untold: Option<Ticket>,
    /// Handed out, not applied.
    pub(crate) pages: VecDeque<Vec<Entry>>,
    /// Something was applied, and the node does not know.
    pub(crate) untold_applied: bool,
    /// Up to here it was applied before a snapshot came, and the node does not know.
    pub(crate) outdated_applied: Option<Index>,
    pub(crate) snapshots: Snapshots,
    /// The node asked for a snapshot of its own, which did not come yet.
    pub(crate) requested: bool,
    /// Who should lead, as far as it was told.
    pub(crate) priority: i64,
    pub(crate) machine: Machine,
    /// Up to here a crash cannot take back what the state machine applied.
    pub(crate) synced: Index,
    /// The members as of the applied index, and before that at each index since `synced` at which
    /// they changed.
    pub(crate) confs: Vec<(Index, ConfState)>,
    pub(crate) seen: Seen,
}

/// The state machine: the hash of all commands so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) applied: Index,
    pub(crate) state: u64,
    /// The state is not what it should be; a snapshot must come.
    pub(crate) damaged: bool,
}

/// How far a node was checked. Gone with the node.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) term: Term,
    pub(crate) committed: Index,
    /// The term that it leads; zero if it does not.
    pub(crate) led: Term,
    /// The end of a leader's log.
    pub(crate) last: Index,
    /// The lowest term of a leader whose entries it took since it last handed out a write.
    pub(crate) taken_in: Option<Term>,
    /// As leader of the term it has handed out a write, so that all later ones must append.
    pub(crate) appends: bool,
    /// The last entry handed out for applying.
    pub(crate) handed: Index,
    pub(crate) ticket: Option<Ticket>,
    /// The last change of members that it took as leader of the term.
    pub(crate) change_taken: Index,
    /// The hard state that was last handed out to be written.
    pub(crate) hard_state: HardState,
    /// The log with everything that was handed out to be written.
    pub(crate) log: Shadow,
    /// The latest rounds, and when each began.
    pub(crate) rounds: VecDeque<(u64, u64)>,
    /// Before this moment its lease holds.
    pub(crate) lease_until: u64,
}

/// The terms of a log, and which of its entries change members.
#[derive(Default)]
pub(crate) struct Shadow {
    /// The entry before the first.
    base: LogPos,
    terms: VecDeque<Term>,
    changes: VecDeque<Index>,
}

impl Host {
    pub(crate) fn new(disk: MemoryStorage) -> Self {
        let conf = disk.conf();
        let applied = disk.first_index().expect("in memory") - 1;
        Self {
            disk,
            node: None,
            writes: VecDeque::new(),
            untold: None,
            pages: VecDeque::new(),
            untold_applied: false,
            outdated_applied: None,
            snapshots: Snapshots::default(),
            requested: false,
            priority: 0,
            machine: Machine { applied, ..Machine::default() },
            synced: applied,
            confs: vec![(applied, conf)],
            seen: Seen::default(),
        }
    }

    /// The members as of the applied index.
    pub(crate) fn conf(&self) -> &ConfState {
        &self.confs.last().expect("the one at the begin stays").1
    }

    /// What was applied survives from now on.
    pub(crate) fn sync_machine(&mut self) {
        self.synced = self.machine.applied;
        self.confs.drain(..self.confs.len() - 1);
    }

    /// The state machine goes back to what it was.
    pub(crate) fn unapply(&mut self, applied: Index, state: u64) {
        assert!(applied >= self.synced, "what was synced is lost");
        self.machine = Machine { applied, state, ..self.machine };
        self.confs.retain(|(index, _)| *index <= applied);
        self.disk.set_conf(self.conf().clone());
    }

    /// Forgets what a crash takes: everything but the disk and the state machine.
    pub(crate) fn forget(&mut self) {
        self.node = None;
        self.writes.clear();
        self.untold = None;
        self.pages.clear();
        self.untold_applied = false;
        self.outdated_applied = None;
        self.snapshots.clear();
        self.requested = false;
        self.seen = Seen::default();
    }

    /// What there is to know of a node before it does anything.
    pub(crate) fn begin_seen(&mut self) {
        let first = self.disk.first_index().expect("in memory");
        self.seen = Seen {
            term: self.disk.hard_state().term,
            // What it knows as committed is checked anew.
            committed: first - 1,
            handed: self.machine.applied,
            hard_state: self.disk.hard_state(),
            log: Shadow::of(&self.disk),
            ..Seen::default()
        };
    }

    /// Whether it runs and sleeps.
    pub(crate) fn is_quiet(&self) -> bool {
        self.node.as_ref().is_some_and(RawNode::is_quiet)
    }

    /// Whether it runs and leads.
    pub(crate) fn leads(&self) -> bool {
        self.node.as_ref().is_some_and(RawNode::is_leader)
    }
}

impl Shadow {
    fn of(disk: &MemoryStorage) -> Self {
        let first = disk.first_index().expect("in memory");
        let term = |index| disk.term(index).expect("it is there");
        let base = LogPos { index: first - 1, term: term(first - 1) };
        let mut log = Self { base, ..Self::default() };
        disk.all_entries().iter().for_each(|entry| log.push(entry));
        log
    }

    pub(crate) fn first(&self) -> Index {
        self.base.index + 1
    }

    pub(crate) fn last(&self) -> Index {
        self.base.index + self.terms.len() as Index
    }

    /// The term at `index`, which must not be compacted: `None` above the end.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        let from_base = index.checked_sub(self.base.index).expect("not compacted");
        match from_base {
            0 => Some(self.base.term),
            n => self.terms.get(n as usize - 1).copied(),
        }
    }

    /// Drops everything from `index` on.
    pub(crate) fn cut_from(&mut self, index: Index) {
        let kept = index.checked_sub(self.first()).expect("not compacted");
        self.terms.truncate(kept as usize);
        while self.changes.back().is_some_and(|change| *change >= index) {
            self.changes.pop_back();
        }
    }

    pub(crate) fn push(&mut self, entry: &Entry) {
        self.terms.push_back(entry.term);
        if entry.kind != EntryKind::Normal {
            self.changes.push_back(entry.index);
        }
    }

    /// The first entry above `index` that changes members.
    pub(crate) fn change_above(&self, index: Index) -> Option<Index> {
        self.changes.iter().copied().find(|change| *change > index)
    }

    /// Everything is replaced by what lies behind `pos`.
    pub(crate) fn restart(&mut self, pos: LogPos) {
        *self = Self { base: pos, ..Self::default() };
    }

    /// Drops everything up to and with `index`, unless a snapshot on its way to the disk did.
    pub(crate) fn compact(&mut self, index: Index) {
        if index <= self.base.index {
            return;
        }
        let term = self.term(index).expect("it is there");
        self.terms.drain(..(index - self.base.index) as usize);
        self.base = LogPos { index, term };
        while self.changes.front().is_some_and(|change| *change <= index) {
            self.changes.pop_front();
        }
    }
}

impl Seen {
    /// A round that was not seen before began at `now`. Rounds that began before `oldest` can prove
    /// nothing any more.
    pub(crate) fn note_round(&mut self, round: u64, now: u64, oldest: u64) {
        if self.rounds.back().is_none_or(|(known, _)| *known != round) {
            self.rounds.push_back((round, now));
        }
        while self.rounds.front().is_some_and(|(_, began)| *began < oldest) {
            self.rounds.pop_front();
        }
    }

    /// When a round began, if that is not long ago. Zero is none.
    pub(crate) fn round_began(&self, round: u64) -> Option<u64> {
        if round == 0 {
            return None;
        }
        let mut latest = self.rounds.iter().rev();
        latest.find(|(known, _)| *known == round).map(|(_, began)| *began)
    }
}
