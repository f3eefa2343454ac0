//! A driver that keeps its duties, late and in pieces, and looks for what must never be.

use std::collections::VecDeque;

use base::{Entry, EntryKind, Index, PeerId};
use pontoon_raft::{
    Body, ConfChange, ConfChangeError, ConfState, Config, HardState, Leave, LogPos, MemberChange,
    MemoryStorage, Message, Persist, RawNode, Ready, StepError, Storage, Ticket,
};

use super::action::Action;
use super::input::Input;
use super::messages::answer;

/// Messages that are remembered, to be answered or to come again.
const REMEMBERED: usize = 16;

/// `Ready`s after which a node that nobody disturbs must have nothing left to do.
const READYS_MAX: usize = 1_000;

/// A state machine that remembers how far it is, and the members there.
#[derive(Clone)]
struct Machine {
    applied: Index,
    conf: ConfState,
}

/// One node with its disk and its state machine.
pub struct Host {
    config: Config,
    storage: MemoryStorage,
    node: RawNode,
    /// Writes that are not durable yet.
    unwritten: VecDeque<Persist>,
    /// The latest durable write, and whether the node heard of it.
    durable: Option<(Ticket, bool)>,
    /// Handed out and not applied.
    pages: VecDeque<Entry>,
    /// Handed out since the node was started, up to here; zero if nothing was.
    handed: Index,
    machine: Machine,
    /// The state machine as it would be after a crash.
    flushed: Machine,
    /// Applied, and not told yet.
    untold: Option<Index>,
    snapshot_wanted: Option<PeerId>,
    sent: VecDeque<Message>,
    heard: VecDeque<Message>,
    committed: Index,
}

