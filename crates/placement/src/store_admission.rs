//! PutStore: which stores may join, and what a known one may change about itself.
//!
//! A store is let in if its version fits the cluster's and no other store has its address. The
//! cluster's version is the lowest among live stores; it decides which features may be used, so it
//! never goes down, and a store below it is let in only if major and minor agree. All stores that
//! say how their data is laid out (the label of [`API_VERSION_LABEL`]) must say the same.

use base::StoreId;
use prost::Message;
use proto::{metapb, pdpb};
use semver::Version;

use crate::bootstrap::replication_status;
use crate::cluster::tombstone;
use crate::rows::RowKey;
use crate::{Change, Placement, PlacementError, RowChanges, StoreInfo};

/// The label under which a store tells the API version of its raw data.
pub const API_VERSION_LABEL: &str = "api-version";

/// What a store that says nothing of its version is taken for.
const OLDEST: Version = Version::new(1, 0, 0);

impl Placement {
    /// PutStore: a store joins, or tells what changed about it.
    pub fn put_store(
        &self,
        request: &pdpb::PutStoreRequest,
    ) -> Result<Change<pdpb::PutStoreResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let Some(store) = &request.store else {
            return Err(PlacementError::invalid("no store in the request"));
        };
        if self.store(StoreId(store.id)).is_some_and(StoreInfo::is_tombstone) {
            return Err(tombstone(store.id));
        }
        let mut rows = RowChanges::default();
        self.plan_store(store, &mut rows)?;
        self.ids.plan_used(&[store.id], &mut rows)?;
        let reply = pdpb::PutStoreResponse {
            header: Some(self.header()),
            replication_status: Some(replication_status()),
        };
        Ok(Change { rows, reply })
    }

    /// Plans the row of a store that joins or changed, and the cluster's version.
    pub(crate) fn plan_store(
        &self,
        store: &metapb::Store,
        rows: &mut RowChanges,
    ) -> Result<(), PlacementError> {
        if store.id == 0 {
            return Err(PlacementError::refused("invalid store: its id is zero"));
        }
        let version = parse_version(&store.version)?;
        self.check_version(&version)?;
        self.check_address(store)?;
        self.check_api_version(store)?;
        let id = StoreId(store.id);
        let merged = match self.store(id) {
            Some(known) => merge(&known.meta, store),
            None => joined(store),
        };
        assert_eq!(merged.id, store.id, "a store never changes its id");
        rows.put(&RowKey::Store(id), merged.encode_to_vec());
        if let Some(version) = self.raised_version(id, version) {
            assert!(self.cluster.version.as_ref().is_none_or(|old| old < &version), "it falls");
            rows.put(&RowKey::ClusterVersion, version.to_string());
        }
        Ok(())
    }

    fn check_version(&self, version: &Version) -> Result<(), PlacementError> {
        let Some(cluster) = &self.cluster.version else {
            return Ok(());
        };
        let same_line = (version.major, version.minor) == (cluster.major, cluster.minor);
        if version > cluster || same_line {
            return Ok(());
        }
        let text = format!("version {version} does not fit the cluster's version {cluster}");
        Err(PlacementError::refused(text))
    }

    fn check_address(&self, store: &metapb::Store) -> Result<(), PlacementError> {
        let others = self.stores().filter(|other| other.meta.id != store.id);
        let there = |other: &&StoreInfo| !other.is_tombstone() && !other.meta.physically_destroyed;
        for other in others.filter(there) {
            let other = &other.meta;
            let same_peer_address =
                !store.peer_address.is_empty() && other.peer_address == store.peer_address;
            if other.address == store.address || same_peer_address {
                let address = if same_peer_address { &store.peer_address } else { &store.address };
                let text = format!("duplicated store address {address}, store {} has it", other.id);
                return Err(PlacementError::refused(text));
            }
        }
        Ok(())
    }

    fn check_api_version(&self, store: &metapb::Store) -> Result<(), PlacementError> {
        let Some(version) = api_version(store) else {
            return Ok(());
        };
        let others = self.stores().filter(|other| other.meta.id != store.id);
        for other in others.filter(|other| !other.is_tombstone()) {
            let (other, id) = (api_version(&other.meta), other.meta.id);
            if let Some(other) = other.filter(|other| *other != version) {
                let text = format!(
                    "a store of API version {version} cannot join: store {id} is of API \
                     version {other}"
                );
                return Err(PlacementError::refused(text));
            }
        }
        Ok(())
    }

    /// The cluster's version once store `id` has `version`; `None` if it stays what it is.
    fn raised_version(&self, id: StoreId, version: Version) -> Option<Version> {
        let others = self.stores().filter(|other| other.meta.id != id.0 && !other.is_tombstone());
        let versions = others.filter_map(|other| parse_version(&other.meta.version).ok());
        let lowest = versions.chain([version]).min().expect("there is one at least");
        let raised = self.cluster.version.as_ref().is_none_or(|cluster| &lowest > cluster);
        raised.then_some(lowest)
    }
}

/// The API version that a store tells.
pub fn api_version(store: &metapb::Store) -> Option<&str> {
    let label = store.labels.iter().find(|label| label.key == API_VERSION_LABEL)?;
    Some(&label.value)
}

/// A store that joins serves at once: there is nothing to prepare.
fn joined(store: &metapb::Store) -> metapb::Store {
    let mut joined = store.clone();
    joined.set_state(metapb::StoreState::Up);
    joined.set_node_state(metapb::NodeState::Serving);
    joined.labels.retain(|label| !label.value.is_empty());
    assert!(joined.id != 0, "callers refuse stores without an id");
    joined
}

/// A known store may change everything but its state, which is not its own to decide.
fn merge(known: &metapb::Store, update: &metapb::Store) -> metapb::Store {
    assert_eq!(known.id, update.id, "two different stores");
    metapb::Store {
        state: known.state,
        node_state: known.node_state,
        physically_destroyed: known.physically_destroyed,
        last_heartbeat: known.last_heartbeat,
        labels: merge_labels(&known.labels, &update.labels),
        ..update.clone()
    }
}

/// New labels replace old ones of the same key (in any case of letters); an empty value removes.
fn merge_labels(
    known: &[metapb::StoreLabel],
    update: &[metapb::StoreLabel],
) -> Vec<metapb::StoreLabel> {
    let mut labels = known.to_vec();
    for label in update {
        match labels.iter_mut().find(|old| old.key.eq_ignore_ascii_case(&label.key)) {
            Some(old) => old.value.clone_from(&label.value),
            None => labels.push(label.clone()),
        }
    }
    labels.retain(|label| !label.value.is_empty());
    assert!(labels.len() <= known.len() + update.len(), "labels from nowhere");
    labels
}

/// Reads a version with or without a leading `v`.
pub(crate) fn parse_version(text: &str) -> Result<Version, PlacementError> {
    if text.is_empty() {
        return Ok(OLDEST);
    }
    let bad = |error| PlacementError::refused(format!("invalid version {text:?}: {error}"));
    Version::parse(text.strip_prefix('v').unwrap_or(text)).map_err(bad)
}
