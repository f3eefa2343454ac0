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
//!
//! A replica is *uninitialised* until it has a snapshot (or a split that makes it): it knows the
//! region's id and its own, votes and answers, and has no keys. One whose state machine is *lost*
//! (files of a snapshot were damaged) does the same, and asks for another snapshot.
//!
//! `requests` and `reads` what callers want; `sleep` when it does nothing; `leading` what a leader
//! does beside; `moving` what it waits for before it ceases to lead; `wanting` snapshots of others;
//! `install` how a snapshot takes the place of everything; `contacts` who was heard; `inspect` what
//! others may know; `compaction` how the log shrinks; `consistency` whether all replicas hold the
//! same.

mod compaction;
mod consistency;
mod contacts;
mod growing;
mod inspect;
mod install;
mod leading;
mod merging;
mod moving;
mod reads;
mod requests;
mod sleep;
mod wanting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::rule::{Rule, keep};
use base::{Entry, Index, Instant, Peer, PeerId, Prng, Region, StoreId, Term};
use raft::{Body, ConfChangeError, HardState, Persist, RawNode, Ready};
use storage::log::LogReader;

pub(crate) use self::compaction::Leave;
use self::consistency::Comparison;
use self::contacts::Contacts;
use self::install::{Held, Install};
pub(crate) use self::merging::Learnt;
use self::merging::Merging;
use self::moving::Moving;
pub(crate) use self::moving::Step;
use self::reads::ReadQueue;
use self::sleep::Activity;
use self::wanting::Want;
use crate::apply::{Applied, ApplyInput, ApplyTask, Waiting};
use crate::input::{Birth, Outbox, Proposal, RaftMessage};
use crate::job::Job;
use crate::lease::Lease;
use crate::log_writer::LogStep;
use crate::peer_storage::PeerStorage;
use crate::shard::ShardConfig;
use crate::snapshot::{DiscardSnapshot, SnapshotKey, SnapshotName};
use crate::split_check::load::{Load, Reads};
use crate::split_check::{Growth, Traffic};
use crate::states;
use crate::{Fatal, members};

/// A replica that hears from no leader for so many election timeouts asks whether it is still a
/// member.
const SILENT_TIMEOUTS: u32 = 5;

/// Few writes wait for the answer to those before them, and go together: a message costs more than
/// a dozen writes in it.
const GATHER_ENTRIES: u64 = 64;

pub(crate) struct Replica {
    /// Without peers: uninitialised. Its epoch is then the latest under which this replica was
    /// spoken to as a member.
    region: Arc<Region>,
    peer: Peer,
    /// Tells this replica's tickets from those of others of the same region before it.
    life: u64,
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
    reads: ReadQueue,
    next_context: u64,
    /// Ticks after which a question to the leader is asked again.
    read_retry: u64,
    lease: Lease,
    /// No local reads before this entry is applied, a split that was proposed as leader of this
    /// term. In a later term it is applied before reads are served, or never.
    fence: (Term, Index),
    /// The term in which the world was last told that this replica leads.
    reported: Option<Term>,
    report_at: Instant,
    /// What was last told of members that lag or are down.
    reported_weak: Vec<PeerId>,
    written_bytes: u64,
    written_keys: u64,
    /// Bytes appended to the log since it was last asked to shrink, and up to where that was.
    log_bytes: u64,
    compact_asked: (Term, Index),
    contacts: Contacts,
    growth: Growth,
    load: Load,
    /// What is read here, for readers to count.
    traffic: Arc<Traffic>,
    /// What was read when placement was last told.
    told_reads: Reads,
    comparison: Comparison,
    tick: Duration,
    /// Ticks of this replica's life, and the one of the last word of a leader.
    ticks: u64,
    led_at: u64,
    /// What was last seen to happen, and since when nothing did.
    activity: Activity,
    idle_since: u64,
    /// Snapshots that began to replace what is here.
    installs: u32,
    /// A snapshot that is being installed, and what raft wants written behind it.
    install: Option<Install>,
    held: Vec<Held>,
    /// A snapshot came with the last message: its files go unless raft takes it over.
    arrived: Option<SnapshotKey>,
    /// Members that wait for a snapshot.
    wants: Vec<Want>,
    merging: Merging,
    moving: Moving,
    /// The state machine here is not what the log is applied to: nothing is applied before a
    /// snapshot replaces both.
    lost: bool,
    /// It goes: nothing is done any more.
    leaving: bool,
}