impl Host {
    /// A node with a configuration and a log that the input draws.
    pub fn start(input: &mut Input<'_>) -> Self {
        let id = PeerId(1);
        let conf = input.sound_conf();
        let truncated = match input.below(4) {
            0 => LogPos { index: 5, term: 5 },
            1 => LogPos { index: 1 + input.below(9) as u64, term: 1 + input.below(3) as u64 },
            _ => LogPos::default(),
        };
        let storage = MemoryStorage::starting_at(truncated, []);
        let mut end = truncated;
        for _ in 0..input.below(8) {
            let term = (end.term + input.pick(&[0, 0, 1, 2])).max(1);
            end = LogPos { index: end.index + 1, term };
            let entry = Entry { index: end.index, term, kind: input.kind(), data: input.data() };
            storage.append(&[entry]);
        }
        let somewhere = |input: &mut Input<'_>| {
            truncated.index + input.below((end.index - truncated.index + 1) as usize) as u64
        };
        let commit = somewhere(input);
        let term = end.term + input.pick(&[0, 1, 2]);
        let vote = if term > 0 { input.pick(&[0, 1, 2, 3].map(PeerId)) } else { PeerId::NONE };
        storage.set_hard_state(HardState { term, vote, commit });
        // A peer that was created by a message knows no members before its first snapshot.
        let unborn = end.index == 0 && input.one_in(4);
        let conf = if unborn { ConfState::default() } else { conf };
        let machine = Machine { applied: somewhere(input), conf };
        let config = draw_config(input, id);
        let node = start_node(&config, &storage, &machine);
        Self::new(config, storage, node, machine)
    }

    fn new(config: Config, storage: MemoryStorage, node: RawNode, machine: Machine) -> Self {
        Self {
            committed: node.committed(),
            config,
            storage,
            node,
            unwritten: VecDeque::new(),
            durable: None,
            pages: VecDeque::new(),
            handed: 0,
            flushed: machine.clone(),
            machine,
            untold: None,
            snapshot_wanted: None,
            sent: VecDeque::new(),
            heard: VecDeque::new(),
        }
    }

    pub fn node(&self) -> &RawNode {
        &self.node
    }

    /// Index of the first entry on disk.
    pub fn first_index(&self) -> Index {
        self.storage.first_index().expect("memory answers")
    }

    /// Who waits for a snapshot, if the node said so.
    pub fn snapshot_wanted(&self) -> Option<PeerId> {
        self.snapshot_wanted
    }

    /// Does it. What the node answers is its own business; that it goes on is checked.
    pub fn act(&mut self, action: Action) {
        let node = &mut self.node;
        match action {
            Action::Step(message) => self.step(message),
            Action::Answer { back, agrees } => self.answer(back, agrees),
            Action::AnswerAll => {
                let answers: Vec<_> =
                    self.sent.drain(..).filter_map(|m| answer(&m, true)).collect();
                answers.into_iter().for_each(|message| self.step(message));
            }
            Action::Again { back } => {
                if let Some(message) = self.heard.get(back).cloned() {
                    self.step(message);
                }
            }
            Action::Tick(count) => (0..count).for_each(|_| node.tick()),
            Action::Ready => drop(self.ready()),
            Action::Write(count) => (0..count).for_each(|_| self.write()),
            Action::Persisted => self.persisted(),
            Action::PersistedAgain => {
                if let Some((ticket, true)) = self.durable {
                    node.persisted(ticket);
                }
            }
            Action::Apply(count) => (0..count).for_each(|_| self.apply()),
            Action::Applied => self.applied(),
            Action::Flush => self.flushed = self.machine.clone(),
            Action::Settle => self.settle(),
            Action::Compact(index) => self.compact(index),
            Action::Crash => self.crash(),
            call => self.call(call),
        }
        self.check();
    }

    /// The calls that may be refused.
    fn call(&mut self, action: Action) {
        let node = &mut self.node;
        match action {
            Action::Propose(data) => drop(node.propose(data)),
            Action::ProposeConfChange(kind, data) => {
                if let Some(change) = decode(kind, &data) {
                    let _ = node.propose_conf_change(kind, data, &change);
                }
            }
            Action::Forward(data) => drop(node.forward(data)),
            Action::ReadIndex(context) => drop(node.read_index(context)),
            Action::Transfer(to) => drop(node.transfer_leader(to)),
            Action::Campaign => drop(node.campaign()),
            Action::Unreachable(peer) => node.report_unreachable(peer),
            Action::SnapshotMade(to, snapshot) => drop(node.snapshot_made(to, snapshot)),
            Action::SnapshotSent(to) => node.snapshot_sent(to),
            Action::SnapshotFailed(to) => node.snapshot_failed(to),
            Action::RequestSnapshot => drop(node.request_snapshot()),
            Action::Quiesce => drop(node.quiesce()),
            Action::Wake => node.wake(),
            Action::SetPriority(priority) => node.set_priority(priority),
            other => unreachable!("{other:?} is no call"),
        }
    }

    fn step(&mut self, message: Message) {
        remember(&mut self.heard, message.clone());
        let answer = self.node.step(message);
        assert_ne!(answer, Err(StepError::Stopped), "a message made a failure of storage");
    }

    fn answer(&mut self, back: usize, agrees: bool) {
        if let Some(message) = self.sent.get(back).and_then(|message| answer(message, agrees)) {
            self.step(message);
        }
    }

    /// Takes a `Ready`, and says whether there was any.
    fn ready(&mut self) -> bool {
        if !self.node.has_ready() {
            return false;
        }
        let ready = self.node.ready();
        let Ready { persist, messages, committed, snapshots_wanted, failure, .. } = ready;
        assert!(failure.is_none(), "storage kept its promises: {failure:?}");
        self.send(messages);
        if let Some(first) = committed.first() {
            let follows = self.handed == 0 || first.index == self.handed + 1;
            assert!(follows, "{} was handed out after {}", first.index, self.handed);
            assert_consecutive(&committed);
            self.handed = first.index + committed.len() as Index - 1;
            assert!(self.handed <= self.node.committed(), "{} is not committed", self.handed);
        }
        self.pages.extend(committed);
        self.unwritten.extend(persist);
        if let Some(wanted) = snapshots_wanted.last() {
            self.snapshot_wanted = Some(wanted.to);
        }
        true
    }

    /// Messages leave. What they promise must be on disk.
    fn send(&mut self, messages: Vec<Message>) {
        let durable = self.storage.hard_state();
        for message in messages {
            assert_eq!(message.from, self.node.id(), "{message:?}");
            if let Body::VoteResponse { granted: true } = message.body {
                let voted = (durable.term, durable.vote) == (message.term, message.to);
                assert!(voted || durable.term > message.term, "{message:?} of {durable:?}");
            }
            remember(&mut self.sent, message);
        }
    }

    /// The oldest write becomes durable.
    fn write(&mut self) {
        let Some(persist) = self.unwritten.pop_front() else { return };
        assert!(self.durable.is_none_or(|(last, _)| last < persist.ticket), "tickets grow");
        assert_consecutive(&persist.entries);
        if let Some(state) = persist.hard_state {
            check_hard_state(self.storage.hard_state(), state);
        }
        self.storage.write(&persist);
        if let Some(snapshot) = persist.snapshot {
            self.machine = Machine { applied: snapshot.pos.index, conf: snapshot.conf };
            self.flushed = self.machine.clone();
            self.pages.clear();
            self.handed = snapshot.pos.index;
        }
        self.durable = Some((persist.ticket, false));
        self.send(persist.then);
    }

    fn persisted(&mut self) {
        if let Some((ticket, told @ false)) = &mut self.durable {
            self.node.persisted(*ticket);
            *told = true;
        }
    }

    /// The oldest entry that was handed out is applied.
    fn apply(&mut self) {
        let Some(entry) = self.pages.pop_front() else { return };
        if let Some(change) = decode(entry.kind, &entry.data) {
            match self.node.apply_conf_change(entry.index, &change) {
                Ok(conf) => self.machine.conf = conf,
                // The snapshot brings it, and all else that was handed out.
                Err(ConfChangeError::Superseded) => return self.pages.clear(),
                Err(_) => {}
            }
        }
        self.machine.applied = entry.index;
        self.untold = Some(entry.index);
    }

    fn applied(&mut self) {
        if let Some(index) = self.untold.take() {
            self.node.applied(index);
        }
    }

    fn settle(&mut self) {
        for _ in 0..READYS_MAX {
            let mut busy = self.ready();
            while !self.unwritten.is_empty() {
                self.write();
            }
            self.persisted();
            while !self.pages.is_empty() {
                self.apply();
                busy = true;
            }
            self.applied();
            if !busy && !self.node.has_ready() {
                return;
            }
        }
        panic!("a node that nobody disturbs goes on and on: {:?}", self.node.status());
    }

    fn compact(&mut self, index: Index) {
        let index = index.min(self.node.applied_index()).min(self.flushed.applied);
        if index >= self.first_index() {
            self.storage.compact(index);
        }
    }

    fn crash(&mut self) {
        let (config, storage) = (self.config.clone(), self.storage.clone());
        let node = start_node(&config, &storage, &self.flushed);
        let heard = std::mem::take(&mut self.heard);
        *self = Self { heard, ..Self::new(config, storage, node, self.flushed.clone()) };
    }

    /// What holds of every node, whatever it was told.
    fn check(&mut self) {
        let status = self.node.status();
        assert!(status.applied <= status.committed, "{status:?}");
        assert!(status.committed <= status.last && status.stable <= status.last, "{status:?}");
        assert!(self.committed <= status.committed, "from {}: {status:?}", self.committed);
        assert!(self.node.confirmed_round() <= self.node.round(), "{status:?}");
        let next = status.members.iter().find(|m| m.next > status.last + 1);
        assert!(next.is_none(), "{next:?} of {status:?}");
        self.committed = status.committed;
    }
}

