//! How a region's raft node reads its own log: [`raft::Storage`] over the store's shared
//! [`LogReader`].

use std::sync::Arc;

use base::{Entry, Index, RegionId, Term};
use raft::{ConfState, HardState, InitialState, Storage, StorageError};
use storage::log::{LogReader, ReadError};

/// The log of one region, read only.
pub(crate) struct PeerStorage {
    region: RegionId,
    log: LogReader,
    hard_state: HardState,
    conf: ConfState,
}

impl PeerStorage {
    pub(crate) fn new(
        region: RegionId,
        log: LogReader,
        hard_state: HardState,
        conf: ConfState,
    ) -> Self {
        Self { region, log, hard_state, conf }
    }
}

impl Storage for PeerStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(InitialState { hard_state: self.hard_state, conf: self.conf.clone() })
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.log.first_index(self.region))
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.log.last_index(self.region))
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.log.term(self.region, index).map_err(storage_error)
    }

    fn entries(
        &self,
        low: Index,
        high: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        self.log.entries(self.region, low, high, bytes_max as u64).map_err(storage_error)
    }
}

fn storage_error(error: ReadError) -> StorageError {
    match error {
        ReadError::Compacted { .. } => StorageError::Compacted,
        ReadError::Unavailable { .. } => StorageError::Unavailable,
        other => StorageError::Io(Arc::new(other)),
    }
}
