//! Orders on their way: from the placement driver that runs here to the leaders of regions.
//!
//! Each store that reports its regions binds an outlet with its stream of heartbeats, this node's
//! own store too. An order for a store without one is dropped: it is given again as long as it
//! shows no effect.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::StoreId;
use placement::Order;
use tokio::sync::mpsc;

use super::{HostError, PlacementHost};

/// Regions are looked at after each report, and at least so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Reports that come one after the other are looked at together.
const GATHER_INTERVAL: Duration = Duration::from_millis(20);

/// Orders that may wait for a store that does not read them.
const OUTLET_ORDERS_MAX: usize = 256;

/// Where the orders of each store go.
#[derive(Default)]
pub(super) struct Outlets(Mutex<BTreeMap<StoreId, mpsc::Sender<Order>>>);

impl Outlets {
    /// The streams end: their placement driver has left.
    pub(super) fn close(&self) {
        self.map().clear();
    }

    fn give(&self, order: Order) {
        let mut map = self.map();
        let store = order.leader.store_id;
        let Some(outlet) = map.get(&store) else {
            tracing::debug!(%store, ?order, "an order for a store without a stream");
            return;
        };
        match outlet.try_send(order) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(order)) => {
                tracing::debug!(%store, ?order, "an order that nobody takes");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                map.remove(&store);
            }
        }
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<StoreId, mpsc::Sender<Order>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlacementHost {
    /// The orders for the leaders on `store`, from now on; whoever had them before gets no more.
    pub(crate) fn bind(&self, store: StoreId) -> mpsc::Receiver<Order> {
        let (sender, receiver) = mpsc::channel(OUTLET_ORDERS_MAX);
        self.0.outlets.map().insert(store, sender);
        receiver
    }

    /// Gives an order that nothing keeps in mind.
    pub(crate) fn order(&self, order: Order) {
        self.0.outlets.give(order);
    }

    /// Looks at the regions and gives orders while the placement driver runs here, for ever.
    pub(crate) async fn schedule(self) {
        let (mut leads, mut reports) = (self.leads(), self.reports());
        loop {
            leads.wait_for(|leads| *leads).await.expect("the sender lives as long as self");
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "no look at the regions");
            }
            // A sender that lives as long as self never fails.
            let _ = tokio::time::timeout(LOOK_INTERVAL, reports.changed()).await;
            tokio::time::sleep(GATHER_INTERVAL).await;
        }
    }

    async fn look(&self) -> Result<(), HostError> {
        let now = self.now();
        let regions = self.update(|placement| placement.regions_to_check(now))?;
        let planned = self.write(|placement| placement.plan_orders(&regions, now)).await?;
        let orders = self.update(|placement| placement.start_orders(planned, now))?;
        orders.into_iter().for_each(|order| self.0.outlets.give(order));
        self.write(|placement| Ok(placement.bury_stores(now))).await?;
        Ok(())
    }
}
