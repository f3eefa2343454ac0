//! Messages and elections: what a message does to the term, who gets a vote, how roles change.

use base::{PeerId, Term};

use super::{RawNode, State};
use crate::candidate::Candidate;
use crate::common::Next;
use crate::error::StepError;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::message::{Body, LogPos, Message};
use crate::rules::Rule;
use crate::storage::Failure;

impl RawNode {
    /// Brings the term up to date with the message. Returns whether the message still matters.
    pub(super) fn settle_term(&mut self, message: &Message) -> bool {
        let (from, own) = (message.from, self.common.term());
        let asks_vote = matches!(message.body, Body::Vote { .. } | Body::PreVote { .. });
        if asks_vote && self.is_leased() && !self.is_released(message) {
            return false;
        }
        if message.term < own {
            if message.body.is_from_leader() || asks_vote {
                self.common.respond(from, Body::TermOver);
            }
            return false;
        }
        if message.term > own {
            match message.body {
                // A term that nobody has entered yet.
                Body::PreVote { .. } | Body::PreVoteResponse { granted: true } => {}
                _ if message.body.is_from_leader() => {
                    self.become_follower(message.term, from);
                }
                _ => self.become_follower(message.term, PeerId::NONE),
            }
        }
        true
    }

    /// Whether a leader may hold a lease that counts on this node, so that it must not help to
    /// elect another.
    fn is_leased(&self) -> bool {
        let leads = self.is_leader() && self.common.config.check_quorum;
        let heard = self.common.voteless_ticks > 0 && self.common.keeps(Rule::NoVoteWithinLease);
        heard || leads
    }

    /// Whether the vote is asked for by the wish of the very leader that may hold the lease, and
    /// that leader has not begun a round since, as far as this node knows.
    fn is_released(&self, message: &Message) -> bool {
        let Body::Vote { released: Some(released), .. } = message.body else { return false };
        let next_term = message.term == self.common.term() + 1;
        next_term
            && match &self.state {
                State::Follower(follower) => {
                    follower.leader != PeerId::NONE && follower.round <= released
                }
                State::Candidate(_) => false,
                State::Leader(leader) => leader.has_asked() && self.common.round <= released,
            }
    }

    /// Handles a message of the present term, or a pre-vote of a later one.
    pub(super) fn step_in_term(
        &mut self,
        message: Message,
    ) -> Result<Result<Next, StepError>, Failure> {
        let common = &mut self.common;
        match (&mut self.state, &message.body) {
            (_, &Body::PreVote { last, priority }) => {
                Ok(Ok(self.on_pre_vote(&message, last, priority)))
            }
            (_, &Body::Vote { last, priority, released }) => {
                // Whoever was asked to lead need not stand back.
                let priority = if released.is_some() { i64::MAX } else { priority };
                Ok(Ok(self.on_vote(message.from, last, priority)))
            }
            (State::Leader(_), Body::Committed { .. }) => Ok(Ok(Next::Stay)),
            (_, &Body::Committed { upto }) => self.on_committed(upto).map(Ok),
            (State::Follower(follower), _) => follower.step(common, message),
            (State::Candidate(_), body) if body.is_from_leader() => {
                // Somebody else was elected.
                self.become_follower(message.term, message.from);
                self.step_in_term(message)
            }
            (State::Candidate(candidate), _) => Ok(Ok(candidate.step(common, message))),
            (State::Leader(leader), _) => leader.step(common, message),
        }
    }

    fn on_pre_vote(&mut self, message: &Message, last: LogPos, priority: i64) -> Next {
        let common = &mut self.common;
        let granted = message.term > common.term() && common.would_vote(last, priority);
        let term = if granted { message.term } else { common.term() };
        // A node of no term yet cannot refuse in its name; it says nothing.
        if term > 0 {
            common.respond_in(message.from, term, Body::PreVoteResponse { granted });
        }
        if !granted {
            let term = term.max(message.term - 1);
            common.tell_committed(message.from, term, last);
        }
        // Of two who ask each other at once both would campaign, and each vote for itself.
        let outranks = last != common.log.last() || message.from > common.id();
        match &self.state {
            State::Candidate(candidate) if granted && candidate.pre && outranks => {
                Next::Follow { leader: PeerId::NONE }
            }
            _ => Next::Stay,
        }
    }

