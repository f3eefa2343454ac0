//! Reads at a replica that does not lead, reads of the past, and the leases that leaders read by.

use pontoon_store as store;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{Cluster, REGION, Slot, TICK, header_of, learner, remove};
use base::{Index, PeerId, Prng, StoreId, TimeStamp};
use raft::Body;
use storage::engine::Engine;
use store::{
    LeaderClaim, ReadFrom, ReadRefusal, RegionError, RegionView, SafePoint, ShardConfig, ShardInput,
};

fn follower_of(leader: usize) -> usize {
    (leader + 1) % 3
}

fn number(node: &crate::common::Node) -> u64 {
    node.get(b"k").map_or(0, |value| u64::from_be_bytes(value[..].try_into().expect("a number")))
}

#[test]
fn a_follower_reads_what_was_acknowledged_before_it_was_asked() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    for round in 1..20u64 {
        cluster.put(REGION, b"k", &round.to_be_bytes());
        let slot = cluster.nodes[follower].replica_read(REGION);
        cluster.deliver();
        assert!(slot.is_ok(), "{:?}", slot.answer());
        assert_eq!(number(&cluster.nodes[follower]), round);
        let view = cluster.view(follower, REGION);
        let views = &cluster.nodes[follower].views;
        let permit = views.permit_after_index(&header_of(&view), ReadFrom::Replica);
        let permit = permit.expect("it was answered");
        assert_eq!(views.recheck(&permit, cluster.now), Ok(()));
    }
    let view = cluster.view(follower, REGION);
    let asked =
        cluster.nodes[follower].views.permit(&header_of(&view), ReadFrom::Leader, cluster.now);
    assert!(matches!(asked, Err(ReadRefusal::Region(RegionError::NotLeader { .. }))), "{asked:?}");
}

/// Known bugs 3, 4, 5 and 6: whatever happens to leaders, messages and stores in between, a read
/// anywhere sees all that was acknowledged when it was asked for.
#[test]
fn reads_are_linearizable_in_any_disorder() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    let (mut answered, mut refused) = (0, 0);
    for seed in 0..seeds {
        let (yes, no) = read_in_disorder(seed);
        answered += yes;
        refused += no;
    }
    println!("{answered} reads answered, {refused} refused");
    assert!(answered > 10 * seeds, "{answered} of {refused} more");
}

fn read_in_disorder(seed: u64) -> (u64, u64) {
    let mut prng = Prng::new(seed);
    let config = ShardConfig { seed, sleep_ticks: 5, ..ShardConfig::default() };
    let mut cluster = Cluster::with(3, 3, config);
    cluster.leader();
    let (mut last, mut acknowledged) = (0u64, 0u64);
    let mut write: Option<(u64, Slot)> = None;
    let mut reads: Vec<(usize, u64, Slot)> = Vec::new();
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..400 {
        let at = prng.below(3) as usize;
        match prng.below(12) {
            0..4 if write.is_none() => {
                last += 1;
                if cluster.nodes[at].views.get(REGION).is_some() {
                    write = Some((last, cluster.nodes[at].put(b"k", &last.to_be_bytes())));
                }
            }
            4..9 if cluster.nodes[at].views.get(REGION).is_some() => {
                reads.push((at, acknowledged, cluster.nodes[at].replica_read(REGION)));
            }
            9 if cluster.nodes[at].views.get(REGION).is_some() => {
                let view = cluster.view(at, REGION);
                let (header, reply) = (header_of(&view), Slot::default().reply());
                let to = view.region.peers[prng.below(3) as usize].id;
                let request = store::TransferRequest { header, to, reply };
                cluster.nodes[at].inbox.push(ShardInput::TransferLeader(request));
            }
            10 => {
                cluster.cut.clear();
                if prng.one_in(2) {
                    cluster.cut.push(StoreId(1 + prng.below(3)));
                }
            }
            11 if prng.one_in(4) => {
                cluster.stop(1 + at as u64, None);
                cluster.start(1 + at as u64);
                reads.retain(|(reader, _, _)| *reader != at);
            }
            _ => {}
        }
        for _ in 0..prng.below(60) {
            cluster.step(&mut prng, 20);
            settle(&cluster, &mut reads, seed, (&mut answered, &mut refused));
            if let Some((value, slot)) = &write
                && let Some(answer) = slot.answer()
            {
                if answer.is_ok() {
                    acknowledged = *value;
                }
                write = None;
            }
        }
        cluster.now = cluster.now + TICK;
    }
    (answered, refused)
}

