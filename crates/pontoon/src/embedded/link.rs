//! The link to a node in the same process: the services of its port, called without one.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base::Instant as Now;
use client::{Link, LinkError, PlacementReply, PlacementRequest, StoreReply, StoreRequest, Task};
use proto::pdpb::{self, pd_server::Pd};
use proto::tikvpb::tikv_server::Tikv;
use server::Calls;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

/// How long what goes on in the background may take when the node closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A node in this process. Clones are the same link.
#[derive(Clone)]
pub struct LocalLink {
    shared: Arc<Shared>,
}

struct Shared {
    /// None once the node is closed: whoever still has the link must not keep the engine open.
    calls: Mutex<Option<Calls>>,
    cluster_id: u64,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
    started: Instant,
}

impl LocalLink {
    /// A link to the node with these calls. Background work runs on the present tokio runtime.
    pub(super) fn new(calls: Calls) -> LocalLink {
        let cluster_id = calls.cluster_id().0;
        let shared = Shared {
            calls: Mutex::new(Some(calls)),
            cluster_id,
            runtime: Handle::current(),
            tasks: Mutex::default(),
            started: Instant::now(),
        };
        LocalLink { shared: Arc::new(shared) }
    }

    /// Lets commits in the background come to their end, then cuts the link.
    pub(super) async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        let ended = async { while tasks.join_next().await.is_some() {} };
        // What is left is a lock of a transaction that is decided: whoever meets it finds out.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
        tasks.shutdown().await;
        *self.slot() = None;
    }

    fn calls(&self) -> Result<Calls, LinkError> {
        self.slot().clone().ok_or_else(|| LinkError::Refused("the node is closed".to_owned()))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Calls>> {
        self.shared.calls.lock().expect("no holder of this lock panics")
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.shared.tasks.lock().expect("no holder of this lock panics")
    }
}

impl Link for LocalLink {
    fn cluster_id(&self) -> u64 {
        self.shared.cluster_id
    }

    async fn store(&self, store_id: u64, request: StoreRequest) -> Result<StoreReply, LinkError> {
        let calls = self.calls()?;
        if store_id != calls.store_id().0 {
            return Err(LinkError::Unsent(format!("store {store_id} is not in this process")));
        }
        // Boxed: the futures of some calls are large.
        let called = Box::pin(call_store(calls.tikv(), request));
        called.await.map_err(|status| link_error(&status))
    }

