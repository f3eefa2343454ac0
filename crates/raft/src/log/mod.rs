//! The log of one node: the tail in memory on top of [`Storage`].
//!
//! ```text
//!   truncated      applied   handed    committed          stable      written     last
//!  ─────┴─────────────┴─────────┴──────────┴────────────────┴───────────┴───────────┤
//!       └ in Storage ──────────────────────────────────────┘
//!                 └ tail: in memory ────────────────────────────────────────────────┘
//! ```
//!
//! | mark | entries up to here |
//! | --- | --- |
//! | applied | are applied by the state machine |
//! | handed | were handed out for applying |
//! | committed | are never replaced |
//! | stable | are durable in storage |
//! | written | were handed out to be written |
//!
//! Invariants: applied <= handed <= committed <= last; handed <= stable <= written <= last;
//! committed never goes back; the tail is consecutive, ends at last, and holds everything above
//! `stable`. `stable` may be below `committed` (a quorum of others) or above it.
//!
//! Writes are asynchronous, so one may be acknowledged after its entries were replaced, even by
//! equal ones. Each write on the way therefore claims an index, and replacing entries cuts the
//! claims of all writes on the way: an acknowledgement makes stable only what no later write
//! touches.
//!
//! A snapshot that is taken over replaces the log at once, and is durable later, like a write:
//! until then `stable` and `handed` stay where they were, nothing is handed out, and what lies
//! below the snapshot counts as compacted although storage still has the old log.

mod read;

use std::collections::VecDeque;

use base::{Entry, Index, Term};

use crate::message::LogPos;
use crate::ready::Ticket;
use crate::rules::{Rule, Rules};
use crate::storage::{Failure, Storage, StorageError};

/// What an entry costs beside its data, for limits in bytes.
const ENTRY_OVERHEAD: usize = 24;

/// The tail's buffer is given back when it is larger than this and less than a quarter is used.
const TAIL_CAPACITY_KEPT: usize = 64;

/// Size of an entry for all limits in bytes.
pub(crate) fn entry_size(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD
}

pub(crate) struct Log {
    storage: Box<dyn Storage + Send>,
    tail: VecDeque<Entry>,
    /// Bytes of the applied entries at the front of the tail.
    applied_bytes: usize,
    last: LogPos,
    written: Index,
    stable: Index,
    committed: Index,
    handed: Index,
    applied: Index,
    writes: VecDeque<Write>,
    next_ticket: Ticket,
    /// The snapshot that was taken over and is not durable yet.
    restoring: Option<Box<Restoring>>,
    /// The last entry that an installed snapshot covers.
    restored: Index,
    rules: Rules,
}

/// A snapshot on the way to storage.
struct Restoring {
    pos: LogPos,
    /// The write that installs it: that it is durable is not seen from `stable`, which may be there
    /// already if the snapshot replaces a damaged state of the same entry.
    ticket: Ticket,
}

/// A write on the way to storage.
struct Write {
    ticket: Ticket,
    /// Entries up to here are stable once it is durable. Falls when they are replaced.
    claim: Index,
}

impl Log {
    /// The log as storage has it, with nothing in memory.
    pub(crate) fn new(
        storage: Box<dyn Storage + Send>,
        commit: Index,
        applied: Index,
        rules: Rules,
    ) -> Result<Self, Failure> {
        let first = storage.first_index().map_err(broken("first_index answers", 0, 0))?;
        let last = storage.last_index().map_err(broken("last_index answers", 0, 0))?;
        let committed = commit.max(applied);
        if first == 0 || first - 1 > last || applied < first - 1 || committed > last {
            return Err(Failure {
                promise: "truncated <= applied, and commit and applied <= last, at a start",
                index: committed,
                term: 0,
                cause: if committed > last {
                    StorageError::Unavailable
                } else {
                    StorageError::Compacted
                },
            });
        }
        let term = storage.term(last).map_err(broken("the last entry has a term", last, 0))?;
        Ok(Self {
            storage,
            tail: VecDeque::new(),
            applied_bytes: 0,
            last: LogPos { index: last, term },
            written: last,
            stable: last,
            committed,
            handed: applied,
            applied,
            writes: VecDeque::new(),
            next_ticket: Ticket::FIRST,
            restoring: None,
            restored: 0,
            rules,
        })
    }

    pub(crate) fn last(&self) -> LogPos {
        self.last
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) fn stable(&self) -> Index {
        self.stable
    }

