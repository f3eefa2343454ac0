//! Reading the log: the tail where it reaches, storage below it.

use base::{Entry, EntryKind, Index, Term};

use super::{Log, broken, entry_size};
use crate::message::LogPos;
use crate::storage::{Failure, StorageError};

/// Bytes that are looked through at once for changes of members.
const SCAN_BYTES: usize = 1 << 20;

impl Log {
    /// Index of the first entry that storage or the tail has.
    pub(crate) fn first_index(&self) -> Result<Index, Failure> {
        match &self.restoring {
            Some(restoring) => Ok(restoring.pos.index + 1),
            None => {
                let broken = broken("first_index answers", 0, self.last.term);
                self.storage.first_index().map_err(broken)
            }
        }
    }

    /// The term at `index`: `None` above the end and below the truncated entry.
    pub(crate) fn term(&self, index: Index) -> Result<Option<Term>, Failure> {
        if index >= self.last.index {
            return Ok((index == self.last.index).then_some(self.last.term));
        }
        if let Some(entry) = self.in_tail(index) {
            return Ok(Some(entry.term));
        }
        if let Some(pos) = self.restoring.as_ref().map(|restoring| restoring.pos) {
            return Ok((index == pos.index).then_some(pos.term));
        }
        match self.storage.term(index) {
            Ok(term) if term > self.last.term => Err(self.contradicted(LogPos { index, term })),
            Ok(term) => Ok(Some(term)),
            Err(StorageError::Compacted) if index < self.applied => Ok(None),
            Err(cause) => Err(Failure {
                promise: "a stable entry has a term until it is applied and compacted",
                index,
                term: self.last.term,
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

    /// The entries `low..=last`, but no more than fit into `bytes_max` after the first one. `None`
    /// if `low` is compacted.
    pub(crate) fn entries(
        &self,
        low: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Option<Vec<Entry>>, Failure> {
        let mut entries = Vec::new();
        let found = self.entries_into(low, last, bytes_max, &mut entries)?;
        Ok(found.then_some(entries))
    }

    /// Like `entries`, behind what `out` holds. Returns whether `low` is not compacted.
    pub(super) fn entries_into(
        &self,
        low: Index,
        last: Index,
        bytes_max: usize,
        out: &mut Vec<Entry>,
    ) -> Result<bool, Failure> {
        assert!(low <= last && last <= self.last.index, "{low}..={last} of {}", self.last);
        let tail_first = self.tail_first();
        if low < tail_first {
            let stored = self.stored_entries(low, tail_first.min(last + 1), bytes_max)?;
            let found = stored.is_some();
            out.extend(stored.unwrap_or_default());
            return Ok(found);
        }
        let at = |index: Index| usize::try_from(index - tail_first).expect("the tail is in memory");
        let range = self.tail.range(at(low)..at(last + 1));
        let mut bytes = 0;
        let count = range.clone().take_while(|entry| {
            bytes += entry_size(entry);
            bytes <= bytes_max
        });
        let count = count.count().max(1);
        out.extend(range.take(count).cloned());
        Ok(true)
    }

    /// Whether an entry that is committed but not applied changes members.
    pub(crate) fn has_unapplied_conf_change(&self) -> Result<bool, Failure> {
        let mut low = self.applied + 1;
        while low <= self.committed {
            let page = self.entries(low, self.committed, SCAN_BYTES)?.ok_or(Failure {
                promise: "what is not applied is not compacted",
                index: low,
                term: self.last.term,
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
        if self.is_restoring() {
            return Ok(None);
        }
        let (index, term) = (low, self.last.term);
        let promise = "a stable entry is there until it is applied and compacted";
        match self.storage.entries(low, high, bytes_max) {
            Ok(entries) if !entries.is_empty() => {
                self.check_stored(low, high, &entries).map(|()| Some(entries))
            }
            Ok(_) => Err(Failure { promise, index, term, cause: StorageError::Unavailable }),
            Err(StorageError::Compacted) if low <= self.applied => Ok(None),
            Err(cause) => Err(Failure { promise, index, term, cause }),
        }
    }

    /// Whether what storage answered can be a part of this log: consecutive from `low` on, below
    /// `high`, of terms that never go back and end with the log's last.
    fn check_stored(&self, low: Index, high: Index, entries: &[Entry]) -> Result<(), Failure> {
        let mut term = 0;
        for (index, entry) in (low..).zip(entries) {
            let in_range = index < high && entry.index == index;
            if !in_range || entry.term < term || entry.term > self.last.term {
                return Err(self.contradicted(LogPos { index: entry.index, term: entry.term }));
            }
            term = entry.term;
        }
        Ok(())
    }

    /// Storage answered with an entry that cannot be.
    fn contradicted(&self, answered: LogPos) -> Failure {
        Failure {
            promise: "it answers with what was written: consecutive, terms never go back",
            index: answered.index,
            term: self.last.term,
            cause: StorageError::Wrong(answered),
        }
    }
}
