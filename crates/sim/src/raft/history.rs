//! What an observer who sees everything knows: who led, what was written, what is committed.
//!
//! Each piece is learned once and compared with whatever comes after it, so a step costs no more
//! than what it changes. Log matching is an induction: an entry's position (index and term) fixes
//! its content *and the term before it*, for every log that it is ever written to. Two logs that
//! agree at a position then agree on everything before it, and it is enough to compare ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Entry, EntryKind, Index, PeerId, Term};
use raft::{ConfState, LogPos};

use super::host::Machine;

pub(crate) struct History {
    /// Who led each term.
    leaders: BTreeMap<Term, PeerId>,
    /// Up to here every log is compacted, and what was known is dropped.
    floor: LogPos,
    /// The state after `floor`.
    floor_state: u64,
    /// The committed entries behind `floor`.
    committed: VecDeque<Committed>,
    /// Everything that was ever put at each index behind `floor`.
    written: VecDeque<Written>,
    /// For each read the commit index known to anyone when it was asked for.
    reads: Vec<Index>,
    /// The last index at which somebody ever wrote a change of members.
    last_change: Index,
    /// The members after each entry that changed them, and at the begin.
    members: BTreeMap<Index, ConfState>,
    /// What commands say that were passed on to a leader.
    forwarded: BTreeSet<u64>,
    /// Entries that a leader took from another member.
    pub(crate) forwarded_taken: u64,
}

/// What is known of a committed entry.
#[derive(Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) term: Term,
    /// The term of the leader that committed it.
    pub(crate) committed_in: Term,
    /// The state after it.
    pub(crate) state: u64,
    content: u64,
}

/// What is known of an entry, committed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    term: Term,
    /// The term of the entry before it.
    prev: Term,
    content: u64,
}

/// All that was put at one index; usually one.
struct Written {
    first: Option<Known>,
    others: Vec<Known>,
}

impl Written {
    fn find(&self, term: Term) -> Option<&Known> {
        self.first.iter().chain(&self.others).find(|known| known.term == term)
    }

    fn add(&mut self, known: Known) {
        match self.first {
            None => self.first = Some(known),
            Some(_) => self.others.push(known),
        }
    }

    fn forget(&mut self, term: Term) {
        self.others.retain(|known| known.term != term);
        if self.first.is_some_and(|known| known.term == term) {
            self.first = self.others.pop();
        }
    }
}

/// Mixes a number into a hash.
pub(crate) fn mix(hash: u64, number: u64) -> u64 {
    let mixed = (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// What an entry says, as a number.
fn content(kind: EntryKind, data: &[u8]) -> u64 {
    let mut hash = mix(kind as u64 + 1, data.len() as u64);
    for bytes in data.chunks(8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    hash
}

impl Machine {
    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.applied + 1, "state machine: entries are applied in order");
        self.applied = entry.index;
        self.state = mix(self.state, content(entry.kind, &entry.data));
    }
}

impl History {
    /// Before anything happened: a group of `conf` whose log begins after `born`.
    pub(crate) fn new(born: LogPos, conf: ConfState) -> Self {
        Self {
            leaders: BTreeMap::new(),
            floor: born,
            floor_state: 0,
            committed: VecDeque::new(),
            written: VecDeque::new(),
            reads: Vec::new(),
            last_change: 0,
            members: BTreeMap::from([(born.index, conf)]),
            forwarded: BTreeSet::new(),
            forwarded_taken: 0,
        }
    }
}

/// Elections.
impl History {
    /// Election safety.
    pub(crate) fn on_leader(&mut self, term: Term, id: PeerId) -> bool {
        let known = self.leaders.get(&term).copied();
        assert!(
            known.is_none_or(|known| known == id),
            "election safety: {id} leads term {term} beside {known:?}"
        );
        self.leaders.insert(term, id);
        known.is_none()
    }

    /// A leader that was the only member went down before its term was durable. Nobody saw what it
    /// did in it.
    pub(crate) fn forget_term(&mut self, term: Term, id: PeerId) {
        if self.leaders.get(&term) == Some(&id) {
            self.leaders.remove(&term);
            self.written.iter_mut().for_each(|written| written.forget(term));
        }
    }

    /// The last entry that a leader of `term` must hold: that was committed in an earlier term.
    pub(crate) fn leader_needs(&self, term: Term) -> Option<LogPos> {
        let count = self.committed.partition_point(|entry| entry.committed_in < term);
        let entry = self.committed.get(count.checked_sub(1)?)?;
        Some(LogPos { index: self.floor.index + count as Index, term: entry.term })
    }
}

/// Entries, as they are written.
impl History {
    /// An entry behind one of term `prev` is put into a log. Its position fixes what it is, and
    /// what is before it.
    pub(crate) fn on_written(&mut self, entry: &Entry, prev: Term) {
        let known = Known { term: entry.term, prev, content: content(entry.kind, &entry.data) };
        let at = self.offset(entry.index);
        self.reach(at);
        if entry.kind != EntryKind::Normal {
            self.last_change = self.last_change.max(entry.index);
        }
        match self.written[at].find(entry.term) {
            Some(other) => assert_eq!(
                *other, known,
                "log matching: two entries {}@{}, or two ways to one",
                entry.index, entry.term
            ),
            None => {
                self.written[at].add(known);
                self.check_origin(entry, known.content);
            }
        }
    }

    /// Nobody makes up commands: one that was not proposed at its leader was passed on to it.
    fn check_origin(&mut self, entry: &Entry, content: u64) {
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            let known = self.forwarded.contains(&content);
            assert!(known, "proposals: nobody proposed {}@{}", entry.index, entry.term);
            self.forwarded_taken += 1;
        }
    }

    /// A command is passed on to a leader, if there is one.
    pub(crate) fn on_forwarded(&mut self, data: &[u8]) {
        self.forwarded.insert(content(EntryKind::Normal, data));
    }

    /// A leader takes an entry: never at a position that was used.
    pub(crate) fn on_proposed(&mut self, entry: &Entry, prev: Term) {
        let used = self.written.get(self.offset(entry.index));
        let used = used.is_some_and(|written| written.find(entry.term).is_some());
        assert!(!used, "leader append-only: {}@{} given out twice", entry.index, entry.term);
        let known = Known { term: entry.term, prev, content: content(entry.kind, &entry.data) };
        let at = self.offset(entry.index);
        self.reach(at);
        self.written[at].add(known);
        if entry.kind != EntryKind::Normal {
            self.last_change = self.last_change.max(entry.index);
        }
    }

    fn reach(&mut self, at: usize) {
        while self.written.len() <= at {
            self.written.push_back(Written { first: None, others: Vec::new() });
        }
    }

    fn offset(&self, index: Index) -> usize {
        let above = index.checked_sub(self.floor.index + 1);
        above.unwrap_or_else(|| panic!("log matching: {index} written anew below {}", self.floor))
            as usize
    }
}

