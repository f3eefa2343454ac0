//! A store serves transactional commands: around the real scheduler of crate `txn`, what the server
//! does on its threads, here at times of their own.
//!
//! ```text
//!   call ── submit ── latches ── permit (lease, or the group is asked) ── start
//!        ── snapshot, run ── second look ── ran ── propose ── applied ── answer
//! ```
//! Between any two of these the world may change.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Instant, RegionId, TimeStamp};
use client::StoreReply;
use proto::{errorpb, kvrpcpb};
use storage::engine::{Engine, GarbageRule};
use store::{
    Proposal, ReadFrom, ReadPermit, ReadRefusal, ReadRequest, RegionError, RequestHeader,
    ShardInput, WriteResult, Writes,
};
use txn::concurrency::SyncTicket;
use txn::gc::GcRule;
use txn::latches::CommandId;
use txn::mvcc::Reader;
use txn::scheduler::{
    Command, Effect, Flight, Limits, Next, Ran, Reply as Outcome, Scheduler, Started,
    SubmitRefused, Ticket, Under,
};
use txn::waiting::Detector;
use txn::{KeyError, Mutation, TxnError};

use super::Detection;
use super::answers::{self, Kind};
use super::gc::Collecting;
use super::past::Round;
use crate::cluster::event::{CallId, Caller, Event, Reply, Slot, Timer};
use crate::cluster::looks::Leave;
use crate::cluster::process::reply_to;
use crate::cluster::world::{Wait, World};

/// A command between its arrival and its answer.
pub(crate) struct Job {
    call: (CallId, Caller),
    header: RequestHeader,
    kind: Kind,
    command: Command,
    /// While it holds latches, or waits for them.
    ticket: Option<Ticket>,
    /// While it runs.
    run: Option<Run>,
    /// What is wrong with a timestamp that it computed, should it come to count.
    too_low: Option<String>,
}

/// What a command that was let in runs on.
struct Run {
    leave: Leave,
    under: Under,
    started: Started,
    ran: Option<Ran>,
}

/// The transactional part of a node.
pub(crate) struct TxnHost {
    pub(crate) scheduler: Scheduler,
    jobs: BTreeMap<CommandId, Job>,
    timer: Option<Instant>,
    pub(crate) detector: Detector,
    /// Regions whose `max_ts` is to be synced.
    pub(super) syncs: BTreeMap<RegionId, SyncTicket>,
    /// What is claimed of the past at the moment.
    pub(super) round: Round,
    pub(super) collecting: Collecting,
}

impl TxnHost {
    /// Remembers what is on `engine`, and else nothing.
    pub(crate) fn recall(region_locks_bytes: usize, engine: &dyn Engine) -> Self {
        // No client of a simulation makes timestamps up.
        let limits = Limits { region_locks_bytes, ahead_ms: 0, ..Limits::default() };
        let collecting = Collecting::default();
        collecting.state.recall(engine).expect("the engine works");
        Self {
            scheduler: Scheduler::new(limits),
            jobs: BTreeMap::new(),
            timer: None,
            detector: Detector::new(),
            syncs: BTreeMap::new(),
            round: Round::default(),
            collecting,
        }
    }

    /// What its engine may drop.
    pub(crate) fn garbage(&self) -> Arc<dyn GarbageRule> {
        Arc::new(GcRule::new(self.collecting.state.clone()))
    }
}

pub(super) fn writes_of(mutations: &[Mutation]) -> Writes {
    let mut writes = Writes::new();
    for mutation in mutations {
        match mutation {
            Mutation::Put { cf, key, value } => writes.put(*cf, key, value),
            Mutation::Delete { cf, key } => writes.delete(*cf, key),
            Mutation::DeleteRange { cf, start, end } => writes.delete_range(*cf, start, end),
        }
    }
    writes
}

impl World {
    /// A transactional command arrives.
    pub(super) fn take_command(
        &mut self,
        slot: Slot,
        call: (CallId, Caller),
        header: RequestHeader,
        kind: Kind,
        command: Command,
    ) {
        let Some(core) = self.nodes[slot].core() else { return };
        if let Some((start_ts, key)) = command.locks_since()
            && let Err(late) = core.txn.collecting.state.check(key.data(), start_ts)
        {
            return self.tell_client(slot, call, answers::failed(kind, &KeyError::Abort(late)));
        }
        let submitted = match core.txn.scheduler.submit(&command) {
            Ok(submitted) => submitted,
            Err(SubmitRefused::Busy) => {
                let error = RegionError::ServerIsBusy { reason: "scheduler is busy".to_owned() };
                return self.refuse_region(slot, call, kind, &error);
            }
            Err(SubmitRefused::Ts(error)) => {
                let error = errorpb::Error { message: error.to_string(), ..Default::default() };
                return self.tell_client(slot, call, answers::refused(kind, error));
            }
        };
        let id = submitted.ticket.id();
        let ticket = Some(submitted.ticket);
        let job = Job { call, header, kind, command, ticket, run: None, too_low: None };
        core.txn.jobs.insert(id, job);
        if submitted.granted {
            self.let_in(slot, id);
        }
        self.txn_effects(slot);
    }