/// Who was answered reads at once.
fn settle(
    cluster: &Cluster,
    reads: &mut Vec<(usize, u64, Slot)>,
    seed: u64,
    (answered, refused): (&mut u64, &mut u64),
) {
    reads.retain(|(at, least, slot)| {
        match slot.answer() {
            None => return true,
            Some(Ok(())) => {
                let found = number(&cluster.nodes[*at]);
                assert!(found >= *least, "seed {seed}: {found} < {least} at {at}");
                *answered += 1;
            }
            Some(Err(_)) => *refused += 1,
        }
        false
    });
}

#[test]
fn a_question_that_gets_lost_is_asked_again_or_given_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    let slot = cluster.nodes[follower].replica_read(REGION);
    let now = cluster.now;
    cluster.nodes[follower].settle(now);
    assert!(cluster.nodes[follower].sent.drain(..).any(|m| is_question(&m)), "it gets lost");
    cluster.ticks(6);
    assert!(slot.is_ok(), "asked again: {:?}", slot.answer());

    cluster.cut.push(cluster.nodes[follower].machine.store_id);
    let slot = cluster.nodes[follower].replica_read(REGION);
    cluster.ticks(40);
    let error = slot.error();
    assert!(matches!(error, RegionError::ReadIndexNotReady { .. }), "{error:?}");
    let slot = cluster.nodes[follower].replica_read(REGION);
    cluster.ticks(40);
    let error = slot.error();
    assert!(matches!(error, RegionError::NotLeader { leader: None, .. }), "{error:?}");
}

fn is_question(message: &store::RaftMessage) -> bool {
    matches!(message.message.body, Body::ReadIndex { .. })
}

/// An answer to a question of before a restart must not pass for one of after it.
#[test]
fn an_answer_of_before_a_restart_is_nobodys() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    cluster.put(REGION, b"k", &1u64.to_be_bytes());
    cluster.ticks(4);
    let first = cluster.nodes[follower].replica_read(REGION);
    let mut answer = None;
    while answer.is_none() {
        let now = cluster.now;
        for node in &mut cluster.nodes {
            node.settle(now);
            cluster.wire.extend(node.sent.drain(..));
        }
        let is_answer =
            |m: &store::RaftMessage| matches!(m.message.body, Body::ReadIndexResponse { .. });
        answer = cluster.wire.iter().position(is_answer).map(|at| cluster.wire.remove(at));
        let messages = std::mem::take(&mut cluster.wire);
        messages.into_iter().for_each(|message| cluster.carry(message, false));
    }
    assert_eq!(first.answer(), None);
    let store = cluster.nodes[follower].machine.store_id.0;
    cluster.stop(store, None);
    cluster.put(REGION, b"k", &2u64.to_be_bytes());
    cluster.start(store);
    // It hears of its leader and not yet of what was written, asks, and is answered what it asked
    // before it went down.
    let (leads, now) = (cluster.view(leader, REGION).peer, cluster.now);
    cluster.nodes[follower].settle(now);
    while cluster.view(follower, REGION).leader != Some(leads) {
        cluster.now = cluster.now + TICK;
        let now = cluster.now;
        for node in &mut cluster.nodes {
            node.settle(now);
            cluster.wire.extend(node.sent.drain(..));
        }
        let messages = std::mem::take(&mut cluster.wire);
        for message in messages {
            let brings = matches!(message.message.body, Body::Append { .. });
            cluster.carry(message, brings);
        }
        let now = cluster.now;
        cluster.nodes[follower].settle(now);
    }
    let second = cluster.nodes[follower].replica_read(REGION);
    let now = cluster.now;
    cluster.nodes[follower].settle(now);
    let late = answer.expect("it was caught");
    cluster.nodes[follower].inbox.push(ShardInput::Message(late));
    cluster.nodes[follower].settle(now);
    assert_eq!(number(&cluster.nodes[follower]), 1, "it is behind");
    assert_eq!(second.answer(), None, "that was the answer to another question");
    cluster.ticks(20);
    assert!(second.is_ok() && number(&cluster.nodes[follower]) == 2);
}

