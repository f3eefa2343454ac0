//! A node in this process, and a client of it: no port, no second process.
//!
//! ```text
//!   open(dir), memory() ──▶ Embedded ── Db over LocalLink ──▶ the services of server::Node
//! ```
//!
//! It is the same node as that of `pontoon start`, with the same data on the disk: a folder that a
//! program has used can be served by the binary later, with `--api-version 2`, and the other way
//! round. One process at a time has a folder.

pub mod blocking;
mod link;

use std::ops::Deref;
use std::path::{Path, PathBuf};

use client::{ApiVersion, Db, DbOptions};
use server::{ApiVersionName, Config, Node};

pub use self::link::LocalLink;
pub use server::StartError;

/// Opens the store in a folder, and creates it if it is not there.
///
/// It is an async library on tokio: call it within a runtime of several threads or one, and keep
/// that one until the store is [closed](Embedded::close). [`blocking`] has the same for programs
/// without.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("accounts");
/// use pontoon::TxnOptions;
///
/// let store = pontoon::open(&dir).await?;
/// let mut transfer = store.begin(TxnOptions::pessimistic()).await?;
/// transfer.put(b"alice", "90").await?;
/// transfer.put(b"bob", "110").await?;
/// transfer.commit().await?;
///
/// assert_eq!(store.snapshot().await?.get(b"bob").await?, Some("110".into()));
/// store.close().await;
/// # Ok(())
/// # }
/// ```
pub async fn open(dir: impl AsRef<Path>) -> Result<Embedded, StartError> {
    OpenOptions::new(dir).open().await
}

/// An empty store that lives in memory, for tests: it is gone when it is closed or dropped.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = pontoon::memory().await?;
/// store.raw().put(b"k", "v", 0).await?;
/// assert_eq!(store.raw().get(b"k").await?, Some("v".into()));
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
pub async fn memory() -> Result<Embedded, StartError> {
    OpenOptions { dir: None, ..OpenOptions::new("") }.open().await
}

/// How a store is opened.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let options = pontoon::OpenOptions::new(folder.path().join("db")).block_cache_mib(8);
/// let store = options.open().await?;
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// None: in memory.
    dir: Option<PathBuf>,
    api_version: ApiVersion,
    config: Config,
}

impl OpenOptions {
    /// The defaults for a store in `dir`: API version 2, where raw keys and those of transactions
    /// lie apart and raw values may expire.
    pub fn new(dir: impl AsRef<Path>) -> OpenOptions {
        let dir = Some(dir.as_ref().to_owned());
        OpenOptions { dir, api_version: ApiVersion::V2, config: Config::default() }
    }

    /// How keys are stored, chosen when the store is created. In version 1 raw keys and those of
    /// transactions share one key space: use one kind only.
    pub fn api_version(self, api_version: ApiVersion) -> OpenOptions {
        OpenOptions { api_version, ..self }
    }

    /// Memory for blocks of table files, in MiB.
    pub fn block_cache_mib(mut self, mib: u32) -> OpenOptions {
        self.config.storage.block_cache_mib = mib;
        self
    }

    /// Everything else that a node can be told. What was said before about memory is forgotten; the
    /// folder and the API version are not taken from here.
    pub fn config(self, config: Config) -> OpenOptions {
        OpenOptions { config, ..self }
    }

    /// Opens the store. Errors: the folder is in use, holds something else, is damaged, or was
    /// created with another API version.
    pub async fn open(self) -> Result<Embedded, StartError> {
        let in_memory = self.dir.is_none();
        let mut config = self.config;
        config.data_dir = self.dir.unwrap_or_default();
        config.storage.api_version = match self.api_version {
            ApiVersion::V1 => ApiVersionName::V1,
            ApiVersion::V1Ttl => ApiVersionName::V1Ttl,
            ApiVersion::V2 => ApiVersionName::V2,
        };
        let node = Box::pin(Node::embed(config, in_memory)).await?;
        let link = LocalLink::new(node.calls());
        let options = DbOptions { api_version: self.api_version, ..DbOptions::default() };
        Ok(Embedded { node, db: Db::new(link, options) })
    }
}

/// An open store. It is a [`Db`]: [`raw`](Db::raw) for single keys, [`begin`](Db::begin) for
/// transactions, [`snapshot`](Db::snapshot) to read only.
pub struct Embedded {
    node: Node,
    db: Db<LocalLink>,
}

impl Embedded {
    /// The client, whose clones may go to other tasks. They fail once the store is closed.
    pub fn db(&self) -> Db<LocalLink> {
        self.db.clone()
    }

    /// Waits until the store fails, and says why: nothing more can be written. A disk that refuses
    /// to sync is a reason.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Ends in order: commits in the background are finished, everything is synced, and the folder
    /// can be opened again when this returns. A store that is dropped instead loses nothing either,
    /// but keeps the folder until the process ends.
    pub async fn close(self) {
        let Embedded { node, db } = self;
        db.link().close().await;
        drop(db);
        node.stop().await;
    }
}

impl Deref for Embedded {
    type Target = Db<LocalLink>;

    fn deref(&self) -> &Db<LocalLink> {
        &self.db
    }
}
