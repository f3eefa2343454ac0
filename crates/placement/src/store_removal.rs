//! Removing a store: it is emptied, then buried.
//!
//! ```text
//!   Up, Serving ── remove_store ──> Offline, Removing ── no copy left there ──> Tombstone, Removed
//!        ^─────────── restore_store ─────────┘
//! ```
//!
//! While it is Offline the store works as before; the replica checker counts its copies as lost and
//! moves them elsewhere (`replicas`). A Tombstone stays on record for ever, under an id that nobody
//! gets again; its address is free for another store, such as the same machine with an empty disk.

use base::{Instant, StoreId};
use prost::Message;
use proto::metapb;

use crate::rows::RowKey;
use crate::{Change, Placement, PlacementError, RowChanges};

impl Placement {
    /// Begins to remove a store; does nothing if that has begun. With `destroyed` its disk is gone:
    /// its address is free at once, as for a machine that comes back with an empty disk.
    ///
    /// Refused if the store is unknown or a tombstone, or if fewer stores would be left than copies
    /// are wanted, unless the disk is gone anyway.
    pub fn remove_store(&self, id: StoreId, destroyed: bool) -> Result<Change<()>, PlacementError> {
        if !self.is_bootstrapped() {
            return Err(PlacementError::NotBootstrapped);
        }
        let store = self.live_store(id.0)?;
        let mut rows = RowChanges::default();
        let already = store.meta.node_state() == metapb::NodeState::Removing;
        if already && store.meta.physically_destroyed == destroyed {
            return Ok(Change { rows, reply: () });
        }
        if !destroyed && !already {
            self.check_enough_stores(id)?;
        }
        let mut meta = store.meta.clone();
        meta.set_state(metapb::StoreState::Offline);
        meta.set_node_state(metapb::NodeState::Removing);
        meta.physically_destroyed |= destroyed;
        rows.put(&RowKey::Store(id), meta.encode_to_vec());
        Ok(Change { rows, reply: () })
    }

    /// Takes a removal back that has not come to its end.
    pub fn restore_store(&self, id: StoreId) -> Result<Change<()>, PlacementError> {
        let store = self.live_store(id.0)?;
        if store.meta.physically_destroyed {
            let text = format!("store {id} has been physically destroyed");
            return Err(PlacementError::refused(text));
        }
        let mut meta = store.meta.clone();
        meta.set_state(metapb::StoreState::Up);
        meta.set_node_state(metapb::NodeState::Serving);
        let mut rows = RowChanges::default();
        rows.put(&RowKey::Store(id), meta.encode_to_vec());
        Ok(Change { rows, reply: () })
    }

    /// Buries the stores that are being removed and hold nothing any more. The reply names them.
    pub fn bury_stores(&self, now: Instant) -> Change<Vec<StoreId>> {
        let mut rows = RowChanges::default();
        let leaving = |meta: &metapb::Store| {
            meta.node_state() == metapb::NodeState::Removing
                && meta.state() == metapb::StoreState::Offline
        };
        let any = self.stores().any(|store| leaving(&store.meta));
        if !any || !self.knows_all_regions() {
            return Change { rows, reply: Vec::new() };
        }
        let mut buried = Vec::new();
        for store in self.stores().filter(|store| leaving(&store.meta)) {
            let id = StoreId(store.meta.id);
            if self.holds_copies(id) {
                continue;
            }
            let mut meta = store.meta.clone();
            meta.set_state(metapb::StoreState::Tombstone);
            meta.set_node_state(metapb::NodeState::Removed);
            let silent = now.since(store.heard_at).as_secs();
            tracing::info!(store = %id, address = meta.address, silent, "a store is buried");
            rows.put(&RowKey::Store(id), meta.encode_to_vec());
            buried.push(id);
        }
        assert_eq!(buried.is_empty(), rows.is_empty(), "one row each");
        Change { rows, reply: buried }
    }

    /// Copies of regions on the store, as far as their leaders have told.
    pub fn copies_on(&self, id: StoreId) -> usize {
        let here = |meta: &metapb::Region| meta.peers.iter().any(|peer| peer.store_id == id.0);
        let regions = self.regions.iter().filter(|region| here(&region.meta)).count();
        regions + usize::from(self.system_region().is_some_and(|region| here(&region.meta)))
    }

    fn holds_copies(&self, id: StoreId) -> bool {
        self.copies_on(id) > 0
    }

    /// Whether every key's region, and the system region, was reported by a leader to this
    /// placement driver. Until then nobody knows where copies are.
    fn knows_all_regions(&self) -> bool {
        let mut end = Some(bytes::Bytes::new());
        for region in self.regions.iter() {
            if region.leader.is_none() || end.as_ref() != Some(&region.meta.start_key) {
                return false;
            }
            end = Some(region.meta.end_key.clone()).filter(|end| !end.is_empty());
        }
        end.is_none() && self.system_region().is_some_and(|region| region.leader.is_some())
    }

    fn check_enough_stores(&self, leaving: StoreId) -> Result<(), PlacementError> {
        let serves = |meta: &metapb::Store| meta.node_state() == metapb::NodeState::Serving;
        let others = self.stores().filter(|other| other.meta.id != leaving.0);
        let left = others.filter(|other| !other.is_tombstone() && serves(&other.meta)).count();
        let wanted = self.wanted_copies();
        if left >= wanted {
            return Ok(());
        }
        Err(PlacementError::refused(format!(
            "can not remove store {leaving} since the number of up stores would be {left} while \
             need {wanted}"
        )))
    }
}
