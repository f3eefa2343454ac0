//! The raft log: one log a store, for the entries and states of all its regions.
//!
//! PAGE
mod batch;
mod error;
mod index;
mod pool;
mod purge;
mod reader;
mod record;
mod recover;
mod segment;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

pub use batch::LogBatch;
pub use error::{Damage, LogError, LostEntries, ReadError};
pub use pool::Preparer;
pub use purge::PurgeReport;
pub use reader::LogReader;
pub use writer::RaftLog;

/// How a log is kept. Fixed when it is opened; all of it may differ from one opening to the next.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Length of a segment file, 4 KiB to 1 GiB. The log takes at least twice this on the disk: the segment that is
    /// written and the one prepared to follow.
    pub segment_bytes: u64,
    /// How many files of purged segments are kept to be used again, beside the one that is prepared.
    pub spare_segments_max: usize,
    /// About how many bytes one [`RaftLog::purge`] may write again.
    pub rewrite_bytes_max: u64,
    /// A number that no client can know, drawn at random by whoever creates the store. It goes into every checksum of a
    /// new log, so that nothing a client stores passes for a record; an existing log keeps its own.
    pub salt: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            spare_segments_max: 4,
            rewrite_bytes_max: 2 << 20,
            salt: 0,
        }
    }
}

impl LogOptions {
    fn check(&self) {
        assert!((4 << 10..=1 << 30).contains(&self.segment_bytes), "{self:?}");
        assert!(self.rewrite_bytes_max > 0, "{self:?}");
    }
}

/// What a log did since it was opened, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records written.
    pub writes: u64,
    /// Syncs of segments that were written, each one `fdatasync`.
    pub syncs: u64,
    /// Bytes of all records written.
    pub bytes_written: u64,
    /// Entries written, without those written again.
    pub entries: u64,
    /// Bytes of entries and states written again so that old segments could go.
    pub bytes_rewritten: u64,
    /// How often the log went on to a new segment.
    pub segments_begun: u64,
    /// Segments that were dropped.
    pub segments_purged: u64,
    /// Segments now.
    pub segments: u64,
    /// Regions now.
    pub regions: u64,
    /// Roughly the bytes of the entries and states that are wanted now.
    pub live_bytes: u64,
    /// Bytes of all files of the log now.
    pub disk_bytes: u64,
}
