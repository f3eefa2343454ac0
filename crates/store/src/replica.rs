//! One region's replica on this store: its raft node, and the callers that wait for it.
//!
//! ```text
//!   proposals of a turn ── one entry ──> raft ── Ready ──> log write, messages, committed entries
//!        │ (index, term)                                           │
//!        └──────────── waiting ────────────────────────────────────┴──> ApplyTask, with replies
//! ```
//!
//! A caller's [`ReplyTo`] has one holder at any time: the queue, then `waiting`, then the
//! [`ApplyTask`]. Losing the leadership answers nobody: the entry may still be committed by the
//! next leader. A waiting write is stale once an entry of a later term is committed, at its index
//! or before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::limits::RAFT_ENTRY_SIZE_MAX;
use base::{Entry, Index, Instant, Peer, PeerId, PeerRole, Prng, Region, StoreId, Term};
use raft::{ConfState, Persist, ProposeError, RawNode, Ready};
use storage::log::LogReader;

use crate::apply::{Applied, ApplyInput, ApplyTask, Waiting};
use crate::command;
use crate::input::{Birth, Outbox, Proposal, RaftMessage, RegionReport, Report, SplitRequest};
use crate::lease::Lease;
use crate::peer_storage::PeerStorage;
use crate::reply::ReplyTo;
use crate::shard::ShardConfig;
use crate::states;
use crate::view::{RegionView, RequestHeader};
use crate::{Fatal, RegionError};

/// Proposals are joined into one entry up to this size; a single larger one is an entry of its own.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Writes are refused while more than this waits to be applied: the engine cannot keep up.
const APPLYING_BYTES_MAX: usize = 64 << 20;

pub(crate) struct Replica {
    region: Arc<Region>,
    peer: Peer,
    node: RawNode,
    /// As the applier last told.
    applied: (Index, Term),
    /// Up to where the engine says the log may go, and up to where it has gone.
    truncated: (Index, Term),
    cut: Index,
    /// Proposals of this turn.
    queue: Vec<Proposal>,
    /// Handed to the applier, not yet applied: last index and bytes of each task, and the sum of
    /// the bytes.
    applying: VecDeque<(Index, usize)>,
    applying_bytes: usize,
    /// Proposed, not yet handed to the applier; in the order of their indexes.
    waiting: VecDeque<Waiting>,
    /// Reads of this turn.
    reads: Vec<ReplyTo>,
    /// Reads whose index raft is finding out, by the context they were asked under.
    reads_asked: VecDeque<(u64, Vec<ReplyTo>)>,
    /// Reads that wait for their index to be applied.
    reads_at: Vec<(Index, Vec<ReplyTo>)>,
    next_context: u64,
    lease: Lease,
    /// The term in which the world was last told that this replica leads.
    reported: Option<Term>,
    report_at: Instant,
    written_bytes: u64,
    written_keys: u64,
    /// Bytes appended to the log since it was last asked to shrink.
    log_bytes: u64,
}

impl Replica {
    pub(crate) fn new(
        birth: Birth,
        store_id: StoreId,
        log: LogReader,
        config: &ShardConfig,
        prng: &mut Prng,
    ) -> Result<Self, Fatal> {
        let Birth { region, apply, hard_state } = birth;
        let peer = *region.peer_on(store_id).expect("a replica is born on a member's store");
        let cut = log.first_index(region.id) - 1;
        let log_start = (apply.truncated.0.max(cut), apply.truncated.1);
        let storage = PeerStorage::new(region.id, log, hard_state, members(&region));
        let raft_config = raft::Config {
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.heartbeat_ticks,
            seed: prng.next_u64(),
            applied: apply.applied,
            ..raft::Config::new(peer.id)
        };
        let node = RawNode::new(raft_config, Box::new(storage))
            .map_err(|cause| Fatal::raft(region.id, &cause))?;
        let lease = Lease::new(config.lease());
        Ok(Self {
            peer,
            node,
            applied: (apply.applied, 0),
            truncated: log_start,
            cut,
            queue: Vec::new(),
            applying: VecDeque::new(),
            applying_bytes: 0,
            waiting: VecDeque::new(),
            reads: Vec::new(),
            reads_asked: VecDeque::new(),
            reads_at: Vec::new(),
            next_context: 0,
            lease,
            reported: None,
            report_at: Instant::ZERO,
            written_bytes: 0,
            written_keys: 0,
            log_bytes: 0,
            region,
        })
    }

    /// A sole voter need not wait for a timeout: nobody else can lead.
    pub(crate) fn campaign_if_alone(&mut self) {
        if self.region.peers.len() == 1 {
            self.node.campaign();
        }
    }

