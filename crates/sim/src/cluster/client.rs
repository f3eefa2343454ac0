//! Clients: they ask the placement driver where a key is, remember it, try again when they are
//! refused, and give up when nobody answers, not knowing what became of a write.

use std::collections::BTreeMap;
use std::ops::Bound;

use base::{KeyRange, Peer, Prng, Region, TimeStamp};
use bytes::Bytes;
use store::{ReadFrom, RegionError, RequestHeader};

use super::event::{Caller, Event, KvAnswer, KvOp, Purpose, Reply, Request, Slot};
use super::history::{Done, Op, OpId};
use super::plan::Plan;
use super::workload::{Task, Workload};
use super::world::{World, ms};

/// Tries of one operation.
const TRIES_MAX: u32 = 40;

/// Patience with one call.
const CALL_MS: u64 = 1_500;

/// What a client is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Between two operations.
    Idle,
    /// About to look for the region, or to send.
    Trying,
    /// Asks the placement driver.
    Asking,
    /// Asked a store.
    Sent,
    Finished,
}

pub(crate) struct Client {
    prng: Prng,
    state: State,
    /// Grows with each thing that it waits for: what comes late is known by its number.
    step: u64,
    cache: BTreeMap<Bytes, (Region, Peer)>,
    ask: usize,
    pub(crate) workload: Workload,
    current: Option<Current>,
}

/// The operation in progress.
struct Current {
    task: Task,
    op: OpId,
    tries: u32,
    /// A write was sent and may have taken effect.
    unsure: bool,
    /// It reads from any replica.
    anywhere: bool,
    /// The largest timestamp that anybody had when this one was asked for.
    floor: TimeStamp,
    /// What a scan has found so far.
    pairs: Vec<(Bytes, Bytes)>,
    /// Where the scan goes on.
    from: Bytes,
}

impl Client {
    pub(crate) fn new(id: usize, plan: &Plan, mut prng: Prng) -> Self {
        let workload = Workload::new(id, plan, prng.fork());
        let (cache, state) = (BTreeMap::new(), State::Idle);
        Self { prng, state, step: 0, cache, ask: id % plan.nodes, workload, current: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Finished
    }

    /// It does nothing of its own.
    pub(crate) fn rest_until_told(&mut self) {
        self.workload.be_told();
        self.state = State::Finished;
    }

    /// Its next operation is this.
    pub(crate) fn say(&mut self, op: Op) {
        assert!(self.current.is_none(), "one thing after the other");
        self.workload.say(op);
        self.state = State::Idle;
    }

    fn region_of(&self, key: &[u8]) -> Option<&(Region, Peer)> {
        let (_, found) =
            self.cache.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        found.0.range.contains(key).then_some(found)
    }

    fn learn(&mut self, region: Region, leader: Peer) {
        let range = region.range.clone();
        self.cache.retain(|_, (known, _)| !known.range.overlaps(&range));
        self.cache.insert(range.start, (region, leader));
    }

    fn forget(&mut self, range: &KeyRange) {
        self.cache.retain(|_, (known, _)| !known.range.overlaps(range));
    }
}

impl World {
    /// A client does the next thing.
    pub(crate) fn client_step(&mut self, id: usize) {
        match self.clients[id].state {
            State::Idle => self.begin_task(id),
            State::Trying => self.try_now(id),
            _ => {}
        }
    }

    fn begin_task(&mut self, id: usize) {
        let (now, healing) = (self.now(), self.healing);
        let client = &mut self.clients[id];
        let Some(task) = client.workload.next(healing) else {
            client.state = State::Finished;
            return;
        };
        let one_in = self.plan.replica_reads;
        let reads = matches!(task.op, Op::Get(_) | Op::Scan { .. });
        let anywhere = reads && one_in > 0 && client.prng.one_in(one_in);
        let op = self.history.begin(now, id, &task.op, anywhere);
        let floor = self.history.timestamp_floor;
        let from = match &task.op {
            Op::Scan { start, .. } => start.clone(),
            _ => Bytes::new(),
        };
        let (tries, unsure, pairs) = (0, false, Vec::new());
        client.current = Some(Current { task, op, tries, unsure, anywhere, floor, pairs, from });
        client.state = State::Trying;
        self.try_now(id);
    }

