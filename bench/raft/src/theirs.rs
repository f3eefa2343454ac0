//! Their side: the crate `raft`, driven as the example in its repository does.

use std::sync::LazyLock;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use crate::group::{Compaction, Node};

/// A node of theirs.
pub struct Theirs {
    node: RawNode<MemStorage>,
    storage: MemStorage,
    compaction: Compaction,
    applied: u64,
    commands: u64,
}

/// A logger that drops everything.
pub static LOGGER: LazyLock<slog::Logger> =
    LazyLock::new(|| slog::Logger::root(slog::Discard, slog::o!()));

/// The limits of our defaults, and otherwise what is fastest: with `batch_append` the entries of
/// one turn share a message, which halves their processor time.
pub fn config(id: u64) -> Config {
    Config {
        id,
        election_tick: 10,
        heartbeat_tick: 2,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 4 << 20,
        check_quorum: true,
        batch_append: true,
        ..Config::default()
    }
}

impl Theirs {
    /// The state machine: it counts.
    fn apply(&mut self, committed: Vec<Entry>) {
        if let Some(last) = committed.last() {
            self.applied = last.index;
        }
        self.commands += committed.iter().filter(|entry| !entry.data.is_empty()).count() as u64;
    }
}

impl Node for Theirs {
    type Message = Message;

    fn new(id: u64, voters: u64) -> Self {
        let voters: Vec<u64> = (1..=voters).collect();
        let storage = MemStorage::new_with_conf_state(ConfState::from((voters, vec![])));
        let node = RawNode::new(&config(id), storage.clone(), &LOGGER).expect("it starts");
        Self { node, storage, compaction: Compaction::default(), applied: 0, commands: 0 }
    }

    fn campaign(&mut self) {
        self.node.campaign().expect("nothing keeps it from an election");
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn step(&mut self, message: Message) {
        self.node.step(message).expect("a peer keeps the protocol");
    }

    /// What `RawNode::propose` does, without its `Vec`: so neither side pays for the payload.
    fn propose(&mut self, data: Bytes) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.set_entries(vec![Entry { data, ..Entry::default() }].into());
        self.node.raft.step(message).expect("it leads");
    }

    fn handle_readies(&mut self, outbox: &mut Vec<Message>) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            outbox.extend(ready.take_messages());
            self.apply(ready.take_committed_entries());
            let mut store = self.storage.wl();
            store.append(ready.entries()).expect("no gap");
            if let Some(state) = ready.hs() {
                store.set_hardstate(state.clone());
            }
            drop(store);
            outbox.extend(ready.take_persisted_messages());
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.storage.wl().mut_hard_state().set_commit(commit);
            }
            outbox.extend(light.take_messages());
            self.apply(light.take_committed_entries());
            self.node.advance_apply();
        }
        if let Some(cut) = self.compaction.due(self.applied) {
            self.storage.wl().compact(cut + 1).expect("it is there");
        }
    }

    fn commands(&self) -> u64 {
        self.commands
    }

    fn receiver(message: &Message) -> u64 {
        message.to
    }
}
