//! What is kept in memory for regions that are led: it is handed over before a split, a merge or a
//! transfer takes it away, and forgotten with the leadership.

use pontoon_store as store;

use crate::common::{Cluster, Node, REGION, Slot, cut, header_of};
use base::{Peer, PeerId, RegionId, StoreId};
use storage::engine::Cf;
use store::{
    LeaderEvent, MergeRequest, Proposal, ShardConfig, ShardInput, SplitRequest, TransferRequest,
    Writes,
};

const LEFT: RegionId = RegionId(20);
const PATIENCE: u32 = 20;

/// Three stores, of which the first leads, with somebody slow who keeps things.
fn cluster() -> Cluster {
    let config = ShardConfig { hand_over_ticks: PATIENCE, ..ShardConfig::default() };
    let mut cluster = Cluster::with(3, 3, config);
    lead_from_first(&mut cluster, REGION, PeerId(101));
    cluster.nodes.iter_mut().for_each(|node| node.keeper.slow = true);
    cluster
}

fn lead_from_first(cluster: &mut Cluster, region: RegionId, peer: PeerId) {
    while cluster.leader_of(region) != 0 {
        cluster.transfer(region, peer);
        cluster.ticks(3);
    }
}

fn transfer(cluster: &mut Cluster, to: u64) -> Slot {
    let slot = Slot::default();
    let header = header_of(&cluster.view(0, REGION));
    let request = TransferRequest { header, to: PeerId(to), reply: slot.reply() };
    cluster.nodes[0].inbox.push(ShardInput::TransferLeader(request));
    cluster.deliver();
    slot
}

fn split(cluster: &mut Cluster) -> Slot {
    let slot = Slot::default();
    let view = cluster.view(0, REGION);
    let cuts = vec![cut(&view.region, b"j", 20)];
    let request = SplitRequest { header: header_of(&view), cuts, reply: slot.reply() };
    cluster.nodes[0].inbox.push(ShardInput::Split(request));
    cluster.deliver();
    slot
}

/// Whoever keeps things proposes them, waits, and says so.
fn hand_over(cluster: &mut Cluster, region: RegionId, key: &[u8]) {
    let led = cluster.nodes[0].keeper.led[&region].clone();
    assert!(led.closing.is_some(), "{led:?}");
    let slot = Slot::default();
    let header = header_of(&cluster.view(0, region));
    let mut writes = Writes::new();
    writes.put(Cf::Lock, key, b"kept");
    let proposal = Proposal { header, writes, only_in_term: Some(led.term), reply: slot.reply() };
    cluster.nodes[0].inbox.push(ShardInput::Propose(proposal));
    cluster.deliver();
    assert!(slot.is_ok(), "{:?}", slot.answer());
    let answer = cluster.nodes[0].keeper.answer(region);
    cluster.nodes[0].inbox.push(answer);
    cluster.deliver();
}

fn holds(node: &Node, key: &[u8]) -> bool {
    let rows = node.contents(REGION, &crate::common::everything());
    rows.iter().any(|(cf, found, _)| *cf == Cf::Lock && found[1..] == *key)
}

fn leader(cluster: &Cluster, at: usize) -> Option<Peer> {
    cluster.view(at, REGION).leader
}

#[test]
fn a_transfer_waits_until_what_was_kept_is_applied() {
    let mut cluster = cluster();
    let slot = transfer(&mut cluster, 102);
    cluster.ticks(5);
    assert_eq!(slot.answer(), None);
    assert_eq!(leader(&cluster, 0).map(|peer| peer.id), Some(PeerId(101)));
    hand_over(&mut cluster, REGION, b"k");
    assert!(slot.is_ok());
    cluster.ticks(5);
    assert_eq!(cluster.leader(), 1);
    assert!(holds(&cluster.nodes[1], b"k"), "the new leader has it");
    assert_eq!(cluster.nodes[0].keeper.led, [].into());
    let led = &cluster.nodes[1].keeper.led[&REGION];
    assert_eq!((led.term, led.closing), (cluster.view(1, REGION).term, None));
}

#[test]
fn a_split_waits_and_then_both_parts_are_told() {
    let mut cluster = cluster();
    let slot = split(&mut cluster);
    cluster.ticks(5);
    assert!(slot.answer().is_none() && cluster.nodes[0].views.get(LEFT).is_none());
    hand_over(&mut cluster, REGION, b"k");
    assert!(slot.is_ok());
    cluster.ticks(3);
    let led = &cluster.nodes[0].keeper.led;
    for id in [REGION, LEFT] {
        let view = cluster.view(0, id);
        let told = &led[&id];
        assert_eq!((told.term, &told.region, told.closing), (view.term, &view.region, None));
    }
    assert!(holds(&cluster.nodes[2], b"k"));
}

