//! What every role needs: term, vote, log, members, and what waits to leave.

use base::{Index, PeerId, Prng, Term};

use crate::config::Config;
use crate::log::Log;
use crate::message::{AppendOutcome, Body, LogPos, Message};
use crate::quorum::{ConfState, majority_value};
use crate::ready::{HardState, Persist, ReadState, Ready, Spare, Ticket};
use crate::rules::Rule;
use crate::snapshot::{Snapshot, SnapshotWanted};

/// The part of a node that outlives its roles. A role's methods get it beside the role's own state.
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) conf: ConfState,
    pub(crate) log: Log,
    prng: Prng,
    term: Term,
    vote: PeerId,
    /// The hard state in the latest write that was handed out.
    saved: HardState,
    /// The write that makes the latest term and vote durable, while it is on the way.
    saving: Option<Ticket>,
    /// The latest round that this node began as leader. Never begins anew, so a number names a
    /// round of this node.
    pub(crate) round: u64,
    /// For so many ticks the node votes for nobody: it heard from a leader, or it may have before
    /// it was restarted.
    pub(crate) voteless_ticks: u32,
    /// What waits to leave; nothing in an idle group.
    outbox: Option<Box<Outbox>>,
    /// A snapshot that was taken over and waits to be handed out for installing.
    incoming: Option<Box<Snapshot>>,
    /// The driver asked for a snapshot. Until it comes the node does not campaign, and the log
    /// takes nothing new once all of it is committed.
    pub(crate) needs_snapshot: bool,
    /// The group sleeps: ticks do nothing.
    pub(crate) quiet: bool,
}

/// What waits to leave with the next `Ready`.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Messages that may leave now.
    pub(crate) messages: Vec<Message>,
    /// Messages that may leave when all that there is to write is durable.
    after: Vec<Message>,
    pub(crate) read_states: Vec<ReadState>,
    pub(crate) snapshots_wanted: Vec<SnapshotWanted>,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        let Self { messages, after, read_states, snapshots_wanted } = self;
        messages.is_empty()
            && after.is_empty()
            && read_states.is_empty()
            && snapshots_wanted.is_empty()
    }
}

/// What a role decides about its own future.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Stay what you are.
    Stay,
    /// Follow `leader` (nobody, if none is known) in the present term.
    Follow { leader: PeerId },
    /// Begin an election, with pre-votes first if they are in use.
    Elect,
    /// Begin the election proper: a new term.
    Campaign,
    /// Begin the election proper in spite of a lease, which the leader released for rounds up to
    /// this one.
    Succeed { released: u64 },
    /// Lead the present term.
    Lead,
}

impl Common {
    pub(crate) fn new(config: Config, hard_state: HardState, conf: ConfState, log: Log) -> Self {
        let prng = Prng::new(config.seed);
        Self {
            config,
            conf,
            log,
            prng,
            term: hard_state.term,
            vote: hard_state.vote,
            saved: hard_state,
            saving: None,
            round: 0,
            voteless_ticks: 0,
            outbox: None,
            incoming: None,
            needs_snapshot: false,
            quiet: false,
        }
    }

