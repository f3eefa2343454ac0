//! Their idle members. All share one storage, each beginning where the one before it ended.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole, Storage};

use crate::theirs::{LOGGER, config};

/// A node as it is held.
pub type Member = RawNode<MemStorage>;

const ME: u64 = 1;
const OTHERS: [u64; 2] = [2, 3];

/// What the members of one kind share.
pub fn storage() -> MemStorage {
    let voters = vec![ME, OTHERS[0], OTHERS[1]];
    MemStorage::new_with_conf_state(ConfState::from((voters, vec![])))
}

/// A leader that has committed two entries everywhere, and has sent heartbeats since.
pub fn leader(storage: &MemStorage) -> Member {
    let mut node = start(storage);
    node.campaign().expect("nothing keeps it from an election");
    settle(&mut node, storage);
    answer(&mut node, storage, OTHERS[0], MessageType::MsgRequestVoteResponse);
    acknowledge(&mut node, storage);
    node.propose(Vec::new(), b"command".to_vec()).expect("it leads");
    settle(&mut node, storage);
    acknowledge(&mut node, storage);
    for _ in 0..11 {
        node.tick();
        settle(&mut node, storage);
        for from in OTHERS {
            answer(&mut node, storage, from, MessageType::MsgHeartbeatResponse);
        }
    }
    assert!(node.raft.state == StateRole::Leader && !node.has_ready(), "it leads and rests");
    assert_eq!(node.raft.raft_log.applied(), last(storage));
    node
}

/// A follower that took the same from its leader.
pub fn follower(storage: &MemStorage) -> Member {
    let mut node = start(storage);
    let (index, term) = (last(storage), node.raft.term + 1);
    let entry =
        |index| Entry { index, term, data: Bytes::from_static(b"command"), ..Entry::default() };
    let mut append = message(OTHERS[0], term, MessageType::MsgAppend);
    append.index = index;
    append.log_term = storage.term(index).expect("the last entry has a term");
    append.set_entries(vec![entry(index + 1), entry(index + 2)].into());
    node.step(append).expect("a peer keeps the protocol");
    settle(&mut node, storage);
    for _ in 0..5 {
        let mut heartbeat = message(OTHERS[0], term, MessageType::MsgHeartbeat);
        heartbeat.commit = index + 2;
        node.step(heartbeat).expect("a peer keeps the protocol");
        settle(&mut node, storage);
        node.tick();
    }
    assert_eq!(node.raft.raft_log.applied(), last(storage));
    node
}

fn start(storage: &MemStorage) -> Member {
    let config = Config { applied: last(storage), ..config(ME) };
    RawNode::new(&config, storage.clone(), &LOGGER).expect("it starts")
}

fn last(storage: &MemStorage) -> u64 {
    storage.last_index().expect("memory answers")
}

fn message(from: u64, term: u64, kind: MessageType) -> Message {
    let mut message = Message { from, to: ME, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn answer(node: &mut Member, storage: &MemStorage, from: u64, kind: MessageType) {
    let mut answer = message(from, node.raft.term, kind);
    answer.index = last(storage);
    node.step(answer).expect("a peer keeps the protocol");
    settle(node, storage);
}

/// The others have everything.
fn acknowledge(node: &mut Member, storage: &MemStorage) {
    for from in OTHERS {
        answer(node, storage, from, MessageType::MsgAppendResponse);
    }
}

/// Does what the node wants done; what it sends is lost.
fn settle(node: &mut Member, storage: &MemStorage) {
    while node.has_ready() {
        let ready = node.ready();
        let mut store = storage.wl();
        store.append(ready.entries()).expect("no gap");
        if let Some(state) = ready.hs() {
            store.set_hardstate(state.clone());
        }
        drop(store);
        let light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            storage.wl().mut_hard_state().set_commit(commit);
        }
        node.advance_apply();
    }
}
