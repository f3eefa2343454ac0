//! How a node reaches the placement driver, wherever it runs.
//!
//! ```text
//!   founding, reporter, keyspace borders ──> PlacementLink ──┬─ it runs here: PlacementHost
//!                                                            └─ it does not: Remote ── gRPC ──>
//!   transport ── where is store 4? ──> AddressBook ── rows of the replica here, or the link
//!   services, http ── who are the members? ──> LocalMembers ── the same
//! ```
//!
//! A call goes to whoever leads at the moment; if that fails in a way that passes (nobody leads,
//! the leader is gone), the members are asked anew and the call is sent again, until its time is
//! over. Calls are such that sending one twice does no harm: ids may be wasted, descriptions are
//! written again.
//!
//! A node that holds a replica of the system region needs nobody to find the members: their
//! addresses are rows, and Raft knows the leader. Others ask the members that they know of. Those
//! are kept in a file, so that a restart needs no `--join`.
//!
//! Where to start: [`PlacementLink`], then `remote`; `join` for a store's first start.

use std::future::Future;
use std::time::{Duration, Instant};

use base::{ClusterId, RegionId, TimeStamp};
use placement::PlacementError;
use placement::header::timestamp as placement_timestamp;
use proto::{metapb, pdpb};
use store::RegionError;
use tonic::{Response, Status};
use txn::gc::SafePoints;

mod addresses;
mod join;
mod known;
mod members;
mod remote;

pub(crate) use addresses::AddressBook;
pub use join::JoinError;
pub(crate) use join::Joiner;
pub(crate) use known::KnownMembers;
pub(crate) use members::{LocalMembers, members_in};
pub(crate) use remote::{Failure, Pd, Remote, without_scheme};

use crate::backoff::Backoff;
use crate::placement_host::{HostError, PlacementHost};

/// A call that found nobody is sent again after this time, about, doubled each time ...
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// ... up to this.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Who waits for the placement driver says so this often.
const WAIT_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Why a call to the placement driver failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It said no.
    #[error(transparent)]
    Refused(#[from] PlacementError),
    /// Nobody answered in time.
    #[error("{call}: no answer from the placement driver: {last}")]
    Unavailable {
        /// The call.
        call: &'static str,
        /// What the last try came to.
        last: String,
    },
    /// The placement driver answered, and the store here refused what follows from it.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Its rows cannot be read.
    #[error(transparent)]
    Engine(#[from] storage::engine::EngineError),
}

/// The way to the placement driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PlacementLink {
    host: PlacementHost,
    remote: Remote,
}

impl PlacementLink {
    pub(crate) fn new(host: PlacementHost, remote: Remote) -> Self {
        Self { host, remote }
    }

    /// The placement driver, should it run here.
    pub(crate) fn host(&self) -> &PlacementHost {
        &self.host
    }