    pub(crate) fn tick(&mut self) {
        self.node.tick();
    }

    /// Takes a message of the group. One that does not concern this replica is dropped, as if the
    /// network had lost it.
    pub(crate) fn step(&mut self, message: RaftMessage) {
        if message.to.id != self.peer.id {
            tracing::debug!(region = %self.region.id, to = %message.to.id, "not for this peer");
            return;
        }
        if let Err(error) = self.node.step(message.message) {
            tracing::debug!(region = %self.region.id, %error, "message refused");
        }
    }

    /// Takes a proposal or gives back the refusal.
    pub(crate) fn propose(&mut self, proposal: Proposal, out: &mut Outbox) {
        match self.check(&proposal) {
            Ok(()) => self.queue.push(proposal),
            Err(error) => out.replies.push((proposal.reply, Err(error))),
        }
    }

    fn check(&self, proposal: &Proposal) -> Result<(), RegionError> {
        self.check_header(&proposal.header)?;
        if proposal.only_in_term.is_some_and(|term| term != self.node.term()) {
            return Err(RegionError::StaleCommand(self.region.id));
        }
        let size = proposal.writes.byte_size();
        if size > RAFT_ENTRY_SIZE_MAX {
            let region = self.region.id;
            return Err(RegionError::RaftEntryTooLarge { region, size: size as u64 });
        }
        if self.applying_bytes > APPLYING_BYTES_MAX {
            let reason = format!("region {}: too much waits to be applied", self.region.id);
            return Err(RegionError::ServerIsBusy { reason });
        }
        Ok(())
    }

    fn check_header(&self, header: &RequestHeader) -> Result<(), RegionError> {
        self.view().check(header)
    }

    /// Takes a read or gives back the refusal.
    pub(crate) fn read_index(&mut self, header: &RequestHeader, reply: ReplyTo, out: &mut Outbox) {
        match self.check_header(header) {
            Ok(()) => self.reads.push(reply),
            Err(error) => out.replies.push((reply, Err(error))),
        }
    }