impl Replica {
    /// A replica of a region whose states are durable.
    pub(crate) fn new(
        birth: &Birth,
        store_id: StoreId,
        log: &LogReader,
        config: &ShardConfig,
        (life, prng): (u64, &mut Prng),
    ) -> Result<Self, Fatal> {
        let Birth { region, apply, hard_state, .. } = birth;
        let peer = *region.peer_on(store_id).expect("a replica is born on a member's store");
        let term = log.term(region.id, apply.applied).unwrap_or(0);
        let applied = (apply.applied, term);
        let node = raw_node(region, peer, log, (*hard_state, apply.applied), config, prng)?;
        let mut replica = Self::make(region.clone(), peer, node, log, applied, config, prng);
        replica.merging = Merging::new(birth);
        replica.life = life;
        replica.truncated = (apply.truncated.0.max(replica.cut), apply.truncated.1);
        Ok(replica)
    }

    /// A replica that knows nothing but its name. What an earlier process, or an earlier replica,
    /// voted for in this region's name stays: `hard_state`.
    pub(crate) fn uninitialised(
        message: &RaftMessage,
        log: &LogReader,
        hard_state: HardState,
        config: &ShardConfig,
        (life, prng): (u64, &mut Prng),
    ) -> Result<Self, Fatal> {
        let range = message.range.clone().unwrap_or_default();
        let (id, epoch) = (message.region_id, message.epoch);
        let (peers, flashback) = (Vec::new(), None);
        let region = Arc::new(Region { id, range, epoch, peers, flashback });
        let start = log.truncated(id);
        let peer = message.to;
        let node = raw_node(&region, peer, log, (hard_state, start.0), config, prng)?;
        let mut replica = Self::make(region, peer, node, log, start, config, prng);
        replica.life = life;
        if log.last_index(id) > 0 {
            // The log of a split that the engine has forgotten: without its data.
            replica.lose().map_err(|cause| Fatal::raft(id, &cause))?;
        }
        Ok(replica)
    }

    fn make(
        region: Arc<Region>,
        peer: Peer,
        node: RawNode,
        log: &LogReader,
        applied: (Index, Term),
        config: &ShardConfig,
        prng: &mut Prng,
    ) -> Self {
        let truncated = log.truncated(region.id);
        Self {
            region,
            peer,
            life: 0,
            node,
            applied,
            truncated,
            cut: truncated.0,
            queue: Vec::new(),
            applying: VecDeque::new(),
            applying_bytes: 0,
            waiting: VecDeque::new(),
            reads: ReadQueue::default(),
            next_context: prng.next_u64(),
            read_retry: u64::from(config.election_ticks / 2).max(1),
            lease: Lease::new(config.lease()),
            fence: (0, 0),
            reported: None,
            report_at: Instant::ZERO,
            reported_weak: Vec::new(),
            written_bytes: 0,
            written_keys: 0,
            log_bytes: 0,
            compact_asked: (0, 0),
            growth: Growth::default(),
            load: Load::default(),
            traffic: Arc::default(),
            told_reads: Reads::default(),
            contacts: Contacts::new(u64::from(config.election_ticks) * 2),
            comparison: Comparison::default(),
            tick: config.tick,
            ticks: 0,
            led_at: 0,
            activity: Activity::default(),
            idle_since: 0,
            installs: 0,
            install: None,
            held: Vec::new(),
            arrived: None,
            wants: Vec::new(),
            merging: Merging::default(),
            moving: Moving::default(),
            lost: false,
            leaving: false,
        }
    }

