//! A store serves transactional reads: at the leader, at a replica that asks it, and of the past.
//!
//! The read is made known, and locks in memory are looked at, before the data is taken; where that
//! happens at another node, a message goes there and back.

use base::{KeyRange, TimeStamp};
use client::StoreReply;
use proto::kvrpcpb as kv;
use storage::engine::Engine;
use storage::keys;
use store::{
    ReadFrom, ReadRefusal, ReadRequest, RegionError, RequestHeader, ShardInput, WriteResult,
};
use txn::actions::scan_lock;
use txn::concurrency::ReadRefused;
use txn::gc::GcState;
use txn::mvcc::{Isolation, Key, ReadOptions, Reader, Scan};
use txn::scheduler::Under;
use txn::wire::replies;
use txn::{KeyError, TxnError};

use super::answers::{self, Kind};
use super::seen::{self, Sight};
use crate::cluster::event::{CallId, Caller, Event, Purpose, Reply, Request, Slot};
use crate::cluster::looks::Leave;
use crate::cluster::process::reply_to;
use crate::cluster::world::{Wait, World};

/// What is read.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Key(Key),
    Keys(Vec<Key>),
    Scan(Scan, KeyRange),
    Locks { start: bytes::Bytes, end: bytes::Bytes, max_ts: TimeStamp, limit: usize },
}

/// A read between its arrival and its answer.
#[derive(Clone, Debug)]
pub(crate) struct TxnReading {
    pub(super) call: (CallId, Caller),
    pub(super) header: RequestHeader,
    pub(super) kind: Kind,
    pub(super) from: ReadFrom,
    pub(super) read: ReadOptions,
    pub(super) wanted: Wanted,
    leave: Option<Leave>,
    taken: Option<Box<(StoreReply, Vec<Sight>)>>,
}

/// What a replica asks of its leader before it reads.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    region: base::RegionId,
    read: ReadOptions,
    wanted: Wanted,
}

impl TxnReading {
    pub(super) fn new(
        call: (CallId, Caller),
        kind: Kind,
        (header, from): (RequestHeader, ReadFrom),
        read: ReadOptions,
        wanted: Wanted,
    ) -> Self {
        Self { call, header, kind, from, read, wanted, leave: None, taken: None }
    }

    /// The answer if some of what it sees may be gone.
    fn too_late(&self, state: &GcState) -> Option<StoreReply> {
        let key = match &self.wanted {
            Wanted::Key(key) => key.data().to_vec(),
            Wanted::Keys(keys) => keys.first().map(|key| key.data().to_vec()).unwrap_or_default(),
            Wanted::Scan(_, range) => keys::data_key(&range.start),
            Wanted::Locks { .. } => return None,
        };
        let late = state.check(&key, self.read.ts).err()?;
        Some(answers::failed(self.kind, &KeyError::Abort(late)))
    }
}

fn region_range(start: &bytes::Bytes, end: &bytes::Bytes) -> KeyRange {
    txn::wire::requests::region_range(start, end)
}

impl World {
    /// A read arrives.
    pub(super) fn take_read(&mut self, slot: Slot, mut reading: TxnReading) {
        let Some(core) = self.nodes[slot].core() else { return };
        if let Some(late) = reading.too_late(&core.txn.collecting.state) {
            return self.answer_read(slot, reading.call, late);
        }
        let view = core.views.get(reading.header.region_id);
        let leads = view.as_ref().is_some_and(|view| view.is_leader());
        reading.read.is_replica_read = !leads && reading.from == ReadFrom::Replica;
        if leads {
            reading.from = ReadFrom::Leader;
        }
        match reading.from {
            ReadFrom::Replica => self.announce(slot, reading, view.and_then(|view| view.leader)),
            // Who leads by the time of the read has to have heard of it.
            ReadFrom::Past(_) | ReadFrom::Leader => {
                match self.begin_read(slot, &reading.read, &reading.wanted) {
                    Ok(()) => self.permit_read(slot, reading),
                    Err(refused) => self.refuse_read(slot, &reading, refused),
                }
            }
        }
    }

    /// The read is made known here, and locks in memory are looked at.
    fn begin_read(
        &mut self,
        slot: Slot,
        read: &ReadOptions,
        wanted: &Wanted,
    ) -> Result<(), ReadRefused> {
        let Some(core) = self.nodes[slot].core() else { return Ok(()) };
        let scheduler = &mut core.txn.scheduler;
        match wanted {
            Wanted::Key(key) => scheduler.begin_read([key], read),
            Wanted::Keys(keys) => scheduler.begin_read(keys, read),
            Wanted::Scan(_, range) => scheduler.begin_read_range(range, read),
            Wanted::Locks { start, end, max_ts, .. } => {
                let range = region_range(start, end);
                scheduler.begin_read_range(&range, &ReadOptions::at(*max_ts))
            }
        }
    }