    fn tell_client(&mut self, slot: Slot, (id, caller): (CallId, Caller), reply: StoreReply) {
        let now = self.now();
        self.trace.line(now, Some(slot), None, "txn", || format!("answer {id}: {reply:?}"));
        self.answer(slot, caller, id, Reply::Store(Box::new(reply)));
    }

    pub(super) fn refuse_region(
        &mut self,
        slot: Slot,
        call: (CallId, Caller),
        kind: Kind,
        error: &RegionError,
    ) {
        let error = store::region_error_to_proto(error);
        self.tell_client(slot, call, answers::refused(kind, error));
    }

    fn job(&mut self, slot: Slot, id: CommandId) -> Option<&mut Job> {
        self.nodes[slot].core()?.txn.jobs.get_mut(&id)
    }

    /// A command that holds its latches is let in, if this is the leader.
    fn let_in(&mut self, slot: Slot, id: CommandId) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(job) = core.txn.jobs.get(&id).filter(|job| job.run.is_none()) else { return };
        match core.views.permit(&job.header, ReadFrom::Leader, local) {
            Ok(permit) => self.start_command(slot, id, permit),
            Err(ReadRefusal::Region(error)) => self.end_refused(slot, id, &error),
            Err(ReadRefusal::NeedsReadIndex) => {
                let header = job.header;
                let number = self.wait(slot, Wait::TxnIndex(id));
                let reply = reply_to(&self.results, number);
                let request = ReadRequest { header, any_replica: false, reply };
                self.tell(slot, ShardInput::ReadIndex(request));
            }
        }
    }

    /// The group was asked whether this node leads.
    pub(crate) fn command_asked(&mut self, slot: Slot, id: CommandId, result: WriteResult) {
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(job) = core.txn.jobs.get(&id) else { return };
        let permitted =
            result.and_then(|()| core.views.permit_after_index(&job.header, ReadFrom::Leader));
        match permitted {
            Ok(permit) => self.start_command(slot, id, permit),
            Err(error) => self.end_refused(slot, id, &error),
        }
        self.txn_effects(slot);
    }

    fn start_command(&mut self, slot: Slot, id: CommandId, permit: ReadPermit) {
        let Some(core) = self.nodes[slot].core() else { return };
        let leave = core.leave(permit);
        let view = leave.view();
        let (region, version) = (view.region.id, view.region.epoch.version);
        let under = Under { region, term: view.term, version };
        let job = core.txn.jobs.get_mut(&id).expect("seen by the caller");
        match core.txn.scheduler.start(under, &job.command) {
            Ok(started) => {
                job.run = Some(Run { leave, under, started, ran: None });
                self.run_soon(slot, id);
            }
            Err(_) => {
                let (kind, call) = (job.kind, job.call);
                self.forget_job(slot, id);
                let error = errorpb::Error {
                    message: "max timestamp is not synced".to_owned(),
                    max_timestamp_not_synced: Some(errorpb::MaxTimestampNotSynced {}),
                    ..Default::default()
                };
                self.tell_client(slot, call, answers::refused(kind, error));
            }
        }
    }

    /// The thread that runs it may be interrupted anywhere.
    fn run_soon(&mut self, slot: Slot, id: CommandId) {
        let life = self.nodes[slot].life;
        let often = if self.prng.one_in(16) { 5_000 } else { 1 };
        let delay = self.network.inside() * often;
        self.queue.after(delay, Event::Command(slot, life, id));
    }

    /// The snapshot is taken, it is looked again, and the command runs; then what it came to is
    /// taken in.
    pub(crate) fn command_runs(&mut self, slot: Slot, id: CommandId) {
        let (now, local) = (self.now(), self.local(slot));
        let paused = self.nodes[slot].paused_until;
        if paused > now {
            let life = self.nodes[slot].life;
            return self.queue.at(paused, Event::Command(slot, life, id));
        }
        let engine = self.nodes[slot].machine.engine.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(job) = core.txn.jobs.get_mut(&id) else { return };
        let Some(run) = job.run.as_mut() else { return };
        let Some(ran) = run.ran.take() else {
            let snapshot = engine.snapshot();
            let region = run.leave.view().region.clone();
            let reader = Reader::new(&*snapshot, &region);
            let mut reader = reader.with_memory_locks(&run.started.memory);
            reader.set_unwritten(run.started.is_unwritten);
            let ran = job.command.run(&mut reader);
            drop(reader);
            match ran {
                Ok(ran) => {
                    run.ran = Some(ran);
                    return self.look_again(slot, id);
                }
                Err(error) => return self.end_failed(slot, id, error),
            }
        };
        let run = job.run.take().expect("seen above");
        let ticket = job.ticket.take().expect("it holds latches");
        let next = core.txn.scheduler.ran(local, ticket, run.under, &job.command, ran);
        match next {
            Next::Answer(outcome) => self.end_with(slot, id, outcome),
            Next::Wait(ticket) => job.ticket = Some(ticket),
            Next::Propose(mutations, outcome, flight) => {
                self.propose(slot, id, &run, (&mutations, outcome, flight));
            }
        }
        self.txn_effects(slot);
    }

    /// Whether the snapshot was taken under the leadership that the command was let in under.
    fn look_again(&mut self, slot: Slot, id: CommandId) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(run) = core.txn.jobs.get(&id).and_then(|job| job.run.as_ref()) else { return };
        match core.look_again(&run.leave, local) {
            Ok(()) => self.run_soon(slot, id),
            Err(error) => {
                self.end_refused(slot, id, &error);
                self.txn_effects(slot);
            }
        }
    }

    fn propose(
        &mut self,
        slot: Slot,
        id: CommandId,
        run: &Run,
        (mutations, outcome, flight): (&[Mutation], Outcome, Flight),
    ) {
        let range = &run.leave.view().region.range;
        assert!(
            mutations.iter().all(|mutation| mutation.key_outside(range).is_none()),
            "a command writes in its region"
        );
        let Self { nodes, floors, .. } = self;
        let job = nodes[slot].core().and_then(|core| core.txn.jobs.get_mut(&id));
        let job = job.expect("it just ran");
        job.too_low = floors.too_low(&job.command, mutations);
        let (header, is_computed) = (job.header, job.command.needs_synced_max_ts());
        let writes = writes_of(mutations);
        let number = self.wait(slot, Wait::Txn(id, Box::new((outcome, flight))));
        let reply = reply_to(&self.results, number);
        self.checks.promises.computed(mutations, run.under.term);
        let only_in_term = Some(run.under.term);
        if is_computed {
            self.shows_locks(slot);
        }
        self.tell(slot, ShardInput::Propose(Proposal { header, writes, only_in_term, reply }));
    }

    /// The writes of a command are applied, or refused.
    pub(crate) fn command_wrote(
        &mut self,
        slot: Slot,
        id: CommandId,
        (outcome, flight): (Outcome, Flight),
        result: WriteResult,
    ) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        match result {
            Ok(()) => {
                core.txn.scheduler.applied(local, flight);
                let job = core.txn.jobs.get(&id);
                if let Some(what) = job.and_then(|job| job.too_low.as_ref()) {
                    panic!("computed commits are above all who looked: {what}");
                }
                self.end_with(slot, id, outcome);
            }
            Err(error) => {
                core.txn.scheduler.failed(flight);
                self.end_refused(slot, id, &error);
            }
        }
        self.txn_effects(slot);
    }

    /// A job is at its end; its latches, if it has any, go.
    fn forget_job(&mut self, slot: Slot, id: CommandId) -> Option<Job> {
        let core = self.nodes[slot].core()?;
        let mut job = core.txn.jobs.remove(&id)?;
        if let Some(ticket) = job.ticket.take() {
            core.txn.scheduler.abandon(ticket);
        }
        Some(job)
    }

    fn end_with(&mut self, slot: Slot, id: CommandId, outcome: Outcome) {
        let Some(job) = self.forget_job(slot, id) else { return };
        self.totals.txn_commands += 1;
        self.fates.answered(&job.command, &outcome);
        self.floors.answered(&job.command, &outcome);
        if matches!(job.command, Command::CheckTxnStatus(_)) {
            self.looked_at(slot, job.header.region_id);
        }
        self.tell_client(slot, job.call, answers::answered(job.kind, outcome));
    }

    fn end_refused(&mut self, slot: Slot, id: CommandId, error: &RegionError) {
        let Some(job) = self.forget_job(slot, id) else { return };
        self.refuse_region(slot, job.call, job.kind, error);
    }

    fn end_failed(&mut self, slot: Slot, id: CommandId, error: TxnError) {
        let Some(job) = self.forget_job(slot, id) else { return };
        let region = job.run.as_ref().expect("it ran").leave.view().region.clone();
        self.fail(slot, job.call, job.kind, error, &region);
        self.txn_effects(slot);
    }

    /// A command or a read failed as a whole.
    pub(super) fn fail(
        &mut self,
        slot: Slot,
        call: (CallId, Caller),
        kind: Kind,
        error: TxnError,
        region: &std::sync::Arc<base::Region>,
    ) {
        match error {
            TxnError::Key(error) => self.tell_client(slot, call, answers::failed(kind, &error)),
            TxnError::KeyNotInRegion { key } => {
                let error = RegionError::KeyNotInRegion { key, region: region.clone() };
                self.refuse_region(slot, call, kind, &error);
            }
            error => panic!("transactional data are sound: node {slot}: {error}"),
        }
    }

    pub(super) fn answer_read(&mut self, slot: Slot, call: (CallId, Caller), reply: StoreReply) {
        self.tell_client(slot, call, reply);
    }

    /// What the scheduler wants done beside the command at hand.
    pub(super) fn txn_effects(&mut self, slot: Slot) {
        loop {
            let Some(core) = self.nodes[slot].core() else { return };
            let effects = core.txn.scheduler.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.txn_effect(slot, effect);
            }
        }
        self.set_lines_timer(slot);
    }

    fn txn_effect(&mut self, slot: Slot, effect: Effect) {
        match effect {
            Effect::Granted(id) => self.let_in(slot, id),
            Effect::Answer(id, outcome) => {
                self.lose_ticket(slot, id);
                self.end_with(slot, id, outcome);
            }
            Effect::Lost(id) => {
                self.lose_ticket(slot, id);
                let Some(job) = self.job(slot, id) else { return };
                let (region, leader) = (job.header.region_id, None);
                self.end_refused(slot, id, &RegionError::NotLeader { region, leader });
            }
            Effect::Detect(wait) => self.ask_detector(slot, Detection::Detect(wait)),
            Effect::WaitOver(wait) => self.ask_detector(slot, Detection::Over(wait)),
            Effect::HolderChanged(key, new) => {
                self.ask_detector(slot, Detection::Holder(key.user().clone(), new));
            }
        }
    }

    /// A command that waited in line holds nothing.
    fn lose_ticket(&mut self, slot: Slot, id: CommandId) {
        if let Some(job) = self.job(slot, id) {
            job.ticket = None;
        }
    }

    fn set_lines_timer(&mut self, slot: Slot) {
        let (now, life) = (self.now(), self.nodes[slot].life);
        let clock = self.nodes[slot].clock.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(next) = core.txn.scheduler.next_timer() else { return };
        let at = clock.true_time(next).max(now);
        if core.txn.timer.is_none_or(|timer| timer > at || timer <= now) {
            core.txn.timer = Some(at);
            self.queue.at(at, Event::Timer(slot, life, Timer::Lines));
        }
    }

    /// Time has passed for those who wait in line.
    pub(crate) fn lines_timer(&mut self, slot: Slot) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        core.txn.timer = None;
        core.txn.scheduler.expire(local);
        self.txn_effects(slot);
    }
}

/// The context of a request.
pub(super) fn header_of(context: &kvrpcpb::Context) -> RequestHeader {
    let nobody = || base::Peer::voter(base::PeerId(0), base::StoreId(0));
    let peer = context.peer.as_ref().map_or_else(nobody, proto::peer_from_proto);
    let epoch = context.region_epoch.as_ref().map(proto::epoch_from_proto);
    let region = RegionId(context.region_id);
    let header = RequestHeader::new(region, peer, epoch.unwrap_or_default());
    RequestHeader { term: context.term, epoch, ..header }
}

/// Whether a read goes to the past, to any replica, or to the leader.
pub(super) fn read_from(context: &kvrpcpb::Context, ts: TimeStamp) -> ReadFrom {
    match (context.stale_read, context.replica_read) {
        (true, _) => ReadFrom::Past(ts),
        (false, true) => ReadFrom::Replica,
        (false, false) => ReadFrom::Leader,
    }
}
