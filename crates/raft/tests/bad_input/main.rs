//! Bad input of every kind: what the network, a client, the node's owner or its disk may get wrong,
//! and by which error it is refused or by which rule it changes nothing. The node goes on.

mod calls;
mod messages;
mod storage;

use base::{Entry, EntryKind, Index, PeerId, Term};
use bytes::Bytes;
use pontoon_raft::{
    AppendOutcome, Body, ConfChange, Config, HardState, LogPos, MemberChange, MemoryStorage,
    Message, RawNode, Role,
};

/// The node under test; the other voters are 2 and 3.
const ME: PeerId = PeerId(1);

/// No pre-votes and no leases: these have scripts of their own.
fn config(applied: Index) -> Config {
    Config { pre_vote: false, check_quorum: false, applied, ..Config::new(ME) }
}

fn entry(index: Index, term: Term) -> Entry {
    Entry { index, term, data: Bytes::from_static(b"x"), ..Entry::default() }
}

fn message(from: u64, term: Term, body: Body) -> Message {
    Message { from: PeerId(from), to: ME, term, body }
}

/// One node with its disk.
struct Fixture {
    node: RawNode,
    storage: MemoryStorage,
}

/// 5@2 truncated, 6@2 and 7@2 applied, 8@3 not committed; term 3.
fn stored(voters: impl IntoIterator<Item = u64>) -> MemoryStorage {
    let truncated = LogPos { index: 5, term: 2 };
    let storage = MemoryStorage::starting_at(truncated, voters.into_iter().map(PeerId));
    storage.append(&[entry(6, 2), entry(7, 2), entry(8, 3)]);
    storage.set_hard_state(HardState { term: 3, vote: PeerId::NONE, commit: 7 });
    storage
}

impl Fixture {
    fn start(config: Config, voters: impl IntoIterator<Item = u64>) -> Self {
        let storage = stored(voters);
        let node = RawNode::new(config, Box::new(storage.clone())).expect("starts");
        Self { node, storage }
    }

    /// A follower that knows no leader.
    fn lonely() -> Self {
        Self::start(config(7), 1..=3)
    }

    /// A follower of 2 in term 3.
    fn follower() -> Self {
        let mut fixture = Self::lonely();
        fixture.say(2, 3, Body::Heartbeat { commit: 7, round: 4 });
        fixture
    }

    /// The leader of term 4, with everything committed and applied up to its own first entry, 9@4.
    fn leader() -> Self {
        Self::leader_with(config(7))
    }

    fn leader_with(config: Config) -> Self {
        let mut fixture = Self::start(config, 1..=3);
        fixture.elect();
        fixture
    }

    /// The others vote for the node and acknowledge its first entry.
    fn elect(&mut self) {
        assert!(self.node.campaign(), "{:?}", self.node.status());
        self.settle();
        let term = self.node.term();
        self.say(2, term, Body::VoteResponse { granted: true });
        self.acknowledge();
        assert_eq!(self.node.role(), Role::Leader);
    }

    /// A message that is taken; does what follows, and returns what is said.
    fn say(&mut self, from: u64, term: Term, body: Body) -> Vec<Message> {
        self.node.step(message(from, term, body)).expect("is taken");
        self.settle()
    }

    /// 2 has the whole log.
    fn acknowledge(&mut self) {
        let (last, round) = (self.node.last_index(), self.node.round());
        let body = Body::AppendResponse { outcome: AppendOutcome::Matched(last), round };
        self.say(2, self.node.term(), body);
    }

    /// Does all there is to do, and returns the messages.
    fn settle(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            assert!(ready.failure.is_none(), "{:?}", ready.failure);
            messages.append(&mut ready.messages);
            if let Some(persist) = &ready.persist {
                self.storage.write(persist);
            }
            for change in ready.committed.iter().filter(|entry| entry.kind != EntryKind::Normal) {
                self.node.apply_conf_change(change.index, &decode(&change.data)).expect("applies");
            }
            messages.append(&mut self.node.advance(ready));
        }
        messages
    }

    fn change(&mut self, change: &ConfChange, data: &'static [u8]) {
        let data = Bytes::from_static(data);
        let kind = EntryKind::ConfChange;
        self.node.propose_conf_change(kind, data, change).expect("leads");
        self.settle();
        self.acknowledge();
    }

    /// The node commits a proposal of its own, after an election if it does not lead.
    fn still_works(&mut self, after: &str) {
        self.settle();
        if !self.node.is_leader() {
            self.elect();
        }
        let data = Bytes::from_static(b"still works");
        let (_, index) = self.node.propose(data).unwrap_or_else(|e| panic!("{after}: {e}"));
        self.settle();
        self.acknowledge();
        assert_eq!(self.node.applied_index(), index, "{after}");
    }
}

/// `+4` and `-4` of voters.
fn decode(data: &[u8]) -> ConfChange {
    let id = PeerId(u64::from(data[1] - b'0'));
    ConfChange::One(match data[0] {
        b'+' => MemberChange::AddVoter(id),
        _ => MemberChange::Remove(id),
    })
}
