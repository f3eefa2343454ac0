//! What a committed entry costs the core in CPU time, without disk and network. Prints the figures;
//! fails only if they are far off.

use base::PeerId;
use bytes::Bytes;
use pontoon_raft::{AppendOutcome, Body, Config, MemoryStorage, Message, RawNode, Ready};

const ENTRIES: u64 = 300_000;
const ME: PeerId = PeerId(1);

/// CPU time of this thread so far, so that a busy machine does not count.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("begins with nanoseconds")
}

fn node(voters: u64) -> RawNode {
    let storage = MemoryStorage::new((1..=voters).map(PeerId));
    let config = Config { pre_vote: false, ..Config::new(ME) };
    let mut node = RawNode::new(config, Box::new(storage)).expect("starts");
    assert!(node.campaign());
    node
}

fn finish(node: &mut RawNode, ready: &Ready) {
    if let Some(persist) = &ready.persist {
        node.persisted(persist.ticket);
    }
    if let Some(last) = ready.committed.last() {
        node.applied(last.index);
    }
}

fn answer(node: &mut RawNode, from: PeerId, body: Body) {
    let message = Message { from, to: ME, term: node.term(), body };
    node.step(message).expect("sound");
}

/// Commits entries `batch` at a time and returns nanoseconds an entry.
fn run(node: &mut RawNode, others: &[PeerId], batch: u64) -> f64 {
    let data = Bytes::from(vec![7; 256]);
    let began = cpu_nanos();
    for _ in 0..ENTRIES / batch {
        for _ in 0..batch {
            node.propose(data.clone()).expect("leads");
        }
        let ready = node.ready();
        finish(node, &ready);
        let last = node.last_index();
        for &id in others {
            let outcome = AppendOutcome::Matched(last);
            answer(node, id, Body::AppendResponse { outcome, round: node.round() });
        }
        let ready = node.ready();
        finish(node, &ready);
        assert_eq!(node.applied_index(), last);
    }
    (cpu_nanos() - began) as f64 / ENTRIES as f64
}

#[test]
fn a_committed_entry_is_cheap() {
    let mut alone = node(1);
    let ready = alone.ready();
    finish(&mut alone, &ready);
    let others = [PeerId(2), PeerId(3)];
    let mut leader = node(3);
    let ready = leader.ready();
    finish(&mut leader, &ready);
    answer(&mut leader, PeerId(2), Body::VoteResponse { granted: true });
    assert!(leader.is_leader());
    for (name, ns) in [
        ("sole voter, one at a time", run(&mut alone, &[], 1)),
        ("sole voter, 64 at a time", run(&mut alone, &[], 64)),
        ("leader of three, one at a time", run(&mut leader, &others, 1)),
        ("leader of three, 64 at a time", run(&mut leader, &others, 64)),
    ] {
        println!("{name}: {ns:.0} ns an entry");
        assert!(ns < 20_000.0, "{name}: {ns:.0} ns an entry");
    }
    println!("RawNode: {} bytes", size_of::<RawNode>());
}
