//! The transactional commands: from a request to its response, for single calls and for streams.
//!
//! ```text
//!   request ── requests ──► Command ──► course ──► Reply ── replies ──► response
//!                                         │ ▲
//!      latches, locks, timestamps: the    │ │   snapshot under the lease, or asked of the group;
//!      store's txn::scheduler::Scheduler ─┘ └── the action, on the caller's thread; the proposal
//!
//!   reads:  max_ts raised, locks in memory looked at ── lease ── data ── lease again ── response
//! ```
//!
//! The scheduler decides everything that can be decided without reading or writing; here it stands
//! behind a mutex that is never held while something is read, run or proposed. What each command
//! means is crate `txn`'s.
//!
//! - [`txn::wire`], `replies`: the wire.
//! - `course`: the way of a command.
//! - `steps`: commands that go through a region in steps.
//! - `reads`: gets and scans. `looks`: calls for people and for those who resolve locks.
//! - `leadership`: what follows from regions being led here or no longer. `timing`: what happens
//!   because time passes. `deadlocks`: waits are reported to the detector.
//!
//! Where to start: `course`.

mod course;
pub(crate) mod deadlocks;
mod leadership;
mod looks;
mod reads;
mod replies;
mod steps;
mod timing;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{StoreId, TimeStamp};
use proto::kvrpcpb::{self, Context};
use proto::tikvpb::tikv_client::TikvClient;
use store::{LeaderEvent, Purpose, ReadFrom, RegionError, RequestHeader};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;
use txn::latches::CommandId;
use txn::scheduler::{Command, Reply, Scheduler, Ticket};
use txn::wire::requests::Requests;

use super::raw::{Target, request_header};
use crate::errors::{self, Refusable, Refusal, settle};
use crate::placement_link::PlacementLink;
use crate::store_handle::StoreHandle;
use crate::transport::Resolver;
use deadlocks::{Graph, Report};
use replies::Shape;

/// Called once, with what a command came to.
type Done = Box<dyn FnOnce(Result<Reply, Refusal>) + Send>;

/// The transactional commands of one store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TxnService {
    shared: Arc<Shared>,
}

struct Shared {
    store: StoreHandle,
    link: PlacementLink,
    /// Where the other stores are.
    resolver: Resolver,
    runtime: Handle,
    state: Mutex<State>,
    /// Who waits for whom in the cluster, if that is kept here.
    graph: Mutex<Graph>,
    reports: mpsc::UnboundedSender<Report>,
    /// The other end, until it is taken.
    reported: Mutex<Option<mpsc::UnboundedReceiver<Report>>>,
    /// Connections to other stores.
    clients: Mutex<BTreeMap<StoreId, TikvClient<Channel>>>,
    /// There is an earlier timer than before.
    timer: Notify,
    /// Some region's `max_ts` is synced.
    synced: Notify,
}

struct State {
    scheduler: Scheduler,
    /// Commands that wait for latches or for a lock.
    jobs: HashMap<CommandId, (Job, Ticket)>,
}

/// A command with all that belongs to it.
pub(crate) struct Job {
    target: Target,
    command: Command,
    /// It waited for a sync of `max_ts` already.
    waited_for_sync: bool,
    /// Its timestamp was from the future, and placement was asked already.
    asked_for_ts: bool,
    done: Done,
}

impl Job {
    fn new(target: Target, command: Command, done: Done) -> Self {
        Self { target, command, waited_for_sync: false, asked_for_ts: false, done }
    }
}

/// A command of a request, and how its reply becomes a response.
pub(crate) struct Prepared<R> {
    target: Target,
    command: Command,
    shape: Shape,
    response: fn(Reply, Shape) -> R,
}

impl<R> Prepared<R> {
    fn new(target: Target, command: Command, response: fn(Reply, Shape) -> R) -> Self {
        Self { target, command, shape: Shape::default(), response }
    }
}