    fn again(&mut self, id: usize, delay_ms: u64) {
        let client = &mut self.clients[id];
        client.state = State::Trying;
        client.step += 1;
        let jitter = client.prng.below(20);
        self.queue.after(ms(delay_ms + jitter), Event::Client(id));
    }

    /// Sends the operation, or asks where to.
    fn try_now(&mut self, id: usize) {
        let count = self.nodes.len();
        let client = &mut self.clients[id];
        let Some(current) = &mut client.current else { return };
        current.tries += 1;
        if current.tries > TRIES_MAX && !self.healing {
            return self.give_up(id);
        }
        client.step += 1;
        let purpose = Purpose::Client(client.step);
        let caller = Caller::Client(id);
        let key = match (&current.task.op, current.from.clone()) {
            (Op::Timestamps(count), _) => {
                let (request, to) = (Request::Timestamps(*count), client.ask);
                client.state = State::Sent;
                self.call(caller, to, request, purpose, ms(CALL_MS));
                return;
            }
            (Op::Scan { .. }, from) => from,
            (op, _) => op.key().clone(),
        };
        let found = client.region_of(&key).cloned();
        let place = found.map(|(region, leader)| (self.slot_of(leader.store_id), region, leader));
        let client = &mut self.clients[id];
        let Some((Some(slot), region, leader)) = place else {
            client.state = State::Asking;
            let to = client.ask % count;
            self.call(caller, to, Request::GetRegion(key), purpose, ms(CALL_MS));
            return;
        };
        let current = client.current.as_mut().expect("seen above");
        let header = RequestHeader::new(region.id, leader, region.epoch);
        let op = current.task.op.request(&current.from);
        let (slot, header, from) = match current.anywhere {
            true => {
                let at = client.prng.below(region.peers.len() as u64) as usize;
                let peer = region.peers[at];
                let slot = self.stores.get(&peer.store_id).copied().unwrap_or(slot);
                (slot, RequestHeader { peer, ..header }, ReadFrom::Replica)
            }
            false => (slot, header, ReadFrom::Leader),
        };
        let current = client.current.as_mut().expect("seen above");
        current.unsure |= current.task.op.writes();
        client.state = State::Sent;
        self.call(caller, slot, Request::Kv(header, from, op), purpose, ms(CALL_MS));
    }

    /// An answer, or none.
    pub(crate) fn client_reply(&mut self, id: usize, step: u64, from: Slot, reply: Option<Reply>) {
        let client = &mut self.clients[id];
        if client.step != step {
            return;
        }
        match (client.state.clone(), reply) {
            (State::Asking, Some(Reply::Region(Some((region, leader))))) => match leader {
                Some(leader) => {
                    client.learn(region, leader);
                    self.try_now(id);
                }
                None => self.again(id, 50),
            },
            (State::Asking, _) => {
                client.ask = (client.ask + 1) % self.nodes.len();
                self.again(id, 30);
            }
            (State::Sent, Some(Reply::Timestamp(timestamp))) => self.stamped(id, timestamp),
            (State::Sent, Some(Reply::Kv(result))) => self.kv_reply(id, result),
            (State::Sent, Some(Reply::NotLeader | Reply::Refused)) => {
                // No placement driver, or nobody, runs there: nothing happened.
                let client = &mut self.clients[id];
                client.ask = (client.ask + 1) % self.nodes.len();
                self.refused(id, 30);
            }
            (State::Sent, _) => {
                let client = &mut self.clients[id];
                client.ask = (from + 1) % self.nodes.len();
                let current = client.current.as_ref().expect("it was sent");
                if !matches!(current.task.op, Op::Timestamps(_)) {
                    client.forget(&KeyRange::all());
                }
                match client.current.as_ref().is_some_and(|current| current.unsure) {
                    true => self.give_up(id),
                    false => self.again(id, 30),
                }
            }
            _ => {}
        }
    }

    /// The last try certainly had no effect.
    fn refused(&mut self, id: usize, delay_ms: u64) {
        let client = &mut self.clients[id];
        if let Some(current) = &mut client.current {
            current.unsure = false;
            if !matches!(current.task.op, Op::Timestamps(_)) {
                client.forget(&KeyRange::all());
            }
        }
        self.again(id, delay_ms);
    }