    /// A sole voter need not wait for a timeout: nobody else can lead.
    pub(crate) fn campaign_if_alone(&mut self) {
        if members::conf_of(&self.region).is_sole_voter(self.peer.id) && !self.takes_no_part() {
            self.node.campaign();
        }
    }

    /// Begins an election, if the replica may.
    pub(crate) fn campaign(&mut self) {
        self.node.campaign();
    }

    /// One tick passed. Whoever is not told any more by a leader that it belongs to the region
    /// asks.
    pub(crate) fn tick(&mut self, config: &ShardConfig, out: &mut Outbox) {
        if self.takes_no_part() {
            return;
        }
        self.ticks += 1;
        self.node.tick();
        self.give_up_reads(config, out);
        self.ask_for_credits(out);
        self.hurry(config.hand_over_ticks, out);
        self.fall_asleep(config);
        let patience = u64::from(config.election_ticks * SILENT_TIMEOUTS);
        if self.node.is_leader() {
            self.led_at = self.ticks;
        } else if self.ticks - self.led_at >= patience {
            self.led_at = self.ticks;
            self.ask_around();
        }
    }

    /// Does so with the next tick, unless it leads.
    pub(crate) fn ask_around_soon(&mut self) {
        self.led_at = 0;
    }

    /// Asks everybody known for a vote, which changes nothing, but makes those speak up who know
    /// that this replica is no member any more, or that the region is gone.
    pub(crate) fn ask_around(&mut self) {
        let mut known: Vec<PeerId> = self.region.peers.iter().map(|peer| peer.id).collect();
        known.extend(self.contacts.peers().map(|peer| peer.id));
        known.sort_unstable();
        known.dedup();
        self.node.inquire(&known);
    }

    /// Takes a message of the group. One that does not concern this replica is dropped, as if the
    /// network had lost it.
    pub(crate) fn step(&mut self, message: RaftMessage) {
        assert_eq!(message.to.id, self.peer.id, "the shard sees to that");
        if self.takes_no_part() {
            return;
        }
        self.contacts.heard(message.from, self.ticks);
        let as_member = message.range.is_some();
        if !self.is_initialised() && as_member && self.region.epoch.is_behind(&message.epoch) {
            let epoch = message.epoch;
            self.region = Arc::new(Region { epoch, ..(*self.region).clone() });
        }
        if message.message.body.is_from_leader() {
            self.led_at = self.ticks;
        }
        if let Body::Snapshot { snapshot, .. } = &message.message.body {
            self.arrived = Some(SnapshotKey::new(self.region.id, snapshot.pos));
        }
        if matches!(message.message.body, Body::ReadIndex { .. }) && self.is_merging() {
            // What this region was may be written elsewhere already.
            return;
        }
        match self.node.step(message.message) {
            Ok(()) => {}
            Err(error @ raft::StepError::TwoLeaders { .. }) => {
                tracing::error!(region = %self.region.id, %error, "message refused");
            }
            Err(error) => tracing::debug!(region = %self.region.id, %error, "message refused"),
        }
    }

    /// There is, or was, such a member.
    pub(crate) fn contact(&mut self, peer: Peer) {
        if self.contacts.peer(peer.id).is_none() {
            self.contacts.heard(peer, 0);
        }
    }

    pub(crate) fn persisted(&mut self, life: u64, ticket: raft::Ticket) {
        if life == self.life {
            self.node.persisted(ticket);
        }
    }

