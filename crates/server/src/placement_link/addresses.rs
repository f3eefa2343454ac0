//! Where other stores are reached: what the transport asks before it connects.
//!
//! The transport must find the members before any of them leads, since they have to talk to elect
//! a leader. So the replica of the system region here is asked first: its rows are on this disk. A
//! node without one asks the placement driver. What was found last is the answer while nobody
//! gives another.
//!
//! A consequence: while the system region has no leader, its members are found only where they were
//! when it last had one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base::{RegionId, StoreId};
use futures_util::FutureExt;
use proto::pdpb;
use storage::engine::Engine;
use store::RegionViews;

use super::members::stores;
use super::remote::{Pd, Remote};
use crate::transport::Resolver;

/// The way to addresses.
pub(crate) struct AddressBook {
    engine: Arc<dyn Engine>,
    views: Arc<RegionViews>,
    remote: Remote,
    last: Mutex<BTreeMap<StoreId, String>>,
}

impl AddressBook {
    pub(crate) fn new(engine: Arc<dyn Engine>, views: Arc<RegionViews>, remote: Remote) -> Self {
        Self { engine, views, remote, last: Mutex::default() }
    }

    /// As the transport takes it.
    pub(crate) fn resolver(self) -> Resolver {
        let book = Arc::new(self);
        Arc::new(move |id| {
            let book = book.clone();
            async move { book.find(id).await }.boxed()
        })
    }

    async fn find(&self, id: StoreId) -> Option<String> {
        let address = match self.in_rows(id) {
            Some(address) => Some(address),
            None => self.ask(id).await,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = &address {
            last.insert(id, address.clone());
        }
        address.or_else(|| last.get(&id).cloned())
    }

    fn in_rows(&self, id: StoreId) -> Option<String> {
        self.views.get(RegionId::SYSTEM)?;
        let stores = stores(&*self.engine);
        stores.into_iter().find(|store| store.id == id.0).map(|store| store.address)
    }

    async fn ask(&self, id: StoreId) -> Option<String> {
        let header = super::header(self.remote.cluster_id());
        let request = pdpb::GetStoreRequest { header, store_id: id.0 };
        let call = |mut pd: Pd| async move { pd.get_store(request).await };
        let answer = self.remote.call(call, |answer| answer.header.as_ref()).await;
        let store = answer.inspect_err(|error| {
            tracing::debug!(store = %id, ?error, "no address");
        });
        Some(store.ok()?.store?.address)
    }
}
