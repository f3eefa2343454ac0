//! The home of the placement driver on a node: the real state machine of crate `placement`, there
//! while the node leads the system region.
//!
//! Writes take turns: plan, propose the rows in this term only, commit once they are applied,
//! answer. Timestamps come from memory and leave under the lease, or when the group was asked after
//! they were taken. As in crate `server`.

use std::collections::VecDeque;

use base::{Instant, KeyRange, RegionId, Term, TimeStamp};
use bytes::Bytes;
use placement::{Change, Order, Placement, PlacementError, RowChanges, Settings, Step, TsoWait};
use proto::pdpb;
use storage::engine::{Cf, Engine, IterOptions};
use storage::keys;
use store::{
    ChangePeersRequest, MergeRequest, Proposal, ReadRequest, RegionReport, RequestHeader,
    ShardInput, TransferRequest, WriteResult, Writes,
};

use super::boot::{CLUSTER, known_region};
use super::event::{CallId, Caller, Event, Reply, Request, Slot, Timer};
use super::process::reply_to;
use super::world::{Wait, World, ms};

/// Calls that may wait for their turn.
const WRITES_MAX: usize = 1_024;

/// A loaded placement driver and the term it may write in.
pub(crate) struct Led {
    pub(crate) placement: Placement,
    pub(crate) term: Term,
    header: RequestHeader,
}

/// A write that waits for its turn.
pub(crate) enum Plan {
    Call(CallId, Caller, Box<Request>),
    Orders(Vec<RegionId>),
    Window(u32),
}

/// What is to be done once the rows are applied.
enum Then {
    Answer(CallId, Caller, Reply),
    Orders(Vec<Order>),
    Stamps,
}

#[derive(Default)]
pub(crate) struct Host {
    pub(crate) led: Option<Led>,
    waiting: VecDeque<Plan>,
    writing: Option<(RowChanges, Then)>,
    /// Who waits for timestamps.
    stamps: VecDeque<(CallId, Caller, u32)>,
    /// Timestamps that were taken without a lease; and those about which the group is asked.
    unsure: Vec<(CallId, Caller, TimeStamp)>,
    asked: Vec<(CallId, Caller, TimeStamp)>,
    look_at: Option<Instant>,
}

impl World {
    /// This node leads the system region in the report's term, and has applied everything before.
    pub(crate) fn lead(&mut self, slot: Slot, report: &RegionReport) {
        let (now, local) = (self.now(), self.local(slot));
        let wall_ms = self.nodes[slot].clock.wall_ms(now);
        let engine = self.nodes[slot].machine.engine.clone();
        let max_store_down = self.plan.max_store_down;
        let Some(core) = self.nodes[slot].core() else { return };
        if core.host.led.as_ref().is_some_and(|led| led.term == report.term) {
            return;
        }
        let rows = rows(&engine);
        let mut placement = Placement::load(CLUSTER, rows, local, wall_ms)
            .unwrap_or_else(|error| panic!("placement loads: node {slot}: {error}"));
        #[allow(clippy::needless_update, reason = "there may be more settings")]
        placement.configure(Settings { max_store_down, ..Settings::default() });
        let RegionReport { region, leader, term, .. } = report;
        let header =
            RequestHeader { term: *term, ..RequestHeader::new(region.id, *leader, region.epoch) };
        core.host =
            Host { led: Some(Led { placement, term: report.term, header }), ..Host::default() };
        self.totals.placement_terms += 1;
        let term = report.term;
        self.trace.line(now, Some(slot), None, "placement", || format!("runs here, term {term}"));
        self.look_soon(slot, 20);
    }

    /// This node no longer leads the system region.
    pub(crate) fn step_down(&mut self, slot: Slot) {
        if let Some(core) = self.nodes[slot].core() {
            core.host = Host::default();
        }
    }

    fn look_soon(&mut self, slot: Slot, delay_ms: u64) {
        let (at, life) = (self.now() + ms(delay_ms), self.nodes[slot].life);
        let Some(core) = self.nodes[slot].core() else { return };
        if core.host.led.is_some() && core.host.look_at.is_none_or(|look| look > at) {
            core.host.look_at = Some(at);
            self.queue.at(at, Event::Timer(slot, life, Timer::Look));
        }
    }