    /// Proposes the cut or gives back the refusal.
    pub(crate) fn split(&mut self, request: SplitRequest, out: &mut Outbox) {
        let SplitRequest { header, cuts, reply } = request;
        let fits = || self.region.split(&cuts).is_some();
        let checked = self.check_header(&header).and_then(|()| match fits() {
            true => Ok(()),
            false => Err(RegionError::EpochNotMatch { current: vec![self.region.clone()] }),
        });
        if let Err(error) = checked {
            out.replies.push((reply, Err(error)));
            return;
        }
        match self.node.propose(command::encode_split(self.region.epoch, &cuts)) {
            Ok((term, index)) => self.wait(Waiting { index, term, replies: vec![reply] }, out),
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    pub(crate) fn persisted(&mut self, ticket: raft::Ticket) {
        self.node.persisted(ticket);
    }

    pub(crate) fn applied(&mut self, applied: &Applied, out: &mut Outbox) {
        let id = self.region.id;
        assert!(applied.index >= self.applied.0, "region {id}: applied index went back");
        self.applied = (applied.index, applied.term);
        while let Some((_, bytes)) = self.applying.pop_front_if(|(last, _)| *last <= applied.index)
        {
            self.applying_bytes -= bytes;
        }
        self.truncated = applied.truncated;
        self.written_bytes += applied.written_bytes;
        self.written_keys += applied.written_keys;
        self.node.applied(applied.index);
        if let Some(region) = &applied.region {
            assert!(!region.epoch.is_behind(&self.region.epoch), "region {id}: epoch went back");
            self.region = region.clone();
            // The world is told at once.
            self.reported = None;
        }
        self.answer_reads(out);
    }

    /// Turns what piled up in this turn into raft's work and hands out what raft wants done.
    /// `ready` is anybody's, to be filled anew.
    pub(crate) fn ready(&mut self, now: Instant, ready: &mut Ready, out: &mut Outbox) {
        self.flush_proposals(out);
        self.flush_reads(out);
        while self.node.has_ready() {
            self.node.ready_into(ready);
            self.hand_out(ready, now, out);
        }
        self.report_leadership(now, out);
    }

    fn flush_proposals(&mut self, out: &mut Outbox) {
        let queue = std::mem::take(&mut self.queue);
        let mut queue = queue.into_iter().peekable();
        while let Some(first) = queue.next() {
            let mut size = first.writes.byte_size();
            let mut together = vec![first];
            while let Some(next) = queue.next_if(|p| size + p.writes.byte_size() <= ENTRY_BYTES_MAX)
            {
                size += next.writes.byte_size();
                together.push(next);
            }
            let pieces = together.iter().map(|proposal| &proposal.writes);
            let entry = command::encode_writes(self.region.epoch, pieces);
            let replies = together.into_iter().map(|proposal| proposal.reply).collect();
            match self.node.propose(entry) {
                Ok((term, index)) => self.wait(Waiting { index, term, replies }, out),
                Err(error) => self.refuse(replies, &error, out),
            }
        }
    }

    fn refuse(&self, replies: Vec<ReplyTo>, error: &ProposeError, out: &mut Outbox) {
        let error = match error {
            ProposeError::NotLeader { .. } => self.not_leader(),
            other => RegionError::ServerIsBusy { reason: other.to_string() },
        };
        out.replies.extend(replies.into_iter().map(|reply| (reply, Err(error.clone()))));
    }

    /// Our own entry now stands at `waiting.index`: whatever waits for that index or a later one
    /// was overwritten.
    fn wait(&mut self, waiting: Waiting, out: &mut Outbox) {
        while let Some(stale) = self.waiting.pop_back_if(|w| w.index >= waiting.index) {
            self.answer_stale(stale, out);
        }
        self.waiting.push_back(waiting);
    }

    fn answer_stale(&self, stale: Waiting, out: &mut Outbox) {
        let error = RegionError::StaleCommand(self.region.id);
        out.replies.extend(stale.replies.into_iter().map(|reply| (reply, Err(error.clone()))));
    }

    /// All reads of a turn share one index.
    fn flush_reads(&mut self, out: &mut Outbox) {
        if self.reads.is_empty() {
            return;
        }
        self.next_context += 1;
        let reads = std::mem::take(&mut self.reads);
        match self.node.read_index(self.next_context) {
            Ok(()) => self.reads_asked.push_back((self.next_context, reads)),
            Err(error) => {
                let error = RegionError::ServerIsBusy { reason: error.to_string() };
                out.replies.extend(reads.into_iter().map(|reply| (reply, Err(error.clone()))));
            }
        }
    }

    fn hand_out(&mut self, ready: &mut Ready, now: Instant, out: &mut Outbox) {
        let id = self.region.id;
        if let Some(failure) = &ready.failure {
            out.fatal = Some(Fatal::raft(id, failure));
            return;
        }
        self.renew_lease(ready.confirmed_round, now);
        out.send.extend(ready.messages.drain(..).map(|message| self.envelope(message)));
        for wanted in ready.snapshots_wanted.drain(..) {
            // This store makes none: the leader asks again when the member answers a heartbeat.
            self.node.snapshot_failed(wanted.to);
        }
        if let Some(persist) = &mut ready.persist {
            self.hand_out_write(persist, out);
        }
        self.hand_out_page(std::mem::take(&mut ready.committed), out);
        for state in ready.read_states.drain(..) {
            self.reads_found(state.context, state.index, out);
        }
    }

    fn hand_out_write(&mut self, persist: &mut Persist, out: &mut Outbox) {
        let id = self.region.id;
        assert!(persist.snapshot.is_none(), "region {id}: a snapshot that no store makes");
        self.log_bytes += persist.entries.iter().map(|e| e.data.len() as u64).sum::<u64>();
        out.log.batch.append(id, &persist.entries);
        if let Some(hard_state) = persist.hard_state {
            let last = self.node.last_index();
            out.log.batch.put_state(id, states::encode_raft_state(&hard_state, last));
        }
        out.log.tickets.push((id, persist.ticket));
        out.log.then.extend(persist.then.drain(..).map(|message| self.envelope(message)));
    }

    /// Committed entries leave for the applier, with those who wait for them.
    fn hand_out_page(&mut self, entries: Vec<Entry>, out: &mut Outbox) {
        let Some((index, term)) = entries.last().map(|last| (last.index, last.term)) else {
            return;
        };
        let mut waiting = Vec::new();
        while let Some(due) = self.waiting.pop_front_if(|w| w.index <= index) {
            waiting.push(due);
        }
        while let Some(stale) = self.waiting.pop_front_if(|w| w.term < term) {
            self.answer_stale(stale, out);
        }
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        self.applying.push_back((index, bytes));
        self.applying_bytes += bytes;
        let task = ApplyTask { region_id: self.region.id, entries, waiting };
        out.apply.push(ApplyInput::Apply(task));
    }

    fn renew_lease(&mut self, confirmed: u64, now: Instant) {
        if confirmed == 0 {
            self.lease.expire();
            return;
        }
        self.lease.begin(self.node.round(), now);
        self.lease.confirm(confirmed);
    }

    fn envelope(&self, message: raft::Message) -> RaftMessage {
        let to = *self.region.peer(message.to).expect("raft talks to members");
        RaftMessage {
            region_id: self.region.id,
            from: self.peer,
            to,
            epoch: self.region.epoch,
            message,
        }
    }

    fn reads_found(&mut self, context: u64, index: Index, out: &mut Outbox) {
        while let Some((_, replies)) = self.reads_asked.pop_front_if(|(asked, _)| *asked <= context)
        {
            self.reads_at.push((index, replies));
        }
        self.answer_reads(out);
    }

    fn answer_reads(&mut self, out: &mut Outbox) {
        let applied = self.applied.0;
        for (_, replies) in self.reads_at.extract_if(.., |(index, _)| *index <= applied) {
            out.replies.extend(replies.into_iter().map(|reply| (reply, Ok(()))));
        }
    }

    /// Tells the world when this replica begins to serve as leader or ceases to.
    fn report_leadership(&mut self, now: Instant, out: &mut Outbox) {
        let serves = self.serves_reads().then(|| self.node.term());
        if !self.node.is_leader() {
            self.lease.expire();
            let error = self.not_leader();
            let asked = self.reads_asked.drain(..).flat_map(|(_, replies)| replies);
            out.replies.extend(asked.map(|reply| (reply, Err(error.clone()))));
        }
        if serves == self.reported {
            return;
        }
        self.reported = serves;
        match serves {
            Some(_) => self.report(now, out),
            None => out.reports.push(Report::Lost(self.region.id)),
        }
    }

    fn report(&mut self, now: Instant, out: &mut Outbox) {
        self.report_at = now;
        out.reports.push(Report::Leads(RegionReport {
            region: self.region.clone(),
            leader: self.peer,
            term: self.node.term(),
            applied: self.applied.0,
            written_bytes: std::mem::take(&mut self.written_bytes),
            written_keys: std::mem::take(&mut self.written_keys),
        }));
    }

    /// Repeats the leader's report if the last one is older than `interval`.
    pub(crate) fn report_again(&mut self, now: Instant, interval: Duration, out: &mut Outbox) {
        if self.reported.is_some() && now.since(self.report_at) >= interval {
            self.report(now, out);
        }
    }

    /// Proposes that the log forget what every replica has, if it holds more than the limits say.
    pub(crate) fn compact_log(&mut self, config: &ShardConfig, out: &mut Outbox) {
        let (index, term) = self.applied;
        let entries = index.saturating_sub(self.truncated.0);
        let over = entries >= config.log_entries_max || self.log_bytes >= config.log_bytes_max;
        let alone = self.region.peers.len() == 1;
        if !over || !alone || !self.serves_reads() || index <= self.truncated.0 {
            return;
        }
        let entry = command::encode_compact_log(self.region.epoch, index, term);
        match self.node.propose(entry) {
            Ok((term, index)) => self.wait(Waiting { index, term, replies: Vec::new() }, out),
            Err(error) => tracing::debug!(region = %self.region.id, %error, "log not compacted"),
        }
        self.log_bytes = 0;
    }

    /// Up to where the log may be cut once the engine is synced, if that is further than it was cut
    /// already.
    pub(crate) fn wants_cut(&self) -> Option<(Index, Term)> {
        (self.truncated.0 > self.cut).then_some(self.truncated)
    }

    /// The log was cut up to `index`.
    pub(crate) fn cut(&mut self, index: Index) {
        assert!(index <= self.applied.0, "region {}: cut beyond applied", self.region.id);
        self.cut = index;
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.is_leader()
    }

    pub(crate) fn awaits_applied(&self) -> bool {
        !self.reads_at.is_empty() || (self.node.is_leader() && !self.serves_reads())
    }

    fn serves_reads(&self) -> bool {
        self.node.is_leader() && self.applied.1 == self.node.term()
    }

    fn leader(&self) -> Option<Peer> {
        self.region.peer(self.node.leader().unwrap_or(PeerId::NONE)).copied()
    }

    fn not_leader(&self) -> RegionError {
        RegionError::NotLeader { region: self.region.id, leader: self.leader() }
    }

    /// What others may know of this replica now.
    pub(crate) fn view(&self) -> RegionView {
        RegionView {
            region: self.region.clone(),
            peer: self.peer,
            leader: self.leader(),
            term: self.node.term(),
            applied: self.applied.0,
            serves_reads: self.serves_reads(),
            lease_until: self.lease.until(),
        }
    }
}

fn members(region: &Region) -> ConfState {
    let voters = region.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
    ConfState::of_voters(voters.map(|peer| peer.id))
}
