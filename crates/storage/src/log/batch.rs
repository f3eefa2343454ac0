//! What is written to the log at once.

use std::ops::Range;

use base::{Entry, Index, RegionId, Term};
use bytes::Bytes;

use super::record;

/// Rows that become one record of the log: after a crash all of them are there or none. Rows of a
/// region count in the order in which they were added.
///
/// Entries and states are kept by reference count; their bytes are copied once, when the batch is
/// written.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    rows: Vec<BatchRow>,
    entries: Vec<Entry>,
    meta_len: u64,
    data_len: u64,
}

#[derive(Clone, Debug)]
pub(super) enum BatchRow {
    Append { region: RegionId, entries: Range<usize>, rewritten: bool },
    State { region: RegionId, value: Bytes },
    Truncate { region: RegionId, index: Index, term: Term },
    Remove { region: RegionId },
}

impl LogBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends entries to a region's log. They must follow each other. If the first is not above
    /// the region's last, the log is cut there: the old entries from that index on are replaced.
    pub fn append(&mut self, region: RegionId, entries: &[Entry]) {
        self.add_entries(region, entries, false);
    }

    /// Writes live entries again, so that the segment they were in can go. Cuts nothing.
    pub(super) fn rewrite(&mut self, region: RegionId, entries: &[Entry]) {
        self.add_entries(region, entries, true);
    }

    fn add_entries(&mut self, region: RegionId, entries: &[Entry], rewritten: bool) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > 0, "region {region}: a log begins at 1");
        let start = self.entries.len();
        for (entry, index) in entries.iter().zip(first.index..) {
            assert_eq!(entry.index, index, "region {region}: entries follow each other");
            self.data_len += entry.data.len() as u64;
            self.entries.push(entry.clone());
        }
        self.meta_len += record::append_len(entries.len());
        let entries = start..self.entries.len();
        self.rows.push(BatchRow::Append { region, entries, rewritten });
    }

    /// Replaces the region's state: one value whose meaning is the caller's.
    pub fn put_state(&mut self, region: RegionId, value: Bytes) {
        self.meta_len += record::state_len(value.len());
        self.rows.push(BatchRow::State { region, value });
    }

    /// Takes the entries up to and with `index` out of the log and remembers `term` as the term of
    /// `index`. The log goes on behind it. Does nothing if the log is truncated that far already.
    /// If there is an entry at `index` of another term, the entries after it are not of the log
    /// that `(index, term)` is of, and go too.
    pub fn truncate(&mut self, region: RegionId, index: Index, term: Term) {
        assert!(index < Index::MAX, "region {region}: no log is that long");
        self.meta_len += record::TRUNCATE_LEN;
        self.rows.push(BatchRow::Truncate { region, index, term });
    }

    /// Forgets the region: entries, state and where it was truncated.
    pub fn remove(&mut self, region: RegionId) {
        self.meta_len += record::REMOVE_LEN;
        self.rows.push(BatchRow::Remove { region });
    }

    /// Adds all rows of `other` after those of this batch and leaves `other` empty.
    pub fn merge(&mut self, other: &mut LogBatch) {
        let shift = self.entries.len();
        self.entries.append(&mut other.entries);
        self.rows.extend(other.rows.drain(..).map(|row| match row {
            BatchRow::Append { region, entries, rewritten } => {
                let entries = entries.start + shift..entries.end + shift;
                BatchRow::Append { region, entries, rewritten }
            }
            row => row,
        }));
        self.meta_len += std::mem::take(&mut other.meta_len);
        self.data_len += std::mem::take(&mut other.data_len);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Makes it empty; keeps its memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.entries.clear();
        self.meta_len = 0;
        self.data_len = 0;
    }

    /// Bytes it will take in the log.
    pub fn byte_size(&self) -> u64 {
        record::record_len(self.meta_len, self.data_len)
    }

    /// Number of entries in it.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn rows(&self) -> &[BatchRow] {
        &self.rows
    }

    pub(super) fn entries(&self, range: &Range<usize>) -> &[Entry] {
        &self.entries[range.clone()]
    }

    pub(super) fn meta_len(&self) -> u64 {
        self.meta_len
    }

    pub(super) fn data_len(&self) -> u64 {
        self.data_len
    }
}