    /// The placement driver looks at its regions.
    pub(crate) fn look(&mut self, slot: Slot) {
        let (now, local) = (self.now(), self.local(slot));
        let Some(core) = self.nodes[slot].core() else { return };
        if core.host.look_at.is_none_or(|at| at > now) {
            return;
        }
        core.host.look_at = None;
        let Some(led) = &mut core.host.led else { return };
        let regions = led.placement.regions_to_check(local);
        core.host.waiting.push_back(Plan::Orders(regions));
        self.host_goes_on(slot);
        self.look_soon(slot, 1_000);
    }

    /// Something is asked of the placement driver.
    pub(crate) fn placement_call(
        &mut self,
        slot: Slot,
        id: CallId,
        caller: Caller,
        request: Box<Request>,
    ) {
        let (now, local) = (self.now(), self.local(slot));
        let wall_ms = self.nodes[slot].clock.wall_ms(now);
        let Some(led) = self.nodes[slot].core().and_then(|core| core.host.led.as_mut()) else {
            return self.answer(slot, caller, id, Reply::NotLeader);
        };
        let reply = match &*request {
            Request::Alive => Reply::Alive(led.term),
            Request::GetRegion(key) => {
                let (header, region_key) = (super::boot::header(), key.clone());
                let request = pdpb::GetRegionRequest { header, region_key, ..Default::default() };
                refused_or(led.placement.get_region(&request), |r| {
                    let known = known_region(&r);
                    self.checks
                        .promises
                        .told_of_region(led.term, known.as_ref().map(|(region, _)| region));
                    Reply::Region(known)
                })
            }
            Request::SafePoint => {
                let request = pdpb::GetGcSafePointRequest { header: super::boot::header() };
                let found = led.placement.get_gc_safe_point(&request);
                refused_or(found, |r| Reply::Timestamp(TimeStamp(r.safe_point)))
            }
            Request::IsBootstrapped => Reply::Bootstrapped(led.placement.is_bootstrapped()),
            Request::StoreHeartbeat(heartbeat) => {
                let taken = led.placement.store_heartbeat(heartbeat, local, wall_ms);
                refused_or(taken, |_| Reply::Done)
            }
            Request::RegionHeartbeat(heartbeat) => {
                let taken = led.placement.region_heartbeat(heartbeat);
                self.look_soon(slot, 20);
                refused_or(taken, |()| Reply::Done)
            }
            Request::Timestamps(count) => {
                let core = self.nodes[slot].core().expect("it was just there");
                core.host.stamps.push_back((id, caller, *count));
                return self.give_stamps(slot);
            }
            _ => {
                let core = self.nodes[slot].core().expect("it was just there");
                if core.host.waiting.len() < WRITES_MAX {
                    core.host.waiting.push_back(Plan::Call(id, caller, request));
                }
                return self.host_goes_on(slot);
            }
        };
        self.answer(slot, caller, id, reply);
    }

    /// Timestamps leave, if there are any: at once under the lease.
    pub(crate) fn give_stamps(&mut self, slot: Slot) {
        self.take_stamps(slot);
        self.confirm(slot);
    }

    fn take_stamps(&mut self, slot: Slot) {
        let (now, local) = (self.now(), self.local(slot));
        let (wall_ms, life) = (self.nodes[slot].clock.wall_ms(now), self.nodes[slot].life);
        // What a driver with a coarse clock reads.
        let step_ms = self.plan.txn.map_or(1, |plan| plan.stamp_step_ms);
        let wall_ms = wall_ms - wall_ms % step_ms;
        loop {
            let Some(core) = self.nodes[slot].core() else { return };
            let Some(led) = &mut core.host.led else { return };
            let Some((id, caller, count)) = core.host.stamps.front().copied() else { return };
            let view = core.views.get(RegionId::SYSTEM);
            let leased = view.is_some_and(|v| v.term == led.term && v.has_lease(local));
            match led.placement.timestamps(wall_ms, count) {
                Ok(timestamp) => {
                    core.host.stamps.pop_front();
                    if !leased {
                        core.host.unsure.push((id, caller, timestamp));
                        continue;
                    }
                    self.answer(slot, caller, id, Reply::Timestamp(timestamp));
                }
                Err(TsoWait::NextMillisecond) => {
                    return self.queue.after(ms(1), Event::Timer(slot, life, Timer::Stamps));
                }
                Err(TsoWait::Window) => {
                    core.host.waiting.push_back(Plan::Window(count));
                    return self.host_goes_on(slot);
                }
            }
        }
    }