    async fn placement(&self, request: PlacementRequest) -> Result<PlacementReply, LinkError> {
        let calls = self.calls()?;
        let pd = calls.pd();
        let asked = async {
            Ok(match request {
                PlacementRequest::Tso(_) => PlacementReply::Tso(timestamp(&calls).await?),
                PlacementRequest::GetRegion(request) => PlacementReply::GetRegion(
                    pd.get_region(Request::new(request)).await?.into_inner(),
                ),
                PlacementRequest::GetPrevRegion(request) => PlacementReply::GetPrevRegion(
                    pd.get_prev_region(Request::new(request)).await?.into_inner(),
                ),
                PlacementRequest::ScanRegions(request) => PlacementReply::ScanRegions(
                    pd.scan_regions(Request::new(request)).await?.into_inner(),
                ),
            })
        };
        asked.await.map_err(|status: Status| link_error(&status))
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.shared.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn seed(&self) -> u64 {
        RandomState::new().hash_one(self.shared.cluster_id)
    }

    fn spawn(&self, task: Task) {
        let mut tasks = self.tasks();
        // Those that have ended need not be remembered.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.shared.runtime);
    }
}

async fn timestamp(calls: &Calls) -> Result<pdpb::TsoResponse, Status> {
    let ts = calls.timestamp().await?;
    let timestamp = pdpb::Timestamp {
        physical: ts.physical_ms() as i64,
        logical: ts.logical() as i64,
        ..Default::default()
    };
    Ok(pdpb::TsoResponse { count: 1, timestamp: Some(timestamp), ..Default::default() })
}

async fn call_store(store: &impl Tikv, request: StoreRequest) -> Result<StoreReply, Status> {
    use StoreReply as Reply;
    use StoreRequest as Call;
    Ok(match request {
        Call::KvGet(r) => Reply::KvGet(store.kv_get(Request::new(r)).await?.into_inner()),
        Call::KvBatchGet(r) => {
            Reply::KvBatchGet(store.kv_batch_get(Request::new(r)).await?.into_inner())
        }
        Call::KvScan(r) => Reply::KvScan(store.kv_scan(Request::new(r)).await?.into_inner()),
        Call::MvccGetByKey(r) => {
            Reply::MvccGetByKey(store.mvcc_get_by_key(Request::new(r)).await?.into_inner())
        }
        Call::KvScanLock(r) => {
            Reply::KvScanLock(store.kv_scan_lock(Request::new(r)).await?.into_inner())
        }
        Call::RawGet(r) => Reply::RawGet(store.raw_get(Request::new(r)).await?.into_inner()),
        Call::RawPut(r) => Reply::RawPut(store.raw_put(Request::new(r)).await?.into_inner()),
        Call::RawBatchPut(r) => {
            Reply::RawBatchPut(store.raw_batch_put(Request::new(r)).await?.into_inner())
        }
        Call::RawDelete(r) => {
            Reply::RawDelete(store.raw_delete(Request::new(r)).await?.into_inner())
        }
        Call::RawDeleteRange(r) => {
            Reply::RawDeleteRange(store.raw_delete_range(Request::new(r)).await?.into_inner())
        }
        Call::RawScan(r) => Reply::RawScan(store.raw_scan(Request::new(r)).await?.into_inner()),
        Call::RawGetKeyTtl(r) => {
            Reply::RawGetKeyTtl(store.raw_get_key_ttl(Request::new(r)).await?.into_inner())
        }
        Call::RawCompareAndSwap(r) => {
            let reply = store.raw_compare_and_swap(Request::new(r)).await?.into_inner();
            Reply::RawCompareAndSwap(reply)
        }
        transactional => call_transactional(store, transactional).await?,
    })
}

/// The calls that change what transactions have left.
async fn call_transactional(
    store: &impl Tikv,
    request: StoreRequest,
) -> Result<StoreReply, Status> {
    use StoreReply as Reply;
    use StoreRequest as Call;
    Ok(match request {
        Call::KvPrewrite(r) => {
            Reply::KvPrewrite(store.kv_prewrite(Request::new(r)).await?.into_inner())
        }
        Call::KvCommit(r) => Reply::KvCommit(store.kv_commit(Request::new(r)).await?.into_inner()),
        Call::KvBatchRollback(r) => {
            Reply::KvBatchRollback(store.kv_batch_rollback(Request::new(r)).await?.into_inner())
        }
        Call::KvPessimisticLock(r) => {
            let reply = store.kv_pessimistic_lock(Request::new(r)).await?.into_inner();
            Reply::KvPessimisticLock(reply)
        }
        Call::KvPessimisticRollback(r) => {
            let reply = store.kv_pessimistic_rollback(Request::new(r)).await?.into_inner();
            Reply::KvPessimisticRollback(reply)
        }
        Call::KvTxnHeartBeat(r) => {
            Reply::KvTxnHeartBeat(store.kv_txn_heart_beat(Request::new(r)).await?.into_inner())
        }
        Call::KvCheckTxnStatus(r) => {
            let reply = store.kv_check_txn_status(Request::new(r)).await?.into_inner();
            Reply::KvCheckTxnStatus(reply)
        }
        Call::KvCheckSecondaryLocks(r) => {
            let reply = store.kv_check_secondary_locks(Request::new(r)).await?.into_inner();
            Reply::KvCheckSecondaryLocks(reply)
        }
        Call::KvResolveLock(r) => {
            Reply::KvResolveLock(store.kv_resolve_lock(Request::new(r)).await?.into_inner())
        }
        other => unreachable!("{} is among the others", other.name()),
    })
}

/// What a status says of its request.
fn link_error(status: &Status) -> LinkError {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument | Code::Unimplemented | Code::FailedPrecondition => {
            LinkError::Refused(text)
        }
        _ => LinkError::Lost(text),
    }
}
