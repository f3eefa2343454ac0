//! A link that answers by a script. Nothing here takes time: the clock is a number, waiting moves
//! it, and what is spawned runs when the test says so.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::Instant;
use bytes::Bytes;
use pontoon_client::{
    Db, DbOptions, Link, LinkError, PlacementReply, PlacementRequest, StoreReply, StoreRequest,
    Task,
};
use proto::{errorpb, kvrpcpb, metapb, pdpb};

/// What a store answers to one request.
pub type Answer = Box<dyn FnOnce(&StoreRequest) -> Result<StoreReply, LinkError> + Send>;

#[derive(Default)]
struct State {
    now: Instant,
    /// Milliseconds of the last timestamp.
    physical: i64,
    answers: VecDeque<Answer>,
    sent: Vec<(u64, StoreRequest)>,
    spawned: Vec<Task>,
    /// First keys of regions, as placement keys.
    borders: Vec<Bytes>,
}

/// The link, shared with the test.
#[derive(Clone, Default)]
pub struct Script {
    state: Arc<Mutex<State>>,
}

impl Script {
    /// Regions 1, 2, ... with borders at these user keys. Region n is led by store n.
    pub fn with_borders(borders: &[&str]) -> (Script, Db<Script>) {
        let script = Script::default();
        let encoded = borders.iter().map(|key| base::codec::encode_bytes(key.as_bytes()).into());
        script.state().borders = encoded.collect();
        script.state().physical = 1_000;
        let patience = Duration::from_secs(5);
        let db = Db::new(script.clone(), DbOptions { patience, ..DbOptions::default() });
        (script, db)
    }

    /// The next request is answered so.
    pub fn answer(
        &self,
        answer: impl FnOnce(&StoreRequest) -> Result<StoreReply, LinkError> + Send + 'static,
    ) {
        self.state().answers.push_back(Box::new(answer));
    }

    /// The next request gets this reply.
    pub fn reply(&self, reply: StoreReply) {
        self.answer(move |_| Ok(reply));
    }

    /// Takes the requests that were sent, with the store of each.
    pub fn sent(&self) -> Vec<(u64, StoreRequest)> {
        std::mem::take(&mut self.state().sent)
    }

    /// Names of the calls that were sent.
    pub fn names(&self) -> Vec<&'static str> {
        self.state().sent.iter().map(|(_, request)| request.name()).collect()
    }

    /// Runs what was spawned, to its end.
    pub fn run_spawned(&self) {
        loop {
            let Some(task) = self.state().spawned.pop() else { return };
            run(task);
        }
    }

    /// How many tasks wait to be run.
    pub fn spawned(&self) -> usize {
        self.state().spawned.len()
    }

    /// Time passes, for the client and for placement.
    pub fn pass(&self, duration: Duration) {
        let mut state = self.state();
        state.now = state.now + duration;
        state.physical += i64::try_from(duration.as_millis()).expect("a short time");
    }

    /// Whether every answer was used.
    pub fn is_used_up(&self) -> bool {
        self.state().answers.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn region(&self, key: &[u8]) -> (metapb::Region, metapb::Peer) {
        let state = self.state();
        let at = state.borders.iter().take_while(|border| key >= &border[..]).count();
        let bound = |at: Option<usize>| {
            at.and_then(|at| state.borders.get(at)).cloned().unwrap_or_default()
        };
        let id = at as u64 + 1;
        let peer = metapb::Peer { id: 10 * id, store_id: id, ..Default::default() };
        let region = metapb::Region {
            id,
            start_key: bound(at.checked_sub(1)),
            end_key: bound(Some(at)),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![peer],
            ..Default::default()
        };
        (region, peer)
    }
}

impl Link for Script {
    fn cluster_id(&self) -> u64 {
        7
    }

    async fn store(&self, store_id: u64, request: StoreRequest) -> Result<StoreReply, LinkError> {
        let answer = self.state().answers.pop_front();
        self.state().sent.push((store_id, request.clone()));
        let answer = answer.unwrap_or_else(|| panic!("no answer to {request:?}"));
        answer(&request)
    }