    /// Asks the group whether this node leads it still, for timestamps that were taken without a
    /// lease: if it does now it did when they were taken.
    fn confirm(&mut self, slot: Slot) {
        let number = self.next_number();
        let Some(core) = self.nodes[slot].core() else { return };
        let Host { led: Some(led), unsure, asked, .. } = &mut core.host else { return };
        if unsure.is_empty() || !asked.is_empty() {
            return;
        }
        std::mem::swap(unsure, asked);
        let (header, term) = (led.header, led.term);
        let reply = reply_to(&self.results, number);
        self.wait_as(slot, number, Wait::Confirm(term));
        let request = ReadRequest { header, any_replica: false, reply };
        self.tell(slot, ShardInput::ReadIndex(request));
    }

    pub(crate) fn confirmed(&mut self, slot: Slot, term: Term, result: &WriteResult) {
        let Some(core) = self.nodes[slot].core() else { return };
        if core.host.led.as_ref().is_none_or(|led| led.term != term) {
            return;
        }
        let asked = std::mem::take(&mut core.host.asked);
        if result.is_err() {
            core.host.unsure.clear();
            return core.host.stamps.clear();
        }
        for (id, caller, timestamp) in asked {
            self.answer(slot, caller, id, Reply::Timestamp(timestamp));
        }
        self.confirm(slot);
    }

    /// The next write, if none is on its way.
    fn host_goes_on(&mut self, slot: Slot) {
        loop {
            let (now, local) = (self.now(), self.local(slot));
            let wall_ms = self.nodes[slot].clock.wall_ms(now);
            let number = self.next_number();
            let results = self.results.clone();
            let Some(core) = self.nodes[slot].core() else { return };
            let host = &mut core.host;
            let Some(led) = host.led.as_ref().filter(|_| host.writing.is_none()) else { return };
            let Some(plan) = host.waiting.pop_front() else { return };
            let planned = plan_rows(&led.placement, plan, local, wall_ms);
            let (rows, then) = match planned {
                Ok(planned) => planned,
                Err(refused) => {
                    let (id, caller, reply) = *refused;
                    self.answer(slot, caller, id, reply);
                    continue;
                }
            };
            if rows.is_empty() {
                self.host_wrote(slot, then);
                continue;
            }
            let mut writes = Writes::new();
            for (key, value) in rows.iter() {
                match value {
                    Some(value) => writes.put(Cf::Default, key, value),
                    None => writes.delete(Cf::Default, key),
                }
            }
            let (header, term) = (led.header, led.term);
            host.writing = Some((rows, then));
            let reply = reply_to(&results, number);
            let proposal = Proposal { header, writes, only_in_term: Some(term), reply };
            self.wait_as(slot, number, Wait::Rows(term));
            return self.tell(slot, ShardInput::Propose(proposal));
        }
    }

    /// The rows of the write on its way are applied, or not.
    pub(crate) fn rows_written(&mut self, slot: Slot, term: Term, result: &WriteResult) {
        let Some(core) = self.nodes[slot].core() else { return };
        if core.host.led.as_ref().is_none_or(|led| led.term != term) {
            return;
        }
        let (rows, then) = core.host.writing.take().expect("one is on its way");
        match result {
            Ok(()) => {
                let led = core.host.led.as_mut().expect("seen above");
                led.placement.commit(&rows);
                self.host_wrote(slot, then);
            }
            Err(store::RegionError::Undetermined) => return self.step_down(slot),
            Err(_) => {
                if let Then::Answer(id, caller, _) = then {
                    self.answer(slot, caller, id, Reply::NotLeader);
                }
            }
        }
        self.host_goes_on(slot);
    }

    fn host_wrote(&mut self, slot: Slot, then: Then) {
        let local = self.local(slot);
        match then {
            Then::Answer(id, caller, reply) => self.answer(slot, caller, id, reply),
            Then::Stamps => self.give_stamps(slot),
            Then::Orders(planned) => {
                let Some(core) = self.nodes[slot].core() else { return };
                let Some(led) = &mut core.host.led else { return };
                for order in led.placement.start_orders(planned, local) {
                    self.send_order(slot, order);
                }
            }
        }
    }