    /// Whether this node keeps `rule`, as all do but in tests of the tests.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.config.rules().keep(rule)
    }

    pub(crate) fn id(&self) -> PeerId {
        self.config.id
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    pub(crate) fn vote(&self) -> PeerId {
        self.vote
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    /// A later term begins, in which this node has voted for nobody.
    pub(crate) fn enter_term(&mut self, term: Term) {
        assert!(term > self.term, "term goes back from {} to {term}", self.term);
        self.term = term;
        self.vote = PeerId::NONE;
        self.quiet = false;
    }

    /// Votes in the present term.
    pub(crate) fn cast_vote(&mut self, candidate: PeerId) {
        let free = self.vote == PeerId::NONE || self.vote == candidate;
        assert!(free, "term {}: voted for {}, then {candidate}", self.term, self.vote);
        self.vote = candidate;
    }

    /// A leader of the present term was heard.
    pub(crate) fn heard_leader(&mut self) {
        if self.config.check_quorum {
            self.voteless_ticks = self.config.election_ticks;
        }
    }

    /// A fresh election timeout in ticks. One more than others refuse votes for, at least: their
    /// ticks need not come at the moment of ours, and a refusal costs another timeout.
    pub(crate) fn draw_timeout(&mut self) -> u32 {
        let ticks = self.config.election_ticks;
        ticks + 1 + self.prng.below(u64::from(ticks - 1)) as u32
    }

    /// The election timeout of whoever knows that the leader is gone: it need not be spread so far,
    /// since few know it, and of two who ask at once one stands back (`raw_node/steps`,
    /// `on_pre_vote`).
    pub(crate) fn draw_short_timeout(&mut self) -> u32 {
        let ticks = self.config.election_ticks;
        ticks + 1 + self.prng.below(u64::from(ticks / 4).max(1)) as u32
    }

    /// Sends what promises nothing that could be forgotten in a crash.
    pub(crate) fn send(&mut self, to: PeerId, body: Body) {
        let message = Message { from: self.id(), to, term: self.term, body };
        self.outbox().messages.push(message);
    }

    /// Sends what promises no more than the present term and vote: at once if these are durable,
    /// else after the write.
    pub(crate) fn respond(&mut self, to: PeerId, body: Body) {
        self.respond_in(to, self.term, body);
    }

    /// Like `respond`, in the name of another term.
    pub(crate) fn respond_in(&mut self, to: PeerId, term: Term, body: Body) {
        let message = Message { from: self.id(), to, term, body };
        match self.is_vote_durable() {
            true => self.outbox().messages.push(message),
            false => self.outbox().after.push(message),
        }
    }

    /// Asks whether `to` would vote for this node in the next term.
    pub(crate) fn ask_pre_vote(&mut self, to: PeerId, last: LogPos) {
        let (term, priority) = (self.term + 1, self.config.priority);
        let body = Body::PreVote { last, priority };
        let message = Message { from: self.id(), to, term, body };
        self.outbox().messages.push(message);
    }

    /// Whether the node would vote for a candidate whose log ends at `last`: if that one lacks
    /// nothing that may be committed (Raft paper, section 5.4.1), and need not stand back behind
    /// this node.
    pub(crate) fn would_vote(&self, last: LogPos, priority: i64) -> bool {
        let own = self.log.last();
        let lacks_nothing = last.is_up_to_date_with(&own) || !self.keeps(Rule::VoteForUpToDateLogs);
        // Who cannot win, or may not campaign, must not stand in the way of all others.
        let could_lead =
            own.is_up_to_date_with(&last) && self.conf.is_voter(self.id()) && !self.needs_snapshot;
        lacks_nothing && (!could_lead || priority >= self.config.priority)
    }

    /// The highest value that a quorum has reached: which index is committed.
    pub(crate) fn quorum_value(&self, reached: impl Fn(PeerId) -> Index) -> Index {
        if !self.keeps(Rule::BothMajoritiesDecide) {
            return majority_value(&self.conf.voters, reached);
        }
        if !self.keeps(Rule::LearnersDoNotCount) {
            let mut values: Vec<Index> = self.conf.members().into_iter().map(reached).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            return values[self.conf.voters.len() / 2];
        }
        self.conf.quorum_value(reached)
    }

    /// Tells one whose log ends at `last` what is committed of it, in the name of `term`.
    pub(crate) fn tell_committed(&mut self, to: PeerId, term: Term, last: LogPos) {
        let index = self.log.committed().min(last.index);
        if let Ok(Some(known)) = self.log.term(index)
            && known > 0
        {
            let upto = LogPos { index, term: known };
            self.respond_in(to, term, Body::Committed { upto });
        }
    }

    /// Takes a leader's snapshot over in place of the log.
    pub(crate) fn restore(&mut self, snapshot: Box<Snapshot>) {
        assert!(snapshot.conf.is_sound(), "a snapshot of a group that cannot decide");
        self.log.restore(snapshot.pos);
        self.conf = snapshot.conf.clone();
        self.conf.normalise();
        if !self.keeps(Rule::SnapshotBringsLearners) {
            self.conf.learners.clear();
        }
        self.needs_snapshot = false;
        self.incoming = Some(snapshot);
    }

    /// A follower's cry for a snapshot that covers its whole log.
    pub(crate) fn ask_snapshot(&mut self, leader: PeerId) {
        let at_least = self.log.last().index;
        self.respond(leader, Body::SnapshotRequest { at_least });
    }

    /// Tells the leader that the log equals its own up to `index`: once that is durable.
    pub(crate) fn respond_matched(&mut self, to: PeerId, index: Index, round: u64) {
        let body = Body::AppendResponse { outcome: AppendOutcome::Matched(index), round };
        let message = Message { from: self.id(), to, term: self.term, body };
        let durable = index <= self.log.stable() || !self.keeps(self.durability_rule());
        match self.is_vote_durable() && durable {
            true => self.outbox().messages.push(message),
            false => self.outbox().after.push(message),
        }
    }

    /// The rule by which an acknowledgement waits.
    fn durability_rule(&self) -> Rule {
        match self.log.is_restoring() {
            true => Rule::SnapshotWhenInstalled,
            false => Rule::MatchWhenDurable,
        }
    }

    /// Whether a crash now would remember the present term and vote.
    pub(crate) fn is_vote_durable(&self) -> bool {
        self.saving.is_none() && !self.is_vote_unsaved()
    }

    fn is_vote_unsaved(&self) -> bool {
        (self.term, self.vote) != (self.saved.term, self.saved.vote)
    }

    /// Whether anything but a role's own work waits to leave.
    pub(crate) fn has_ready(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
            || self.incoming.is_some()
            || self.is_vote_unsaved()
            || self.log.has_unwritten()
            || self.log.has_committed()
    }

    /// What waits to leave.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        self.outbox.get_or_insert_default()
    }

    /// Lets leave what need not wait.
    pub(crate) fn empty_outbox(&mut self, ready: &mut Ready) {
        if let Some(outbox) = &mut self.outbox {
            ready.messages.append(&mut outbox.messages);
            ready.read_states.append(&mut outbox.read_states);
            ready.snapshots_wanted.append(&mut outbox.snapshots_wanted);
        }
        if self.quiet {
            self.rest();
        }
    }

    /// Gives memory back that an idle node does not need.
    pub(crate) fn rest(&mut self) {
        self.log.rest();
        if self.outbox.as_ref().is_some_and(|outbox| outbox.is_empty()) {
            self.outbox = None;
        }
    }

    /// What must be written, if anything, in the vectors of an earlier write.
    pub(crate) fn take_persist(&mut self, spare: &mut Spare) -> Option<Persist> {
        let unsaved = self.is_vote_unsaved();
        let snapshot = self.incoming.take();
        let writes = unsaved || snapshot.is_some() || self.log.has_unwritten();
        let waits = self.outbox.as_ref().is_some_and(|outbox| !outbox.after.is_empty());
        if !writes && !waits {
            return None;
        }
        let Spare { mut entries, mut then } = std::mem::take(spare);
        let ticket = self.log.begin_write(&mut entries);
        let mut state = self.hard_state();
        assert!(state.term >= self.saved.term && state.commit >= self.saved.commit, "{state:?}");
        let lazily = !entries.is_empty() && state.commit != self.saved.commit;
        let wanted = unsaved || lazily || snapshot.is_some();
        if wanted {
            self.saved = state;
        }
        if unsaved {
            self.saving = Some(ticket);
        }
        if !self.keeps(Rule::RememberVote) {
            state.vote = PeerId::NONE;
        }
        if let Some(outbox) = &mut self.outbox {
            then.append(&mut outbox.after);
        }
        Some(Persist { ticket, snapshot, hard_state: wanted.then_some(state), entries, then })
    }

    /// The write of `ticket`, and all before it, are durable.
    pub(crate) fn persisted(&mut self, ticket: Ticket) {
        self.log.persisted(ticket);
        if self.saving.is_some_and(|saving| saving <= ticket) {
            self.saving = None;
        }
    }
}
