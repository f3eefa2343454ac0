//! Transactions in simulated clusters: the real client of crate `client` on one side, the real
//! scheduler of crate `txn` on the other.
//!
//! ```text
//!   clients: futures of the real client ── executor ── link ──┐  calls: late, lost, twice
//!   recorder: what they did and saw                           ▼
//!   a node:  reads, host ── Scheduler ── proposals ── the replicas of `store`
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | futures on virtual time, their calls | `executor`, `link` |
//! | what clients do; what they saw | `clients`, `recorder` |
//! | a store serves commands, and reads | `host`, `reads`, `answers` |
//! | who waits for whom in the cluster | `detect` |
//! | leaders come, hand over and go, at the worst moment | `leading`, `moments` |
//! | how far followers know the past; old versions go | `past`, `gc` |
//! | a transaction has one fate; no lock stays | `fates`, `locks` |
//! | computed timestamps are above all looks; what was read is so for ever | `floors`, `seen` |

mod answers;
mod clients;
mod detect;
mod executor;
mod fates;
mod floors;
mod gc;
mod host;
mod leading;
mod link;
mod locks;
mod moments;
mod past;
mod reads;
mod recorder;
mod seen;

use std::time::Duration;

use base::{Prng, RegionId, TimeStamp};
use client::{Db, DbOptions, PlacementReply, PlacementRequest, StoreRequest};
use proto::kvrpcpb::{self as kv, Context};
use store::ReadFrom;
use txn::ApiVersion;
use txn::scheduler::Command;
use txn::wire::replies::Shape;
use txn::wire::requests::{BadRequest, Requests};

use self::answers::Kind;
use self::clients::Worker;
pub(crate) use self::clients::some_key;
pub(crate) use self::detect::Detection;
use self::executor::{Ask, Route};
pub(crate) use self::executor::{Executor, LeafId, TaskId};
pub(crate) use self::fates::Fates;
pub(crate) use self::floors::Floors;
pub(crate) use self::gc::hash_live;
pub(crate) use self::host::TxnHost;
use self::host::{header_of, read_from};
use self::link::SimLink;
use self::reads::Wanted;
pub(crate) use self::reads::{Announcement, TxnReading};
pub(crate) use self::recorder::Recorder;
pub(crate) use self::seen::Seen;
use super::event::{CallId, Caller, Event, Purpose, Reply, Request, Slot};
use super::world::{World, ms};

const REQUESTS: Requests = Requests { api: ApiVersion::V1 };

/// How long the client goes on with a call.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a seed decides of its transactions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxnPlan {
    pub(crate) clients: usize,
    /// They rest no longer than other clients, and no longer than this.
    pub(crate) think_max: Duration,
    /// Their locks live so long without a heart beat.
    pub(crate) lock_ttl: Duration,
    /// Bytes of pessimistic locks that a region may have in memory.
    pub(crate) memory_bytes: usize,
    /// A client is killed about this often; never if zero.
    pub(crate) kill_interval: Duration,
    /// Versions live so long; for ever if zero.
    pub(crate) version_life: Duration,
    /// One request to a store in so many, reads aside, is late, beside what the network does; none
    /// if zero.
    pub(crate) late: u64,
    /// At most by so much: others may have seen to it meanwhile that it comes too late.
    pub(crate) late_by: Duration,
    /// Timestamps follow the clock in steps of so many milliseconds. Within one they are numbers
    /// without a gap, so that a commit timestamp that a store computes is often somebody's start.
    pub(crate) stamp_step_ms: u64,
    /// One transaction in so many reads at any replica; as often as other clients do if zero.
    pub(crate) anywhere: u64,
    /// One read or status check in so many is followed by a new leader of its region, who hears
    /// late from the placement driver; none if zero.
    pub(crate) restless: u64,
    /// Accounts of the bank, and places for notes.
    pub(crate) places: u64,
    /// What clients do how often.
    pub(crate) wishes: Wishes,
}

/// Of so many things that a client does, how many are what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    lists: u64,
    transfers: u64,
    notes: u64,
    looks: u64,
}