/// Known bug 8: the lease is looked at again after the data was taken.
#[test]
fn a_leader_that_was_replaced_between_two_looks_serves_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let view = cluster.view(leader, REGION);
    let permit =
        cluster.nodes[leader].views.permit(&header_of(&view), ReadFrom::Leader, cluster.now);
    let permit = permit.expect("it leads");
    cluster.transfer(REGION, cluster.view(follower_of(leader), REGION).peer.id);
    cluster.ticks(20);
    cluster.put(REGION, b"k", b"new");
    let error = cluster.nodes[leader].views.recheck(&permit, cluster.now);
    assert!(matches!(error, Err(RegionError::StaleCommand(_))), "{error:?}");
}

/// The lease is given up before the successor can know that it may campaign.
#[test]
fn there_is_no_lease_while_leadership_is_handed_over() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let to = cluster.view(follower_of(leader), REGION).peer.id;
    let (header, reply) = (header_of(&cluster.view(leader, REGION)), Slot::default().reply());
    let request = store::TransferRequest { header, to, reply };
    cluster.nodes[leader].inbox.push(ShardInput::TransferLeader(request));
    let now = cluster.now;
    cluster.nodes[leader].turn_shard(now);
    let asked = |m: &store::RaftMessage| matches!(m.message.body, Body::TimeoutNow { .. });
    assert!(cluster.nodes[leader].sent.iter().any(asked), "the successor has everything");
    assert!(!cluster.view(leader, REGION).has_lease(now));
    // A read that comes now is not answered by what was confirmed before (known bug 3).
    let slot = cluster.nodes[leader].read_index();
    cluster.nodes[leader].settle(now);
    assert_eq!(slot.answer(), None);
    cluster.ticks(10);
    assert!(matches!(slot.error(), RegionError::NotLeader { .. }));
}

#[test]
fn nobody_reads_locally_while_a_split_is_on_its_way() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let view = cluster.view(leader, REGION);
    let cuts = vec![crate::common::cut(&view.region, b"m", 50)];
    let reply = Slot::default().reply();
    let request = store::SplitRequest { header: header_of(&view), cuts, reply };
    cluster.nodes[leader].inbox.push(ShardInput::Split(request));
    let now = cluster.now;
    cluster.nodes[leader].turn_shard(now);
    let fenced = cluster.view(leader, REGION);
    assert!(view.has_lease(now) && !fenced.has_lease(now));
    let claims = claims(&cluster, leader);
    assert!(claims.is_empty(), "its keys may be another region's: {claims:?}");
    cluster.deliver();
    assert!(cluster.view(leader, REGION).has_lease(cluster.now));
}

/// What the leaders there say, as of now.
fn claims(cluster: &Cluster, at: usize) -> Vec<store::OpenClaim> {
    let snapshot = cluster.nodes[at].machine.engine.snapshot();
    cluster.nodes[at].views.claims(&*snapshot).expect("memory does not fail")
}

