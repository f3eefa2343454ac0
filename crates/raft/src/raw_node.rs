//! The node: the only type through which a group is driven. It keeps the order of calls, the terms
//! and the change of roles; what a role does is in its own file.

use base::{EntryKind, Index, PeerId, Term, limits};
use bytes::Bytes;

use crate::candidate::Candidate;
use crate::common::{Common, Next};
use crate::conf_change::{ConfChange, ConfChangeError};
use crate::config::Config;
use crate::error::{ProposeError, ReadIndexError, StartError, StepError, TransferError};
use crate::follower::Follower;
use crate::leader::Leader;
use crate::log::Log;
use crate::message::{Body, LogPos, Message};
use crate::quorum::ConfState;
use crate::ready::{HardState, Ready, Ticket};
use crate::status::{MemberStatus, Role, Status};
use crate::storage::{Failure, Storage};

/// One member of a group. See the crate's page for how to drive it.
pub struct RawNode {
    common: Common,
    state: State,
    /// Set once storage broke a promise; handed out once.
    failure: Option<Failure>,
    stopped: bool,
}

/// A role owns what only it needs. Changed by the `become_` methods alone.
enum State {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl RawNode {
    /// A follower with what `storage` holds.
    ///
    /// If it may have answered a leader before it was restarted, it votes for nobody for one
    /// election timeout (with `check_quorum`), because that leader may hold a lease which counts on
    /// it.
    pub fn new(config: Config, storage: Box<dyn Storage + Send>) -> Result<Self, StartError> {
        if let Some(rule) = config.broken_rule() {
            return Err(StartError::Config(rule));
        }
        let unreadable = |cause| Failure { promise: "it answers at a start", index: 0, cause };
        let mut initial = storage.initial_state().map_err(unreadable)?;
        initial.conf.normalise();
        let log = Log::new(storage, initial.hard_state.commit, config.applied)?;
        if initial.hard_state.term < log.last().term {
            return Err(StartError::Contradiction("the hard state's term is behind the log's"));
        }
        let fresh = is_fresh(&initial.hard_state, &log)?;
        let mut common = Common::new(config, initial.hard_state, initial.conf, log);
        if !fresh && !common.conf.is_sole_voter(common.id()) {
            common.heard_leader();
        }
        let state = State::Follower(Follower::new(PeerId::NONE, 0, &mut common));
        Ok(Self { common, state, failure: None, stopped: false })
    }

    /// One unit of the driver's time passed. All timeouts count in these.
    pub fn tick(&mut self) {
        if self.stopped {
            return;
        }
        self.common.voteless_ticks = self.common.voteless_ticks.saturating_sub(1);
        let next = match &mut self.state {
            State::Follower(follower) => follower.tick(&mut self.common),
            State::Candidate(candidate) => candidate.tick(),
            State::Leader(leader) => leader.tick(&mut self.common),
        };
        self.turn_to(next);
    }

