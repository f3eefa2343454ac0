//! The way of commands.
//!
//! ```text
//!   begin ──► look (lease?) ──► submit ──► start ──► snapshot, look again, run ──► ran ──► propose
//!               │ no lease        │ waits                                          │ waits   │
//!               ▼                 ▼                                                ▼         ▼
//!            ask the group,     jobs                                             jobs     proposed
//!            on a task            └── granted (told by whoever ended before):                │
//!                                     go on, on a task                      done, effects ◄──┘
//! ```
//!
//! An uncontended command under a lease goes from `begin` to its proposal on the caller's thread.
//! Commands for one region that come together go together: one look, one snapshot, one proposal.
//! Each has latches of its own, so that they are as independent as if they came one by one.

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::time::Instant;

use store::{
    Proposal, ReadFrom, ReadRefusal, RegionError, RegionView, ReplyTo, ShardInput, WriteResult,
    Writes,
};
use txn::Mutation;
use txn::mvcc::Reader;
use txn::scheduler::{
    Command, Effect, Flight, Next, Ran, Reply, Started, SubmitRefused, Submitted, Ticket, Under,
};

use super::deadlocks::Report;
use super::{Done, Job, State, Target, TxnService};
use crate::errors::{self, Refusal, txn_refusal};
use crate::services::raw::{GROUP_BYTES_MAX, add, encoded_size};
use crate::store_handle::ReadGuard;

/// What is to be done once the scheduler's mutex is free.
enum Work {
    GoOn(Box<Job>, Ticket),
    Answer(Done, Result<Reply, Refusal>),
    Report(Report),
}

/// A command whose writes are proposed.
struct Proposed {
    done: Done,
    reply: Reply,
    flight: Flight,
}

impl State {
    /// What the last call of the scheduler means for others.
    fn work(&mut self) -> Vec<Work> {
        let effects = self.scheduler.take_effects();
        effects.into_iter().map(|effect| self.work_of(effect)).collect()
    }

    fn work_of(&mut self, effect: Effect) -> Work {
        match effect {
            Effect::Granted(id) => {
                let (job, ticket) = self.jobs.remove(&id).expect("who waits is kept");
                Work::GoOn(Box::new(job), ticket)
            }
            Effect::Answer(id, reply) => {
                let (job, _) = self.jobs.remove(&id).expect("who waits is kept");
                Work::Answer(job.done, Ok(reply))
            }
            Effect::Lost(id) => {
                let (job, _) = self.jobs.remove(&id).expect("who waits is kept");
                let region = job.target.header.region_id;
                let error = RegionError::NotLeader { region, leader: None };
                Work::Answer(job.done, Err(error.into()))
            }
            Effect::Detect(wait) => Work::Report(Report::Waits(wait)),
            Effect::WaitOver(wait) => Work::Report(Report::Over(wait)),
            Effect::HolderChanged(key, holder) => {
                Work::Report(Report::Holder(key.user().clone(), holder))
            }
        }
    }
}

pub(super) fn under(view: &RegionView) -> Under {
    Under { region: view.region.id, term: view.term, version: view.region.epoch.version }
}

impl TxnService {
    /// Begins a command. `done` is called once, possibly before this returns.
    pub(super) fn begin(&self, target: Target, command: Command, done: Done) {
        self.take(Job::new(target, command, done));
    }

    /// Begins commands that came together.
    pub(crate) fn begin_all(&self, mut jobs: Vec<Job>) {
        while let Some(first) = jobs.first() {
            let header = first.target.header;
            let others = jobs.extract_if(.., |job| job.target.header != header).collect();
            self.take_all(std::mem::replace(&mut jobs, others));
        }
    }

    pub(super) fn take(&self, job: Job) {
        self.take_all(vec![job]);
    }

    /// Begins commands for one region.
    fn take_all(&self, jobs: Vec<Job>) {
        let Some(first) = jobs.first() else { return };
        let region = first.target.header.region_id;
        if !self.store().views().is_newborn(region) {
            return self.take_settled(jobs);
        }
        let service = self.clone();
        self.shared.runtime.spawn(async move {
            service.store().settled(region).await;
            service.take_settled(jobs);
        });
    }