    async fn placement(&self, request: PlacementRequest) -> Result<PlacementReply, LinkError> {
        let found = |key: &[u8]| {
            let (region, leader) = self.region(key);
            pdpb::GetRegionResponse {
                region: Some(region),
                leader: Some(leader),
                ..Default::default()
            }
        };
        Ok(match request {
            PlacementRequest::Tso(_) => {
                let mut state = self.state();
                state.physical += 1;
                let physical = state.physical;
                let timestamp =
                    Some(pdpb::Timestamp { physical, logical: 0, ..Default::default() });
                PlacementReply::Tso(pdpb::TsoResponse { timestamp, ..Default::default() })
            }
            PlacementRequest::GetRegion(request) => {
                PlacementReply::GetRegion(found(&request.region_key))
            }
            PlacementRequest::GetPrevRegion(request) => {
                let (here, _) = self.region(&request.region_key);
                let below = &here.start_key[..here.start_key.len() - 1];
                PlacementReply::GetPrevRegion(found(below))
            }
            PlacementRequest::ScanRegions(_) => {
                let (region, leader) = self.region(&[0xff]);
                let last = pdpb::Region {
                    region: Some(region),
                    leader: Some(leader),
                    ..Default::default()
                };
                let regions = vec![last];
                let reply = pdpb::ScanRegionsResponse { regions, ..Default::default() };
                PlacementReply::ScanRegions(reply)
            }
        })
    }

    fn now(&self) -> Instant {
        self.state().now
    }

    async fn wait(&self, duration: Duration) {
        self.pass(duration);
    }

    fn seed(&self) -> u64 {
        1
    }

    fn spawn(&self, task: Task) {
        self.state().spawned.push(task);
    }
}

/// Runs a future that never has to wait.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future waits for something that the script does not have");
}

/// A prewrite that went well.
pub fn prewritten(min_commit_ts: u64, one_pc_commit_ts: u64) -> StoreReply {
    StoreReply::KvPrewrite(kvrpcpb::PrewriteResponse {
        min_commit_ts,
        one_pc_commit_ts,
        ..Default::default()
    })
}

/// A prewrite that did not.
pub fn prewrite_error(error: kvrpcpb::KeyError) -> StoreReply {
    StoreReply::KvPrewrite(kvrpcpb::PrewriteResponse { errors: vec![error], ..Default::default() })
}

/// A commit that went well.
pub fn committed() -> StoreReply {
    StoreReply::KvCommit(kvrpcpb::CommitResponse::default())
}

/// A commit that did not.
pub fn commit_error(error: kvrpcpb::KeyError) -> StoreReply {
    StoreReply::KvCommit(kvrpcpb::CommitResponse { error: Some(error), ..Default::default() })
}

/// What became of a transaction: (time to live, commit timestamp).
pub fn status(lock_ttl: u64, commit_version: u64, lock: Option<kvrpcpb::LockInfo>) -> StoreReply {
    StoreReply::KvCheckTxnStatus(kvrpcpb::CheckTxnStatusResponse {
        lock_ttl,
        commit_version,
        lock_info: lock,
        ..Default::default()
    })
}

/// A lock was resolved.
pub fn resolved() -> StoreReply {
    StoreReply::KvResolveLock(kvrpcpb::ResolveLockResponse::default())
}

/// Locks were rolled back.
pub fn rolled_back() -> StoreReply {
    StoreReply::KvBatchRollback(kvrpcpb::BatchRollbackResponse::default())
}

/// A value was read, or none.
pub fn value(value: Option<&'static str>) -> StoreReply {
    StoreReply::KvGet(kvrpcpb::GetResponse {
        not_found: value.is_none(),
        value: value.unwrap_or_default().into(),
        ..Default::default()
    })
}

/// A read that met a lock.
pub fn get_locked(lock: &kvrpcpb::LockInfo) -> StoreReply {
    StoreReply::KvGet(kvrpcpb::GetResponse { error: Some(locked(lock)), ..Default::default() })
}

/// A lock in the way.
pub fn locked(lock: &kvrpcpb::LockInfo) -> kvrpcpb::KeyError {
    kvrpcpb::KeyError { locked: Some(lock.clone()), ..Default::default() }
}

/// Somebody was faster.
pub fn conflict(key: &'static str) -> kvrpcpb::KeyError {
    let conflict = kvrpcpb::WriteConflict { key: key.into(), ..Default::default() };
    kvrpcpb::KeyError { conflict: Some(conflict), ..Default::default() }
}

/// A lock on `key` that began at `start_ms` and lives for `ttl` from there.
pub fn lock(
    key: &'static str,
    primary: &'static str,
    start_ms: u64,
    ttl: u64,
) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo {
        key: key.into(),
        primary_lock: primary.into(),
        lock_version: start_ms << 18,
        lock_ttl: ttl,
        txn_size: 1,
        ..Default::default()
    }
}

/// The region is led elsewhere, or it is not what it was.
pub fn not_leader(leader: Option<metapb::Peer>) -> errorpb::Error {
    errorpb::Error {
        not_leader: Some(errorpb::NotLeader { region_id: 1, leader }),
        ..Default::default()
    }
}