    /// A message came. Late, doubled, reordered and lost messages are all fine; what breaks the
    /// protocol is refused.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        if self.stopped {
            return Err(StepError::Stopped);
        }
        if message.to != self.id() {
            return Err(StepError::Misdirected { to: message.to });
        }
        if message.from == self.id() || message.from == PeerId::NONE || message.term == 0 {
            return Err(StepError::Malformed("a message from nobody, from oneself, or of no term"));
        }
        if !self.settle_term(&message) {
            return Ok(());
        }
        match self.step_in_term(message) {
            Ok(Ok(next)) => {
                self.turn_to(next);
                Ok(())
            }
            Ok(Err(refused)) => Err(refused),
            Err(failure) => {
                self.fail(failure);
                Err(StepError::Stopped)
            }
        }
    }

    /// Leader: takes a command into the log. The answer names the entry for ever: if another entry
    /// is ever applied at that index, or the term is over and the index committed without it, the
    /// command was not done.
    pub fn propose(&mut self, data: Bytes) -> Result<(Term, Index), ProposeError> {
        let leader = self.leader();
        match &mut self.state {
            State::Leader(role) if !self.stopped => {
                let index = role.propose(&mut self.common, EntryKind::Normal, data)?;
                Ok((self.common.term(), index))
            }
            _ => Err(ProposeError::NotLeader { leader }),
        }
    }

    /// Leader: takes a change of members into the log, as an entry of `kind` with `data` that says
    /// `change`. One at a time, and the first one of a term only after everything from before it is
    /// applied.
    pub fn propose_conf_change(
        &mut self,
        kind: EntryKind,
        data: Bytes,
        change: ConfChange,
    ) -> Result<(Term, Index), ProposeError> {
        let leader = self.leader();
        match &mut self.state {
            State::Leader(role) if !self.stopped => {
                let index = role.propose_conf_change(&mut self.common, kind, data, change)?;
                Ok((self.common.term(), index))
            }
            _ => Err(ProposeError::NotLeader { leader }),
        }
    }

    /// An entry that changes members is being applied; the answer is what must be remembered with
    /// its index. If the change is refused the entry has no effect, here as everywhere. A leader
    /// that leaves (its predecessor proposed it) takes no proposals any more, and leads on for no
    /// longer than an election timeout, so that the others hear of it.
    pub fn apply_conf_change(&mut self, change: ConfChange) -> Result<ConfState, ConfChangeError> {
        self.common.conf = self.common.conf.after(change)?;
        if let State::Leader(leader) = &mut self.state {
            leader.on_members(&mut self.common);
        }
        Ok(self.common.conf.clone())
    }

    /// Begins an election now, and says whether it did. It does not if the node leads already, is
    /// no voter, has not applied a change of members that it knows to be committed, or must not
    /// vote because a leader may hold a lease. The only member of a group leads at once; what it
    /// says becomes true with the first write, as always.
    pub fn campaign(&mut self) -> bool {
        let idle = self.stopped || self.is_leader();
        if idle || !self.common.conf.is_voter(self.id()) || self.common.voteless_ticks > 0 {
            return false;
        }
        self.turn_to(Next::Elect);
        !matches!(self.state, State::Follower(_))
    }

    /// Hands leadership over to the voter `to`, as soon as that one has the whole log; meanwhile
    /// nothing can be proposed. A follower asks its leader. Given up after an election timeout, or
    /// by naming the leader itself. Whether it worked is seen from the roles.
    pub fn transfer_leader(&mut self, to: PeerId) -> Result<(), TransferError> {
        let leader = self.leader();
        match &mut self.state {
            State::Leader(role) if !self.stopped => role.transfer_to(&self.common, to),
            _ => {
                let leader = leader.ok_or(TransferError::NoLeader)?;
                self.common.send(leader, Body::TransferLeader { to });
                Ok(())
            }
        }
    }

    /// Asks for an index at which reads are linearizable from this moment on; it comes as a
    /// `ReadState` with `context`. A follower asks its leader. The answer may never come (a message
    /// was lost, the role or the term changed): ask again, with another context.
    pub fn read_index(&mut self, context: u64) -> Result<(), ReadIndexError> {
        let (id, leader) = (self.id(), self.leader());
        match &mut self.state {
            State::Leader(role) if !self.stopped => role.read_index(&mut self.common, id, context),
            _ => {
                let leader = leader.ok_or(ReadIndexError::NoLeader)?;
                self.common.send(leader, Body::ReadIndex { context });
                Ok(())
            }
        }
    }

    /// Whether `ready` has anything.
    pub fn has_ready(&self) -> bool {
        match &self.state {
            _ if self.stopped => self.failure.is_some(),
            State::Leader(leader) => leader.has_ready() || self.common.has_ready(),
            _ => self.common.has_ready(),
        }
    }

    /// What the node wants done, each thing once.
    pub fn ready(&mut self) -> Ready {
        match self.gather() {
            Ok(ready) => ready,
            Err(failure) => {
                self.fail(failure);
                Ready { failure: self.failure.take(), ..Ready::default() }
            }
        }
    }

    fn gather(&mut self) -> Result<Ready, Failure> {
        if self.stopped {
            return Ok(Ready { failure: self.failure.take(), ..Ready::default() });
        }
        if let State::Leader(leader) = &mut self.state {
            leader.flush(&mut self.common)?;
        }
        let persist = self.common.take_persist();
        let committed = self.common.log.next_committed(self.common.config.committed_bytes_max)?;
        if let State::Leader(leader) = &mut self.state {
            leader.handed_out(&committed);
        }
        Ok(Ready {
            persist,
            messages: self.common.take_messages(),
            committed,
            read_states: std::mem::take(&mut self.common.read_states),
            confirmed_round: self.confirmed_round(),
            failure: None,
        })
    }

    /// The write of `ticket`, and all writes before it, are durable, and storage answers with them.
    /// Tickets may be skipped and told again.
    pub fn persisted(&mut self, ticket: Ticket) {
        if self.stopped {
            return;
        }
        self.common.persisted(ticket);
        match &mut self.state {
            State::Leader(leader) => leader.commit(&mut self.common),
            State::Candidate(candidate) if !candidate.pre && self.common.is_vote_durable() => {
                let id = self.common.id();
                let next = candidate.count(&mut self.common, id, true);
                self.turn_to(next);
            }
            _ => {}
        }
    }

    /// The state machine has applied everything up to `index`, which was handed out. The entries
    /// may leave memory.
    pub fn applied(&mut self, index: Index) {
        let kept = match self.is_leader() && !self.common.conf.is_sole_voter(self.id()) {
            true => self.common.config.tail_bytes_max,
            false => 0,
        };
        self.common.log.applied_to(index, kept);
    }

    /// The transport knows that messages to `peer` are being lost. A leader then stops to send
    /// ahead of the answers; without being told it finds out from the next refusal.
    pub fn report_unreachable(&mut self, peer: PeerId) {
        if let State::Leader(leader) = &mut self.state {
            leader.on_unreachable(peer);
        }
    }

    /// Brings the term up to date with the message. Returns whether the message still matters.
    fn settle_term(&mut self, message: &Message) -> bool {
        let (from, own) = (message.from, self.common.term());
        let asks_vote = matches!(message.body, Body::Vote { .. } | Body::PreVote { .. });
        if asks_vote && self.is_leased() && !self.is_released(message) {
            return false;
        }
        if message.term < own {
            let asks = matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. });
            if asks || asks_vote {
                self.common.respond(from, Body::TermOver);
            }
            return false;
        }
        if message.term > own {
            match message.body {
                // A term that nobody has entered yet.
                Body::PreVote { .. } | Body::PreVoteResponse { granted: true } => {}
                Body::Append { .. } | Body::Heartbeat { .. } => {
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
        self.common.voteless_ticks > 0 || (self.is_leader() && self.common.config.check_quorum)
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
    fn step_in_term(&mut self, message: Message) -> Result<Result<Next, StepError>, Failure> {
        let common = &mut self.common;
        match (&mut self.state, &message.body) {
            (_, &Body::PreVote { last }) => Ok(Ok(self.on_pre_vote(&message, last))),
            (_, &Body::Vote { last, .. }) => Ok(Ok(self.on_vote(message.from, last))),
            (State::Follower(follower), _) => follower.step(common, message),
            (State::Candidate(_), Body::Append { .. } | Body::Heartbeat { .. }) => {
                // Somebody else was elected.
                self.become_follower(message.term, message.from);
                self.step_in_term(message)
            }
            (State::Candidate(candidate), _) => Ok(Ok(candidate.step(common, message))),
            (State::Leader(leader), _) => leader.step(common, message),
        }
    }

    fn on_pre_vote(&mut self, message: &Message, last: LogPos) -> Next {
        let common = &mut self.common;
        let granted = message.term > common.term() && last.is_up_to_date_with(&common.log.last());
        let term = if granted { message.term } else { common.term() };
        common.respond_in(message.from, term, Body::PreVoteResponse { granted });
        Next::Stay
    }

    /// Raft paper, figure 2, "RequestVote RPC", and section 5.4.1.
    fn on_vote(&mut self, from: PeerId, last: LogPos) -> Next {
        let vote = self.common.vote();
        let free = vote == from || (vote == PeerId::NONE && self.leader().is_none());
        let granted = free && last.is_up_to_date_with(&self.common.log.last());
        if granted {
            self.common.cast_vote(from);
        }
        self.common.respond(from, Body::VoteResponse { granted });
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

    fn turn_to(&mut self, next: Next) {
        if matches!(next, Next::Elect | Next::Succeed { .. }) {
            match self.common.log.has_unapplied_conf_change() {
                Ok(false) => {}
                Ok(true) => return,
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

    fn become_follower(&mut self, term: Term, leader: PeerId) {
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
        self.state = State::Candidate(candidate);
        self.turn_to(next);
    }

    fn become_candidate(&mut self, released: Option<u64>) {
        assert!(!self.is_leader(), "a leader does not campaign");
        let id = self.id();
        self.common.enter_term(self.common.term() + 1);
        self.common.cast_vote(id);
        let candidate = Candidate::new(false, released, &mut self.common);
        candidate.ask(&mut self.common);
        self.state = State::Candidate(candidate);
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

    fn fail(&mut self, failure: Failure) {
        self.stopped = true;
        self.failure = Some(failure);
    }
}

/// Whether no leader can ever have been answered from this state: nothing was voted or written
/// since the group began.
fn is_fresh(state: &HardState, log: &Log) -> Result<bool, Failure> {
    let last = log.last();
    let began = last.index < log.first_index()? && last.index <= limits::RAFT_INIT_LOG_INDEX;
    Ok(began && state.term == last.term && state.vote == PeerId::NONE)
}

/// What it tells about itself.
impl RawNode {
    /// The node's own id.
    pub fn id(&self) -> PeerId {
        self.common.id()
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match &self.state {
            State::Follower(_) => Role::Follower,
            State::Candidate(candidate) if candidate.pre => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Whether it leads its term, as far as it knows. Only a lease or a confirmed round proves it
    /// to others.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// The latest term it has seen.
    pub fn term(&self) -> Term {
        self.common.term()
    }

    /// The leader of the term, if it is known.
    pub fn leader(&self) -> Option<PeerId> {
        match &self.state {
            State::Follower(follower) => {
                (follower.leader != PeerId::NONE).then_some(follower.leader)
            }
            State::Candidate(_) => None,
            State::Leader(_) => Some(self.id()),
        }
    }

    /// The last entry known to be committed.
    pub fn committed(&self) -> Index {
        self.common.log.committed()
    }

    /// The last entry that was reported as applied.
    pub fn applied_index(&self) -> Index {
        self.common.log.applied()
    }

    /// The last entry of the log, durable or not.
    pub fn last_index(&self) -> Index {
        self.common.log.last().index
    }

    /// The term at `index`, as far as the log can tell: `None` above its end, below its start, or
    /// when storage fails.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.common.log.term(index).ok().flatten()
    }

    /// The hard state at this moment, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.common.hard_state()
    }

    /// The latest round that this node began as leader. Grows in `tick` and in `ready`, and when it
    /// is elected. A number never comes back while this node lives, whatever roles it has.
    pub fn round(&self) -> u64 {
        self.common.round
    }

    /// The latest of its rounds that a quorum answered, so that nobody else led, and nobody else
    /// will be elected within an election timeout, counted from when that round began. Zero if it
    /// does not lead, if no round was answered yet, and from the moment at which it asks a
    /// successor to campaign until a later round is answered.
    pub fn confirmed_round(&self) -> u64 {
        match &self.state {
            State::Leader(leader) => leader.lease_round(&self.common),
            _ => 0,
        }
    }

    /// Everything of interest.
    pub fn status(&self) -> Status {
        let log = &self.common.log;
        let (tail_entries, tail_capacity) = log.tail_len();
        let members = match &self.state {
            State::Leader(leader) => leader.progress.iter().map(MemberStatus::of).collect(),
            _ => Vec::new(),
        };
        Status {
            id: self.id(),
            role: self.role(),
            term: self.term(),
            vote: self.common.vote(),
            leader: self.leader(),
            last: log.last().index,
            stable: log.stable(),
            committed: log.committed(),
            applied: log.applied(),
            tail_entries,
            tail_capacity,
            conf: self.common.conf.clone(),
            transferring_to: match &self.state {
                State::Leader(leader) => leader.successor(),
                _ => None,
            },
            members,
        }
    }
}
