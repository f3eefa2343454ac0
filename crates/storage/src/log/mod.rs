//! The raft log: one log a store, for the entries and states of all its regions.
//!
//! Whoever needs a raft log gets one of many regions in the same few files, so that one `fdatasync`
//! makes the writes of all of them durable. The log writer thread of a store owns the [`RaftLog`];
//! shards hold a [`LogReader`] for the rare entry that is no longer in their memory; a background
//! job holds the [`Preparer`].
//!
//! ```text
//!   LogBatch ──write──▶ one record at the end ──▶ index in memory ◀──read── LogReader (any thread)
//!                       of the active segment        │ entry → segment, offset
//!   sync: one fdatasync of the active segment        ▼
//!   ┌─ segment 4 ─┐┌─ segment 5 ─┐┌─ segment 6 ─┐┌─ segment 7 ─┐
//!   │▒▒▒▒▒▒▒▒▒▒▒▒▒││▒▒▒▒▒▒▒▒▒▒▒▒▒││▒▒▒▒▒▒░░░░░░░││   prepared  │
//!   └─ purged     ┘└─────────────┘└─ active     ┘└─────────────┘
//!          └── its file becomes segment 8 ──────────────▲
//! ```
//! A place in the log is named by its position: how many bytes of records were written before it
//! since the log exists. Every record states its own, and there are no gaps between them.
//!
//! `batch` what is written; `record`, `segment` the bytes; `writer` write and sync; `pool` where
//! files come from; `index` where entries are; `reader` reading; `purge` giving back space;
//! `survey` and `recover` opening.
//!
//! # Invariants
//! 1. A record is one batch: after a crash all of it is there or none.
//! 2. The log that comes back is the log as it was after one of its writes, and not before the last
//!    sync.
//! 3. All of a segment is durable before the first record of the next one is written. So only the
//!    end of the last segment can be torn.
//! 4. Segments leave oldest first. What replaces their content is durable before a record says that
//!    they are not needed, and that before they go.
//! 5. A file that is used again gets a new number, which is part of its records' checksums: no old
//!    record passes for a new one. Heads of records that were cut off are erased before anything is
//!    written behind the cut.
//! 6. A failed sync, or a failed write for another reason than space, is the end: every later call
//!    refuses.
//! 7. A region's entries follow each other without gaps from the truncated index on.
//!
//! # Torn or damaged?
//! After a power loss the last records may be torn, which is nobody's fault: they were never
//! durable, so nobody was told that they are. A record that *was* durable and cannot be read is
//! damage, and opening must refuse. Both look alike, a bad checksum, so the log keeps evidence:
//! each record, and each segment's head, states the position up to which the log was durable when
//! it was written. An unreadable place below any such position is damage; above all of them it is
//! the end.
//!
//! What is guaranteed, if the disk keeps the rules of [`Disk`](crate::disk::Disk) and sectors are
//! written whole or not:
//! - Without damage, opening never refuses and never loses what was synced.
//! - With damage (bits flipped, sectors or files gone), opening refuses with [`LogError::Damaged`],
//!   which names the file, the offset and the entries known to be lost, or gives back the log as it
//!   was after one of its writes, not before the highest position that is vouched for by what is
//!   left. It never panics, and never leaves out something in the middle.
//!
//! What the evidence cannot tell:
//! - Damage to what the very last sync made durable, if the process ended before it wrote anything
//!   more. It looks like a write that never ended. [`RaftLog::vouch`] closes this window: call it
//!   when the writer has nothing to do, and before a clean shutdown. Opening a log vouches for what
//!   it found.
//! - The loss of the newest segment's file as a whole, or of the folder: as if it had never been
//!   written. (If a prepared segment is left, its head at least remembers what was durable when it
//!   was prepared.)
//! - Damage that a CRC-32 does not see: one in 2^32 of what is not a single burst of up to 32 bits.
//!
//! # Common failures
//! [`LogError::Full`]: nothing changed, the log goes on when there is space; purging works on a
//! full disk. [`LogError::Gap`]: a bug of the caller; nothing was written. [`LogError::Newer`]: the
//! folder was used by a newer version. Two processes on one folder are not noticed here; the server
//! holds a lock.
//!
//! Where to start: [`RaftLog::write`], then `record.rs`, then `recover.rs`.

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
    /// Length of a segment file, 4 KiB to 1 GiB. The log takes at least twice this on the disk: the
    /// segment that is written and the one prepared to follow.
    pub segment_bytes: u64,
    /// How many files of purged segments are kept to be used again, beside the one that is
    /// prepared.
    pub spare_segments_max: usize,
    /// About how many bytes one [`RaftLog::purge`] may write again.
    pub rewrite_bytes_max: u64,
    /// A number that no client can know, drawn at random by whoever creates the store. It goes into
    /// every checksum of a new log, so that nothing a client stores passes for a record; an
    /// existing log keeps its own.
    pub salt: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, spare_segments_max: 4, rewrite_bytes_max: 2 << 20, salt: 0 }
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
