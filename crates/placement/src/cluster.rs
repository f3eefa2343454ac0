//! The stores of the cluster: what is known of each, and who asks for it.
//!
//! A store's description is a row; its statistics and when it last reported are memory. Which
//! descriptions are let in is decided in `store_admission`.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Instant, StoreId};
use bytes::Bytes;
use prost::Message;
use proto::pdpb::ErrorType;
use proto::{metapb, pdpb};
use semver::Version;

use crate::rows::{self, RowKey};
use crate::{Change, Placement, PlacementError, RowChanges};

/// A store that was silent for this long counts as disconnected.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(20);
/// A store that was silent for this long counts as down.
const DOWN_AFTER: Duration = Duration::from_secs(30 * 60);

/// How long a store has been silent: a judgement, not a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It reported within the last 20 seconds.
    Up,
    /// It did not, but within the last 30 minutes.
    Disconnected,
    /// Nor that.
    Down,
}

/// What is known of a store.
#[derive(Clone, Debug)]
pub struct StoreInfo {
    /// Its description; `last_heartbeat` is kept up to date in memory.
    pub meta: metapb::Store,
    /// From its last heartbeat; `None` before the first.
    pub stats: Option<pdpb::StoreStats>,
    /// When it last reported; when this placement driver started, if it has not since.
    pub heard_at: Instant,
    /// Below it the store has no unresolved locks; 0 if it never said.
    pub min_resolved_ts: u64,
}

impl StoreInfo {
    /// How long the store has been silent.
    pub fn liveness(&self, now: Instant) -> Liveness {
        let silent = now.since(self.heard_at);
        if silent < DISCONNECTED_AFTER {
            Liveness::Up
        } else if silent < DOWN_AFTER {
            Liveness::Disconnected
        } else {
            Liveness::Down
        }
    }

    /// Whether the store was removed for good.
    pub fn is_tombstone(&self) -> bool {
        self.meta.state() == metapb::StoreState::Tombstone
            || self.meta.node_state() == metapb::NodeState::Removed
    }
}

/// All stores, and the facts about the cluster as a whole.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// `None` until the cluster is bootstrapped.
    pub(crate) meta: Option<metapb::Cluster>,
    pub(crate) bootstrapped_at_ms: u64,
    /// The lowest version among live stores; `None` until there is a store.
    pub(crate) version: Option<Version>,
    pub(crate) stores: BTreeMap<StoreId, StoreInfo>,
    loaded_at: Instant,
}

impl Cluster {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            meta: None,
            bootstrapped_at_ms: 0,
            version: None,
            stores: BTreeMap::new(),
            loaded_at: now,
        }
    }

    pub(crate) fn apply_version(
        &mut self,
        row: &RowKey,
        value: &Bytes,
    ) -> Result<(), PlacementError> {
        let text = rows::read_text(row, value)?;
        let version = Version::parse(&text).map_err(|error| row.bad(error.to_string()))?;
        if self.version.as_ref().is_some_and(|known| known > &version) {
            return Err(row.bad("goes back"));
        }
        self.version = Some(version);
        assert!(self.version_text() == text, "the version reads back as it was written");
        Ok(())
    }

    pub(crate) fn apply_store(
        &mut self,
        row: &RowKey,
        value: &Bytes,
    ) -> Result<(), PlacementError> {
        let meta: metapb::Store = rows::read_message(row, value)?;
        let id = StoreId(meta.id);
        if *row != RowKey::Store(id) {
            return Err(row.bad(format!("holds store {id}")));
        }
        match self.stores.get_mut(&id) {
            Some(store) => {
                assert_eq!(store.meta.id, meta.id, "a store never changes its id");
                // What was heard since the row was planned is newer than the row.
                let last_heartbeat = store.meta.last_heartbeat.max(meta.last_heartbeat);
                store.meta = metapb::Store { last_heartbeat, ..meta };
            }
            None => {
                let heard_at = self.loaded_at;
                let store = StoreInfo { meta, stats: None, heard_at, min_resolved_ts: 0 };
                self.stores.insert(id, store);
            }
        }
        Ok(())
    }

    /// The cluster's version as text; `0.0.0` while there is no store.
    pub(crate) fn version_text(&self) -> String {
        self.version.as_ref().map_or_else(|| "0.0.0".to_owned(), Version::to_string)
    }
}

impl Placement {
    /// All stores by id, removed ones too.
    pub fn stores(&self) -> impl Iterator<Item = &StoreInfo> {
        self.cluster.stores.values()
    }

    /// The store with this id, also if it was removed.
    pub fn store(&self, id: StoreId) -> Option<&StoreInfo> {
        self.cluster.stores.get(&id)
    }

    /// GetStore.
    pub fn get_store(
        &self,
        request: &pdpb::GetStoreRequest,
    ) -> Result<pdpb::GetStoreResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let store = self.known_store(request.store_id)?;
        Ok(pdpb::GetStoreResponse {
            header: Some(self.header()),
            store: Some(store.meta.clone()),
            stats: store.stats.clone(),
        })
    }

    /// GetAllStores.
    pub fn get_all_stores(
        &self,
        request: &pdpb::GetAllStoresRequest,
    ) -> Result<pdpb::GetAllStoresResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let wanted =
            |store: &&StoreInfo| !(request.exclude_tombstone_stores && store.is_tombstone());
        let stores = self.stores().filter(wanted).map(|store| store.meta.clone()).collect();
        Ok(pdpb::GetAllStoresResponse { header: Some(self.header()), stores })
    }

    /// GetClusterConfig.
    pub fn get_cluster_config(
        &self,
        request: &pdpb::GetClusterConfigRequest,
    ) -> Result<pdpb::GetClusterConfigResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let cluster = self.cluster.meta;
        assert!(cluster.is_some_and(|cluster| cluster.id == self.cluster_id.0), "checked at load");
        Ok(pdpb::GetClusterConfigResponse { header: Some(self.header()), cluster })
    }

    /// PutClusterConfig.
    pub fn put_cluster_config(
        &self,
        request: &pdpb::PutClusterConfigRequest,
    ) -> Result<Change<pdpb::PutClusterConfigResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let Some(meta) = &request.cluster else {
            return Err(PlacementError::invalid("no cluster config in the request"));
        };
        if meta.id != self.cluster_id.0 {
            let text = format!("invalid cluster {}, this one is {}", meta.id, self.cluster_id);
            return Err(PlacementError::refused(text));
        }
        let mut rows = RowChanges::default();
        rows.put(&RowKey::Cluster, meta.encode_to_vec());
        let reply = pdpb::PutClusterConfigResponse { header: Some(self.header()) };
        Ok(Change { rows, reply })
    }

    /// The store, or the refusal whose words clients look for.
    pub(crate) fn known_store(&self, id: u64) -> Result<&StoreInfo, PlacementError> {
        let missing = || PlacementError::refused(format!("invalid store ID {id}, not found"));
        self.store(StoreId(id)).ok_or_else(missing)
    }

    /// The store, unless it is unknown or was removed.
    pub(crate) fn live_store(&self, id: u64) -> Result<&StoreInfo, PlacementError> {
        let store = self.known_store(id)?;
        assert_eq!(store.meta.id, id, "stores are kept under their ids");
        if store.is_tombstone() {
            return Err(tombstone(id));
        }
        Ok(store)
    }
}

/// The refusal for a store that was removed.
pub(crate) fn tombstone(id: u64) -> PlacementError {
    PlacementError::refused_as(ErrorType::StoreTombstone, format!("store {id} is a tombstone"))
}
