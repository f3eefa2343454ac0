//! What every role needs: term, vote, log, members, and what waits to leave.

use base::{Index, PeerId, Prng, Term};

use crate::config::Config;
use crate::log::Log;
use crate::message::{AppendOutcome, Body, LogPos, Message};
use crate::quorum::ConfState;
use crate::ready::{HardState, Persist, ReadState, Ticket};

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
    /// Messages that may leave now.
    messages: Vec<Message>,
    /// Messages that may leave when all that there is to write is durable.
    after: Vec<Message>,
    pub(crate) read_states: Vec<ReadState>,
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
            messages: Vec::new(),
            after: Vec::new(),
            read_states: Vec::new(),
        }
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

    /// A fresh election timeout in ticks.
    pub(crate) fn draw_timeout(&mut self) -> u32 {
        let ticks = self.config.election_ticks;
        ticks + self.prng.below(u64::from(ticks)) as u32
    }

    /// Sends what promises nothing that could be forgotten in a crash.
    pub(crate) fn send(&mut self, to: PeerId, body: Body) {
        self.messages.push(Message { from: self.id(), to, term: self.term, body });
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
            true => self.messages.push(message),
            false => self.after.push(message),
        }
    }

    /// Asks whether `to` would vote for this node in the next term.
    pub(crate) fn ask_pre_vote(&mut self, to: PeerId, last: LogPos) {
        let term = self.term + 1;
        self.messages.push(Message { from: self.id(), to, term, body: Body::PreVote { last } });
    }

    /// Tells the leader that the log equals its own up to `index`: once that is durable.
    pub(crate) fn respond_matched(&mut self, to: PeerId, index: Index, round: u64) {
        let body = Body::AppendResponse { outcome: AppendOutcome::Matched(index), round };
        let message = Message { from: self.id(), to, term: self.term, body };
        match self.is_vote_durable() && index <= self.log.stable() {
            true => self.messages.push(message),
            false => self.after.push(message),
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
        !self.messages.is_empty()
            || !self.after.is_empty()
            || !self.read_states.is_empty()
            || self.is_vote_unsaved()
            || self.log.has_unwritten()
            || self.log.has_committed()
    }

    pub(crate) fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    /// What must be written, if anything.
    pub(crate) fn take_persist(&mut self) -> Option<Persist> {
        let unsaved = self.is_vote_unsaved();
        if !unsaved && self.after.is_empty() && !self.log.has_unwritten() {
            return None;
        }
        let (ticket, entries) = self.log.begin_write();
        let state = self.hard_state();
        let lazily = !entries.is_empty() && state.commit != self.saved.commit;
        let hard_state = (unsaved || lazily).then_some(state);
        if let Some(state) = hard_state {
            self.saved = state;
        }
        if unsaved {
            self.saving = Some(ticket);
        }
        Some(Persist { ticket, hard_state, entries, then: std::mem::take(&mut self.after) })
    }

    /// The write of `ticket`, and all before it, are durable.
    pub(crate) fn persisted(&mut self, ticket: Ticket) {
        self.log.persisted(ticket);
        if self.saving.is_some_and(|saving| saving <= ticket) {
            self.saving = None;
        }
    }
}