impl TxnService {
    /// To be called from within a tokio runtime, on which what waits will run.
    pub(crate) fn new(store: StoreHandle, link: PlacementLink, resolver: Resolver) -> Self {
        let scheduler = Scheduler::new(timing::limits());
        let (reports, reported) = mpsc::unbounded_channel();
        let shared = Shared {
            store,
            link,
            resolver,
            runtime: Handle::current(),
            state: Mutex::new(State { scheduler, jobs: HashMap::new() }),
            graph: Mutex::default(),
            reports,
            reported: Mutex::new(Some(reported)),
            clients: Mutex::default(),
            timer: Notify::new(),
            synced: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts its tasks. Once.
    pub(crate) fn start(
        &self,
        tasks: &mut JoinSet<()>,
        leading: mpsc::UnboundedReceiver<LeaderEvent>,
    ) {
        let reported = self.shared.reported.lock().unwrap_or_else(PoisonError::into_inner).take();
        tasks.spawn(self.clone().report_waits(reported.expect("it is started once")));
        tasks.spawn(self.clone().follow_leadership(leading));
        tasks.spawn(self.clone().watch_timestamps());
        tasks.spawn(self.clone().run_timers());
    }

    fn store(&self) -> &StoreHandle {
        &self.shared.store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> Requests {
        Requests { api: self.store().api_version() }
    }

    /// Whether the request is for this cluster, and what its context asks for.
    fn target(&self, context: &Context) -> Result<Target, Refusal> {
        let cluster_id = self.store().cluster_id().0;
        if context.cluster_id != 0 && context.cluster_id != cluster_id {
            return Err(errors::cluster_mismatch(context.cluster_id, cluster_id));
        }
        let wait_ms = context.max_execution_duration_ms;
        let deadline = Instant::now().checked_add(Duration::from_millis(wait_ms));
        let deadline = deadline.filter(|_| wait_ms != 0);
        Ok(Target { header: request_header(context), from: ReadFrom::Leader, deadline })
    }

    /// The same, for a read at `ts`.
    fn read_target(&self, context: &Context, ts: TimeStamp) -> Result<Target, Refusal> {
        let target = self.target(context)?;
        let from = match context {
            Context { stale_read: true, .. } => ReadFrom::Past(ts),
            Context { replica_read: true, .. } => ReadFrom::Replica,
            _ => ReadFrom::Leader,
        };
        // While the region is flashed back, older reads go on.
        let header = RequestHeader { purpose: Purpose::ReadAt(ts), ..target.header };
        Ok(Target { header, from, ..target })
    }

    /// Runs a command to its response.
    pub(crate) async fn answer<R: Refusable + Send + 'static>(
        &self,
        prepared: Result<Prepared<R>, Refusal>,
    ) -> Result<R, Status> {
        let (send, receive) = oneshot::channel();
        // Whoever waited may have gone away; the command goes to its end all the same.
        self.run(prepared, move |response| drop(send.send(response)));
        let lost = Err(Status::internal("the request was not finished"));
        receive.await.unwrap_or(lost)
    }

    /// The same for callers that do not wait: `done` is called once, possibly before this returns.
    fn run<R: Refusable + 'static>(
        &self,
        prepared: Result<Prepared<R>, Refusal>,
        done: impl FnOnce(Result<R, Status>) + Send + 'static,
    ) {
        self.job(prepared, done).into_iter().for_each(|job| self.take(job));
    }

    /// A command that is to be begun. `done` is called once, in here if the request is refused.
    pub(crate) fn job<R: Refusable + 'static>(
        &self,
        prepared: Result<Prepared<R>, Refusal>,
        done: impl FnOnce(Result<R, Status>) + Send + 'static,
    ) -> Option<Job> {
        self.store().metrics().txn_commands(1);
        let Prepared { target, command, shape, response } = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                done(errors::refuse(refusal));
                return None;
            }
        };
        let done = move |outcome: Result<Reply, Refusal>| {
            done(settle(outcome.map(|reply| response(reply, shape))));
        };
        Some(Job::new(target, command, Box::new(done)))
    }

    /// Runs a command to its reply.
    async fn execute(&self, target: Target, command: Command) -> Result<Reply, Refusal> {
        let (send, receive) = oneshot::channel();
        // Whoever waited may have gone away; the command goes to its end all the same.
        self.begin(target, command, Box::new(move |result| drop(send.send(result))));
        receive.await.unwrap_or_else(|_| Err(RegionError::Undetermined.into()))
    }
}

