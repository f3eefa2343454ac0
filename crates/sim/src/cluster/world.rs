//! The whole: nodes, network, clients and time, and what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Instant, Prng, RegionId, StoreId, Term};
use bytes::Bytes;
use store::{Outbox, RaftMessage, ShardInput, SnapshotCredit, StoreAlive, WriteResult};
use txn::latches::CommandId;
use txn::scheduler::Flight;

use super::admin::AdminKind;
use super::checks::Checks;
use super::client::Client;
use super::event::{Actor, CallId, Caller, Event, Purpose, Reply, Request, Slot, Timer};
use super::faults::Faults;
use super::history::History;
use super::network::Network;
use super::plan::{Options, Plan};
use super::process::{Node, Results};
use super::queue::Queue;
use super::totals::Totals;
use super::trace::Trace;
use super::txn::{Executor, Fates, Floors, Recorder, Seen, TxnReading};

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Events that may wait. Far more than a run ever has.
const EVENTS_MAX: usize = 200_000;

/// Of so many promised votes one is followed by an end of the process, where there may be one.
const PROMISES: u64 = 24;

/// What to do when the store answers.
pub(crate) enum Wait {
    /// Nothing.
    Nobody,
    /// The bootstrap goes on.
    Boot(Option<RegionId>),
    /// A client's write; and the keys that it holds.
    Write(CallId, Caller, Vec<Bytes>, super::event::KvAnswer),
    /// A client's read that asks the group first.
    Read(Box<super::serve::Reading>),
    /// Rows of the placement driver, of this term.
    Rows(Term),
    /// Whether the placement driver of this term is still there.
    Confirm(Term),
    Admin(AdminKind),
    /// A transactional command that asks whether this node leads.
    TxnIndex(CommandId),
    /// A transactional command's writes.
    Txn(CommandId, Box<(txn::scheduler::Reply, Flight)>),
    /// A transactional read that asks the group.
    TxnRead(Box<TxnReading>),
    /// A replica elsewhere is about to read.
    Announced(CallId, Caller),
    /// Locks in memory are proposed, before a step that waits.
    HandOver(RegionId, Term, u64),
}

