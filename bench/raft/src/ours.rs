//! Our side: `pontoon-raft`, driven as its page says.

use base::PeerId;
use bytes::Bytes;
use pontoon_raft::{Config, Entry, MemoryStorage, Message, RawNode, Ready};

use crate::group::{Compaction, Node};

/// A node of ours.
pub struct Ours {
    node: RawNode,
    storage: MemoryStorage,
    /// Filled anew each turn.
    ready: Ready,
    compaction: Compaction,
    commands: u64,
}

/// The state machine: it counts.
fn apply(committed: &[Entry], commands: &mut u64) {
    *commands += committed.iter().filter(|entry| !entry.data.is_empty()).count() as u64;
}

impl Node for Ours {
    type Message = Message;

    fn new(id: u64, voters: u64) -> Self {
        let storage = MemoryStorage::new((1..=voters).map(PeerId));
        let config = Config { pre_vote: false, ..Config::new(PeerId(id)) };
        let node = RawNode::new(config, Box::new(storage.clone())).expect("it starts");
        let (ready, compaction) = (Ready::default(), Compaction::default());
        Self { node, storage, ready, compaction, commands: 0 }
    }

    fn campaign(&mut self) {
        assert!(self.node.campaign(), "nothing keeps it from an election");
    }

    fn is_leader(&self) -> bool {
        self.node.is_leader()
    }

    fn step(&mut self, message: Message) {
        self.node.step(message).expect("a peer keeps the protocol");
    }

    fn propose(&mut self, data: Bytes) {
        self.node.propose(data).expect("it leads");
    }

    fn handle_readies(&mut self, outbox: &mut Vec<Message>) {
        while self.node.has_ready() {
            let ready = &mut self.ready;
            self.node.ready_into(ready);
            assert!(ready.failure.is_none(), "storage keeps its promises");
            outbox.append(&mut ready.messages);
            if let Some(persist) = &mut ready.persist {
                self.storage.write(persist);
                self.node.persisted(persist.ticket);
                outbox.append(&mut persist.then);
            }
            if let Some(last) = ready.committed.last() {
                apply(&ready.committed, &mut self.commands);
                self.node.applied(last.index);
            }
        }
        if let Some(cut) = self.compaction.due(self.node.applied_index()) {
            self.storage.compact(cut);
        }
    }

    fn commands(&self) -> u64 {
        self.commands
    }

    fn receiver(message: &Message) -> u64 {
        message.to.0
    }
}