    /// The placement driver elsewhere.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The cluster.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.host.cluster_id()
    }

    /// The header of a request.
    pub(crate) fn header(&self) -> Option<pdpb::RequestHeader> {
        header(self.cluster_id())
    }

    /// IsBootstrapped.
    pub(crate) async fn is_bootstrapped(&self, budget: Duration) -> Result<bool, LinkError> {
        let request = &pdpb::IsBootstrappedRequest { header: self.header() };
        let local = || async { Ok(self.host.read(|p| p.get_is_bootstrapped(request))??) };
        let remote = |mut pd: Pd| async move { pd.is_bootstrapped(request.clone()).await };
        let response = self.call("IsBootstrapped", budget, local, remote, |r| r.header.as_ref());
        Ok(response.await?.bootstrapped)
    }

    /// AllocID, for one.
    pub(crate) async fn alloc_id(&self, budget: Duration) -> Result<u64, LinkError> {
        let request = &pdpb::AllocIdRequest { header: self.header(), count: 1 };
        let local = || self.host.write(|p| p.alloc_id(request));
        let remote = |mut pd: Pd| async move { pd.alloc_id(request.clone()).await };
        Ok(self.call("AllocID", budget, local, remote, |r| r.header.as_ref()).await?.id)
    }

    /// Bootstrap.
    pub(crate) async fn bootstrap(
        &self,
        request: &pdpb::BootstrapRequest,
        budget: Duration,
    ) -> Result<(), LinkError> {
        let wall_ms = self.host.wall_ms();
        let local = || self.host.write(|p| p.bootstrap(request, wall_ms));
        let remote = |mut pd: Pd| async move { pd.bootstrap(request.clone()).await };
        self.call("Bootstrap", budget, local, remote, |r| r.header.as_ref()).await.map(drop)
    }

    /// PutStore.
    pub(crate) async fn put_store(
        &self,
        request: &pdpb::PutStoreRequest,
        budget: Duration,
    ) -> Result<(), LinkError> {
        let local = || self.host.write(|p| p.put_store(request));
        let remote = |mut pd: Pd| async move { pd.put_store(request.clone()).await };
        self.call("PutStore", budget, local, remote, |r| r.header.as_ref()).await.map(drop)
    }

    /// StoreHeartbeat.
    pub(crate) async fn store_heartbeat(
        &self,
        request: &pdpb::StoreHeartbeatRequest,
        budget: Duration,
    ) -> Result<(), LinkError> {
        let (now, wall_ms) = (self.host.now(), self.host.wall_ms());
        let local =
            || async { Ok(self.host.update(|p| p.store_heartbeat(request, now, wall_ms))??) };
        let remote = |mut pd: Pd| async move { pd.store_heartbeat(request.clone()).await };
        self.call("StoreHeartbeat", budget, local, remote, |r| r.header.as_ref()).await.map(drop)
    }

    /// GetRegion.
    pub(crate) async fn region_of_key(
        &self,
        key: &[u8],
        budget: Duration,
    ) -> Result<pdpb::GetRegionResponse, LinkError> {
        let region_key = bytes::Bytes::copy_from_slice(key);
        let request =
            &pdpb::GetRegionRequest { header: self.header(), region_key, ..Default::default() };
        let local = || async { Ok(self.host.read(|p| p.get_region(request))??) };
        let remote = |mut pd: Pd| async move { pd.get_region(request.clone()).await };
        self.call("GetRegion", budget, local, remote, |r| r.header.as_ref()).await
    }

    /// GetRegionByID.
    pub(crate) async fn region(
        &self,
        id: RegionId,
        budget: Duration,
    ) -> Result<pdpb::GetRegionResponse, LinkError> {
        let (header, region_id) = (self.header(), id.0);
        let request = &pdpb::GetRegionByIdRequest { header, region_id, ..Default::default() };
        let local = || async { Ok(self.host.read(|p| p.get_region_by_id(request))??) };
        let remote = |mut pd: Pd| async move { pd.get_region_by_id(request.clone()).await };
        self.call("GetRegionByID", budget, local, remote, |r| r.header.as_ref()).await
    }

    /// GetAllStores: those that are not gone for ever.
    pub(crate) async fn stores(&self, budget: Duration) -> Result<Vec<metapb::Store>, LinkError> {
        let request =
            &pdpb::GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let local = || async { Ok(self.host.read(|p| p.get_all_stores(request))??) };
        let remote = |mut pd: Pd| async move { pd.get_all_stores(request.clone()).await };
        let response = self.call("GetAllStores", budget, local, remote, |r| r.header.as_ref());
        Ok(response.await?.stores)
    }

    /// AskBatchSplit.
    pub(crate) async fn ask_batch_split(
        &self,
        request: &pdpb::AskBatchSplitRequest,
        budget: Duration,
    ) -> Result<Vec<pdpb::SplitId>, LinkError> {
        let local = || self.host.write(|p| p.ask_batch_split(request));
        let remote = |mut pd: Pd| async move { pd.ask_batch_split(request.clone()).await };
        Ok(self.call("AskBatchSplit", budget, local, remote, |r| r.header.as_ref()).await?.ids)
    }

    /// GetMinTS: a timestamp later than all that were given out before.
    pub(crate) async fn min_ts(&self, budget: Duration) -> Result<TimeStamp, LinkError> {
        let request = &pdpb::GetMinTsRequest { header: self.header() };
        let local = || async {
            let timestamp = Some(placement_timestamp(self.host.timestamps(1).await?));
            Ok(pdpb::GetMinTsResponse { timestamp, ..Default::default() })
        };
        let remote = |mut pd: Pd| async move { pd.get_min_ts(request.clone()).await };
        let answer = self.call("GetMinTS", budget, local, remote, |r| r.header.as_ref()).await?;
        let timestamp = answer.timestamp.unwrap_or_default();
        let part = |part: i64| u64::try_from(part).unwrap_or(0);
        Ok(TimeStamp::compose(part(timestamp.physical), part(timestamp.logical)))
    }

    /// GetAllKeyspacesGCStates: the safe points, without barriers.
    pub(crate) async fn safe_points(&self, budget: Duration) -> Result<SafePoints, LinkError> {
        let request = &pdpb::GetAllKeyspacesGcStatesRequest {
            header: self.header(),
            exclude_gc_barriers: true,
            exclude_global_gc_barriers: true,
        };
        let wall_ms = self.host.wall_ms();
        let local =
            || async { Ok(self.host.read(|p| p.get_all_keyspaces_gc_states(request, wall_ms))??) };
        let remote =
            |mut pd: Pd| async move { pd.get_all_keyspaces_gc_states(request.clone()).await };
        let call = "GetAllKeyspacesGCStates";
        let answer = self.call(call, budget, local, remote, |r| r.header.as_ref()).await?;
        Ok(safe_points(&answer))
    }

    /// Does `call` until it is answered, one way or the other, and says from time to time that it
    /// waits.
    pub(crate) async fn patiently<R, F>(
        &self,
        mut call: impl FnMut(Duration) -> F,
    ) -> Result<R, LinkError>
    where
        F: Future<Output = Result<R, LinkError>>,
    {
        loop {
            match call(WAIT_LOG_INTERVAL).await {
                Err(error @ LinkError::Unavailable { .. }) => {
                    tracing::warn!(%error, "waiting for the placement driver");
                }
                other => return other,
            }
        }
    }

    /// Sends a call until it is answered, for at most about `budget`.
    async fn call<R, L, F>(
        &self,
        call: &'static str,
        budget: Duration,
        local: impl Fn() -> L,
        remote: impl Fn(Pd) -> F,
        header: fn(&R) -> Option<&pdpb::ResponseHeader>,
    ) -> Result<R, LinkError>
    where
        L: Future<Output = Result<R, HostError>>,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut leads = self.host.leads();
        let started = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX, self.host.store().store_id().0);
        loop {
            let here = *leads.borrow_and_update();
            let result = if here {
                local().await.or_else(from_host)
            } else {
                self.remote.call(&remote, header).await
            };
            let last = match result {
                Ok(response) => return Ok(response),
                Err(Failure::Refused(error)) => return Err(error.into()),
                Err(Failure::Passing(last)) => last,
            };
            let wait = backoff.pause();
            if started.elapsed() + wait > budget {
                return Err(LinkError::Unavailable { call, last });
            }
            // It may move here meanwhile.
            let _ = tokio::time::timeout(wait, leads.changed()).await;
        }
    }
}

/// The header of a request to a cluster.
pub(crate) fn header(cluster_id: ClusterId) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id: cluster_id.0, ..Default::default() })
}

/// Those of the keyspaces that are collected by themselves, and that of all others.
fn safe_points(answer: &pdpb::GetAllKeyspacesGcStatesResponse) -> SafePoints {
    use pdpb::keyspace_scope::Keyspace;
    let mut points = SafePoints::default();
    for state in &answer.gc_states {
        let ts = TimeStamp(state.gc_safe_point);
        let scope = state.keyspace_scope.as_ref().and_then(|scope| scope.keyspace);
        match scope {
            Some(Keyspace::KeyspaceId(id)) if state.is_keyspace_level_gc => {
                points.own.insert(id, ts);
            }
            _ => points.all = ts,
        }
    }
    points
}

fn from_host<R>(error: HostError) -> Result<R, Failure> {
    Err(match error {
        HostError::Placement(error) => Failure::Refused(error),
        passing => Failure::Passing(passing.to_string()),
    })
}
