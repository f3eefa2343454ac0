//! What can go wrong in an engine, and who must act.

use std::path::{Path, PathBuf};

/// A failed operation of an engine. Prints as one line that names the operation, the path and the
/// cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {}: {cause}", path.display())]
pub struct EngineError {
    /// Who must act.
    pub kind: EngineErrorKind,
    /// What was tried, as a verb: "open the engine in".
    pub operation: &'static str,
    /// The file or folder it was about.
    pub path: PathBuf,
    /// Why it did not work, in the words of the engine or of the operating system.
    pub cause: String,
}

/// Who must act on an [`EngineError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// The disk is full: the operator makes room. What was written before is intact.
    Full,
    /// The disk or the file system failed: the node stops.
    Io,
    /// Data on disk is damaged: the node stops, and gets its data from other replicas or a backup.
    Corrupt,
    /// Another process has the folder open: the operator finds out which.
    Locked,
    /// The folder holds something that this program did not write: the operator checks the path.
    Foreign,
    /// The caller asked for something impossible. Nothing changed.
    Refused,
    /// The snapshot is of a process that is gone: whoever holds it is gone too. Simulated crashes
    /// only.
    Gone,
}

impl EngineError {
    pub(super) fn new(
        kind: EngineErrorKind,
        operation: &'static str,
        path: &Path,
        cause: impl Into<String>,
    ) -> Self {
        Self { kind, operation, path: path.to_path_buf(), cause: cause.into() }
    }

    /// An error of the operating system.
    pub(super) fn from_io(operation: &'static str, path: &Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                EngineErrorKind::Full
            }
            std::io::ErrorKind::AlreadyExists => EngineErrorKind::Refused,
            _ => EngineErrorKind::Io,
        };
        Self::new(kind, operation, path, error.to_string())
    }

    /// An error of RocksDB. Its kind says little about who must act, so the text has its say too.
    pub(super) fn from_rocksdb(
        operation: &'static str,
        path: &Path,
        error: rocksdb::Error,
    ) -> Self {
        let kind = match error.kind() {
            rocksdb::ErrorKind::Corruption => EngineErrorKind::Corrupt,
            rocksdb::ErrorKind::InvalidArgument if error.as_ref().contains("families") => {
                EngineErrorKind::Foreign
            }
            rocksdb::ErrorKind::InvalidArgument | rocksdb::ErrorKind::NotFound => {
                EngineErrorKind::Refused
            }
            _ if error.as_ref().contains("lock") => EngineErrorKind::Locked,
            _ if error.as_ref().contains("No space left") => EngineErrorKind::Full,
            _ => EngineErrorKind::Io,
        };
        Self::new(kind, operation, path, error.into_string())
    }
}
