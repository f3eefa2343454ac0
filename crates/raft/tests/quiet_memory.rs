//! A group that sleeps costs next to nothing, so that a store may have very many of them.

use base::PeerId;
use bytes::Bytes;
use pontoon_raft::{Config, MemoryStorage, Message, RawNode};

/// Does all there is to do at all nodes until nothing is left.
fn settle(nodes: &mut [(RawNode, MemoryStorage)]) {
    let mut wire: Vec<Message> = Vec::new();
    loop {
        for (node, disk) in nodes.iter_mut() {
            while node.has_ready() {
                let mut ready = node.ready();
                wire.append(&mut ready.messages);
                ready.persist.iter().for_each(|persist| disk.write(persist));
                wire.append(&mut node.advance(ready));
            }
        }
        if wire.is_empty() {
            return;
        }
        for message in std::mem::take(&mut wire) {
            let to = message.to.0 as usize - 1;
            nodes[to].0.step(message).expect("sound");
        }
    }
}

#[test]
fn a_sleeping_group_holds_no_entries() {
    let mut nodes: Vec<(RawNode, MemoryStorage)> = (1..=3)
        .map(|id| {
            let disk = MemoryStorage::new((1..=3).map(PeerId));
            let node = RawNode::new(Config::new(PeerId(id)), Box::new(disk.clone()));
            (node.expect("starts"), disk)
        })
        .collect();
    nodes[0].0.campaign();
    settle(&mut nodes);
    for _ in 0..50 {
        nodes[0].0.propose(Bytes::from_static(b"command")).expect("leads");
    }
    settle(&mut nodes);
    assert!(nodes[0].0.quiesce(), "everybody has everything");
    settle(&mut nodes);
    for (node, _) in &mut nodes {
        (0..100).for_each(|_| node.tick());
        assert!(node.is_quiet() && !node.has_ready());
        let status = node.status();
        assert_eq!((status.applied, status.tail_entries), (51, 0), "{}", status.id);
        assert_eq!(status.tail_capacity, 0, "{}", status.id);
    }
}