impl World {
    /// Transactional clients begin.
    pub(crate) fn begin_txns(&mut self) {
        let Some(plan) = self.plan.txn else { return };
        self.recorder = Recorder::new(clients::PLACES, plan.places);
        for client in 0..plan.clients {
            self.begin_worker(client);
        }
        if plan.collects()
            && let Some(worker) = self.worker(plan.collector())
        {
            self.executor.spawn(plan.collector(), Box::pin(worker.collect()));
        }
        if !plan.kill_interval.is_zero() {
            self.queue.after(plan.kill_interval, Event::KillClient);
        }
    }

    fn worker(&mut self, client: usize) -> Option<Worker> {
        let plan = self.plan.txn?;
        let (nodes, seed) = (self.nodes.len(), self.prng.next_u64());
        let link = SimLink::new(self.executor.port(client), nodes, seed);
        let patience = if self.healing { Duration::from_secs(60) } else { PATIENCE };
        let options = DbOptions { patience, ..DbOptions::default() };
        Some(Worker {
            db: Db::new(link, options),
            recorder: self.recorder.clone(),
            prng: self.prng.fork(),
            think: self.plan.think.min(plan.think_max),
            lock_ttl: plan.lock_ttl,
            version_life: plan.version_life,
            anywhere: if plan.anywhere > 0 { plan.anywhere } else { self.plan.replica_reads },
            wishes: plan.wishes,
        })
    }

    fn begin_worker(&mut self, client: usize) {
        if let Some(worker) = self.worker(client) {
            self.executor.spawn(client, Box::pin(worker.live()));
        }
    }

    /// A client ends in the middle of whatever it does, and another one takes its place.
    pub(crate) fn kill_client(&mut self) {
        let Some(plan) = self.plan.txn.filter(|_| !self.healing) else { return };
        let client = self.prng.below(plan.clients as u64) as usize;
        self.executor.kill(client);
        self.totals.clients_killed += 1;
        let now = self.now();
        self.trace.line(now, None, None, "client", || format!("transactional {client} killed"));
        self.begin_worker(client);
        let mean = plan.kill_interval.as_micros() as u64;
        let next = Duration::from_micros(mean / 2 + self.prng.below(mean));
        self.queue.after(next, Event::KillClient);
    }

    /// A transactional client that has anything left to do. The last one is who looks at everything
    /// in the end.
    pub(crate) fn busy_txn_client(&self) -> Option<usize> {
        let last = self.plan.txn.map_or(0, |plan| plan.collector());
        (0..=last).find(|client| !self.executor.is_idle(*client))
    }

    /// The last look at everything begins.
    pub(crate) fn begin_audit(&mut self) {
        let auditor = self.plan.txn.map_or(0, |plan| plan.auditor());
        if let Some(worker) = self.worker(auditor) {
            self.executor.spawn(auditor, Box::pin(worker.end()));
        }
    }

    /// Tasks that were woken will be polled.
    pub(crate) fn tasks_go_on(&mut self) {
        for task in self.executor.take_woken() {
            let delay = self.network.inside();
            self.queue.after(delay, Event::Task(task));
        }
    }

    /// A task is polled, and what it wants is begun.
    pub(crate) fn poll_task(&mut self, task: TaskId) {
        let now = self.now();
        self.executor.poll(task, now);
        for (leaf, client, ask) in self.executor.take_asks() {
            self.totals.txn_asks += 1;
            let caller = Caller::Task(client);
            match ask {
                Ask::Sleep(time) => self.queue.after(time, Event::Slept(leaf)),
                Ask::Call { to, request, patience } => {
                    self.call(caller, to, *request, Purpose::Leaf(leaf), patience);
                }
                Ask::Store { store, mut request, route, patience } => {
                    match self.slot_of(store) {
                        Some(to) => {
                            let to = self.elsewhere(&mut request, route).unwrap_or(to);
                            let now = self.now();
                            self.trace.line(now, Some(to), None, "txn", || {
                                format!("client {client}: {request:?}")
                            });
                            let request = Request::Store(request);
                            self.call_twice(caller, to, request, Purpose::Leaf(leaf), patience);
                        }
                        // No address is known.
                        None => self.executor.answer(leaf, Some(Reply::NotLeader)),
                    }
                }
            }
        }
    }