fn remember(ring: &mut VecDeque<Message>, message: Message) {
    ring.push_front(message);
    ring.truncate(REMEMBERED);
}

fn start_node(config: &Config, storage: &MemoryStorage, machine: &Machine) -> RawNode {
    storage.set_conf(machine.conf.clone());
    let config = Config { applied: machine.applied, ..config.clone() };
    RawNode::new(config, Box::new(storage.clone())).expect("storage keeps its promises")
}

/// A configuration; limits are small, so that they are reached.
fn draw_config(input: &mut Input<'_>, id: PeerId) -> Config {
    let base = Config {
        election_ticks: 3 + input.below(4) as u32,
        heartbeat_ticks: 1 + input.below(2) as u32,
        pre_vote: input.one_in(2),
        check_quorum: input.one_in(2),
        priority: input.priority(),
        seed: u64::from(input.byte()),
        ..Config::new(id)
    };
    if !input.one_in(2) {
        return base;
    }
    Config {
        append_bytes_max: input.below(100),
        inflight_max: 1 + input.below(3) as u32,
        inflight_bytes_max: 1 + input.below(200),
        committed_bytes_max: input.below(100),
        uncommitted_bytes_max: input.below(200),
        tail_bytes_max: input.below(100),
        ..base
    }
}

/// What an entry says of members, if anything. Anybody may have written it.
fn decode(kind: EntryKind, data: &[u8]) -> Option<ConfChange> {
    let mut input = Input::new(data);
    let mut change = || {
        let id = input.peer();
        let kinds = [MemberChange::AddVoter, MemberChange::AddLearner, MemberChange::Remove];
        input.pick(&kinds)(id)
    };
    match (kind, data) {
        (EntryKind::Normal, _) | (EntryKind::ConfChange, []) => None,
        (EntryKind::ConfChange, _) => Some(ConfChange::One(change())),
        (EntryKind::ConfChangeV2, [] | [_]) => Some(ConfChange::Leave),
        (EntryKind::ConfChangeV2, _) => {
            let leave = if data.len() > 2 { Leave::Automatic } else { Leave::OnRequest };
            let changes = (0..data.len() / 2).map(|_| change()).collect();
            Some(ConfChange::Enter { changes, leave })
        }
    }
}

fn assert_consecutive(entries: &[Entry]) {
    for pair in entries.windows(2) {
        assert_eq!(pair[0].index + 1, pair[1].index, "a gap");
        assert!(pair[0].term <= pair[1].term, "terms go back at {}", pair[1].index);
    }
}

/// Terms and the commit index grow, and a term has one vote, over restarts too.
fn check_hard_state(old: HardState, new: HardState) {
    let free = old.vote == PeerId::NONE || old.vote == new.vote;
    assert!(new.term > old.term || (new.term == old.term && free), "{old:?} then {new:?}");
    assert!(new.commit >= old.commit, "{old:?} then {new:?}");
}