    pub(crate) fn applied(&mut self, applied: &Applied, out: &mut Outbox) {
        let id = self.region.id;
        assert!(applied.index >= self.applied.0, "region {id}: applied index went back");
        assert!(applied.milestone.is_none(), "region {id}: a step of its life is no entry");
        self.applied = (applied.index, applied.term);
        self.forget_applying();
        self.truncated = applied.truncated;
        self.written_bytes += applied.written_bytes;
        self.written_keys += applied.written_keys;
        self.grew(applied);
        if let Some(region) = &applied.region {
            self.set_region(region.clone());
        }
        self.merge_news(&applied.merge);
        self.change_members(applied);
        self.node.applied(applied.index);
        self.verify(applied.verify, out);
        self.answer_reads(out);
    }

    /// Entries up to the applied index are not being applied any more.
    fn forget_applying(&mut self) {
        let applied = self.applied.0;
        while let Some((_, bytes)) = self.applying.pop_front_if(|(last, _)| *last <= applied) {
            self.applying_bytes -= bytes;
        }
    }

    /// Tells raft of the changes of members. Those that a snapshot has overtaken it knows better.
    fn change_members(&mut self, applied: &Applied) {
        let id = self.region.id;
        let mut members = None;
        for (index, change) in &applied.conf_changes {
            match self.node.apply_conf_change(*index, change) {
                Ok(conf) => members = Some(conf),
                Err(ConfChangeError::Superseded) => return,
                Err(error) => panic!("region {id}: entry {index} changed members, but {error}"),
            }
        }
        if let Some(raft) = members {
            let ours = members::conf_of(&self.region);
            assert_eq!(raft, ours, "region {id}: the members of raft and region");
        }
    }

    fn set_region(&mut self, region: Arc<Region>) {
        let id = region.id;
        // One that knew nothing may have heard of a later epoch than its snapshot is of.
        let newer = !self.is_initialised() || !region.epoch.is_behind(&self.region.epoch);
        assert!(newer, "region {id}: epoch went back");
        self.peer = *region.peer(self.peer.id).expect("the applier knows who is a member");
        if region.range != self.region.range {
            self.growth.changed();
        }
        self.region = region;
        // The world is told at once.
        self.reported = None;
    }

    /// Turns what piled up in this turn into raft's work and hands out what raft wants done.
    /// `ready` is anybody's, to be filled anew.
    pub(crate) fn ready(&mut self, now: Instant, ready: &mut Ready, out: &mut Outbox) {
        if self.takes_no_part() {
            return;
        }
        self.flush_proposals(out);
        self.flush_reads(out);
        while self.node.has_ready() {
            self.node.ready_into(ready);
            self.hand_out(ready, now, out);
        }
        // What was applied in this turn may have made a round count that does not come again.
        self.renew_lease(self.node.confirmed_round(), now);
        if let Some(key) = self.arrived.take() {
            discard(SnapshotName::Received(key), out);
        }
        self.report_leadership(now, out);
        self.tell_leading(out);
    }

    fn hand_out(&mut self, ready: &mut Ready, now: Instant, out: &mut Outbox) {
        let id = self.region.id;
        if let Some(failure) = &ready.failure {
            out.fatal = Some(Fatal::raft(id, failure));
            return;
        }
        self.renew_lease(ready.confirmed_round, now);
        for message in ready.messages.drain(..) {
            self.send(message, out);
        }
        for wanted in ready.snapshots_wanted.drain(..) {
            self.want_snapshot(wanted, out);
        }
        if let Some(persist) = &mut ready.persist {
            self.hand_out_write(persist, out);
        }
        self.hand_out_page(std::mem::take(&mut ready.committed), out);
        for state in ready.read_states.drain(..) {
            self.reads_found(state.context, state.index, out);
        }
    }

    /// A message that need not wait leaves. If it cannot, and has files, they go.
    fn send(&mut self, message: raft::Message, out: &mut Outbox) {
        let to = message.to;
        let key = match &message.body {
            Body::Snapshot { snapshot, .. } => Some(SnapshotKey::new(self.region.id, snapshot.pos)),
            _ => None,
        };
        match (self.envelope(message), key) {
            (Some(message), _) => out.send.push(message),
            (None, Some(key)) => {
                self.node.snapshot_failed(to);
                discard(SnapshotName::Made { key, to }, out);
            }
            (None, None) => {}
        }
    }

