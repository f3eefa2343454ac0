//! The store, as the services see it: route a read, hand over a write.
//!
//! ```text
//!   read:   view ── lease? ── engine ── view again              all on the caller's thread, no hop
//!   write:  view ── keys in range? ── mailbox ── ... ── reply   called from the apply thread
//! ```

use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, Region, RegionId, StoreId};
use bytes::Bytes;
use storage::engine::{Cached, Cf, Engine, EngineError, Snapshot};
use storage::keys;
use store::snapshot::SnapshotFolder;
use store::{
    Proposal, ReadFrom, ReadPermit, ReadRefusal, ReadRequest, RegionError, RegionView, RegionViews,
    ReplyTo, RequestHeader, ShardInput, WriteResult, Writes,
};
use tokio::sync::oneshot;
use txn::ApiVersion;

use crate::clock::Clock;
use crate::gc::Gc;
use crate::latch_table::{LatchGuard, LatchTable};
use crate::metrics::Metrics;
use crate::runtime::Mailbox;
use crate::transport::Inbox;

/// A region that was just cut off another one has a leader within a few round-trips; requests wait
/// no longer than this for it.
const NEWBORN_TIMEOUT: Duration = Duration::from_secs(1);

/// How often those who wait look.
const NEWBORN_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What every part of the node may know of its store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StoreHandle(Arc<Shared>);

struct Shared {
    parts: StoreParts,
    latches: Arc<LatchTable>,
}

/// What a store handle is made of.
pub(crate) struct StoreParts {
    pub(crate) cluster_id: ClusterId,
    pub(crate) api_version: ApiVersion,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) gc: Gc,
    pub(crate) views: Arc<RegionViews>,
    pub(crate) mailbox: Mailbox,
    /// The same folder that the threads have.
    pub(crate) snapshots: SnapshotFolder,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
}

impl StoreHandle {
    pub(crate) fn new(parts: StoreParts) -> Self {
        Self(Arc::new(Shared { parts, latches: Arc::default() }))
    }

    /// This store.
    pub(crate) fn store_id(&self) -> StoreId {
        self.0.parts.views.store_id()
    }

