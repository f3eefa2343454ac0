//! A node serves clients: the read path under the lease with its two looks, reads that ask the
//! group, writes, and compare-and-swap under a latch. The meaning of each call is crate `txn`'s.

use base::{KeyRange, Term};
use bytes::Bytes;
use storage::engine::{Cf, Engine};
use store::{
    Proposal, ReadFrom, ReadRefusal, ReadRequest, RegionError, RegionView, RequestHeader,
    ShardInput, WriteResult, Writes,
};
use txn::raw::{CompareAndSwap, RawError, Scan, View, Writer};
use txn::{ApiVersion, Mutation};

use super::event::{CallId, Caller, Event, KvAnswer, KvOp, Reply, Slot};
use super::looks::Leave;
use super::process::reply_to;
use super::world::{Wait, World};

/// Pairs of a scan.
const SCAN_MAX: usize = 10_000;

/// A read that was let in.
pub(crate) struct Reading {
    id: CallId,
    caller: Caller,
    header: RequestHeader,
    op: KvOp,
    from: ReadFrom,
    /// As of the first look.
    leave: Option<Leave>,
    taken: Option<Taken>,
    /// The second look is done.
    checked: bool,
}

impl Reading {
    fn leave(&self) -> &Leave {
        self.leave.as_ref().expect("nobody reads without")
    }

    fn view(&self) -> &RegionView {
        self.leave().view()
    }
}

