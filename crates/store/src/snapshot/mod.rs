//! The files of a region's snapshot: how a replica that is far behind, or new, gets the data.
//!
//! Raft decides who needs a snapshot and where it stands; this module makes, sends, receives and
//! installs what is in it. Nothing here decides when: the shard and the transport do.
//!
//! ```text
//!   leader's store                                      follower's store
//!   engine snapshot                                     engine
//!     │ BuildSnapshot                                     ▲ InstallSnapshot: check, clear, ingest
//!     ▼                                                   │
//!   made-R-T-I-P-{default,lock,write}.sst               received-R-T-I-{default,lock,write}.sst
//!     │                                                 received-R-T-I.meta (last: all is here)
//!     │ SnapshotReader ── chunks of at most 1 MiB ── SnapshotWriter
//!     │                                                   ▲
//!   raft message Snapshot { pos, conf, data } ────────────┘ data = SnapshotData: the region, and
//!                                                           size and checksum of each file
//! ```
//!
//! R, T, I is the [`SnapshotKey`]: region, term and index of the last entry covered. P is the peer
//! that a snapshot was made for. A family without keys has no file.
//!
//! Invariants:
//! 1. A received snapshot exists if and only if its `.meta` file does. That one is written last,
//!    by a rename, after everything else is durable.
//! 2. Nothing of the engine changes before every file was read through once and has the size and
//!    the checksum that were promised.
//! 3. Installing touches the keys of the region's range and none beside, and may be done again as
//!    long as the files are there. They stay until [`DiscardSnapshot`]: once the region is durably
//!    Normal.
//! 4. A file that was made loses its name as soon as a reader has it open, so nobody has to clean
//!    up after a transfer, however it ended.
//! 5. No more is in memory than one chunk, or one block of the engine.
//!
//! Checksums are CRC-32. Only one reception of a key runs at a time ([`SnapshotError::Taken`]).
//!
//! Where to start: `jobs.rs` for what runs on the pool, `stream.rs` for the transport's two ends,
//! `folder.rs` for names and for what a start sweeps away, `credits.rs` for when one may be made.

mod credits;
mod data;
mod error;
mod folder;
mod jobs;
mod pace;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;

use base::{Index, RegionId, Term};
use raft::LogPos;

pub(crate) use credits::{CREDIT_ASK_TICKS, Credits};
pub use data::{SnapshotData, SnapshotFile};
pub use error::SnapshotError;
pub use folder::{SnapshotFolder, SnapshotName};
pub use jobs::{BuildSnapshot, DestroyData, DiscardSnapshot, InstallSnapshot, SnapshotFiles};
pub use pace::Pace;
pub use stream::{SnapshotReader, SnapshotWriter};

/// The largest piece in which files are read, sent and checked.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Snapshots that a store makes at once, and threads that it takes to make them. Those that have to
/// wait hold nothing meanwhile.
pub const BUILDS_MAX: usize = 2;

/// Which state of which region a snapshot holds. Two of the same key hold the same keys and values,
/// though not the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotKey {
    /// The region.
    pub region: RegionId,
    /// Term of the last entry that is covered.
    pub term: Term,
    /// Its index.
    pub index: Index,
}

impl SnapshotKey {
    /// The key of the snapshot of `region` at `pos`.
    pub fn new(region: RegionId, pos: LogPos) -> Self {
        Self { region, term: pos.term, index: pos.index }
    }

    /// Where the snapshot stands in the region's log.
    pub fn pos(&self) -> LogPos {
        LogPos { index: self.index, term: self.term }
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {} at {}", self.region, self.pos())
    }
}
