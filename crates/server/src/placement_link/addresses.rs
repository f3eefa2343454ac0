//! Where other stores are reached: what the transport asks before it connects.
//!
//! The transport must find the members before any of them leads, since they have to talk to elect
//! a leader. So the replica of the system region here is asked first: its rows are on this disk. A
//! node without one asks the placement driver. What was found last is the answer while nobody
//! gives another.
//!
//! While the system region has no leader its rows may be outdated: members that were restarted
//! under other addresses must find each other before they can write the new ones. Then every node
//! that `--join` or the file of known members names is asked who it is: a member tells its own
//! address as it is now, and whoever answers at the address that it tells is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use std::time::{Duration, Instant};

use base::{RegionId, StoreId};
use futures_util::{FutureExt, future};
use proto::pdpb;
use storage::engine::Engine;
use store::RegionViews;

use super::members::stores;
use super::remote::{Pd, Remote, addresses_of, ask_members, cluster_of};
use crate::transport::Resolver;

/// Those who may know are asked this often while nobody leads.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The way to addresses.
pub(crate) struct AddressBook {
    engine: Arc<dyn Engine>,
    views: Arc<RegionViews>,
    remote: Remote,
    last: Mutex<BTreeMap<StoreId, String>>,
    /// Where members said that they are, and when they were last asked.
    told: tokio::sync::Mutex<Told>,
}

#[derive(Default)]
struct Told {
    addresses: BTreeMap<StoreId, String>,
    asked_at: Option<Instant>,
}

impl AddressBook {
    pub(crate) fn new(engine: Arc<dyn Engine>, views: Arc<RegionViews>, remote: Remote) -> Self {
        let (last, told) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { engine, views, remote, last, told }
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
            Some(address) if self.has_leader() => Some(address),
            Some(address) => Some(self.where_it_says(id).await.unwrap_or(address)),
            None => self.ask(id).await,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = &address {
            last.insert(id, address.clone());
        }
        address.or_else(|| last.get(&id).cloned())
    }

    fn has_leader(&self) -> bool {
        self.views.get(RegionId::SYSTEM).is_some_and(|view| view.leader.is_some())
    }

    /// Where the member itself says that it is.
    async fn where_it_says(&self, id: StoreId) -> Option<String> {
        let mut told = self.told.lock().await;
        if told.asked_at.is_none_or(|at| at.elapsed() >= ASK_INTERVAL) {
            told.asked_at = Some(Instant::now());
            let known = self.remote.known_addresses();
            let answers = future::join_all(known.iter().map(|address| ask_members(address))).await;
            for (asked, answer) in known.into_iter().zip(answers) {
                let Ok(members) = answer else { continue };
                let ours = cluster_of(&members) == self.remote.cluster_id();
                let at = addresses_of(&members).into_iter().find(|(_, at)| *at == asked);
                if let (true, Some((store, address))) = (ours, at) {
                    told.addresses.insert(StoreId(store), address);
                }
            }
        }
        told.addresses.get(&id).cloned()
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