/// Entries, as they are committed and applied.
impl History {
    pub(crate) fn committed(&self) -> Index {
        self.floor.index + self.committed.len() as Index
    }

    /// The committed entry at `index`; `None` if it is not, or was dropped.
    pub(crate) fn committed_at(&self, index: Index) -> Option<&Committed> {
        self.committed.get(index.checked_sub(self.floor.index + 1)? as usize)
    }

    /// The term at `index`, if that is committed and not dropped.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        match index == self.floor.index {
            true => Some(self.floor.term),
            false => self.committed_at(index).map(|entry| entry.term),
        }
    }

    /// The next entry is committed, by a leader of the term `committed_in`.
    pub(crate) fn on_committed(&mut self, pos: LogPos, committed_in: Term) {
        let LogPos { index, term } = pos;
        assert_eq!(index, self.committed() + 1, "commit: a gap");
        let before = self.committed.back().map_or(0, |entry| entry.committed_in);
        assert!(
            before <= committed_in,
            "commit: {pos} in term {committed_in}, after others in {before}"
        );
        let written = self.written.get(self.offset(index)).and_then(|at| at.find(term));
        let Some(known) = written else { panic!("commit: {pos} was never written") };
        let state = mix(self.state_at(index - 1), known.content);
        self.committed.push_back(Committed { term, committed_in, state, content: known.content });
    }

    /// The state after `index`, which is committed and not dropped.
    pub(crate) fn state_at(&self, index: Index) -> u64 {
        match index == self.floor.index {
            true => self.floor_state,
            false => self.committed_at(index).expect("committed, and still known").state,
        }
    }

    /// State machine safety: what is handed out is what is committed, to the letter.
    pub(crate) fn on_handed_out(&self, entry: &Entry) {
        let Some(known) = self.committed_at(entry.index) else {
            panic!("state machine: {} handed out, not committed", entry.index)
        };
        assert_eq!(known.term, entry.term, "state machine: {} of another term", entry.index);
        let content = content(entry.kind, &entry.data);
        assert_eq!(known.content, content, "state machine: {} says something else", entry.index);
    }

    /// State machine safety: at each index there is one state.
    pub(crate) fn on_applied(&self, machine: Machine) {
        if machine.damaged {
            return;
        }
        let state = self.state_at(machine.applied);
        assert_eq!(machine.state, state, "state machine: another state at {}", machine.applied);
    }

    /// The members after the entry at `index`, which changed them: the same everywhere.
    pub(crate) fn on_change(&mut self, index: Index, conf: &ConfState) {
        match self.members.get(&index) {
            Some(known) => {
                assert_eq!(known, conf, "members: not the same everywhere after {index}");
            }
            None => drop(self.members.insert(index, conf.clone())),
        }
    }

    pub(crate) fn last_change(&self) -> Index {
        self.last_change
    }

    /// The members as of `index`, which somebody has applied.
    pub(crate) fn check_members(&self, index: Index, conf: &ConfState) {
        let known = self.members.range(..=index).next_back().map(|(_, conf)| conf);
        assert_eq!(known, Some(conf), "members: not the same everywhere at {index}");
    }
}

/// Reads.
impl History {
    /// A read is asked for; its context is the answer.
    pub(crate) fn on_read(&mut self) -> u64 {
        self.reads.push(self.committed());
        self.reads.len() as u64 - 1
    }

    /// An answer is never older than what was committed when the read was asked for, and never
    /// newer than what is committed.
    pub(crate) fn on_read_state(&self, context: u64, index: Index) {
        let asked_at = self.reads[context as usize];
        assert!(
            index >= asked_at,
            "linearizable reads: read {context} asked at {asked_at}, answered with {index}"
        );
        assert!(
            index <= self.committed(),
            "linearizable reads: read {context} answered with {index}, which is not committed"
        );
    }
}

impl History {
    /// Every log begins after `index` or later: what is known up to there is not needed any more.
    pub(crate) fn drop_to(&mut self, index: Index) {
        if index <= self.floor.index {
            return;
        }
        let term = self.term_at(index).expect("what is compacted is committed");
        self.floor_state = self.state_at(index);
        let count = (index - self.floor.index) as usize;
        self.committed.drain(..count);
        self.written.drain(..count.min(self.written.len()));
        self.floor = LogPos { index, term };
    }
}