/// Tells the follower what the leader has confirmed, the way stores do.
fn publish(cluster: &Cluster, leader: usize, ts: u64) {
    let (leaders, id) = (&cluster.nodes[leader].views, REGION);
    let claims = claims(cluster, leader);
    let claim = claims.iter().find(|open| open.claim.region_id == id).expect("it leads");
    let agrees = |store: &&StoreId| {
        let node = cluster.nodes.iter().find(|node| node.machine.store_id == **store);
        node.is_some_and(|node| node.views.check_claim(&claim.claim))
    };
    let by: BTreeSet<StoreId> = claim.stores.iter().filter(agrees).copied().collect();
    assert!(leaders.confirm_claim(claim, TimeStamp(ts), &by), "{by:?}");
}

fn past(cluster: &Cluster, at: usize, ts: u64) -> Result<store::ReadPermit, RegionError> {
    let view = cluster.view(at, REGION);
    let from = ReadFrom::Past(TimeStamp(ts));
    match cluster.nodes[at].views.permit(&header_of(&view), from, cluster.now) {
        Ok(permit) => Ok(permit),
        Err(ReadRefusal::Region(error)) => Err(error),
        Err(ReadRefusal::NeedsReadIndex) => panic!("no read of the past asks anybody"),
    }
}

#[test]
fn a_follower_answers_reads_of_the_past_once_it_has_applied_enough() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    let error = past(&cluster, follower, 1).expect_err("nothing is known yet");
    assert!(
        matches!(error, RegionError::DataIsNotReady { safe_ts: TimeStamp(0), .. }),
        "{error:?}"
    );
    cluster.put(REGION, b"k", &1u64.to_be_bytes());
    // What the leader confirms here the others hear of with its next claim.
    publish(&cluster, leader, 100);
    publish(&cluster, leader, 200);
    assert!(past(&cluster, leader, 500).is_ok(), "the leader answers with what is now");
    cluster.ticks(4);
    let permit = past(&cluster, follower, 100).expect("it has applied that much");
    assert_eq!(number(&cluster.nodes[follower]), 1);
    assert_eq!(cluster.nodes[follower].views.recheck(&permit, cluster.now), Ok(()));
    let error = past(&cluster, follower, 101).expect_err("the claim of 200 was not told yet");
    assert!(
        matches!(error, RegionError::DataIsNotReady { safe_ts: TimeStamp(100), .. }),
        "{error:?}"
    );
    let all = crate::common::everything();
    assert_eq!(cluster.nodes[follower].views.least_safe_ts(&all), TimeStamp(100));
    assert_eq!(cluster.nodes[leader].views.least_safe_ts(&all), TimeStamp(200));
}

#[test]
fn a_follower_that_has_not_applied_enough_does_not_answer() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    let view = cluster.view(follower, REGION);
    let point = SafePoint { ts: TimeStamp(100), applied: view.applied + 1 };
    cluster.nodes[follower].views.safe_times().learn(&view, point);
    assert!(past(&cluster, follower, 100).is_err());
    cluster.put(REGION, b"k", b"v");
    cluster.ticks(4);
    assert!(past(&cluster, follower, 100).is_ok());
}

#[test]
fn a_leader_of_before_confirms_nothing() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    cluster.cut.push(cluster.nodes[old].machine.store_id);
    let claims = claims(&cluster, old);
    let claim = &claims[0];
    let agrees = |claim: &LeaderClaim, at: usize| cluster.nodes[at].views.check_claim(claim);
    assert!(agrees(&claim.claim, follower_of(old)), "nobody else leads yet");
    let new = cluster.leader();
    let by: BTreeSet<StoreId> = (0..3)
        .filter(|at| *at != old && cluster.nodes[*at].views.check_claim(&claim.claim))
        .map(|at| cluster.nodes[at].machine.store_id)
        .collect();
    assert!(by.is_empty(), "{new} leads: {by:?}");
    assert!(!cluster.nodes[old].views.confirm_claim(claim, TimeStamp(9), &by));
}