    fn refuse_read(&mut self, slot: Slot, reading: &TxnReading, refused: ReadRefused) {
        let reply = match refused {
            ReadRefused::Key(error) => answers::failed(reading.kind, &error),
            ReadRefused::Ts(error) => {
                let error =
                    proto::errorpb::Error { message: error.to_string(), ..Default::default() };
                answers::refused(reading.kind, error)
            }
        };
        self.answer_read(slot, reading.call, reply);
    }

    /// The leader is asked to make the read known.
    fn announce(&mut self, slot: Slot, reading: TxnReading, leader: Option<base::Peer>) {
        let to = leader.and_then(|leader| self.slot_of(leader.store_id));
        let Some(to) = to else {
            let region = reading.header.region_id;
            let error = RegionError::NotLeader { region, leader: None };
            return self.refuse_region(slot, reading.call, reading.kind, &error);
        };
        let announcement = Announcement {
            region: reading.header.region_id,
            read: reading.read.clone(),
            wanted: reading.wanted.clone(),
        };
        self.totals.txn_replica_reads += 1;
        let caller = Caller::Node(slot, self.nodes[slot].life);
        let request = Request::Announce(Box::new(announcement));
        let purpose = Purpose::Announced(Box::new(reading));
        self.call(caller, to, request, purpose, std::time::Duration::from_secs(1));
    }

    /// A replica elsewhere is about to read.
    pub(crate) fn announced(
        &mut self,
        slot: Slot,
        id: CallId,
        caller: Caller,
        announcement: Announcement,
    ) {
        let Announcement { region, read, wanted } = announcement;
        if let Err(refused) = self.begin_read(slot, &read, &wanted) {
            let locked = match refused {
                ReadRefused::Key(error) => Some(error),
                ReadRefused::Ts(_) => None,
            };
            return self.answer(slot, caller, id, Reply::Announced(locked));
        }
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(view) = core.views.get(region) else {
            return self.answer(slot, caller, id, Reply::Refused);
        };
        let header = RequestHeader::new(region, view.peer, view.region.epoch);
        // Whoever answers must lead still.
        let number = self.wait(slot, Wait::Announced(id, caller));
        let reply = reply_to(&self.results, number);
        let request = ReadRequest { header, any_replica: false, reply };
        self.tell(slot, ShardInput::ReadIndex(request));
    }

    pub(crate) fn announced_confirmed(
        &mut self,
        slot: Slot,
        (id, caller): (CallId, Caller),
        result: &WriteResult,
    ) {
        let reply = if result.is_ok() { Reply::Announced(None) } else { Reply::Refused };
        self.answer(slot, caller, id, reply);
    }

    /// The leader's answer.
    pub(crate) fn announced_reply(
        &mut self,
        slot: Slot,
        reading: TxnReading,
        reply: Option<Reply>,
    ) {
        match reply {
            Some(Reply::Announced(None)) => self.permit_read(slot, reading),
            Some(Reply::Announced(Some(error))) => {
                let reply = answers::failed(reading.kind, &error);
                self.answer_read(slot, reading.call, reply);
            }
            _ => {
                let region = reading.header.region_id;
                let reason = "the leader was not reached";
                let error = RegionError::ReadIndexNotReady { region, reason };
                self.refuse_region(slot, reading.call, reading.kind, &error);
            }
        }
    }