    /// A read goes to any replica of its region, as far as somebody leads it.
    fn elsewhere(&mut self, request: &mut StoreRequest, route: Route) -> Option<Slot> {
        // Whoever is told that a replica does not know enough comes to the leader after some tries.
        if route == Route::Leader || (route == Route::Past && self.prng.one_in(4)) {
            return None;
        }
        let context = request.context_mut();
        let region = RegionId(context.region_id);
        let views = self.nodes.iter().filter_map(|node| node.views()?.get(region));
        let region = views.max_by_key(|view| view.term)?.region.clone();
        let peer = region.peers[self.prng.below(region.peers.len() as u64) as usize];
        context.peer = Some(proto::peer_to_proto(&peer));
        (context.replica_read, context.stale_read) =
            (route == Route::Replica, route == Route::Past);
        self.slot_of(peer.store_id)
    }

    /// What is asked of the placement driver, other than timestamps.
    pub(crate) fn driver_call(
        &mut self,
        slot: Slot,
        (id, caller): (CallId, Caller),
        request: PlacementRequest,
    ) {
        let led = self.nodes[slot].core().and_then(|core| core.host.led.as_mut());
        let Some(led) = led else { return self.answer(slot, caller, id, Reply::NotLeader) };
        let reply = match request {
            PlacementRequest::GetRegion(request) => {
                led.placement.get_region(&request).map(PlacementReply::GetRegion)
            }
            PlacementRequest::GetPrevRegion(request) => {
                led.placement.get_prev_region(&request).map(PlacementReply::GetPrevRegion)
            }
            PlacementRequest::ScanRegions(request) => {
                led.placement.scan_regions(&request).map(PlacementReply::ScanRegions)
            }
            PlacementRequest::Tso(_) => unreachable!("timestamps come from elsewhere"),
        };
        let reply = match reply {
            Ok(reply) => Reply::Driver(Box::new(reply)),
            Err(_) => Reply::Refused,
        };
        self.answer(slot, caller, id, reply);
    }

    /// A store is asked something by a transactional client.
    pub(crate) fn serve_store(
        &mut self,
        slot: Slot,
        call: (CallId, Caller),
        mut request: StoreRequest,
    ) {
        let now = self.now();
        self.trace.line(now, Some(slot), None, "txn", || format!("call {}: {request:?}", call.0));
        let context = std::mem::take(request.context_mut());
        let kind = Kind::of(&request);
        match parse(&context, request, self.local(slot)) {
            Ok(Parsed::Command(kind, command)) => {
                self.take_command(slot, call, header_of(&context), kind, command);
            }
            Ok(Parsed::Read(from, read, wanted)) => {
                let header = header_of(&context);
                let reading = TxnReading::new(call, kind, (header, from), read, wanted);
                self.take_read(slot, reading);
            }
            Err(error) => panic!("the client's requests are sound: {error}"),
        }
    }
}

/// What a request wants.
enum Parsed {
    Command(Kind, Command),
    Read(ReadFrom, txn::mvcc::ReadOptions, Wanted),
}

