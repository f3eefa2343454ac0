//! Why a snapshot could not be made, sent, received or installed.

use std::io;
use std::path::{Path, PathBuf};

use storage::engine::{EngineError, EngineErrorKind};

use super::SnapshotKey;

/// A failure. [`is_damage`](Self::is_damage) says whether the files are to blame (throw them away,
/// another snapshot may be good) or this store (disk or engine).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The engine failed. Ingesting may have been done in part: the install can be run again.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The disk under the folder of snapshots failed or is full.
    #[error("cannot {operation} {}: {cause}", path.display())]
    Disk {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Whether there is no room: the operator, or time, makes some.
        full: bool,
        /// In the words of the operating system.
        cause: String,
    },
    /// A file that must be there is not.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// A file, or what came of it, is shorter or longer than promised.
    #[error("{} has {actual} bytes instead of {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes as promised.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// A file's bytes are not those that were written.
    #[error("{} has checksum {actual:08x} instead of {expected:08x}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// As promised.
        expected: u32,
        /// As found.
        actual: u32,
    },
    /// The snapshot is of another region, or of another state of it, than the one it is for.
    #[error("the snapshot for {key} does not fit: {cause}")]
    OtherRegion {
        /// What it is for.
        key: SnapshotKey,
        /// What it is.
        cause: String,
    },
    /// The data of a raft snapshot, or the file that keeps it, does not decode.
    #[error("{what} is damaged: {cause}")]
    Data {
        /// Which record.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The same snapshot is being received, or was.
    #[error(
        "the snapshot of {key} {}",
        if *.complete { "is here already" } else { "is being received already" }
    )]
    Taken {
        /// Which.
        key: SnapshotKey,
        /// Whether it is here as a whole, to be installed.
        complete: bool,
    },
}

impl SnapshotError {
    pub(super) fn disk(operation: &'static str, path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self::Missing(path.to_owned());
        }
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        Self::Disk { operation, path: path.to_owned(), full, cause: error.to_string() }
    }

    /// Whether the files are damaged, incomplete or not the right ones: they are of no use any
    /// more, and the store is fine.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Missing(_)
            | Self::Size { .. }
            | Self::Checksum { .. }
            | Self::OtherRegion { .. }
            | Self::Data { .. } => true,
            Self::Engine(_) | Self::Disk { .. } | Self::Taken { .. } => false,
        }
    }

    /// Whether there was no room on the disk: the same may work later.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk { full, .. } => *full,
            Self::Engine(error) => error.kind == EngineErrorKind::Full,
            _ => false,
        }
    }
}
