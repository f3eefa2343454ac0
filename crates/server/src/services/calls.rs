//! The calls of a node without its port: the same services, called in the same process.

use std::sync::Arc;

use base::{ClusterId, StoreId, TimeStamp};
use proto::pdpb::pd_server::Pd;
use proto::tikvpb::tikv_server::Tikv;
use tokio::sync::watch;
use tonic::Status;

use super::kv::{self, KvService};
use super::pd::{self, PdService};
use super::txn::TxnService;
use crate::placement_host::PlacementHost;
use crate::placement_link::{LocalMembers, PlacementLink};
use crate::store_handle::StoreHandle;

/// The services that clients call. Cheap to clone. They answer for as long as the node runs; a
/// clone that is kept longer keeps the engine open.
#[derive(Clone)]
pub struct Calls {
    pub(super) kv: Arc<KvService>,
    pub(super) pd: Arc<PdService>,
    pub(super) txn: TxnService,
    host: PlacementHost,
    store_id: StoreId,
}

impl Calls {
    /// The services of a node. Their streams end when `closed` turns true.
    pub(crate) fn new(
        store: &StoreHandle,
        link: &PlacementLink,
        txn: &TxnService,
        members: &LocalMembers,
        closed: &watch::Receiver<bool>,
    ) -> Self {
        let kv = kv::service(store.clone(), link.clone(), txn.clone(), closed.clone());
        let pd = pd::service(link.host().clone(), members.clone(), closed.clone());
        let (host, store_id) = (link.host().clone(), store.store_id());
        Self { kv: Arc::new(kv), pd: Arc::new(pd), txn: txn.clone(), host, store_id }
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.host.cluster_id()
    }

    /// The store whose calls these are.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// What clients call on the store.
    pub fn tikv(&self) -> &impl Tikv {
        &*self.kv
    }

    /// What clients call on the placement driver, if it runs here: alone in a cluster it does.
    pub fn pd(&self) -> &impl Pd {
        &*self.pd
    }

    /// A timestamp of this moment. Errors are those of the call `Tso`.
    pub async fn timestamp(&self) -> Result<TimeStamp, Status> {
        self.host.timestamps(1).await.map_err(|error| pd::status(&error))
    }
}