/// A call on its way.
pub(crate) struct Pending {
    caller: Caller,
    to: Slot,
    purpose: Purpose,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) prng: Prng,
    pub(crate) queue: Queue,
    pub(crate) nodes: Vec<Node>,
    /// Where each store lives.
    pub(crate) stores: BTreeMap<StoreId, Slot>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    pub(crate) checks: Checks,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    pub(crate) totals: Totals,
    pub(crate) results: Results,
    pub(crate) executor: Executor,
    pub(crate) recorder: Recorder,
    pub(crate) fates: Fates,
    pub(crate) floors: Floors,
    pub(crate) seen: Seen,
    /// When the last request comes a second time.
    pub(crate) last_encore: Instant,
    /// Empty between turns of shards.
    pub(crate) outbox: Outbox,
    waits: BTreeMap<u64, (Slot, u64, Wait)>,
    calls: BTreeMap<CallId, Pending>,
    numbers: u64,
    /// The cluster was founded: nobody does that again.
    pub(crate) founded: bool,
    /// Stores that were lost with their machine.
    pub(crate) lost_stores: BTreeSet<StoreId>,
    /// Clients and faults have ended.
    pub(crate) healing: bool,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut prng = Prng::new(seed);
        let plan = Plan::new(options, &mut prng.fork());
        let mut clocks = prng.fork();
        let mut drift = || match plan.drift_ppm {
            0 => 0,
            most => most - clocks.below(2 * most as u64 + 1) as i64,
        };
        let nodes = (0..plan.nodes).map(|_| Node::new(drift())).collect();
        let network = Network::new(prng.fork(), plan.message_delay);
        let mut seeds = prng.fork();
        let clients = (0..plan.clients).map(|id| Client::new(id, &plan, seeds.fork())).collect();
        Self {
            nodes,
            network,
            clients,
            history: History::default(),
            checks: Checks::new(options.thorough, plan.txn.is_some_and(|plan| plan.collects())),
            faults: Faults::new(prng.fork()),
            trace: Trace::new(options.trace.clone()),
            queue: Queue::default(),
            stores: BTreeMap::new(),
            totals: Totals::default(),
            results: Results::default(),
            executor: Executor::default(),
            recorder: Recorder::default(),
            fates: Fates::default(),
            floors: Floors::default(),
            seen: Seen::default(),
            last_encore: Instant::ZERO,
            outbox: Outbox::default(),
            waits: BTreeMap::new(),
            calls: BTreeMap::new(),
            numbers: 0,
            founded: false,
            lost_stores: BTreeSet::new(),
            healing: false,
            prng: prng.fork(),
            plan,
        }
    }

    /// One more client, which waits for what it is told.
    pub(crate) fn add_client(&mut self) {
        let (id, prng) = (self.clients.len(), self.prng.fork());
        let mut client = Client::new(id, &self.plan, prng);
        client.rest_until_told();
        self.clients.push(client);
    }

    pub(crate) fn now(&self) -> Instant {
        self.queue.now()
    }

    /// What the monotonic clock of a node shows.
    pub(crate) fn local(&self, slot: Slot) -> Instant {
        self.nodes[slot].clock.local(self.now())
    }

    /// Everything happens up to `end`.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while let Some(event) = self.queue.next(end) {
            self.totals.events += 1;
            assert!(self.queue.len() < EVENTS_MAX, "bounded queues: too many events wait");
            self.happen(event);
            self.settle();
            self.tasks_go_on();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(slot, life, actor) => {
                if self.nodes[slot].life == life {
                    self.turn(slot, actor);
                }
            }
            Event::Raft(slot, message, files) => self.arrive(slot, *message, files),
            Event::Alive(slot, alive) => {
                if self.nodes[slot].store_id == Some(alive.to) && !self.is_flooded(slot) {
                    self.tell(slot, ShardInput::Alive(alive));
                }
            }
            Event::Credit(slot, credit) => {
                if self.nodes[slot].store_id == Some(credit.to.store_id) && !self.is_flooded(slot) {
                    self.tell(slot, ShardInput::Credit(credit));
                }
            }
            Event::SnapshotSent { slot, life, message, arrived } => {
                if self.nodes[slot].life == life {
                    let (region_id, to) = (message.region_id, message.to.id);
                    self.tell(slot, ShardInput::SnapshotSent { region_id, to, arrived });
                }
            }
            Event::Unreachable(slot, life, store) => {
                if self.nodes[slot].life == life {
                    self.tell(slot, ShardInput::Unreachable(store));
                }
            }
            Event::Call(slot, id, caller, request) => self.called(slot, id, caller, request),
            Event::Reply(id, reply) => self.replied(id, Some(*reply)),
            Event::Timeout(id) => self.replied(id, None),
            Event::Order(slot, order) => self.obey(slot, *order),
            Event::Timer(slot, life, timer) => {
                if self.nodes[slot].life == life && self.nodes[slot].process.is_some() {
                    self.timer(slot, timer);
                }
            }
            Event::Read(slot, life, reading) => {
                if self.nodes[slot].life == life {
                    self.read_on(slot, *reading);
                }
            }
            Event::Client(client) => self.client_step(client),
            Event::Start(slot, life) => {
                if self.nodes[slot].life == life && self.nodes[slot].process.is_none() {
                    self.start(slot);
                }
            }
            Event::Fault => self.fault(),
            Event::Mend(mend) => self.mend(mend),
            event => self.happen_to_regions(event),
        }
    }

    /// What is asked for regions.
    fn happen_to_regions(&mut self, event: Event) {
        match event {
            Event::Admin => self.admin(),
            Event::AdminOn(slot) => self.something_on(slot),
            Event::AdminOf(region) => self.admin_of(region),
            Event::MergeAgain(region, tries) => self.merge_again(region, tries),
            Event::CutRegion(region) => self.cut_region(region),
            Event::Withdraw(whole, range, store) => self.withdraw(whole, &range, store),
            Event::CutOff(slot) => self.cut_off(slot),
            Event::HandOver(region, to) => self.hand_over(region, to),
            event => self.happen_to_txns(event),
        }
    }

    fn timer(&mut self, slot: Slot, timer: Timer) {
        let paused = self.nodes[slot].paused_until;
        if paused > self.now() {
            let life = self.nodes[slot].life;
            return self.queue.at(paused, Event::Timer(slot, life, timer));
        }
        match timer {
            Timer::Boot => self.boot_timer(slot),
            Timer::Beat => self.beat(slot),
            Timer::Look => self.look(slot),
            Timer::Stamps => self.give_stamps(slot),
            Timer::DiskWatch => self.disk_watch(slot),
            Timer::Lines => self.lines_timer(slot),
            Timer::MaxTs(region) => self.ask_max_ts(slot, region),
            Timer::Past => self.ask_past(slot),
            Timer::SafePoint => self.ask_safe_point(slot),
            Timer::Sweep => self.sweep_on(slot),
        }
    }

    /// Answers of the store go to those who wait for them.
    fn settle(&mut self) {
        loop {
            let mut results = std::mem::take(&mut *self.results.lock().expect("one thread"));
            if results.is_empty() {
                return;
            }
            for (number, result) in results.drain(..) {
                let Some((slot, life, wait)) = self.waits.remove(&number) else { continue };
                if self.nodes[slot].life == life && self.nodes[slot].process.is_some() {
                    self.settled(slot, wait, result);
                }
            }
        }
    }

    fn settled(&mut self, slot: Slot, wait: Wait, result: WriteResult) {
        match wait {
            Wait::Nobody => {}
            Wait::Boot(remove) => self.boot_written(slot, remove),
            Wait::Write(id, caller, keys, answer) => {
                if let Some(core) = self.nodes[slot].core() {
                    core.latches.retain(|key| !keys.contains(key));
                }
                self.answer(slot, caller, id, Reply::Kv(result.map(|()| answer)));
            }
            Wait::Read(reading) => self.read_asked(slot, *reading, result),
            Wait::Rows(term) => self.rows_written(slot, term, &result),
            Wait::Confirm(term) => self.confirmed(slot, term, &result),
            Wait::Admin(kind) => self.totals.admin(kind, result.is_ok()),
            Wait::HandOver(region, term, ticket) => {
                self.handed_over(slot, region, (term, ticket), result.is_ok());
            }
            Wait::TxnIndex(id) => self.command_asked(slot, id, result),
            Wait::Txn(id, flight) => self.command_wrote(slot, id, *flight, result),
            Wait::TxnRead(reading) => self.txn_read_asked(slot, *reading, result),
            Wait::Announced(id, caller) => {
                self.announced_confirmed(slot, (id, caller), &result);
            }
        }
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Somebody on the node waits for an answer of its store. Returns its number.
    pub(crate) fn wait(&mut self, slot: Slot, wait: Wait) -> u64 {
        let number = self.next_number();
        self.wait_as(slot, number, wait);
        number
    }

    pub(crate) fn wait_as(&mut self, slot: Slot, number: u64, wait: Wait) {
        self.waits.insert(number, (slot, self.nodes[slot].life, wait));
    }

    /// The shard of a node is told.
    pub(crate) fn tell(&mut self, slot: Slot, input: ShardInput) {
        if let Some(core) = self.nodes[slot].core() {
            core.inbox.push(input);
            self.wake(slot, Actor::Shard);
        }
    }

    /// Somebody calls a node. It is answered, or the time runs out.
    pub(crate) fn call(
        &mut self,
        caller: Caller,
        to: Slot,
        request: Request,
        purpose: Purpose,
        patience: Duration,
    ) -> CallId {
        self.call_late(caller, to, request, purpose, (Duration::ZERO, patience))
    }

    /// Like [`World::call`], and what is sent arrives so much later.
    pub(crate) fn call_late(
        &mut self,
        caller: Caller,
        to: Slot,
        request: Request,
        purpose: Purpose,
        (late, patience): (Duration, Duration),
    ) -> CallId {
        let id = self.next_number();
        self.calls.insert(id, Pending { caller, to, purpose });
        self.queue.after(patience, Event::Timeout(id));
        let arrivals = match caller {
            Caller::Node(from, _) => self.network.between(from, to),
            Caller::Client(_) | Caller::Task(_) => self.network.anywhere(),
        };
        // A call travels on one connection: it comes once or not at all.
        if let Some(delay) = arrivals.0 {
            self.queue.after(delay + late, Event::Call(to, id, caller, Box::new(request)));
        }
        id
    }

    fn called(&mut self, slot: Slot, id: CallId, caller: Caller, request: Box<Request>) {
        let paused = self.nodes[slot].paused_until;
        if paused > self.now() {
            return self.queue.at(paused, Event::Call(slot, id, caller, request));
        }
        if self.nodes[slot].core().is_none() {
            // Nobody listens there: the connection is refused.
            return self.answer(slot, caller, id, Reply::NotLeader);
        }
        match *request {
            Request::Kv(header, from, op) => self.serve(slot, (id, caller), header, from, op),
            Request::Store(request) => self.serve_store(slot, (id, caller), *request),
            Request::Driver(request) => self.driver_call(slot, (id, caller), *request),
            Request::Announce(announcement) => self.announced(slot, id, caller, *announcement),
            Request::Claims(claims) => self.check_claims(slot, (id, caller), &claims),
            _ => self.placement_call(slot, id, caller, request),
        }
    }

    /// An answer travels back.
    pub(crate) fn answer(&mut self, from: Slot, caller: Caller, id: CallId, reply: Reply) {
        let arrivals = match caller {
            Caller::Node(to, _) => self.network.between(from, to),
            Caller::Client(_) | Caller::Task(_) => self.network.anywhere(),
        };
        if let Some(delay) = arrivals.0 {
            self.queue.after(delay, Event::Reply(id, Box::new(reply)));
        }
    }

    fn replied(&mut self, id: CallId, reply: Option<Reply>) {
        let Some(Pending { caller, to, purpose }) = self.calls.remove(&id) else { return };
        let (slot, life) = match caller {
            Caller::Client(client) => {
                let Purpose::Client(step) = purpose else { unreachable!("clients have one") };
                return self.client_reply(client, step, to, reply);
            }
            Caller::Task(_) => {
                let Purpose::Leaf(leaf) = purpose else { unreachable!("tasks have one") };
                return self.executor.answer(leaf, reply);
            }
            Caller::Node(slot, life) => (slot, life),
        };
        if self.nodes[slot].life != life || self.nodes[slot].process.is_none() {
            return;
        }
        match purpose {
            Purpose::Boot => {
                let reply = reply.filter(|reply| !matches!(reply, Reply::NotLeader));
                self.boot_reply(slot, reply);
            }
            Purpose::Beat => self.beat_reply(slot, to, reply.as_ref()),
            Purpose::StoreHeartbeat => self.heartbeat_reply(slot, to, None, reply.as_ref()),
            Purpose::RegionHeartbeat(region) => {
                self.heartbeat_reply(slot, to, Some(region), reply.as_ref());
            }
            Purpose::Split { region, keys } => {
                if let Some(Reply::SplitIds(ids)) = reply {
                    self.split_with(slot, region, &keys, &ids);
                }
            }
            Purpose::Announced(reading) => self.announced_reply(slot, *reading, reply),
            Purpose::MaxTs(region) => self.max_ts_reply(slot, region, reply),
            Purpose::PastTs => {
                if let Some(Reply::Timestamp(ts)) = reply {
                    self.claim_past(slot, ts);
                }
            }
            Purpose::SafePoint => {
                if let Some(Reply::Timestamp(ts)) = reply {
                    self.learn_safe_point(slot, ts);
                }
            }
            Purpose::Claimed(round, store) => self.claims_reply(slot, (round, store), reply),
            Purpose::Client(_) | Purpose::Leaf(_) => unreachable!("of a node"),
        }
    }

    /// A raft message leaves a store.
    pub(crate) fn send(&mut self, from: Slot, message: RaftMessage) {
        let (now, life) = (self.now(), self.nodes[from].life);
        let files = match &message.message.body {
            raft::Body::Snapshot { snapshot, .. } => {
                let Some(core) = self.nodes[from].core() else { return };
                let (region, to) = (message.region_id, message.to.id);
                let Ok(reader) = core.folder.reader(region, to, snapshot) else {
                    return self.snapshot_sent(from, life, message, false);
                };
                Some(Box::new(reader))
            }
            _ => None,
        };
        let to = self.slot_of(message.to.store_id);
        self.trace.sent(now, from, to, &message);
        let Some(to) = to else { return };
        let filtered = self.network.filter.is_some_and(|(slot, kind)| {
            slot == to && super::network::Kind::of(&message.message.body) == Some(kind)
        });
        let (first, second) = match filtered {
            true => (None, None),
            false => self.network.between(from, to),
        };
        self.totals.messages += 1;
        self.checks.promises.sent(life, &message);
        if matches!(message.message.body, raft::Body::VoteResponse { granted: true }) {
            self.tempted(from, PROMISES);
        }
        let Some(first) = first else {
            if files.is_some() {
                return self.snapshot_sent(from, life, message, false);
            }
            if self.network.is_cut(from, to) && self.prng.one_in(4) {
                let unreachable = Event::Unreachable(from, life, message.to.store_id);
                self.queue.after(ms(1), unreachable);
            }
            return;
        };
        if let Some(second) = second.filter(|_| files.is_none()) {
            self.totals.duplicates += 1;
            self.queue.after(second, Event::Raft(to, Box::new(message.clone()), None));
        }
        let slow = match files.is_some() {
            true if !self.healing => self.prng.below(self.plan.snapshot_delay.as_micros() as u64),
            _ => 0,
        };
        let delay = first + Duration::from_micros(slow);
        self.queue.after(delay, Event::Raft(to, Box::new(message), files));
    }

    /// A store tells another one that it lives.
    pub(crate) fn send_alive(&mut self, from: Slot, alive: StoreAlive) {
        let Some(to) = self.slot_of(alive.to) else { return };
        self.totals.alive += 1;
        let (first, second) = self.network.between(from, to);
        for delay in [first, second].into_iter().flatten() {
            self.queue.after(delay, Event::Alive(to, alive));
        }
    }

    /// A word about room for a snapshot leaves a store.
    pub(crate) fn send_credit(&mut self, from: Slot, credit: SnapshotCredit) {
        let Some(to) = self.slot_of(credit.to.store_id) else { return };
        self.totals.messages += 1;
        let now = self.now();
        self.trace.line(now, Some(from), Some(credit.region_id), "room", || format!("{credit:?}"));
        if credit.asks {
            self.merge_meanwhile(from, credit.region_id);
        }
        let (first, second) = self.network.between(from, to);
        for delay in [first, second].into_iter().flatten() {
            self.queue.after(delay, Event::Credit(to, credit));
        }
    }

    /// The transport is done with a snapshot.
    pub(crate) fn snapshot_sent(
        &mut self,
        slot: Slot,
        life: u64,
        message: RaftMessage,
        arrived: bool,
    ) {
        let delay = self.network.inside();
        let message = Box::new(message);
        self.queue.after(delay, Event::SnapshotSent { slot, life, message, arrived });
    }

    /// One more thing that a node does takes effect. False: it has just ended, before that.
    pub(crate) fn effect(&mut self, slot: Slot) -> bool {
        self.totals.effects += 1;
        match self.nodes[slot].doomed {
            Some((0, power)) => {
                self.crash(slot, power);
                false
            }
            Some((left, power)) => {
                self.nodes[slot].doomed = Some((left - 1, power));
                true
            }
            None => true,
        }
    }
}