#[test]
fn a_merge_waits_and_its_target_is_told_of_its_new_keys() {
    let mut cluster = cluster();
    let answered = split(&mut cluster);
    hand_over(&mut cluster, REGION, b"k");
    assert!(answered.is_ok());
    lead_from_first(&mut cluster, LEFT, PeerId(201));
    cluster.ticks(5);
    let slot = Slot::default();
    let (header, target) =
        (header_of(&cluster.view(0, LEFT)), (*cluster.view(0, REGION).region).clone());
    let request = MergeRequest { header, target, reply: slot.reply() };
    cluster.nodes[0].inbox.push(ShardInput::Merge(request));
    cluster.ticks(5);
    assert_eq!(slot.answer(), None);
    hand_over(&mut cluster, LEFT, b"a");
    assert!(slot.is_ok());
    cluster.ticks(10);
    let keeper = &cluster.nodes[0].keeper;
    assert_eq!(keeper.led.keys().copied().collect::<Vec<_>>(), [REGION], "the source is lost");
    assert_eq!(keeper.led[&REGION].region, cluster.view(0, REGION).region);
    assert!(keeper.led[&REGION].region.range.contains(b"a"));
    assert!(holds(&cluster.nodes[1], b"a") && holds(&cluster.nodes[1], b"k"));
}

#[test]
fn who_is_too_slow_loses_what_he_keeps() {
    let mut cluster = cluster();
    let slot = transfer(&mut cluster, 102);
    cluster.ticks(PATIENCE - 1);
    assert_eq!(slot.answer(), None);
    cluster.ticks(2);
    assert!(slot.is_ok());
    cluster.ticks(5);
    assert_eq!(cluster.leader(), 1);
    assert_eq!(cluster.nodes[0].keeper.led, [].into());
}

/// An answer to an earlier question does not stand for one to the question that is open.
#[test]
fn an_old_answer_counts_for_nothing() {
    let mut cluster = cluster();
    cluster.cut.push(StoreId(2));
    let first = transfer(&mut cluster, 102);
    let old = cluster.nodes[0].keeper.answer(REGION);
    cluster.ticks(PATIENCE + 1);
    assert!(first.answer().is_some(), "it was tried");
    cluster.ticks(12);
    assert_eq!(cluster.nodes[0].keeper.led[&REGION].closing, None, "it came to nothing");
    let second = transfer(&mut cluster, 103);
    cluster.nodes[0].inbox.push(old);
    cluster.ticks(3);
    assert_eq!(second.answer(), None);
    hand_over(&mut cluster, REGION, b"k");
    assert!(second.is_ok());
}

#[test]
fn a_step_that_does_not_fit_asks_nobody_and_one_refused_late_gives_back() {
    let mut cluster = cluster();
    let stale = header_of(&cluster.view(0, REGION));
    let answered = split(&mut cluster);
    hand_over(&mut cluster, REGION, b"k");
    assert!(answered.is_ok());
    cluster.ticks(3);
    let heard = cluster.nodes[0].keeper.heard.len();
    let slot = Slot::default();
    let request = TransferRequest { header: stale, to: PeerId(102), reply: slot.reply() };
    cluster.nodes[0].inbox.push(ShardInput::TransferLeader(request));
    cluster.deliver();
    assert!(matches!(slot.error(), store::RegionError::EpochNotMatch { .. }));
    assert_eq!(cluster.nodes[0].keeper.heard.len(), heard, "nobody was asked");
    // This one fits, and names nobody who could lead.
    let slot = transfer(&mut cluster, 999);
    hand_over(&mut cluster, REGION, b"l");
    assert!(matches!(slot.error(), store::RegionError::ServerIsBusy { .. }));
    let last = cluster.nodes[0].keeper.heard.last();
    assert!(matches!(last, Some(LeaderEvent::Leads { region, .. }) if region.id == REGION));
}

#[test]
fn with_an_election_it_is_lost_and_steps_are_refused() {
    let mut cluster = cluster();
    let slot = transfer(&mut cluster, 102);
    cluster.cut.push(StoreId(1));
    for _ in 0..PATIENCE {
        cluster.tick();
        if cluster.nodes[0].keeper.led.is_empty() {
            break;
        }
    }
    assert_eq!(cluster.nodes[0].keeper.led, [].into());
    assert!(matches!(slot.error(), store::RegionError::NotLeader { .. }));
    let leader = cluster.leader();
    assert_eq!(cluster.nodes[leader].keeper.led.len(), 1);
}

#[test]
fn a_store_that_stops_asks_once() {
    let mut cluster = cluster();
    cluster.nodes[0].inbox.push(ShardInput::HandOver);
    cluster.ticks(5);
    let is_asked = |event: &&LeaderEvent| matches!(event, LeaderEvent::HandOver { .. });
    assert_eq!(cluster.nodes[0].keeper.heard.iter().filter(is_asked).count(), 1);
    hand_over(&mut cluster, REGION, b"k");
    cluster.ticks(5);
    assert_ne!(cluster.leader(), 0);
}