    /// Entries in memory, and the capacity of their buffer.
    pub(crate) fn tail_len(&self) -> (usize, usize) {
        (self.tail.len(), self.tail.capacity())
    }

    fn tail_first(&self) -> Index {
        self.last.index + 1 - self.tail.len() as Index
    }

    fn in_tail(&self, index: Index) -> Option<&Entry> {
        self.tail.get(usize::try_from(index.checked_sub(self.tail_first())?).ok()?)
    }

    /// Appends one entry of the node's own, as leader, and returns its index.
    pub(crate) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last.index + 1, "the log has no gap");
        assert!(entry.term >= self.last.term, "terms in a log only grow");
        self.last = LogPos { index: entry.index, term: entry.term };
        self.tail.push_back(entry);
    }

    /// Takes over consecutive entries from a leader, after the caller saw that the log has the
    /// position before them. Entries that the log has already stay; from the first that differs on
    /// everything is replaced.
    pub(crate) fn merge(&mut self, entries: Vec<Entry>) -> Result<(), Failure> {
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.peek()
            && self.rules.keep(Rule::KeepWhatMatches)
        {
            if !self.has(LogPos { index: entry.index, term: entry.term })? {
                break;
            }
            entries.next();
        }
        if let Some(entry) = entries.peek() {
            self.cut_from(entry.index)?;
        }
        for entry in entries {
            self.push(entry);
        }
        Ok(())
    }

    /// Cuts off what differs from consecutive entries of a leader, without taking them over.
    pub(crate) fn cut_conflicts(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        for entry in entries.iter().take_while(|entry| entry.index <= self.last.index) {
            if !self.has(LogPos { index: entry.index, term: entry.term })? {
                return self.cut_from(entry.index);
            }
        }
        Ok(())
    }

    /// A snapshot replaces the log: everything up to `pos` is committed, and covered by it.
    pub(crate) fn restore(&mut self, pos: LogPos) {
        assert!(pos.index >= self.committed, "snapshot {pos} is behind {}", self.committed);
        if self.rules.keep(Rule::SnapshotReplacesLog) || pos.index > self.last.index {
            self.tail = VecDeque::new();
            self.applied_bytes = 0;
            self.last = pos;
            self.written = pos.index;
        }
        self.committed = pos.index;
        // Nothing of the old log counts any more, and nothing of the new one does yet.
        self.stable = self.handed;
        for write in &mut self.writes {
            write.claim = write.claim.min(self.handed);
        }
        self.restoring = Some(Box::new(Restoring { pos, ticket: self.next_ticket }));
    }

    /// Whether a snapshot was taken over and is not durable yet.
    pub(crate) fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// Whether the effect of entry `index` came by a snapshot, or will.
    pub(crate) fn is_covered(&self, index: Index) -> bool {
        index <= self.restoring.as_ref().map_or(self.restored, |restoring| restoring.pos.index)
    }

    /// Drops the entries from `index` on.
    fn cut_from(&mut self, index: Index) -> Result<(), Failure> {
        assert!(
            index > self.committed,
            "entry {index} is committed ({}) and replaced",
            self.committed
        );
        if index > self.last.index {
            return Ok(());
        }
        let last = index - 1;
        let term = self.term(last)?.ok_or(Failure {
            promise: "what is not applied is not compacted",
            index: last,
            term: self.last.term,
            cause: StorageError::Compacted,
        })?;
        let kept = index.saturating_sub(self.tail_first());
        self.tail.truncate(usize::try_from(kept).expect("the tail is in memory"));
        self.last = LogPos { index: last, term };
        self.written = self.written.min(last);
        self.stable = self.stable.min(last);
        if self.rules.keep(Rule::LateWritesProveNothing) {
            for write in &mut self.writes {
                write.claim = write.claim.min(last);
            }
        }
        Ok(())
    }

    /// Commits up to `index`, or as far as the log goes back from there. Returns whether anything
    /// new is committed.
    pub(crate) fn commit_to(&mut self, index: Index) -> bool {
        assert!(index <= self.last.index, "commit {index} is past the last entry {}", self.last);
        let grew = index > self.committed;
        self.committed = self.committed.max(index);
        grew
    }

    /// Whether entries wait to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.written < self.last.index
    }

    /// The entries that wait to be written, behind what `entries` holds, and a ticket for the
    /// write.
    pub(crate) fn begin_write(&mut self, entries: &mut Vec<Entry>) -> Ticket {
        let skip = self.written + 1 - self.tail_first();
        let skip = usize::try_from(skip).expect("the tail is in memory");
        entries.extend(self.tail.range(skip..).cloned());
        let first = entries.first().map_or(self.last.index + 1, |entry| entry.index);
        assert_eq!(first, self.written + 1, "what is written follows what was");
        self.written = self.last.index;
        let ticket = self.next_ticket;
        self.next_ticket = ticket.next();
        self.writes.push_back(Write { ticket, claim: self.written });
        ticket
    }

    /// The write of `ticket`, and all before it, are durable.
    pub(crate) fn persisted(&mut self, ticket: Ticket) {
        assert!(ticket < self.next_ticket, "ticket {ticket} was never given out");
        while let Some(write) = self.writes.front()
            && write.ticket <= ticket
        {
            self.stable = self.stable.max(write.claim);
            self.writes.pop_front();
        }
        assert!(self.stable <= self.written, "stable {} > written {}", self.stable, self.written);
        let installed = self.restoring.take_if(|restoring| restoring.ticket <= ticket);
        if let Some(Restoring { pos, .. }) = installed.map(|installed| *installed) {
            assert!(self.stable >= pos.index, "{pos} is installed, stable is {}", self.stable);
            (self.handed, self.applied, self.restored) = (pos.index, pos.index, pos.index);
        }
    }

    /// Whether no write is on the way.
    fn is_settled(&self) -> bool {
        self.writes.is_empty() && !self.has_unwritten() && !self.is_restoring()
    }

    /// Whether everything is committed, durable and applied.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.applied == self.last.index && self.is_settled()
    }

    /// Whether committed entries wait to be handed out.
    pub(crate) fn has_committed(&self) -> bool {
        self.handed < self.presentable()
    }

    /// The last entry that may be handed out.
    fn presentable(&self) -> Index {
        match self.rules.keep(Rule::HandOutWhenDurable) || self.is_restoring() {
            true => self.committed.min(self.stable),
            false => self.committed,
        }
    }

    /// The next page of entries to apply, into `page`, which is empty.
    pub(crate) fn next_committed(
        &mut self,
        bytes_max: usize,
        page: &mut Vec<Entry>,
    ) -> Result<(), Failure> {
        assert!(page.is_empty(), "one page at a time");
        if !self.has_committed() {
            return Ok(());
        }
        let low = self.handed + 1;
        if !self.entries_into(low, self.presentable(), bytes_max, page)? {
            return Err(Failure {
                promise: "what is not applied is not compacted",
                index: low,
                term: self.last.term,
                cause: StorageError::Compacted,
            });
        }
        self.handed += page.len() as Index;
        Ok(())
    }

    /// The state machine has applied up to `index`; keep applied entries of no more than
    /// `bytes_kept`.
    pub(crate) fn applied_to(&mut self, index: Index, bytes_kept: usize) {
        if index <= self.restored {
            // Told late: a snapshot came after the page was handed out.
            return;
        }
        assert!(index >= self.applied, "applied goes back from {} to {index}", self.applied);
        assert!(index <= self.handed, "{index} is applied, but {} was handed out", self.handed);
        let from = (self.applied + 1).max(self.tail_first());
        for i in from..=index {
            self.applied_bytes += self.in_tail(i).map_or(0, entry_size);
        }
        self.applied = index;
        self.release(bytes_kept);
    }

    /// Forgets applied entries from the front of the tail until no more than `bytes_kept` of them
    /// are left.
    fn release(&mut self, bytes_kept: usize) {
        while self.applied_bytes > bytes_kept
            && let Some(entry) = self.tail.front()
            && entry.index <= self.applied
        {
            self.applied_bytes -= entry_size(entry);
            self.tail.pop_front();
        }
    }

    /// Gives back what the tail's buffer has too much.
    pub(crate) fn trim(&mut self) {
        let (len, capacity) = self.tail_len();
        if capacity > TAIL_CAPACITY_KEPT && len < capacity / 4 {
            self.tail.shrink_to((len * 2).max(TAIL_CAPACITY_KEPT));
        }
    }

    /// Gives all memory back if everything is applied and nothing is on the way.
    pub(crate) fn rest(&mut self) {
        if !self.is_at_rest() {
            return self.trim();
        }
        self.release(0);
        self.tail = VecDeque::new();
        self.writes = VecDeque::new();
    }
}

/// Makes a storage error into the failure to keep `promise`.
fn broken(promise: &'static str, index: Index, term: Term) -> impl FnOnce(StorageError) -> Failure {
    move |cause| Failure { promise, index, term, cause }
}