    /// The cluster it belongs to.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.0.parts.cluster_id
    }

    /// The mode of its raw data.
    pub(crate) fn api_version(&self) -> ApiVersion {
        self.0.parts.api_version
    }

    /// The node's clocks.
    pub(crate) fn clock(&self) -> Clock {
        self.0.parts.clock
    }

    /// The node's counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    pub(crate) fn shared_metrics(&self) -> &Arc<Metrics> {
        &self.0.parts.metrics
    }

    /// The engine, for its properties and sizes; data is read through a [`ReadGuard`].
    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.0.parts.engine
    }

    /// What is known of safe points, and what collects.
    pub(crate) fn gc(&self) -> &Gc {
        &self.0.parts.gc
    }

    /// The way in for what other stores send.
    pub(crate) fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::new(self.0.parts.mailbox.clone())
    }

    /// Where the files of snapshots lie.
    pub(crate) fn snapshots(&self) -> &SnapshotFolder {
        &self.0.parts.snapshots
    }

    /// The views of all regions.
    pub(crate) fn views(&self) -> &RegionViews {
        &self.0.parts.views
    }

    /// Whether the replica here may answer a read now.
    pub(crate) fn read(
        &self,
        header: &RequestHeader,
        from: ReadFrom,
    ) -> Result<ReadGuard, ReadRefusal> {
        let permit = self.views().permit(header, from, self.0.parts.clock.now())?;
        Ok(ReadGuard { permit, store: self.clone() })
    }

    /// Like [`read`](Self::read), for a leader whose lease may have run out and for a replica that
    /// does not lead: asks the group, waits until everything that was committed by then is applied.
    pub(crate) async fn read_after_index(
        &self,
        header: &RequestHeader,
        from: ReadFrom,
    ) -> Result<ReadGuard, RegionError> {
        self.0.parts.metrics.read_index();
        let (send, receive) = oneshot::channel();
        let (any_replica, reply) = (from != ReadFrom::Leader, reply_into(send));
        self.request(ShardInput::ReadIndex(ReadRequest { header: *header, any_replica, reply }));
        receive.await.unwrap_or(Err(RegionError::Undetermined))?;
        let permit = self.views().permit_after_index(header, from)?;
        Ok(ReadGuard { permit, store: self.clone() })
    }

    /// Waits while the region, cut off another one a moment ago, has no leader yet. It is known to
    /// clients from the moment on at which its keys are no longer the other one's.
    pub(crate) async fn settled(&self, region: RegionId) {
        if !self.views().is_newborn(region) {
            return;
        }
        let settled = async {
            while self.views().is_newborn(region) {
                tokio::time::sleep(NEWBORN_LOOK_INTERVAL).await;
            }
        };
        // Whoever leads by then, or that nobody does, is what the client is told.
        let _ = tokio::time::timeout(NEWBORN_TIMEOUT, settled).await;
    }

    /// Hands a write over. `reply` is called exactly once, from another thread or from this one.
    pub(crate) fn propose(&self, header: &RequestHeader, writes: Writes, reply: ReplyTo) {
        let proposal = Proposal { header: *header, writes, only_in_term: None, reply };
        self.request(ShardInput::Propose(proposal));
    }

    /// Writes, and waits until it is applied or refused.
    pub(crate) async fn write(&self, header: &RequestHeader, writes: Writes) -> WriteResult {
        let (send, receive) = oneshot::channel();
        self.propose(header, writes, reply_into(send));
        receive.await.unwrap_or(Err(RegionError::Undetermined))
    }

    pub(crate) fn request(&self, input: ShardInput) {
        let Err(input) = self.0.parts.mailbox.request(input) else { return };
        let reason = "the store's mailbox is full".to_owned();
        input.refuse(RegionError::ServerIsBusy { reason });
    }

    /// Hands over what must not be refused for want of room. Gives it back if the store stopped.
    pub(crate) fn tell(&self, input: ShardInput) -> Result<(), Box<ShardInput>> {
        self.0.parts.mailbox.tell(input)
    }

    /// Takes the latches of all `keys`; waits until earlier holders gave them back.
    pub(crate) async fn latch<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> LatchGuard {
        LatchTable::acquire(&self.0.latches, keys).await
    }
}

/// A reply that goes to whoever awaits `send`'s other end.
pub(crate) fn reply_into(send: oneshot::Sender<WriteResult>) -> ReplyTo {
    // Whoever waited may have gone away; then nobody needs the answer.
    ReplyTo::new(move |result| drop(send.send(result)))
}

/// Leave to read one region, with the engine to read from. The data may be used only if
/// [`check`](Self::check) is still content *after* it was taken.
pub(crate) struct ReadGuard {
    permit: ReadPermit,
    store: StoreHandle,
}

impl ReadGuard {
    /// The region.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.permit.view().region
    }

    /// The replica here, as it was when leave was given.
    pub(crate) fn view(&self) -> &RegionView {
        self.permit.view()
    }

    /// Whether `key` (in the form in which regions are split) lies in the region.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), RegionError> {
        self.view().check_key(key)
    }

    /// The value of `key`. May read the disk.
    pub(crate) fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.store.engine().get(cf, &keys::region_data_key(self.region().id, key))
    }

    /// The value of `key` if that can be told without reading the disk.
    pub(crate) fn get_if_cached(&self, cf: Cf, key: &[u8]) -> Result<Cached, EngineError> {
        self.store.engine().get_if_cached(cf, &keys::region_data_key(self.region().id, key))
    }

    /// The data as it is now. All of the engine's: the reader stays in the region's range.
    pub(crate) fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.store.engine().snapshot()
    }

    /// The second look, after the data was taken.
    pub(crate) fn check(&self) -> Result<(), RegionError> {
        self.store.views().recheck(&self.permit, self.store.clock().now())
    }
}
