//! The node's folder: whose it is, which format it has, and that nobody else uses it.
//!
//! ```text
//!   pontoon-data/
//!     PONTOON      "pontoon data format 1": what the folder is; locked while a node runs on it
//!     engine/      RocksDB
//!     log/         the raft log
//!     snap/        snapshots of regions, coming and going
//!     members      addresses of the cluster's members as last heard, one a line
//! ```
//!
//! A node in memory has the same folders on a disk in memory, and no marker and no members: it
//! begins and ends with its process.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The format this program writes.
const FORMAT: u32 = 1;
const MARKER: &str = "PONTOON";
/// The name of what is not on a disk of the machine.
const MEMORY: &str = "memory";
const MARKER_TEXT: &str = "pontoon data format ";

/// Why a folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system refuses.
    #[error("data folder {path}: {cause}")]
    Io {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Another process runs on it.
    #[error("data folder {0}: in use by another process")]
    Locked(PathBuf),
    /// There is something else in it.
    #[error("data folder {0}: holds files, but is not a Pontoon data folder (no {MARKER} file)")]
    Foreign(PathBuf),
    /// A newer program wrote it.
    #[error("data folder {path}: format {found} is newer than this program's {FORMAT}")]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The marker file is damaged.
    #[error("data folder {path}: the {MARKER} file says {text:?}")]
    Marker {
        /// The folder.
        path: PathBuf,
        /// What it says.
        text: String,
    },
}

/// A folder that this process alone uses, until it is dropped.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// None in memory.
    lock: Option<File>,
}

impl DataFolder {
    /// Opens the folder, and creates it if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |cause| FolderError::Io { path, cause }
        };
        fs::create_dir_all(path).map_err(at(path))?;
        let marker = path.join(MARKER);
        let new = !marker.try_exists().map_err(at(&marker))?;
        if new && fs::read_dir(path).map_err(at(path))?.next().is_some() {
            return Err(FolderError::Foreign(path.to_owned()));
        }
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut lock = options.open(&marker).map_err(at(&marker))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match std::io::Error::from(error) {
                error if error.kind() == ErrorKind::WouldBlock => {
                    FolderError::Locked(path.to_owned())
                }
                cause => FolderError::Io { path: marker.clone(), cause },
            }
        })?;
        Self::check_format(path, &mut lock)?;
        File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// One that nobody else can see.
    pub(crate) fn in_memory() -> Self {
        Self { path: PathBuf::from(MEMORY), lock: None }
    }

    /// Whether it is one in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.lock.is_none()
    }

    /// Under the lock: an empty marker is that of a folder whose first start ended right there.
    fn check_format(path: &Path, marker: &mut File) -> Result<(), FolderError> {
        let io = |cause| FolderError::Io { path: path.join(MARKER), cause };
        let mut text = String::new();
        marker.read_to_string(&mut text).map_err(io)?;
        if text.is_empty() {
            marker.rewind().map_err(io)?;
            marker.write_all(format!("{MARKER_TEXT}{FORMAT}\n").as_bytes()).map_err(io)?;
            return marker.sync_all().map_err(io);
        }
        let found = text.trim_end().strip_prefix(MARKER_TEXT).and_then(|n| n.parse::<u32>().ok());
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(FolderError::Newer { path: path.to_owned(), found })
            }
            _ => Err(FolderError::Marker { path: path.to_owned(), text }),
        }
    }

    /// Where the engine keeps its files.
    pub(crate) fn engine(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// Where the raft log keeps its files.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the files of snapshots come and go.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snap")
    }

    /// Where the members' addresses are kept for the next start, if there will be one.
    pub(crate) fn members(&self) -> Option<PathBuf> {
        self.lock.as_ref().map(|_| self.path.join("members"))
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
