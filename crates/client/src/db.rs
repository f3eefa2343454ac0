//! The way in: one value for one cluster.

use std::sync::Arc;
use std::time::Duration;

use base::TimeStamp;

use crate::core::Core;
use crate::error::ClientError;
use crate::keys::ApiVersion;
use crate::link::Link;
use crate::raw::Raw;
use crate::snapshot::Snapshot;
use crate::txn::{Txn, TxnOptions};

/// How a client deals with its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbOptions {
    /// What the cluster was started with.
    pub api_version: ApiVersion,
    /// How long a call goes on trying while regions move, leaders are elected and locks of others
    /// live.
    pub patience: Duration,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self { api_version: ApiVersion::V1, patience: Duration::from_secs(20) }
    }
}

/// A client of one cluster. Clones share what they learn.
pub struct Db<L> {
    core: Arc<Core<L>>,
}

impl<L> Clone for Db<L> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<L: Link> Db<L> {
    /// A client that speaks over `link`.
    pub fn new(link: L, options: DbOptions) -> Self {
        Self { core: Arc::new(Core::new(link, options.api_version, options.patience)) }
    }

    /// What it speaks over.
    pub fn link(&self) -> &L {
        &self.core.link
    }

    /// The raw calls: single keys without versions and without transactions.
    pub fn raw(&self) -> Raw<L> {
        Raw::new(self.core.clone())
    }

    /// Begins a transaction, which reads as of now.
    pub async fn begin(&self, options: TxnOptions) -> Result<Txn<L>, ClientError> {
        let begun = self.core.link.now();
        let start_ts = self.core.timestamp().await?;
        Ok(Txn::new(self.core.clone(), options, start_ts, begun))
    }

    /// Everything as of now, to be read only.
    pub async fn snapshot(&self) -> Result<Snapshot<L>, ClientError> {
        Ok(self.snapshot_at(self.core.timestamp().await?))
    }

    /// Everything as of `ts`, which must have been given out already and must not be older than
    /// what garbage collection has left.
    pub fn snapshot_at(&self, ts: TimeStamp) -> Snapshot<L> {
        Snapshot::new(self.core.clone(), ts)
    }

    /// A timestamp above all that were given out before.
    pub async fn timestamp(&self) -> Result<TimeStamp, ClientError> {
        self.core.timestamp().await
    }

    pub(crate) fn core(&self) -> &Arc<Core<L>> {
        &self.core
    }
}
