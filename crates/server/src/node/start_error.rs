//! Why a node does not start.

use std::net::SocketAddr;

use storage::engine::EngineError;
use storage::log::LogError;
use store::RecoverError;
use store::bootstrap::BootstrapError;
use store::snapshot::SnapshotError;

use crate::config::ConfigError;
use crate::data_folder::FolderError;
use crate::placement_link::{JoinError, LinkError};

/// Why a node does not start. Data is untouched.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port is in use, or not ours to take.
    #[error("listen address {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The engine cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The raft log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store's first records cannot be written or read.
    #[error(transparent)]
    Identity(#[from] BootstrapError),
    /// The folder's data is of another API version.
    #[error("the data folder holds data of API version {found}, but {asked} is asked for")]
    ApiVersion {
        /// What it holds.
        found: &'static str,
        /// What the configuration says.
        asked: &'static str,
    },
    /// The folder's data is of an API version that this program does not know.
    #[error("the data folder holds data of the unknown API version {0}")]
    UnknownApiVersion(i32),
    /// Engine and log do not go together.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The folder of snapshots cannot be used.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The operating system gives no threads.
    #[error("threads: {0}")]
    Threads(std::io::Error),
    /// Placement did not answer in time.
    #[error("the first region could not be bootstrapped: {0}")]
    Bootstrap(String),
    /// Placement refuses this store, or did not answer in time.
    #[error(transparent)]
    Placement(#[from] LinkError),
    /// The store cannot join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The store stopped while the node was starting.
    #[error("the store stopped")]
    Stopped,
}