    fn take_settled(&self, jobs: Vec<Job>) {
        let header = jobs[0].target.header;
        // The first look. If the latches are held by others, another one follows.
        let guard = match self.store().read(&header, ReadFrom::Leader) {
            Ok(guard) => Some(guard),
            Err(ReadRefusal::NeedsReadIndex) => None,
            Err(ReadRefusal::Region(error)) => {
                return jobs.into_iter().for_each(|job| (job.done)(Err(error.clone().into())));
            }
        };
        let (mut granted, mut refused) = (Vec::with_capacity(jobs.len()), Vec::new());
        let mut late = Vec::new();
        let mut state = self.state();
        for job in jobs {
            if let Some(refusal) = self.comes_too_late(&job.command) {
                late.push((job, refusal));
                continue;
            }
            match state.scheduler.submit(&job.command) {
                Ok(Submitted { ticket, granted: true }) => granted.push((job, ticket)),
                Ok(Submitted { ticket, granted: false }) => {
                    state.jobs.insert(ticket.id(), (job, ticket));
                }
                Err(why) => refused.push((job, why)),
            }
        }
        match guard {
            Some(guard) => self.run_latched(state, granted, &guard),
            None => {
                drop(state);
                self.ask_group(granted);
            }
        }
        refused.into_iter().for_each(|(job, why)| self.not_taken(job, why));
        late.into_iter().for_each(|(job, refusal)| (job.done)(Err(refusal)));
    }

    /// Too many commands, or a timestamp from the future: before that is believed, placement is
    /// asked how late it is.
    fn not_taken(&self, job: Job, why: SubmitRefused) {
        if job.asked_for_ts || !matches!(why, SubmitRefused::Ts(_)) {
            return (job.done)(Err(why.into()));
        }
        let service = self.clone();
        self.shared.runtime.spawn(async move {
            service.ask_for_timestamps().await;
            service.take(Job { asked_for_ts: true, ..job });
        });
    }

    /// A transaction from below the safe point takes no locks any more. Versions go one poll after
    /// it was told, so a command that passes here sees all that it needs.
    fn comes_too_late(&self, command: &Command) -> Option<Refusal> {
        let (start_ts, key) = command.locks_since()?;
        self.store().gc().check(key, start_ts).err()
    }

    /// The command holds its latches now, after a while.
    fn go_on(&self, job: Job, ticket: Ticket) {
        match self.store().read(&job.target.header, ReadFrom::Leader) {
            Ok(guard) => self.run_latched(self.state(), vec![(job, ticket)], &guard),
            Err(ReadRefusal::NeedsReadIndex) => self.ask_group(vec![(job, ticket)]),
            Err(ReadRefusal::Region(error)) => self.refuse(job, ticket, error.into()),
        }
    }

    /// The lease ran out: the group is asked, after the latches were granted.
    fn ask_group(&self, jobs: Vec<(Job, Ticket)>) {
        let Some((first, _)) = jobs.first() else { return };
        let (header, service) = (first.target.header, self.clone());
        self.shared.runtime.spawn(async move {
            match service.store().read_after_index(&header, ReadFrom::Leader).await {
                Ok(guard) => service.run_latched(service.state(), jobs, &guard),
                Err(error) => service.refuse_all(jobs, &error),
            }
        });
    }

    /// Runs commands that hold their latches.
    fn run_latched(
        &self,
        mut state: MutexGuard<'_, State>,
        jobs: Vec<(Job, Ticket)>,
        guard: &ReadGuard,
    ) {
        let under = under(guard.view());
        let (mut memory, mut started) = (BTreeMap::new(), Vec::with_capacity(jobs.len()));
        let mut not_synced = Vec::new();
        for (job, ticket) in jobs {
            match state.scheduler.start(under, &job.command) {
                Ok(Started { memory: mut locks, is_unwritten }) => {
                    memory.append(&mut locks);
                    started.push((job, ticket, is_unwritten));
                }
                Err(_) => not_synced.push((job, ticket)),
            }
        }
        drop(state);
        not_synced.into_iter().for_each(|(job, ticket)| self.wait_for_sync(job, ticket, under));
        if started.is_empty() {
            return;
        }
        let snapshot = guard.snapshot();
        if let Err(error) = guard.check() {
            let started = started.into_iter().map(|(job, ticket, _)| (job, ticket));
            return self.refuse_all(started, &error);
        }
        // Of several none takes long.
        let deadline = started[0].0.target.deadline.filter(|_| started.len() == 1);
        let late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let reader = Reader::new(&*snapshot, guard.region());
        let mut reader = reader.with_memory_locks(&memory).interrupted_by(&late);
        let (mut ran, mut refused) = (Vec::with_capacity(started.len()), Vec::new());
        for (job, ticket, is_unwritten) in started {
            reader.set_unwritten(is_unwritten);
            let result = match is_late(&job.target) {
                true => Err(Refusal::Region(Box::new(errors::deadline_exceeded()))),
                false => {
                    job.command.run(&mut reader).map_err(|error| txn_refusal(error, guard.region()))
                }
            };
            match result {
                Ok(outcome) => ran.push((job, ticket, outcome)),
                Err(refusal) => refused.push((job, ticket, refusal)),
            }
        }
        drop(reader);
        drop(snapshot);
        self.ran(ran, guard);
        refused.into_iter().for_each(|(job, ticket, refusal)| self.refuse(job, ticket, refusal));
    }