fn parse(
    context: &Context,
    request: StoreRequest,
    now: base::Instant,
) -> Result<Parsed, BadRequest> {
    let kind = Kind::of(&request);
    let command = match request {
        StoreRequest::KvPrewrite(request) => REQUESTS.prewrite(context, request)?,
        StoreRequest::KvPessimisticLock(request) => {
            let lock = REQUESTS.lock(context, request, now)?;
            let shape = Shape { read: lock.action.read, force: lock.action.allow_conflict };
            return Ok(Parsed::Command(Kind::Lock(shape), Command::Lock(lock)));
        }
        StoreRequest::KvPessimisticRollback(request) => {
            Command::Unlock(REQUESTS.unlock(context, request)?)
        }
        StoreRequest::KvTxnHeartBeat(request) => REQUESTS.heart_beat(context, request)?,
        StoreRequest::KvCheckTxnStatus(request) => REQUESTS.check_txn_status(context, request)?,
        StoreRequest::KvCheckSecondaryLocks(request) => {
            REQUESTS.check_secondary_locks(context, request)?
        }
        StoreRequest::KvCommit(request) => REQUESTS.commit(context, request)?,
        StoreRequest::KvBatchRollback(request) => REQUESTS.rollback(context, request)?,
        StoreRequest::KvResolveLock(request) => {
            Command::Resolve(REQUESTS.resolve(context, request)?)
        }
        request => return parse_read(context, request),
    };
    Ok(Parsed::Command(kind, command))
}

fn parse_read(context: &Context, request: StoreRequest) -> Result<Parsed, BadRequest> {
    let (ts, wanted) = match request {
        StoreRequest::KvGet(kv::GetRequest { key, version, .. }) => {
            (version, Wanted::Key(REQUESTS.key(context, key)?))
        }
        StoreRequest::KvBatchGet(kv::BatchGetRequest { keys, version, .. }) => {
            (version, Wanted::Keys(REQUESTS.keys(context, keys)?))
        }
        StoreRequest::KvScan(request) => {
            let version = request.version;
            let (scan, range) = REQUESTS.scan(context, request)?;
            (version, Wanted::Scan(scan, range))
        }
        StoreRequest::KvScanLock(request) => {
            let (start, end, limit) = (request.start_key, request.end_key, request.limit as usize);
            let max_ts = TimeStamp(request.max_version);
            (request.max_version, Wanted::Locks { start, end, max_ts, limit })
        }
        other => unreachable!("{} is not served here", other.name()),
    };
    let read = REQUESTS.read_options(context, ts);
    Ok(Parsed::Read(read_from(context, TimeStamp(ts)), read, wanted))
}

/// The last look at everything takes no longer.
const AUDIT_LIMIT: Duration = Duration::from_secs(60);

/// Milliseconds after which the same request comes once more, if it does.
const ENCORE_MS: [u64; 4] = [3, 200, 2_000, 5_000];

impl World {
    /// Like [`World::call`], but what is sent may be late, and arrive a second time, and much
    /// later.
    fn call_twice(
        &mut self,
        caller: Caller,
        to: Slot,
        request: Request,
        purpose: Purpose,
        patience: Duration,
    ) {
        let again = self.network.duplicates.is_some_and(|n| self.prng.one_in(n));
        let copy = again.then(|| request.clone());
        let late = match &request {
            Request::Store(request) if !link::is_read(request) => self.lateness(),
            _ => Duration::ZERO,
        };
        self.last_encore = self.last_encore.max(self.now() + late);
        let id = self.call_late(caller, to, request, purpose, (late, patience));
        if let Some(copy) = copy {
            self.totals.encores += 1;
            let after = ENCORE_MS[self.prng.below(ENCORE_MS.len() as u64) as usize];
            let delay = ms(after) + ms(self.prng.below(after));
            self.last_encore = self.last_encore.max(self.now() + delay);
            self.queue.after(delay, Event::Call(to, id, caller, Box::new(copy)));
        }
    }

    /// How late a request to a store is.
    fn lateness(&mut self) -> Duration {
        let Some(plan) = self.plan.txn.filter(|plan| plan.late > 0 && !self.healing) else {
            return Duration::ZERO;
        };
        match self.prng.one_in(plan.late) {
            true => Duration::from_micros(self.prng.below(plan.late_by.as_micros() as u64)),
            false => Duration::ZERO,
        }
    }
}

