//! What must hold after every step, whatever happened.

use std::collections::BTreeMap;

use base::{Entry, Index, PeerId, Term};
use bytes::Bytes;
use pontoon_raft::{AppendOutcome, Body, MemoryStorage, Message, RawNode, Storage, StorageError};

/// The knowledge of an observer who sees everything.
#[derive(Default)]
pub(crate) struct Checker {
    /// Who led each term.
    leaders: BTreeMap<Term, PeerId>,
    /// Term of each committed entry, from index 1 on.
    committed: Vec<Term>,
    /// Everything that a leader took, by its position.
    proposed: BTreeMap<(Index, Term), Bytes>,
    /// Commit index known to anyone when a read was asked for.
    reads: BTreeMap<u64, Index>,
    /// Reads that got an answer.
    pub(crate) reads_answered: u64,
}

impl Checker {
    pub(crate) fn committed(&self) -> Index {
        self.committed.len() as Index
    }

    pub(crate) fn leaders(&self) -> &BTreeMap<Term, PeerId> {
        &self.leaders
    }

    /// A leader took a command. Positions are never given out twice; but the only member of a group
    /// leads before its term is durable, and nobody saw what it forgets in a crash.
    pub(crate) fn on_proposed(&mut self, position: (Term, Index), data: Bytes, alone: bool) {
        let (term, index) = position;
        let before = self.proposed.insert((index, term), data);
        assert!(before.is_none() || alone, "position {index}@{term} given out twice");
    }

    pub(crate) fn on_read(&mut self, context: u64) {
        self.reads.insert(context, self.committed());
    }

    /// Read index: never older than what was committed when it was asked for.
    pub(crate) fn on_read_state(&mut self, context: u64, index: Index) {
        let Some(asked_at) = self.reads.remove(&context) else { return };
        assert!(index >= asked_at, "read {context} answered with {index}, asked at {asked_at}");
        self.reads_answered += 1;
    }

    /// State machine safety: every node is handed the same entries, each only when it is durable
    /// there.
    pub(crate) fn on_handed_out(&mut self, disk: &MemoryStorage, entries: &[Entry]) {
        for entry in entries {
            let at = entry.index as usize - 1;
            assert_eq!(
                self.committed.get(at),
                Some(&entry.term),
                "{} was not committed",
                entry.index
            );
            let stored = disk.term(entry.index);
            let durable = matches!(&stored, Ok(term) if *term == entry.term);
            assert!(durable, "{} handed out before it is durable: {stored:?}", entry.index);
            let empty = Bytes::new();
            let data = self.proposed.get(&(entry.index, entry.term)).unwrap_or(&empty);
            assert_eq!(data, &entry.data, "entry {} holds another command", entry.index);
        }
    }

    /// What a message promises must be durable when it leaves.
    pub(crate) fn on_leaving(&self, disk: &MemoryStorage, message: &Message) {
        let state = disk.hard_state();
        if state.term > message.term {
            return;
        }
        match &message.body {
            Body::VoteResponse { granted: true } => {
                assert_eq!((state.term, state.vote), (message.term, message.to), "{message:?}");
            }
            Body::Vote { .. } => {
                assert_eq!((state.term, state.vote), (message.term, message.from), "{message:?}");
            }
            Body::AppendResponse { outcome: AppendOutcome::Matched(index), .. } => {
                assert_eq!(state.term, message.term, "{message:?}");
                let last = disk.last_index().expect("in memory");
                assert!(last >= *index, "{message:?} with {last} on disk");
            }
            Body::HeartbeatResponse { .. } | Body::AppendResponse { .. } | Body::TermOver => {
                assert_eq!(state.term, message.term, "{message:?}");
            }
            _ => {}
        }
    }

    /// After a step of `node`: what its own state shows.
    pub(crate) fn on_node(&mut self, node: &RawNode, disks: &[MemoryStorage]) {
        let status = node.status();
        assert!(status.applied <= status.committed && status.committed <= status.last);
        assert!(status.stable <= status.last);
        for index in 1..=status.committed {
            let Some(term) = node.term_at(index) else { continue };
            match self.committed.get(index as usize - 1) {
                Some(known) => assert_eq!(term, *known, "committed entry {index} changed"),
                None => self.on_committed(index, term, disks),
            }
        }
        if node.is_leader() {
            self.on_leader(node);
        }
    }

    /// A committed entry is durable on a majority of the disks, if there are any to look at.
    fn on_committed(&mut self, index: Index, term: Term, disks: &[MemoryStorage]) {
        assert_eq!(index, self.committed() + 1, "committed with a gap");
        if disks.is_empty() {
            return self.committed.push(term);
        }
        let holds = |disk: &&MemoryStorage| matches!(disk.term(index), Ok(t) if t == term);
        let holders = disks.iter().filter(holds).count();
        assert!(holders * 2 > disks.len(), "{index}@{term} committed, durable on {holders}");
        self.committed.push(term);
    }

    /// Election safety and leader completeness.
    fn on_leader(&mut self, node: &RawNode) {
        let known = *self.leaders.entry(node.term()).or_insert(node.id());
        assert_eq!(known, node.id(), "two leaders of term {}", node.term());
        let latest = self.leaders.keys().next_back() == Some(&node.term());
        if latest {
            for (at, term) in self.committed.iter().enumerate() {
                let index = at as Index + 1;
                let own = node.term_at(index);
                assert!(own.is_none_or(|own| own == *term), "leader lacks {index}@{term}");
                assert!(index <= node.last_index(), "leader lacks {index}@{term}");
            }
        }
    }

    /// Log matching: two logs that agree at an index agree on everything before it.
    pub(crate) fn on_pair(&self, a: &RawNode, b: &RawNode) {
        let mut agreed = false;
        for index in (1..=a.last_index().min(b.last_index())).rev() {
            let (Some(x), Some(y)) = (a.term_at(index), b.term_at(index)) else { break };
            assert!(!agreed || x == y, "logs of {} and {} part at {index}", a.id(), b.id());
            agreed |= x == y;
        }
    }
}

/// Whether a term can be told: for the end of a run, when all logs must be equal.
pub(crate) fn terms(node: &RawNode) -> Vec<Option<Term>> {
    (1..=node.last_index()).map(|index| node.term_at(index)).collect()
}

/// A compacted index is no failure.
pub(crate) fn is_compacted(disk: &MemoryStorage, index: Index) -> bool {
    matches!(disk.term(index), Err(StorageError::Compacted))
}