impl KvOp {
    /// Whether it writes without having read.
    fn writes(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

/// What was read, and what is to be written because of it.
struct Taken {
    answer: KvAnswer,
    mutation: Option<Mutation>,
}

fn busy() -> RegionError {
    RegionError::ServerIsBusy { reason: "the key is latched".to_owned() }
}

/// Latched keys of an operation.
fn latched(op: &KvOp) -> Vec<Bytes> {
    match op {
        KvOp::Put { pairs, latched: true } => pairs.iter().map(|(key, _)| key.clone()).collect(),
        KvOp::Delete { key, latched: true } | KvOp::Cas { key, .. } => vec![key.clone()],
        _ => Vec::new(),
    }
}

impl World {
    /// A client's call.
    pub(crate) fn serve(
        &mut self,
        slot: Slot,
        (id, caller): (CallId, Caller),
        header: RequestHeader,
        from: ReadFrom,
        op: KvOp,
    ) {
        let Some(core) = self.nodes[slot].core() else { return };
        let keys = latched(&op);
        if keys.iter().any(|key| core.latches.contains(key)) {
            return self.answer(slot, caller, id, Reply::Kv(Err(busy())));
        }
        if !op.writes() {
            core.latches.extend(keys);
            let (leave, taken, checked) = (None, None, false);
            let reading = Reading { id, caller, header, op, from, leave, taken, checked };
            return self.read(slot, reading);
        }
        let view = match core.views.route(&header) {
            Ok(view) => view,
            Err(error) => return self.answer(slot, caller, id, Reply::Kv(Err(error))),
        };
        let writer = Writer { api: ApiVersion::V1, now_s: 0 };
        let default = Cf::Default;
        let mutations = match &op {
            KvOp::Put { pairs, .. } => writer.batch_put(default, pairs.clone().into_iter(), &[]),
            KvOp::Delete { key, .. } => writer.delete(default, key).map(|delete| vec![delete]),
            KvOp::Get(_) | KvOp::Scan { .. } | KvOp::Cas { .. } => unreachable!("it reads first"),
        };
        let mutations = mutations.expect("well formed");
        core.latches.extend(keys.iter().cloned());
        let (caller, header) = ((id, caller), (header, None));
        self.write(slot, caller, header, &view, &mutations, KvAnswer::Done, keys);
    }

    #[allow(clippy::too_many_arguments, reason = "a call with all that belongs to it")]
    fn write(
        &mut self,
        slot: Slot,
        (id, caller): (CallId, Caller),
        (header, only_in_term): (RequestHeader, Option<Term>),
        view: &RegionView,
        mutations: &[Mutation],
        answer: KvAnswer,
        keys: Vec<Bytes>,
    ) {
        let outside = mutations.iter().find_map(|m| m.key_outside(&view.region.range)).cloned();
        if let Some(key) = outside {
            self.release(slot, &keys);
            let error = RegionError::KeyNotInRegion { key, region: view.region.clone() };
            return self.answer(slot, caller, id, Reply::Kv(Err(error)));
        }
        let mut writes = Writes::new();
        for mutation in mutations {
            match mutation {
                Mutation::Put { cf, key, value } => writes.put(*cf, key, value),
                Mutation::Delete { cf, key } => writes.delete(*cf, key),
                Mutation::DeleteRange { cf, start, end } => writes.delete_range(*cf, start, end),
            }
        }
        if let Some(term) = only_in_term {
            self.checks.promises.computed(mutations, term);
        }
        let number = self.wait(slot, Wait::Write(id, caller, keys, answer));
        let reply = reply_to(&self.results, number);
        let proposal = Proposal { header, writes, only_in_term, reply };
        self.tell(slot, ShardInput::Propose(proposal));
    }

    fn release(&mut self, slot: Slot, keys: &[Bytes]) {
        if let Some(core) = self.nodes[slot].core() {
            core.latches.retain(|key| !keys.contains(key));
        }
    }

    fn refuse(&mut self, slot: Slot, reading: &Reading, error: RegionError) {
        self.release(slot, &latched(&reading.op));
        self.answer(slot, reading.caller, reading.id, Reply::Kv(Err(error)));
    }

    /// The first look is done: under the lease, or else the group is asked.
    fn read(&mut self, slot: Slot, mut reading: Reading) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        let any_replica = reading.from != ReadFrom::Leader;
        self.totals.replica_reads += u64::from(any_replica);
        let leave = match core.views.permit(&reading.header, reading.from, local) {
            Ok(permit) => Some(core.leave(permit)),
            Err(ReadRefusal::NeedsReadIndex) => None,
            Err(ReadRefusal::Region(error)) => return self.refuse(slot, &reading, error),
        };
        // Some ask the group although they need not; of any replica all do: the one before may have
        // been answered by a replica that is ahead of this leader.
        if leave.is_none() || any_replica || self.prng.one_in(8) {
            self.totals.read_indexes += 1;
            let header = reading.header;
            let number = self.wait(slot, Wait::Read(Box::new(reading)));
            let reply = reply_to(&self.results, number);
            let request = ReadRequest { header, any_replica, reply };
            return self.tell(slot, ShardInput::ReadIndex(request));
        }
        self.totals.lease_reads += 1;
        reading.leave = leave;
        self.read_later_or_now(slot, reading);
    }

    /// The group answered: everything that was committed when the read came is applied.
    pub(crate) fn read_asked(&mut self, slot: Slot, reading: Reading, result: WriteResult) {
        if let Err(error) = result {
            return self.refuse(slot, &reading, error);
        }
        let Some(core) = self.nodes[slot].core() else { return };
        match core.views.permit_after_index(&reading.header, reading.from) {
            Ok(permit) => {
                let leave = Some(core.leave(permit));
                self.read_later_or_now(slot, Reading { leave, ..reading });
            }
            Err(error) => self.refuse(slot, &reading, error),
        }
    }

    /// The reader's thread may be interrupted anywhere.
    fn read_later_or_now(&mut self, slot: Slot, reading: Reading) {
        if !self.prng.one_in(4) {
            return self.read_on(slot, reading);
        }
        let life = self.nodes[slot].life;
        // Up to about a second, for which a client waits; now and then for much longer.
        let times = match self.prng.below(64) {
            0 => {
                self.meanwhile(slot, reading.view());
                400_000
            }
            1..4 => 60_000,
            4..12 => 10_000,
            _ if reading.checked => 30_000,
            _ => 1,
        };
        let delay = self.network.inside() * times;
        self.queue.after(delay, Event::Read(slot, life, Box::new(reading)));
    }

    /// Takes the data, then looks again.
    pub(crate) fn read_on(&mut self, slot: Slot, mut reading: Reading) {
        let paused = self.nodes[slot].paused_until;
        if paused > self.now() {
            let life = self.nodes[slot].life;
            return self.queue.at(paused, Event::Read(slot, life, Box::new(reading)));
        }
        if reading.taken.is_none() {
            match take(&self.nodes[slot].machine.engine, &reading) {
                Ok(taken) => reading.taken = Some(taken),
                Err(RawError::KeyNotInRegion { key }) => {
                    let region = reading.view().region.clone();
                    let error = RegionError::KeyNotInRegion { key, region };
                    return self.refuse(slot, &reading, error);
                }
                Err(error) => panic!("data are sound: node {slot}: {error}"),
            }
            return self.read_later_or_now(slot, reading);
        }
        if !reading.checked {
            let local = self.local(slot);
            if let Err(error) = self.check(slot, &reading, local) {
                return self.refuse(slot, &reading, error);
            }
            reading.checked = true;
            if reading.taken.as_ref().is_some_and(|taken| taken.mutation.is_some()) {
                // What follows from it may be long on its way to the shard.
                return self.read_later_or_now(slot, reading);
            }
        }
        let Taken { answer, mutation } = reading.taken.take().expect("seen above");
        let (header, term) = (reading.header, reading.view().term);
        match mutation {
            Some(mutation) => {
                let (keys, call) = (latched(&reading.op), (reading.id, reading.caller));
                let target = (header, Some(term));
                self.write(slot, call, target, reading.view(), &[mutation], answer, keys);
            }
            None => {
                self.release(slot, &latched(&reading.op));
                self.answer(slot, reading.caller, reading.id, Reply::Kv(Ok(answer)));
            }
        }
    }

    /// The second look.
    fn check(
        &mut self,
        slot: Slot,
        reading: &Reading,
        local: base::Instant,
    ) -> Result<(), RegionError> {
        let Some(core) = self.nodes[slot].core() else { return Ok(()) };
        core.look_again(reading.leave(), local)
    }
}

fn take(engine: &dyn Engine, reading: &Reading) -> Result<Taken, RawError> {
    let snapshot = engine.snapshot();
    let (region, api) = (&*reading.view().region, ApiVersion::V1);
    let view = View { snapshot: &*snapshot, region, api, now_s: 0, interrupted: &|| false };
    let cf = Cf::Default;
    Ok(match &reading.op {
        KvOp::Get(key) => Taken { answer: KvAnswer::Value(view.get(cf, key)?), mutation: None },
        KvOp::Scan { start, end } => {
            let (start, end) = (start.clone(), end.clone());
            let range = KeyRange::new(start.clone(), end.clone()).intersect(&region.range);
            let scan = Scan { cf, start, end, limit: SCAN_MAX, key_only: false, reverse: false };
            let pairs = view.scan(&scan)?.into_iter().map(|pair| (pair.key, pair.value));
            Taken { answer: KvAnswer::Pairs(pairs.collect(), range.end), mutation: None }
        }
        KvOp::Cas { key, previous, value } => {
            let swapped = view.compare_and_swap(CompareAndSwap {
                cf,
                key: key.clone(),
                previous: previous.clone(),
                value: value.clone(),
                ttl_s: 0,
                delete: false,
            })?;
            let succeeded = swapped.mutation.is_some();
            let answer = KvAnswer::Swapped { previous: swapped.previous, succeeded };
            Taken { answer, mutation: swapped.mutation }
        }
        KvOp::Put { .. } | KvOp::Delete { .. } => unreachable!("no read"),
    })
}
