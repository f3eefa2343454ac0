//! The simplest driver: one thing after the other, with `advance`. Shows what a driver must do, and
//! in which order; everything else is about doing it at once.

use std::collections::BTreeMap;

use base::{Entry, EntryKind, PeerId};
use bytes::Bytes;
use pontoon_raft::{Config, MemoryStorage, Message, RawNode, Role};

/// A member with its disk and its state machine.
struct Member {
    node: RawNode,
    disk: MemoryStorage,
    commands: Vec<Bytes>,
}

impl Member {
    fn new(id: u64, voters: u64) -> Self {
        let disk = MemoryStorage::new((1..=voters).map(PeerId));
        let config = Config::new(PeerId(id));
        let node = RawNode::new(config, Box::new(disk.clone())).expect("starts");
        Self { node, disk, commands: Vec::new() }
    }

    /// Does all there is to do, and returns what must be sent.
    fn work(&mut self) -> Vec<Message> {
        let mut out = Vec::new();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            out.append(&mut ready.messages);
            if let Some(persist) = &ready.persist {
                self.disk.write(persist);
            }
            self.apply(&ready.committed);
            out.append(&mut self.node.advance(ready));
        }
        out
    }

    fn apply(&mut self, entries: &[Entry]) {
        let commands = entries.iter().filter(|e| e.kind == EntryKind::Normal && !e.data.is_empty());
        self.commands.extend(commands.map(|entry| entry.data.clone()));
    }
}

fn deliver(group: &mut BTreeMap<PeerId, Member>) {
    let mut wire: Vec<Message> = group.values_mut().flat_map(Member::work).collect();
    while !wire.is_empty() {
        let mut next = Vec::new();
        for message in wire {
            let member = group.get_mut(&message.to).expect("a member");
            member.node.step(message).expect("sound");
            next.append(&mut member.work());
        }
        wire = next;
    }
}

/// TestRawNodeStart2AC: campaign and propose; a `Ready` brings the entry to write and later to
/// apply; nothing is left after `advance`.
#[test]
fn one_member_takes_turns() {
    let mut member = Member::new(1, 1);
    assert!(member.node.campaign());
    assert!(member.work().is_empty());
    member.node.propose(Bytes::from_static(b"one")).expect("leads");
    let ready = member.node.ready();
    assert_eq!(ready.persist.as_ref().map(|persist| persist.entries.len()), Some(1));
    assert!(ready.committed.is_empty(), "it is not durable yet");
    member.disk.write(ready.persist.as_ref().expect("an entry"));
    assert!(member.node.advance(ready).is_empty());
    let ready = member.node.ready();
    assert_eq!(ready.committed.len(), 1);
    assert!(ready.persist.is_none());
    member.node.advance(ready);
    assert!(!member.node.has_ready());
    assert_eq!(member.node.applied_index(), 2);
}

#[test]
fn three_members_agree() {
    let mut group: BTreeMap<PeerId, Member> =
        (1..=3).map(|id| (PeerId(id), Member::new(id, 3))).collect();
    group.get_mut(&PeerId(1)).expect("a member").node.campaign();
    deliver(&mut group);
    for data in ["one", "two", "three"] {
        let leader = group.values_mut().find(|m| m.node.is_leader()).expect("elected");
        leader.node.propose(Bytes::from(data)).expect("leads");
        deliver(&mut group);
    }
    for member in group.values() {
        assert_eq!(member.commands, ["one", "two", "three"]);
        assert_eq!(member.node.applied_index(), 4);
        assert!(!member.node.has_ready());
    }
    let roles: Vec<Role> = group.values().map(|member| member.node.role()).collect();
    assert_eq!(roles, [Role::Leader, Role::Follower, Role::Follower]);
}
