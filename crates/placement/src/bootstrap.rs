//! Bootstrap: a cluster begins when one store has made the first region and says so here.
//!
//! ```text
//!    store                                      placement
//!      ├── IsBootstrapped ──────────────────────> no
//!      ├── AllocID, AllocID ────────────────────> region id, peer id
//!      │   writes the first region to its disk
//!      ├── Bootstrap(store, region) ────────────> rows: cluster, region, store
//!      │                                          everyone after it: ALREADY_BOOTSTRAPPED
//!      └── PutStore, heartbeats
//! ```
//!
//! Any number of stores may try at once. Plans run one at a time, so exactly one finds the row
//! `cluster` absent; the others ask for the region of the smallest key, see that it is not theirs,
//! and remove their own.

use base::RegionId;
use prost::Message;
use proto::pdpb::ErrorType;
use proto::{metapb, pdpb, replication_modepb};

use crate::rows::RowKey;
use crate::{Change, Placement, PlacementError, RegionInfo, RowChanges};

/// Replicas of a region, until PutClusterConfig says otherwise.
const PEERS_PER_REGION: u32 = 3;

impl Placement {
    /// Whether a store has bootstrapped the cluster.
    pub fn is_bootstrapped(&self) -> bool {
        self.cluster.meta.is_some()
    }

    /// When the cluster was bootstrapped, in ms since 1970; `None` before.
    pub fn bootstrapped_at_ms(&self) -> Option<u64> {
        self.is_bootstrapped().then_some(self.cluster.bootstrapped_at_ms)
    }

    /// IsBootstrapped.
    pub fn get_is_bootstrapped(
        &self,
        request: &pdpb::IsBootstrappedRequest,
    ) -> Result<pdpb::IsBootstrappedResponse, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        Ok(pdpb::IsBootstrappedResponse {
            header: Some(self.header()),
            bootstrapped: self.is_bootstrapped(),
        })
    }

    /// Bootstrap: the store and its first region begin the cluster. Refused with
    /// ALREADY_BOOTSTRAPPED for all but the first.
    pub fn bootstrap(
        &self,
        request: &pdpb::BootstrapRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::BootstrapResponse>, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        if self.is_bootstrapped() {
            let kind = ErrorType::AlreadyBootstrapped;
            return Err(PlacementError::refused_as(kind, "cluster is already bootstrapped"));
        }
        let (store, region) = check_request(request)?;
        let region_id = RegionId(region.id);
        assert!(self.regions.is_empty(), "regions before the first");
        assert!(self.cluster.stores.is_empty(), "stores before the first");

        let mut rows = RowChanges::default();
        self.ids.plan_used(&[store.id, region.id, region.peers[0].id], &mut rows)?;
        self.plan_store(store, &mut rows)?;
        let meta = metapb::Cluster { id: self.cluster_id.0, max_peer_count: PEERS_PER_REGION };
        rows.put(&RowKey::Cluster, meta.encode_to_vec());
        rows.put_u64(&RowKey::BootstrappedAt, wall_ms);
        rows.put(&RowKey::Region(region_id), region.encode_to_vec());
        self.keyspaces.plan_default(&mut rows);
        assert!(!rows.is_empty(), "a cluster begins with rows");
        let reply = pdpb::BootstrapResponse {
            header: Some(self.header()),
            replication_status: Some(replication_status()),
        };
        Ok(Change { rows, reply })
    }
}

/// How replicas are spread over places: by majority, always.
pub(crate) fn replication_status() -> replication_modepb::ReplicationStatus {
    replication_modepb::ReplicationStatus {
        mode: replication_modepb::ReplicationMode::Majority.into(),
        dr_auto_sync: None,
    }
}

/// Checks what a first store and region must look like.
fn check_request(
    request: &pdpb::BootstrapRequest,
) -> Result<(&metapb::Store, &metapb::Region), PlacementError> {
    let invalid = |what: &str| Err(PlacementError::invalid(format!("invalid bootstrap: {what}")));
    let Some(store) = &request.store else {
        return invalid("no store");
    };
    let Some(region) = &request.region else {
        return invalid("no region");
    };
    if store.id == 0 {
        return invalid("the store's id is zero");
    }
    let [peer] = &region.peers[..] else {
        return invalid("the first region needs exactly one peer");
    };
    if let Err(what) = RegionInfo::new(region.clone()) {
        return invalid(what);
    }
    if peer.id == 0 || peer.store_id != store.id {
        return invalid("the region's peer has no id or is not on the store");
    }
    if !region.start_key.is_empty() || !region.end_key.is_empty() {
        return invalid("the first region must hold all keys");
    }
    Ok((store, region))
}