    /// An order travels to the leader's store, as the answer to a heartbeat would.
    fn send_order(&mut self, from: Slot, order: Order) {
        let Some(&to) = self.stores.get(&order.leader.store_id) else { return };
        let wire = order.to_wire(placement::header::success(CLUSTER));
        let order = Order::from_wire(&wire).expect("an order comes back as it was");
        self.totals.orders += 1;
        let (first, second) = self.network.between(from, to);
        for delay in [first, second].into_iter().flatten() {
            self.queue.after(delay, Event::Order(to, Box::new(order.clone())));
        }
    }

    /// A node is ordered to do something with a region that it leads.
    pub(crate) fn obey(&mut self, slot: Slot, order: Order) {
        let now = self.now();
        let Order { region_id, epoch, leader, step } = order;
        self.trace.line(now, Some(slot), Some(region_id), "order", || format!("{step:?}"));
        let header = RequestHeader::new(region_id, leader, epoch);
        let number = self.wait(slot, Wait::Nobody);
        let reply = reply_to(&self.results, number);
        let input = match step {
            Step::ChangePeers(changes) => {
                ShardInput::ChangePeers(ChangePeersRequest { header, changes, reply })
            }
            Step::TransferLeader(to) => {
                ShardInput::TransferLeader(TransferRequest { header, to: to.id, reply })
            }
            Step::Merge(target) => ShardInput::Merge(MergeRequest { header, target, reply }),
            // Nothing here makes the placement driver want one.
            Step::Split(_) => return,
        };
        self.tell(slot, input);
    }
}

type Planned = Result<(RowChanges, Then), Box<(CallId, Caller, Reply)>>;

fn plan_rows(placement: &Placement, plan: Plan, local: Instant, wall_ms: u64) -> Planned {
    let (id, caller, request) = match plan {
        Plan::Orders(regions) => {
            return Ok(match placement.plan_orders(&regions, local) {
                Ok(Change { rows, reply }) => (rows, Then::Orders(reply)),
                Err(_) => (RowChanges::default(), Then::Orders(Vec::new())),
            });
        }
        Plan::Window(count) => {
            return Ok((placement.plan_tso_window(wall_ms, count).rows, Then::Stamps));
        }
        Plan::Call(id, caller, request) => (id, caller, request),
    };
    let header = super::boot::header();
    let planned = match *request {
        Request::AllocId => {
            let request = pdpb::AllocIdRequest { header, count: 1 };
            placement.alloc_id(&request).map(|c| (c.rows, Reply::Id(c.reply.id)))
        }
        Request::MoveSafePoint(ts) => {
            let request = pdpb::UpdateGcSafePointRequest { header, safe_point: ts.0 };
            placement.update_gc_safe_point(&request, wall_ms).map(|c| (c.rows, Reply::Done))
        }
        Request::Bootstrap(request) => {
            placement.bootstrap(&request, wall_ms).map(|c| (c.rows, Reply::Done))
        }
        Request::PutStore(request) => placement.put_store(&request).map(|c| (c.rows, Reply::Done)),
        Request::AskSplit(request) => {
            placement.ask_batch_split(&request).map(|c| (c.rows, Reply::SplitIds(c.reply.ids)))
        }
        other => unreachable!("{other:?} is no write"),
    };
    match planned {
        Ok((rows, reply)) => Ok((rows, Then::Answer(id, caller, reply))),
        Err(error) => Err(Box::new((id, caller, refusal(&error)))),
    }
}

fn refused_or<R>(result: Result<R, PlacementError>, reply: impl FnOnce(R) -> Reply) -> Reply {
    match result {
        Ok(result) => reply(result),
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &PlacementError) -> Reply {
    let kind = error.in_header().map(|error| error.r#type());
    match kind {
        Some(pdpb::ErrorType::AlreadyBootstrapped) => Reply::AlreadyBootstrapped,
        _ => Reply::Refused,
    }
}

/// The placement driver's rows, as far as the replica here has applied them.
fn rows(engine: &dyn Engine) -> Vec<(Bytes, Bytes)> {
    let (start, end) = keys::data_range(RegionId::SYSTEM, &KeyRange::all());
    let snapshot = engine.snapshot();
    let options = IterOptions::within(KeyRange::new(start, end));
    let mut cursor = snapshot.iter(Cf::Default, options).expect("readable");
    let mut rows = Vec::new();
    let mut valid = cursor.seek_to_first().expect("readable");
    while valid {
        let key = keys::origin_key(cursor.key()).expect("the range has the prefix");
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(cursor.value())));
        valid = cursor.next().expect("readable");
    }
    rows
}