    fn permit_read(&mut self, slot: Slot, mut reading: TxnReading) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        match core.views.permit(&reading.header, reading.from, local) {
            Ok(permit) if reading.from != ReadFrom::Replica => {
                reading.leave = Some(core.leave(permit));
                self.read_txn_soon(slot, reading);
            }
            Ok(_) | Err(ReadRefusal::NeedsReadIndex) => {
                let (header, any_replica) = (reading.header, reading.from != ReadFrom::Leader);
                let number = self.wait(slot, Wait::TxnRead(Box::new(reading)));
                let reply = reply_to(&self.results, number);
                self.tell(slot, ShardInput::ReadIndex(ReadRequest { header, any_replica, reply }));
            }
            Err(ReadRefusal::Region(error)) => {
                self.refuse_region(slot, reading.call, reading.kind, &error);
            }
        }
    }

    /// The group answered.
    pub(crate) fn txn_read_asked(
        &mut self,
        slot: Slot,
        mut reading: TxnReading,
        result: WriteResult,
    ) {
        let Some(core) = self.nodes[slot].core() else { return };
        let permit =
            result.and_then(|()| core.views.permit_after_index(&reading.header, reading.from));
        match permit {
            Ok(permit) => {
                reading.leave = Some(core.leave(permit));
                self.read_txn_soon(slot, reading);
            }
            Err(error) => self.refuse_region(slot, reading.call, reading.kind, &error),
        }
    }

    fn read_txn_soon(&mut self, slot: Slot, reading: TxnReading) {
        let life = self.nodes[slot].life;
        let often = if self.prng.one_in(16) { 5_000 } else { 1 };
        let delay = self.network.inside() * often;
        self.queue.after(delay, Event::TxnRead(slot, life, Box::new(reading)));
    }

    /// The data is taken and it is looked again; then the answer leaves.
    pub(crate) fn txn_read_on(&mut self, slot: Slot, mut reading: TxnReading) {
        let (now, local) = (self.now(), self.local(slot));
        let paused = self.nodes[slot].paused_until;
        if paused > now {
            let life = self.nodes[slot].life;
            return self.queue.at(paused, Event::TxnRead(slot, life, Box::new(reading)));
        }
        let engine = self.nodes[slot].machine.engine.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        let leave = reading.leave.as_ref().expect("it was let in");
        let Some(taken) = reading.taken.take() else {
            let view = leave.view();
            let (term, version) = (view.term, view.region.epoch.version);
            let under = Under { region: view.region.id, term, version };
            let memory = match reading.wanted {
                Wanted::Locks { .. } => core.txn.scheduler.all_memory_locks(under),
                _ => Default::default(),
            };
            let region = view.region.clone();
            let snapshot = engine.snapshot();
            let mut reader = Reader::new(&*snapshot, &region).with_memory_locks(&memory);
            match take(&mut reader, &reading) {
                Ok(taken) => {
                    if let Err(error) = core.look_again(leave, local) {
                        return self.refuse_region(slot, reading.call, reading.kind, &error);
                    }
                    reading.taken = Some(Box::new(taken));
                    return self.read_txn_soon(slot, reading);
                }
                Err(error) => {
                    return self.fail(slot, reading.call, reading.kind, error, &region);
                }
            }
        };
        if let Some(late) = reading.too_late(&core.txn.collecting.state) {
            return self.answer_read(slot, reading.call, late);
        }
        self.totals.txn_reads += 1;
        self.totals.txn_past_reads += u64::from(matches!(reading.from, ReadFrom::Past(_)));
        let (reply, sights) = *taken;
        self.note_read(&reading, sights);
        self.looked_at(slot, reading.header.region_id);
        self.answer_read(slot, reading.call, reply);
    }

    /// A read is answered: others rely on it.
    fn note_read(&mut self, reading: &TxnReading, sights: Vec<Sight>) {
        let (read, view) = (&reading.read, reading.leave.as_ref().expect("it was let in").view());
        let whole = &view.region.range;
        match &reading.wanted {
            _ if read.isolation != Isolation::Snapshot => {}
            Wanted::Key(_) | Wanted::Keys(_) => {
                sights.iter().for_each(|sight| self.floors.seen(&sight.key, read.ts));
            }
            Wanted::Scan(_, range) => {
                self.floors.seen_all(whole.intersect(range), (read.ts, "a scan"));
            }
            Wanted::Locks { start, end, max_ts, .. } => {
                let range = whole.intersect(&region_range(start, end));
                self.floors.seen_all(range, (*max_ts, "who looked for locks"));
            }
        }
        self.seen.answered(read, sights, self.fates.safe_point());
    }
}

/// The answer, and what it says of which key.
fn take(
    reader: &mut Reader<'_>,
    reading: &TxnReading,
) -> Result<(StoreReply, Vec<Sight>), TxnError> {
    let read = &reading.read;
    Ok(match &reading.wanted {
        Wanted::Key(key) => {
            let found = match reader.get(key, read) {
                Err(TxnError::Key(error)) => {
                    return Ok((answers::failed(reading.kind, &error), Vec::new()));
                }
                found => found?,
            };
            let sight = Sight { key: key.clone(), found: found.clone() };
            let not_found = found.is_none();
            let value = found.map(|found| found.value).unwrap_or_default();
            let answer = kv::GetResponse { value, not_found, ..Default::default() };
            (StoreReply::KvGet(answer), vec![sight])
        }
        Wanted::Keys(keys) => {
            let rows = reader.batch_get(keys, read)?;
            let sights = seen::of_keys(keys, &rows);
            let pairs = replies::pairs(rows, false);
            (StoreReply::KvBatchGet(kv::BatchGetResponse { pairs, ..Default::default() }), sights)
        }
        Wanted::Scan(scan, _) => {
            let rows = reader.scan(scan, read)?;
            let sights = seen::of_rows(&rows);
            let pairs = replies::pairs(rows, false);
            (StoreReply::KvScan(kv::ScanResponse { pairs, ..Default::default() }), sights)
        }
        Wanted::Locks { start, end, max_ts, limit } => {
            let locks = scan_lock(reader, (start, end), *max_ts, *limit)?;
            let locks = replies::lock_infos(&locks);
            let answer = kv::ScanLockResponse { locks, ..Default::default() };
            (StoreReply::KvScanLock(answer), Vec::new())
        }
    })
}