impl TxnPlan {
    /// Those of a run that has them.
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        let pick = |prng: &mut Prng, of: &[u64]| of[prng.below(of.len() as u64) as usize];
        let drawn = Self {
            clients: 2 + prng.below(4) as usize,
            think_max: Duration::MAX,
            lock_ttl: ms(pick(prng, &[400, 1_000, 3_000])),
            memory_bytes: pick(prng, &[0, 1_000, 1 << 20]) as usize,
            kill_interval: ms(pick(prng, &[0, 500, 2_000])),
            version_life: gc::draw_life(prng),
            late: pick(prng, &[0, 0, 16]),
            late_by: ms(pick(prng, &[30, 300, 3_000])),
            stamp_step_ms: pick(prng, &[1, 50]),
            anywhere: 0,
            restless: 0,
            places: 6,
            wishes: Wishes { lists: 5, transfers: 3, notes: 2, looks: 2 },
        };
        if prng.one_in(2) { drawn.rough(prng) } else { drawn }
    }

    /// The same where everybody is in everybody's way: few keys, locks that live for a moment,
    /// requests that come too late, timestamps without gaps. Each by itself is harmless.
    fn rough(self, prng: &mut Prng) -> Self {
        let pick = |prng: &mut Prng, of: &[u64]| of[prng.below(of.len() as u64) as usize];
        let all = [
            Wishes { lists: 5, transfers: 3, notes: 2, looks: 2 },
            Wishes { lists: 0, transfers: 10, notes: 0, looks: 1 },
            Wishes { lists: 0, transfers: 1, notes: 20, looks: 1 },
        ];
        Self {
            clients: 4 + prng.below(4) as usize,
            think_max: ms(pick(prng, &[5, 30])),
            lock_ttl: ms(pick(prng, &[4, 30, 100])),
            late: pick(prng, &[3, 6]),
            late_by: ms(pick(prng, &[100, 300, 1_000])),
            stamp_step_ms: pick(prng, &[5, 50]),
            anywhere: pick(prng, &[0, 2]),
            restless: pick(prng, &[0, 12]),
            places: 3,
            wishes: all[prng.below(all.len() as u64) as usize],
            ..self
        }
    }

    /// Whether old versions go.
    pub(crate) fn collects(&self) -> bool {
        !self.version_life.is_zero()
    }

    /// Who looks at everything in the end, as a client.
    fn auditor(&self) -> usize {
        self.clients
    }

    /// Who moves the safe point on, as a client.
    fn collector(&self) -> usize {
        self.clients + 1
    }
}

impl World {
    /// What happens to transactions.
    pub(crate) fn happen_to_txns(&mut self, event: Event) {
        match event {
            Event::Task(task) => self.poll_task(task),
            Event::Slept(leaf) => self.executor.answer(leaf, None),
            Event::KillClient => self.kill_client(),
            Event::Command(slot, life, id) if self.nodes[slot].life == life => {
                self.command_runs(slot, id);
            }
            Event::TxnRead(slot, life, reading) if self.nodes[slot].life == life => {
                self.txn_read_on(slot, *reading);
            }
            Event::Detect(slot, from, life, detection) => {
                self.detect(slot, from, life, *detection);
            }
            Event::Deadlock(slot, life, told) if self.nodes[slot].life == life => {
                self.deadlock(slot, &told.0, &told.1);
            }
            // Of a process that has ended.
            _ => {}
        }
    }

    /// The histories of transactions are judged.
    pub(crate) fn check_txns(&mut self) {
        if self.plan.txn.is_none() {
            return;
        }
        let figures = self.recorder.check();
        let totals = &mut self.totals;
        totals.txns_committed = figures.committed;
        totals.txns_failed = figures.failed;
        totals.txns_unknown = figures.unknown;
        totals.sums = figures.sums;
        totals.txns_late = figures.late;
    }

    /// All clients have ended. Their locks can be resolved, and what is there is what they were
    /// told.
    pub(crate) fn heal_txns(&mut self) {
        if self.plan.txn.is_none() {
            return;
        }
        // What is still under way arrives.
        let last = self.last_encore.max(self.now());
        self.run_until(last + ms(1_000));
        self.begin_audit();
        let limit = self.now() + AUDIT_LIMIT;
        self.until_well(limit);
        self.check_no_locks();
    }
}