    fn hand_out_write(&mut self, persist: &mut Persist, out: &mut Outbox) {
        self.log_bytes += persist.entries.iter().map(|e| e.data.len() as u64).sum::<u64>();
        if let Some(snapshot) = persist.snapshot.take() {
            let hard_state = persist.hard_state.expect("raft's state changes with a snapshot");
            self.begin_install(&snapshot, &hard_state, out);
        }
        if self.install.is_some() && keep(Rule::HoldWhileInstalling) {
            return self.hold(persist);
        }
        self.write(persist, out);
    }

    fn write(&mut self, persist: &mut Persist, out: &mut Outbox) {
        let id = self.region.id;
        out.log.batch.append(id, &persist.entries);
        let saves = self.is_initialised() || keep(Rule::VoteWithoutKeys);
        if let Some(hard_state) = persist.hard_state.filter(|_| saves) {
            let last = self.node.last_index();
            out.log.batch.put_state(id, states::encode_raft_state(&hard_state, last));
        }
        let step = LogStep::Written { life: self.life, ticket: persist.ticket };
        out.log.tickets.push((id, step));
        out.log.then.extend(persist.then.drain(..).filter_map(|message| self.envelope(message)));
    }

    /// Committed entries leave for the applier, with those who wait for them.
    fn hand_out_page(&mut self, entries: Vec<Entry>, out: &mut Outbox) {
        if self.lost {
            // A snapshot will bring what they do.
            return;
        }
        let Some((index, term)) = entries.last().map(|last| (last.index, last.term)) else {
            return;
        };
        assert!(self.is_initialised(), "region {}: nothing to apply to", self.region.id);
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
        self.lease.begin(self.node.round(), now);
        match confirmed {
            0 => self.lease.expire(),
            round => drop(self.lease.confirm(round)),
        }
    }

    /// The message with its address. `None`: it is for one of whom nothing is known any more, as
    /// happens when it was removed. A range goes to members only, as the epoch counts them.
    fn envelope(&self, message: raft::Message) -> Option<RaftMessage> {
        let member = self.region.peer(message.to);
        let to = member.or_else(|| self.contacts.peer(message.to));
        let may_be_first = matches!(
            message.body,
            Body::PreVote { .. } | Body::Vote { .. } | Body::Heartbeat { .. }
        );
        Some(RaftMessage {
            region_id: self.region.id,
            from: self.peer,
            to: *to?,
            epoch: self.region.epoch,
            message,
            range: (may_be_first && member.is_some()).then(|| self.region.range.clone()),
            tombstone: false,
            merged_into: None,
        })
    }
}

fn discard(name: SnapshotName, out: &mut Outbox) {
    out.jobs.push(Job::DiscardSnapshot(DiscardSnapshot(name)));
}

/// The raft node of a replica whose log is in `log`.
fn raw_node(
    region: &Region,
    peer: Peer,
    log: &LogReader,
    (hard_state, applied): (HardState, Index),
    config: &ShardConfig,
    prng: &mut Prng,
) -> Result<RawNode, Fatal> {
    let id = region.id;
    let storage = PeerStorage::new(id, log.clone(), hard_state, members::conf_of(region));
    let raft_config = raft::Config {
        election_ticks: config.election_ticks,
        heartbeat_ticks: config.heartbeat_ticks,
        gather_entries: GATHER_ENTRIES,
        seed: prng.next_u64(),
        applied,
        #[cfg(feature = "mutations")]
        breaks: config.breaks,
        ..raft::Config::new(peer.id)
    };
    RawNode::new(raft_config, Box::new(storage)).map_err(|cause| Fatal::raft(id, &cause))
}
