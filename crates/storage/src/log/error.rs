//! What can go wrong with the raft log, by who must act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base::{Index, RegionId, Term};

/// Why the log could not do what it was asked to. In every case all that was durable before still
/// is.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. Nothing changed; the same call works once there is space.
    #[error("no space on the disk for the raft log at {}: {source}", path.display())]
    Full {
        /// The file or folder that was to grow.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system failed otherwise. The node must stop: see [`LogError::Poisoned`].
    #[error("the raft log could not {what} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write or sync failed, and nobody knows what of it is on the disk. The log takes
    /// no more writes; after a restart it is what the disk really has.
    #[error("the raft log stopped because of an earlier failure at {}: {cause}", path.display())]
    Poisoned {
        /// The file of the first failure.
        path: PathBuf,
        /// What failed there.
        cause: String,
    },
    /// Something durable is not there any more, or not as it was written. An operator must act:
    /// restore the folder or give up this store.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// The file was written by a newer version. Start that one.
    #[error("{} has format {found} of the raft log; known are those up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version can read.
        known: u32,
    },
    /// The file belongs to another log than the rest of the folder.
    #[error("{} belongs to another raft log than the other files of its folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The caller appends entries that do not follow the region's log. Nothing was written.
    #[error("region {region}: entries from {found} on do not follow ({truncated}, {last}]")]
    Gap {
        /// The region.
        region: RegionId,
        /// Index up to which its log is truncated.
        truncated: Index,
        /// Index of its last entry.
        last: Index,
        /// First index of the refused entries.
        found: Index,
    },
    /// The batch does not fit a record. Nothing was written.
    #[error("a batch of {bytes} bytes is more than the raft log writes at once ({max})")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest size allowed.
        max: u64,
    },
}

impl LogError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LogError::Full { path: path.to_owned(), source }
            }
            _ => LogError::Io { what, path: path.to_owned(), source },
        }
    }
}

/// Where the log is damaged and what that is known to cost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// The damaged file, or the folder if a file is missing.
    pub path: PathBuf,
    /// Byte of the file at which the first unreadable record or header begins.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// Log positions from and up to which nothing could be read. The end is unknown if it is zero.
    pub positions: (u64, u64),
    /// Entries that were written, are neither truncated nor replaced, and cannot be read. There may
    /// be more that no remaining record speaks of.
    pub lost: Vec<LostEntries>,
}

/// Entries of a region that damage took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostEntries {
    /// The region.
    pub region: RegionId,
    /// The first lost entry.
    pub first: Index,
    /// The last lost entry.
    pub last: Index,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { path, offset, what, positions: (from, to), lost } = self;
        write!(f, "the raft log is damaged: {} at byte {offset}: {what}", path.display())?;
        match to {
            0 => write!(f, "; unreadable from log position {from} on")?,
            _ => write!(f, "; unreadable from log position {from} to {to}")?,
        }
        if lost.is_empty() {
            return write!(f, "; which entries or states were there is not known");
        }
        write!(f, "; known to be lost:")?;
        for (i, LostEntries { region, first, last }) in lost.iter().take(8).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} region {region} entries {first} to {last}")?;
        }
        match lost.len() {
            ..=8 => Ok(()),
            more => write!(f, " and {} more ranges", more - 8),
        }
    }
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It left the log. Who needs it needs a snapshot.
    #[error("the log before and with {truncated} was truncated")]
    Compacted {
        /// Index up to which the log is truncated.
        truncated: Index,
        /// Its term.
        term: Term,
    },
    /// It is not in the log yet.
    #[error("the log ends at {last}")]
    Unavailable {
        /// Index of the last entry.
        last: Index,
    },
    /// It does not have the checksum it was written with: the store must stop.
    #[error("entry {index} of region {region} is damaged: {} at byte {offset}", path.display())]
    Damaged {
        /// The region.
        region: RegionId,
        /// The entry.
        index: Index,
        /// The file.
        path: PathBuf,
        /// Where in it the entry's data begins.
        offset: u64,
    },
    /// The system failed.
    #[error("could not read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}