/// Known bug 9: what was known of a replica's data says nothing of those of the next one, or of
/// the same one while a snapshot takes their place.
#[test]
fn what_was_known_of_a_replica_dies_with_it() {
    let config = ShardConfig { log_entries_max: 10, ..ShardConfig::default() };
    let mut cluster = Cluster::with(3, 3, config);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    let store = cluster.nodes[follower].machine.store_id;
    cluster.put(REGION, b"k", b"v");
    publish(&cluster, leader, 100);
    publish(&cluster, leader, 200);
    cluster.ticks(4);
    let permit = past(&cluster, follower, 100).expect("it knows that much");
    cluster.change(REGION, &[remove(100 + store.0)]);
    cluster.ticks(80);
    let views = &cluster.nodes[follower].views;
    assert_eq!(views.recheck(&permit, cluster.now), Err(RegionError::RegionNotFound(REGION)));
    cluster.change(REGION, &[learner(300, store.0)]);
    cluster.ticks(80);
    let view = cluster.view(follower, REGION);
    assert_eq!(view.peer.id, PeerId(300));
    assert_eq!(view.region.epoch.version, permit.view().region.epoch.version);
    let views = &cluster.nodes[follower].views;
    assert!(views.recheck(&permit, cluster.now).is_err(), "the data are others");
    let error = past(&cluster, follower, 100).expect_err("nothing is known of these");
    assert!(
        matches!(error, RegionError::DataIsNotReady { safe_ts: TimeStamp(0), .. }),
        "{error:?}"
    );
}

#[test]
fn nobody_reads_while_a_snapshot_takes_the_place_of_the_data() {
    let config = ShardConfig { log_entries_max: 10, ..ShardConfig::default() };
    let mut cluster = Cluster::with(3, 3, config);
    let leader = cluster.leader();
    let follower = follower_of(leader);
    let store = cluster.nodes[follower].machine.store_id;
    let slot = cluster.nodes[follower].replica_read(REGION);
    cluster.deliver();
    assert!(slot.is_ok());
    let view = cluster.view(follower, REGION);
    let views = cluster.nodes[follower].views.clone();
    let permit = views.permit_after_index(&header_of(&view), ReadFrom::Replica).expect("answered");
    cluster.cut.push(store);
    for i in 0..60u64 {
        // More than a leader keeps in memory.
        cluster.put(REGION, &i.to_be_bytes(), &[7; 8 << 10]);
        cluster.tick();
    }
    cluster.cut.clear();
    let arrives = |cluster: &Cluster| {
        let view: Arc<RegionView> = cluster.view(follower, REGION);
        !view.has_data
    };
    let before: Index = cluster.view(follower, REGION).applied;
    // One thing after the other, so that the snapshot is met half-way.
    let mut prng = Prng::new(1);
    let mut steps = 0u64;
    while !arrives(&cluster) {
        cluster.step(&mut prng, 0);
        steps += 1;
        if steps.is_multiple_of(100) {
            cluster.now = cluster.now + TICK;
        }
        assert!(steps < 200_000, "no snapshot came");
    }
    let view = cluster.view(follower, REGION);
    let now = cluster.now;
    assert!(views.recheck(&permit, now).is_err(), "what was read may be half of it");
    assert!(views.permit_after_index(&header_of(&view), ReadFrom::Replica).is_err());
    cluster.ticks(20);
    let view = cluster.view(follower, REGION);
    assert!(view.has_data && view.applied > before);
    assert!(views.recheck(&permit, cluster.now).is_err());
    assert!(views.permit_after_index(&header_of(&view), ReadFrom::Replica).is_ok());
}

#[test]
fn who_decides_alone_knows_everything_up_to_the_last_timestamp() {
    let mut cluster = Cluster::with(1, 1, ShardConfig::default());
    let leader = cluster.leader();
    let views = cluster.nodes[leader].views.clone();
    assert_eq!(views.least_safe_ts(&crate::common::everything()), TimeStamp(0));
    let claims = claims(&cluster, leader);
    assert!(claims[0].stores.is_empty(), "nobody is asked");
    assert!(views.confirm_claim(&claims[0], TimeStamp(70), &BTreeSet::new()));
    assert_eq!(views.least_safe_ts(&crate::common::everything()), TimeStamp(70));
}