    fn ran(&self, ran: Vec<(Job, Ticket, Ran)>, guard: &ReadGuard) {
        let (now, under) = (self.store().clock().now(), under(guard.view()));
        let Some((first, ..)) = ran.first() else { return };
        let header = first.target.header;
        let (mut answers, mut waits) = (Vec::new(), false);
        let (mut writes, mut proposed) = (Vec::with_capacity(ran.len()), Vec::new());
        let mut state = self.state();
        for (job, ticket, outcome) in ran {
            match state.scheduler.ran(now, ticket, under, &job.command, outcome) {
                Next::Answer(reply) => answers.push((job.done, reply)),
                Next::Wait(ticket) => {
                    waits = true;
                    state.jobs.insert(ticket.id(), (job, ticket));
                }
                Next::Propose(mutations, reply, flight) => {
                    writes.push(mutations);
                    proposed.push(Proposed { done: job.done, reply, flight });
                }
            }
        }
        self.finish(state);
        if waits {
            self.shared.timer.notify_one();
        }
        answers.into_iter().for_each(|(done, reply)| done(Ok(reply)));
        let proposal = |writes, reply| {
            let only_in_term = Some(under.term);
            ShardInput::Propose(Proposal { header, writes, only_in_term, reply })
        };
        self.propose(&writes, proposed, proposal);
    }

    /// Proposes what belongs to one region, together as far as that is not too much for one entry.
    fn propose(
        &self,
        mutations: &[Vec<Mutation>],
        proposed: Vec<Proposed>,
        proposal: impl Fn(Writes, ReplyTo) -> ShardInput,
    ) {
        let mut proposed = proposed.into_iter();
        let mut rest = mutations;
        while !rest.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            for one in rest {
                bytes += encoded_size(one);
                if count > 0 && bytes > GROUP_BYTES_MAX {
                    break;
                }
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            let mut writes = Writes::with_capacity(bytes);
            now.iter().flatten().for_each(|mutation| add(&mut writes, mutation));
            let (service, together) = (self.clone(), proposed.by_ref().take(count).collect());
            let reply = ReplyTo::new(move |result| service.proposed(together, &result));
            self.store().request(proposal(writes, reply));
            rest = later;
        }
    }

    /// The fate of a proposal is known. Called from the thread that applies, among others.
    fn proposed(&self, together: Vec<Proposed>, result: &WriteResult) {
        let now = self.store().clock().now();
        let mut answers = Vec::with_capacity(together.len());
        let mut state = self.state();
        for Proposed { done, reply, flight } in together {
            match result {
                Ok(()) => state.scheduler.applied(now, flight),
                Err(_) => state.scheduler.failed(flight),
            }
            answers.push((done, reply));
        }
        self.finish(state);
        for (done, reply) in answers {
            done(match result {
                Ok(()) => Ok(reply),
                Err(error) => Err(error.clone().into()),
            });
        }
    }

    pub(super) fn refuse(&self, job: Job, ticket: Ticket, refusal: Refusal) {
        self.abandon(ticket);
        (job.done)(Err(refusal));
    }

    fn refuse_all(&self, jobs: impl IntoIterator<Item = (Job, Ticket)>, error: &RegionError) {
        for (job, ticket) in jobs {
            self.refuse(job, ticket, error.clone().into());
        }
    }

    pub(super) fn abandon(&self, ticket: Ticket) {
        let mut state = self.state();
        state.scheduler.abandon(ticket);
        self.finish(state);
    }

    /// Time has passed. Returns when there is something to do again.
    pub(super) fn expire(&self) -> Option<base::Instant> {
        let mut state = self.state();
        state.scheduler.expire(self.store().clock().now());
        let next = state.scheduler.next_timer();
        self.finish(state);
        next
    }

    /// Frees the scheduler, and does what its last calls mean for others.
    pub(super) fn finish(&self, mut state: MutexGuard<'_, State>) {
        let work = state.work();
        drop(state);
        for work in work {
            match work {
                Work::Answer(done, outcome) => done(outcome),
                Work::Report(report) => self.report(report),
                Work::GoOn(job, ticket) => {
                    let service = self.clone();
                    self.shared.runtime.spawn(async move { service.go_on(*job, ticket) });
                }
            }
        }
    }
}

/// Whether the client has stopped waiting.
pub(super) fn is_late(target: &Target) -> bool {
    target.deadline.is_some_and(|deadline| Instant::now() >= deadline)
}