/// A request's own part: its context and the rest.
fn context_of(context: &mut Option<Context>) -> Context {
    context.take().unwrap_or_default()
}

/// Requests that become one command each.
impl TxnService {
    pub(crate) fn prewrite(
        &self,
        mut request: kvrpcpb::PrewriteRequest,
    ) -> Result<Prepared<kvrpcpb::PrewriteResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().prewrite(&context, request)?;
        Ok(Prepared::new(target, command, replies::prewrite))
    }

    pub(crate) fn pessimistic_lock(
        &self,
        mut request: kvrpcpb::PessimisticLockRequest,
    ) -> Result<Prepared<kvrpcpb::PessimisticLockResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let lock = self.requests().lock(&context, request, self.store().clock().now())?;
        let shape = Shape { read: lock.action.read, force: lock.action.allow_conflict };
        let prepared = Prepared::new(target, Command::Lock(lock), replies::lock);
        Ok(Prepared { shape, ..prepared })
    }

    pub(crate) fn heart_beat(
        &self,
        mut request: kvrpcpb::TxnHeartBeatRequest,
    ) -> Result<Prepared<kvrpcpb::TxnHeartBeatResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().heart_beat(&context, request)?;
        Ok(Prepared::new(target, command, replies::heart_beat))
    }

    pub(crate) fn check_txn_status(
        &self,
        mut request: kvrpcpb::CheckTxnStatusRequest,
    ) -> Result<Prepared<kvrpcpb::CheckTxnStatusResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().check_txn_status(&context, request)?;
        Ok(Prepared::new(target, command, replies::status))
    }

    pub(crate) fn check_secondary_locks(
        &self,
        mut request: kvrpcpb::CheckSecondaryLocksRequest,
    ) -> Result<Prepared<kvrpcpb::CheckSecondaryLocksResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().check_secondary_locks(&context, request)?;
        Ok(Prepared::new(target, command, replies::secondaries))
    }

    pub(crate) fn commit(
        &self,
        mut request: kvrpcpb::CommitRequest,
    ) -> Result<Prepared<kvrpcpb::CommitResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().commit(&context, request)?;
        Ok(Prepared::new(target, command, replies::commit))
    }

    pub(crate) fn batch_rollback(
        &self,
        mut request: kvrpcpb::BatchRollbackRequest,
    ) -> Result<Prepared<kvrpcpb::BatchRollbackResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().rollback(&context, request)?;
        Ok(Prepared::new(target, command, replies::done))
    }

    pub(crate) fn cleanup(
        &self,
        mut request: kvrpcpb::CleanupRequest,
    ) -> Result<Prepared<kvrpcpb::CleanupResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().cleanup(&context, request)?;
        Ok(Prepared::new(target, command, replies::cleanup))
    }

    pub(crate) fn flush(
        &self,
        mut request: kvrpcpb::FlushRequest,
    ) -> Result<Prepared<kvrpcpb::FlushResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().flush(&context, request)?;
        Ok(Prepared::new(target, command, replies::flush))
    }

    pub(crate) fn delete_range(
        &self,
        mut request: kvrpcpb::DeleteRangeRequest,
    ) -> Result<Prepared<kvrpcpb::DeleteRangeResponse>, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let command = self.requests().delete_range(&context, request)?;
        Ok(Prepared::new(target, command, replies::done))
    }
}
