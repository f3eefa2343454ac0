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

use std::collections::VecDeque;

use base::{Entry, EntryKind, Index, Term};

use crate::message::LogPos;
use crate::ready::Ticket;
use crate::storage::{Failure, Storage, StorageError};

/// What an entry costs beside its data, for limits in bytes.
const ENTRY_OVERHEAD: usize = 24;

/// The tail's buffer is given back when it is larger than this and less than a quarter is used.
const TAIL_CAPACITY_KEPT: usize = 64;

/// Bytes that are looked through at once for changes of members.
const SCAN_BYTES: usize = 1 << 20;

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
    next_ticket: u64,
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
    ) -> Result<Self, Failure> {
        let first = storage.first_index().map_err(broken("first_index answers", 0))?;
        let last = storage.last_index().map_err(broken("last_index answers", 0))?;
        let committed = commit.max(applied);
        if first == 0 || first > last + 1 || applied + 1 < first || committed > last {
            return Err(Failure {
                promise: "truncated <= applied, and commit and applied <= last, at a start",
                index: committed,
                cause: if committed > last {
                    StorageError::Unavailable
                } else {
                    StorageError::Compacted
                },
            });
        }
        let term = storage.term(last).map_err(broken("the last entry has a term", last))?;
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
            next_ticket: 1,
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

    /// Index of the first entry that storage or the tail has.
    pub(crate) fn first_index(&self) -> Result<Index, Failure> {
        self.storage.first_index().map_err(broken("first_index answers", 0))
    }

    fn tail_first(&self) -> Index {
        self.last.index + 1 - self.tail.len() as Index
    }

    fn in_tail(&self, index: Index) -> Option<&Entry> {
        self.tail.get(usize::try_from(index.checked_sub(self.tail_first())?).ok()?)
    }

    /// The term at `index`: `None` above the end and below the truncated entry.
    pub(crate) fn term(&self, index: Index) -> Result<Option<Term>, Failure> {
        if index >= self.last.index {
            return Ok((index == self.last.index).then_some(self.last.term));
        }
        if let Some(entry) = self.in_tail(index) {
            return Ok(Some(entry.term));
        }
        match self.storage.term(index) {
            Ok(term) => Ok(Some(term)),
            Err(StorageError::Compacted) => Ok(None),
            Err(cause) => Err(Failure {
                promise: "a stable entry has a term until it is compacted",
                index,
                cause,
            }),
        }
    }

    /// Whether the log has this very position. What is compacted is not known to match.
    pub(crate) fn has(&self, pos: LogPos) -> Result<bool, Failure> {
        Ok(self.term(pos.index)? == Some(pos.term))
    }

    /// The last position at or below `from.index` whose term is not above `from.term`: where a log
    /// that has `from` may agree with this one. Stops at the truncated entry, below which all logs
    /// agree.
    pub(crate) fn last_agreeable(&self, from: LogPos) -> Result<LogPos, Failure> {
        let mut index = from.index.min(self.last.index);
        loop {
            match self.term(index)? {
                Some(term) if term <= from.term || index == 0 => return Ok(LogPos { index, term }),
                Some(_) => index -= 1,
                None => return Ok(LogPos { index, term: 0 }),
            }
        }
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
        while let Some(entry) = entries.peek() {
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
            cause: StorageError::Compacted,
        })?;
        let kept = index.saturating_sub(self.tail_first());
        self.tail.truncate(usize::try_from(kept).expect("the tail is in memory"));
        self.last = LogPos { index: last, term };
        self.written = self.written.min(last);
        self.stable = self.stable.min(last);
        for write in &mut self.writes {
            write.claim = write.claim.min(last);
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

    /// The entries that wait to be written, and a ticket for the write.
    pub(crate) fn begin_write(&mut self) -> (Ticket, Vec<Entry>) {
        let skip = self.written + 1 - self.tail_first();
        let skip = usize::try_from(skip).expect("the tail is in memory");
        let entries: Vec<Entry> = self.tail.range(skip..).cloned().collect();
        self.written = self.last.index;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.writes.push_back(Write { ticket, claim: self.written });
        (ticket, entries)
    }

    /// The write of `ticket`, and all before it, are durable.
    pub(crate) fn persisted(&mut self, ticket: Ticket) {
        assert!(ticket.0 < self.next_ticket, "ticket {ticket} was never given out");
        while let Some(write) = self.writes.front()
            && write.ticket <= ticket
        {
            self.stable = self.stable.max(write.claim);
            self.writes.pop_front();
        }
        assert!(self.stable <= self.written, "stable {} > written {}", self.stable, self.written);
    }

    /// Whether no write is on the way.
    fn is_settled(&self) -> bool {
        self.writes.is_empty() && !self.has_unwritten()
    }

    /// Whether committed entries wait to be handed out.
    pub(crate) fn has_committed(&self) -> bool {
        self.handed < self.committed.min(self.stable)
    }

    /// The next page of entries to apply.
    pub(crate) fn next_committed(&mut self, bytes_max: usize) -> Result<Vec<Entry>, Failure> {
        if !self.has_committed() {
            return Ok(Vec::new());
        }
        let (low, last) = (self.handed + 1, self.committed.min(self.stable));
        let page = self.entries(low, last, bytes_max)?.ok_or(Failure {
            promise: "what is not applied is not compacted",
            index: low,
            cause: StorageError::Compacted,
        })?;
        self.handed += page.len() as Index;
        Ok(page)
    }

    /// The entries `low..=last`, but no more than fit into `bytes_max` after the first one. `None`
    /// if `low` is compacted.
    pub(crate) fn entries(
        &self,
        low: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Option<Vec<Entry>>, Failure> {
        assert!(low <= last && last <= self.last.index, "{low}..={last} of {}", self.last);
        let tail_first = self.tail_first();
        if low < tail_first {
            let high = tail_first.min(last + 1);
            return self.stored_entries(low, high, bytes_max);
        }
        let at = |index: Index| usize::try_from(index - tail_first).expect("the tail is in memory");
        let range = self.tail.range(at(low)..at(last + 1));
        let mut bytes = 0;
        let count = range.clone().take_while(|entry| {
            bytes += entry_size(entry);
            bytes <= bytes_max
        });
        let count = count.count().max(1);
        Ok(Some(range.take(count).cloned().collect()))
    }

    /// Whether an entry that is committed but not applied changes members.
    pub(crate) fn has_unapplied_conf_change(&self) -> Result<bool, Failure> {
        let mut low = self.applied + 1;
        while low <= self.committed {
            let page = self.entries(low, self.committed, SCAN_BYTES)?.ok_or(Failure {
                promise: "what is not applied is not compacted",
                index: low,
                cause: StorageError::Compacted,
            })?;
            if page.iter().any(|entry| entry.kind != EntryKind::Normal) {
                return Ok(true);
            }
            low += page.len() as Index;
        }
        Ok(false)
    }

    fn stored_entries(
        &self,
        low: Index,
        high: Index,
        bytes_max: usize,
    ) -> Result<Option<Vec<Entry>>, Failure> {
        let promise = "a stable entry is there until it is applied and compacted";
        match self.storage.entries(low, high, bytes_max) {
            Ok(entries) if entries.first().is_some_and(|entry| entry.index == low) => {
                Ok(Some(entries))
            }
            Ok(_) => Err(Failure { promise, index: low, cause: StorageError::Unavailable }),
            Err(StorageError::Compacted) => Ok(None),
            Err(cause) => Err(Failure { promise, index: low, cause }),
        }
    }

    /// The state machine has applied up to `index`; keep applied entries of no more than
    /// `bytes_kept`.
    pub(crate) fn applied_to(&mut self, index: Index, bytes_kept: usize) {
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
    /// are left, and gives memory back.
    pub(crate) fn release(&mut self, bytes_kept: usize) {
        while self.applied_bytes > bytes_kept
            && let Some(entry) = self.tail.front()
            && entry.index <= self.applied
        {
            self.applied_bytes -= entry_size(entry);
            self.tail.pop_front();
        }
        let (len, capacity) = self.tail_len();
        if len == 0 && bytes_kept == 0 && capacity > TAIL_CAPACITY_KEPT {
            self.tail = VecDeque::new();
        } else if capacity > TAIL_CAPACITY_KEPT && len < capacity / 4 {
            self.tail.shrink_to((len * 2).max(TAIL_CAPACITY_KEPT));
        }
    }

    /// Gives all memory back if everything is applied and nothing is on the way.
    pub(crate) fn rest(&mut self) {
        if self.applied == self.last.index && self.is_settled() {
            self.release(0);
            self.tail = VecDeque::new();
            self.writes.shrink_to(0);
        }
    }
}

/// Makes a storage error into the failure to keep `promise`.
fn broken(promise: &'static str, index: Index) -> impl FnOnce(StorageError) -> Failure {
    move |cause| Failure { promise, index, cause }
}
