//! Election timeouts are random: TestFollowerElectionTimeoutRandomized2AA,
//! TestCandidateElectionTimeoutRandomized2AA, TestFollowersElectionTimeoutNonconflict2AA,
//! TestCandidatesElectionTimeoutNonconflict2AA.

use std::collections::BTreeSet;

use base::PeerId;
use pontoon_raft::{Config, MemoryStorage, RawNode};

const ELECTION_TICKS: u32 = 10;

fn node(id: u64, seed: u64) -> RawNode {
    let storage = MemoryStorage::new((1..=5).map(PeerId));
    let config = Config {
        seed,
        election_ticks: ELECTION_TICKS,
        pre_vote: false,
        check_quorum: false,
        ..Config::new(PeerId(id))
    };
    RawNode::new(config, Box::new(storage)).expect("starts")
}

/// Ticks until the node begins the next election.
fn ticks_to_campaign(node: &mut RawNode) -> u32 {
    let term = node.term();
    (1..)
        .find(|_| {
            node.tick();
            node.term() > term
        })
        .expect("it campaigns at last")
}

#[test]
fn every_timeout_of_the_range_occurs() {
    let mut as_follower = BTreeSet::new();
    let mut as_candidate = BTreeSet::new();
    for seed in 0..500 {
        let mut node = node(1, seed);
        as_follower.insert(ticks_to_campaign(&mut node));
        as_candidate.insert(ticks_to_campaign(&mut node));
    }
    let range: BTreeSet<u32> = (ELECTION_TICKS + 1..2 * ELECTION_TICKS).collect();
    assert_eq!(as_follower, range);
    assert_eq!(as_candidate, range);
}

/// Of five nodes that begin to wait at once the first one is mostly alone.
#[test]
fn conflicts_are_rare() {
    let mut conflicts = [0; 2];
    for round in 0..1_000 {
        let mut nodes: Vec<RawNode> = (1..=5).map(|id| node(id, round * 5 + id)).collect();
        for count in &mut conflicts {
            let ticks: Vec<u32> = nodes.iter_mut().map(ticks_to_campaign).collect();
            let first = ticks.iter().min().expect("five");
            *count += usize::from(ticks.iter().filter(|t| *t == first).count() > 1);
        }
    }
    assert!(conflicts.iter().all(|&count| count <= 300), "{conflicts:?} of 1000");
}