    /// Raft paper, figure 2, "RequestVote RPC", and section 5.4.1.
    fn on_vote(&mut self, from: PeerId, last: LogPos, priority: i64) -> Next {
        let vote = self.common.vote();
        let free = vote == from || (vote == PeerId::NONE && self.leader().is_none());
        let granted = free && self.common.would_vote(last, priority);
        if granted {
            self.common.cast_vote(from);
        }
        match self.common.keeps(Rule::VoteWhenDurable) {
            true => self.common.respond(from, Body::VoteResponse { granted }),
            false => self.common.send(from, Body::VoteResponse { granted }),
        }
        if !granted {
            self.common.tell_committed(from, self.common.term(), last);
        }
        match &mut self.state {
            State::Follower(follower) if granted => {
                follower.elapsed = 0;
                Next::Stay
            }
            // It asked whether to campaign, and now knows of one who does.
            State::Candidate(candidate) if granted && candidate.pre => {
                Next::Follow { leader: PeerId::NONE }
            }
            _ => Next::Stay,
        }
    }

    /// Who refused a vote tells what is committed. If that changes the members, this election was
    /// among the wrong ones.
    fn on_committed(&mut self, upto: LogPos) -> Result<Next, Failure> {
        let log = &mut self.common.log;
        let grew = log.has(upto)? && log.commit_to(upto.index);
        let elects = grew && matches!(self.state, State::Candidate(_));
        Ok(match elects && log.has_unapplied_conf_change()? {
            true => Next::Follow { leader: PeerId::NONE },
            false => Next::Stay,
        })
    }

    pub(super) fn turn_to(&mut self, next: Next) {
        if matches!(next, Next::Elect | Next::Succeed { .. }) {
            match self.may_campaign() {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => return self.fail(failure),
            }
        }
        match next {
            Next::Stay => {}
            Next::Follow { leader } => self.become_follower(self.common.term(), leader),
            Next::Elect => {
                let alone = self.common.conf.is_sole_voter(self.id());
                match self.common.config.pre_vote && !alone {
                    true => self.become_pre_candidate(),
                    false => self.become_candidate(None),
                }
            }
            Next::Campaign => self.become_candidate(None),
            Next::Succeed { released } => self.become_candidate(Some(released)),
            Next::Lead => self.become_leader(),
        }
    }

    /// Whether the node's log and members are what it would lead with: no snapshot is on its way
    /// into them, and the changes of members that are known to be committed are applied.
    fn may_campaign(&self) -> Result<bool, Failure> {
        let common = &self.common;
        if common.needs_snapshot || common.log.is_restoring() {
            return Ok(false);
        }
        let applied = !common.log.has_unapplied_conf_change()?;
        Ok(applied || !common.keeps(Rule::CampaignWithChangesApplied))
    }

    pub(super) fn become_follower(&mut self, term: Term, leader: PeerId) {
        if term != self.common.term() {
            self.common.enter_term(term);
        }
        // A later term alone, perhaps of one that cannot win, must not put off the own election:
        // only a leader, or a vote that is given, does.
        let elapsed = match &self.state {
            State::Follower(follower) if leader == PeerId::NONE => follower.elapsed,
            State::Candidate(candidate) if leader == PeerId::NONE => candidate.elapsed,
            _ => 0,
        };
        self.state = State::Follower(Follower::new(leader, elapsed, &mut self.common));
    }

    fn become_pre_candidate(&mut self) {
        assert!(!self.is_leader(), "a leader does not campaign");
        let id = self.id();
        let mut candidate = Candidate::new(true, None, &mut self.common);
        candidate.ask(&mut self.common);
        let next = candidate.count(&mut self.common, id, true);
        self.state = State::Candidate(Box::new(candidate));
        self.turn_to(next);
    }

    fn become_candidate(&mut self, released: Option<u64>) {
        assert!(!self.is_leader(), "a leader does not campaign");
        let id = self.id();
        self.common.enter_term(self.common.term() + 1);
        self.common.cast_vote(id);
        let candidate = Candidate::new(false, released, &mut self.common);
        candidate.ask(&mut self.common);
        self.state = State::Candidate(Box::new(candidate));
        // The own vote counts once it is durable. But if nobody else could ever vote or hold an
        // entry of this term, all that a crash forgets was never seen.
        if self.common.conf.members() == [id] {
            self.become_leader();
        }
    }

    fn become_leader(&mut self) {
        assert!(
            matches!(&self.state, State::Candidate(c) if !c.pre),
            "only a candidate is elected"
        );
        assert_eq!(self.common.vote(), self.id(), "a leader has voted for itself");
        self.state = State::Leader(Box::new(Leader::new(&mut self.common)));
    }
}