    fn kv_reply(&mut self, id: usize, result: Result<KvAnswer, RegionError>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(RegionError::Undetermined) => {
                let unsure = self.clients[id].current.as_ref().is_some_and(|c| c.unsure);
                return if unsure { self.give_up(id) } else { self.refused(id, 20) };
            }
            Err(RegionError::EpochNotMatch { current }) => {
                let client = &mut self.clients[id];
                for region in current {
                    client.forget(&region.range);
                }
                return self.refused(id, 5);
            }
            Err(RegionError::NotLeader { leader: Some(leader), .. }) => {
                let client = &mut self.clients[id];
                let current = client.current.as_mut().expect("it was sent");
                current.unsure = false;
                let key = match &current.task.op {
                    Op::Scan { .. } => current.from.clone(),
                    op => op.key().clone(),
                };
                if let Some((region, _)) = client.region_of(&key).cloned() {
                    client.learn(region, leader);
                }
                return self.again(id, 10);
            }
            Err(RegionError::ServerIsBusy { .. } | RegionError::DiskFull(_)) => {
                return self.refused(id, 60);
            }
            Err(_) => return self.refused(id, 20),
        };
        let client = &mut self.clients[id];
        let current = client.current.as_mut().expect("it was sent");
        if let (KvAnswer::Pairs(pairs, up_to), Op::Scan { end, .. }) = (&answer, &current.task.op) {
            current.pairs.extend(pairs.iter().cloned());
            let whole = up_to.is_empty() || (!end.is_empty() && up_to >= end);
            if !whole {
                current.from = up_to.clone();
                return self.again(id, 0);
            }
        }
        self.finish(id, answer);
    }

    fn stamped(&mut self, id: usize, timestamp: TimeStamp) {
        let current = self.clients[id].current.as_ref().expect("it was sent");
        let Op::Timestamps(count) = current.task.op else { unreachable!("nobody else gets them") };
        let first = timestamp.0 + 1 - u64::from(count);
        let floor = current.floor;
        self.history.stamped(first, timestamp, floor);
        self.finish(id, KvAnswer::Done);
    }

    /// The operation is done.
    fn finish(&mut self, id: usize, answer: KvAnswer) {
        let now = self.now();
        let client = &mut self.clients[id];
        let Current { task, op, pairs, .. } = client.current.take().expect("it was sent");
        let done = match answer {
            KvAnswer::Value(value) => Done::Value(value),
            KvAnswer::Pairs(..) => Done::Pairs(pairs),
            KvAnswer::Done => Done::Written,
            KvAnswer::Swapped { previous, succeeded } => Done::Swapped { previous, succeeded },
        };
        client.workload.done(&task, &done);
        self.trace.line(now, None, None, "client", || format!("{id} {:?} -> {done:?}", task.op));
        self.history.end(now, op, done);
        self.totals.operations += 1;
        self.rest(id);
    }

    /// Nobody knows what becomes of the operation.
    fn give_up(&mut self, id: usize) {
        let now = self.now();
        let client = &mut self.clients[id];
        let Current { task, op, unsure, .. } = client.current.take().expect("one is in progress");
        client.workload.lost(&task, unsure);
        self.trace.line(now, None, None, "client", || format!("{id} {:?} unknown", task.op));
        self.history.give_up(op, unsure);
        self.totals.unknown += 1;
        self.rest(id);
    }

    fn rest(&mut self, id: usize) {
        let think = self.plan.think.as_micros() as u64;
        let client = &mut self.clients[id];
        client.state = State::Idle;
        client.step += 1;
        let pause = think / 2 + client.prng.below(think + 1);
        let pause = if self.healing { 1_000 } else { pause };
        self.queue.after(std::time::Duration::from_micros(pause), Event::Client(id));
    }
}

impl Op {
    /// What is sent.
    fn request(&self, from: &Bytes) -> KvOp {
        match self {
            Self::Get(key) => KvOp::Get(key.clone()),
            Self::Scan { end, .. } => KvOp::Scan { start: from.clone(), end: end.clone() },
            Self::Put { pairs, latched } => KvOp::Put { pairs: pairs.clone(), latched: *latched },
            Self::Delete { key, latched } => KvOp::Delete { key: key.clone(), latched: *latched },
            Self::Cas { key, previous, value } => {
                let (key, previous, value) = (key.clone(), previous.clone(), value.clone());
                KvOp::Cas { key, previous, value }
            }
            Self::Timestamps(_) => unreachable!("these are not of a store"),
        }
    }
}
