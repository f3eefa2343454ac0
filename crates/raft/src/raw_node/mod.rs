//! The node: the only type through which a group is driven. It keeps the order of calls; what
//! messages do to terms and roles is in `steps`, what a role does is in the role's own file.

mod inspect;
mod learn;
mod snapshots;
mod steps;

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
use crate::message::{Body, Message, NUMBER_MAX};
use crate::quorum::ConfState;
use crate::ready::{HardState, Ready, Ticket};
use crate::rules::Rule;
use crate::storage::{Failure, Storage};

/// One member of a group. See the crate's page for how to drive it.
pub struct RawNode {
    common: Common,
    state: State,
    /// Set once storage broke a promise; handed out once.
    failure: Option<Box<Failure>>,
    stopped: bool,
}

/// A role owns what only it needs. Changed by the `become_` methods alone.
enum State {
    Follower(Follower),
    Candidate(Box<Candidate>),
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
        let promise = "it answers at a start";
        let unreadable = |cause| Failure { promise, index: 0, term: 0, cause };
        let mut initial = storage.initial_state().map_err(unreadable)?;
        initial.conf.normalise();
        let log = Log::new(storage, initial.hard_state.commit, config.applied, config.rules())?;
        if initial.hard_state.term < log.last().term {
            return Err(StartError::Contradiction("the hard state's term is behind the log's"));
        }
        // A node may have campaigned on from the last term that a message may name.
        if initial.hard_state.term.max(log.last().index) >= 2 * NUMBER_MAX {
            return Err(StartError::Contradiction("a term or an index that no group reaches"));
        }
        let fresh = is_fresh(&initial.hard_state, &log)?;
        let mut common = Common::new(config, initial.hard_state, initial.conf, log);
        // One that decides alone now may have followed somebody before, or follow him still by
        // members that it does not know of. Its latest vote tells.
        let alone = common.conf.is_sole_voter(common.id()) && common.vote() == common.id();
        let silent = !fresh && !alone;
        if silent && common.keeps(Rule::NoVoteAfterRestart) {
            common.heard_leader();
        }
        let state = State::Follower(Follower::new(PeerId::NONE, 0, &mut common));
        Ok(Self { common, state, failure: None, stopped: false })
    }

    /// One unit of the driver's time passed. All timeouts count in these.
    pub fn tick(&mut self) {
        if self.stopped || self.common.quiet {
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
        if let Some(rule) = message.broken_rule() {
            return Err(StepError::Malformed(rule));
        }
        if !matches!(message.body, Body::Quiesce { .. }) {
            self.wake();
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
        let leader = self.known_leader();
        self.wake_if_leading();
        match &mut self.state {
            State::Leader(role) if !self.stopped => {
                let index = role.propose(&mut self.common, EntryKind::Normal, data)?;
                Ok((self.common.term(), index))
            }
            _ => Err(ProposeError::NotLeader { leader }),
        }
    }

    /// Any member: passes a command on to the leader, if it does not lead itself. It may get lost,
    /// and nothing tells: whoever must know sees it applied, or asks again and must bear it twice.
    pub fn forward(&mut self, data: Bytes) -> Result<(), ProposeError> {
        if self.is_leader() {
            return self.propose(data).map(drop);
        }
        self.wake();
        let leader = self.known_leader();
        let to = leader.ok_or(ProposeError::NotLeader { leader: None })?;
        self.common.send(to, Body::Propose { data });
        Ok(())
    }

    /// Leader: takes a change of members into the log, as an entry of `kind` with `data` that says
    /// `change`. One at a time, and the first one of a term only after the term's first entry is
    /// applied.
    pub fn propose_conf_change(
        &mut self,
        kind: EntryKind,
        data: Bytes,
        change: &ConfChange,
    ) -> Result<(Term, Index), ProposeError> {
        let leader = self.known_leader();
        self.wake_if_leading();
        match &mut self.state {
            State::Leader(role) if !self.stopped => {
                let index = role.propose_conf_change(&mut self.common, kind, data, change)?;
                Ok((self.common.term(), index))
            }
            _ => Err(ProposeError::NotLeader { leader }),
        }
    }

    /// The entry at `index`, which changes members, is being applied; the answer is what must be
    /// remembered with its index. If the change is refused the entry has no effect, here as
    /// everywhere. A leader that leaves (its predecessor proposed it) takes no proposals any more,
    /// and leads on for no longer than an election timeout, so that the others hear of it.
    pub fn apply_conf_change(
        &mut self,
        index: Index,
        change: &ConfChange,
    ) -> Result<ConfState, ConfChangeError> {
        if self.common.log.is_covered(index) {
            return Err(ConfChangeError::Superseded);
        }
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
        self.wake();
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
        self.wake();
        let leader = self.known_leader();
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
        self.wake();
        let (id, leader) = (self.id(), self.known_leader());
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
        let mut ready = Ready::default();
        self.ready_into(&mut ready);
        ready
    }

    /// Like [`ready`](Self::ready), in place of what `ready` held, which is done: a driver of many
    /// turns keeps one, and its vectors are filled again.
    pub fn ready_into(&mut self, ready: &mut Ready) {
        ready.empty();
        if !self.stopped
            && let Err(failure) = self.gather(ready)
        {
            ready.empty();
            self.fail(failure);
        }
        ready.failure = self.failure.take().map(|failure| *failure);
    }

    fn gather(&mut self, ready: &mut Ready) -> Result<(), Failure> {
        if let State::Leader(leader) = &mut self.state {
            leader.flush(&mut self.common)?;
        }
        ready.persist = self.common.take_persist(&mut ready.spare);
        let bytes_max = self.common.config.committed_bytes_max;
        self.common.log.next_committed(bytes_max, &mut ready.committed)?;
        if let State::Leader(leader) = &mut self.state {
            leader.handed_out(&ready.committed);
        }
        ready.confirmed_round = self.confirmed_round();
        self.common.empty_outbox(ready);
        Ok(())
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
        let before = self.common.log.applied();
        self.common.log.applied_to(index, kept);
        if let State::Leader(leader) = &mut self.state {
            leader.on_applied(&self.common, before);
        }
        if self.common.quiet {
            self.common.rest();
        }
    }

    /// For a driver that does one thing after the other: all that `ready` holds is done (installed,
    /// written, applied, and its `messages` are sent). Returns the messages that waited for the
    /// write and may leave now.
    pub fn advance(&mut self, ready: Ready) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(persist) = ready.persist {
            self.persisted(persist.ticket);
            messages = persist.then;
        }
        if let Some(last) = ready.committed.last() {
            self.applied(last.index);
        }
        messages
    }

    /// The transport knows that messages to `peer` are being lost. A leader then stops to send
    /// ahead of the answers; without being told it finds out from the next refusal. A follower of
    /// `peer` campaigns as soon as others may vote for it.
    pub fn report_unreachable(&mut self, peer: PeerId) {
        match &mut self.state {
            State::Leader(leader) => leader.on_unreachable(peer),
            State::Follower(follower) => follower.on_unreachable(peer, &mut self.common),
            State::Candidate(_) => {}
        }
    }

    /// Who is asked in vain need not wake.
    fn wake_if_leading(&mut self) {
        if self.is_leader() {
            self.wake();
        }
    }

    /// Whom to ask. A node that has stopped asks nobody.
    fn known_leader(&self) -> Option<PeerId> {
        self.leader().filter(|_| !self.stopped)
    }

    fn fail(&mut self, failure: Failure) {
        self.stopped = true;
        self.failure = Some(Box::new(failure));
    }
}

/// Whether no leader can ever have been answered from this state: nothing was voted or written
/// since the group began.
fn is_fresh(state: &HardState, log: &Log) -> Result<bool, Failure> {
    let last = log.last();
    let began = last.index < log.first_index()? && last.index <= limits::RAFT_INIT_LOG_INDEX;
    Ok(began && state.term == last.term && state.vote == PeerId::NONE)
}
