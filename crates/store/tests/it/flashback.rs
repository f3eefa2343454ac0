//! A region that is closed for a flashback lets in nothing else, on all replicas, through restarts,
//! snapshots and changes of leaders.

use pontoon_store as store;

use crate::common::{Cluster, Machine, Node, REGION, Slot, cut, header_of, learner, region_on};
use base::{KeyRange, PeerId, Region, RegionId, TimeStamp};
use storage::engine::Cf;
use store::{
    FlashbackRequest, MergeRequest, Purpose, ReadFrom, ReadRefusal, RegionError, RequestHeader,
    ShardConfig, ShardInput, SplitRequest, TransferRequest, Writes,
};

const BEGAN: TimeStamp = TimeStamp(500);
const LEFT: RegionId = RegionId(20);

fn in_progress() -> RegionError {
    RegionError::FlashbackInProgress { region: REGION, began: BEGAN }
}

fn flashback(cluster: &mut Cluster, region: RegionId, began: Option<TimeStamp>) {
    let at = cluster.leader_of(region);
    let slot = Slot::default();
    let header = header_of(&cluster.view(at, region));
    let request = FlashbackRequest { header, began, reply: slot.reply() };
    cluster.nodes[at].inbox.push(ShardInput::Flashback(request));
    cluster.ticks(5);
    assert!(slot.is_ok(), "{:?}", slot.answer());
}

fn header(node: &Node, purpose: Purpose) -> RequestHeader {
    RequestHeader { purpose, ..node.header() }
}

fn put(cluster: &mut Cluster, at: usize, purpose: Purpose) -> Result<(), RegionError> {
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"k", b"v");
    let header = header(&cluster.nodes[at], purpose);
    let slot = cluster.nodes[at].propose(header, writes);
    cluster.ticks(3);
    slot.answer().expect("answered")
}

fn permit(cluster: &Cluster, at: usize, purpose: Purpose) -> Result<(), RegionError> {
    let header = header(&cluster.nodes[at], purpose);
    match cluster.nodes[at].views.permit(&header, ReadFrom::Replica, cluster.now) {
        Ok(_) | Err(ReadRefusal::NeedsReadIndex) => Ok(()),
        Err(ReadRefusal::Region(error)) => Err(error),
    }
}

#[test]
fn only_the_flashback_and_reads_of_before_are_let_in() {
    let mut cluster = Cluster::with(3, 3, ShardConfig::default());
    let at = cluster.leader();
    let not_prepared = Err(RegionError::FlashbackNotPrepared(REGION));
    assert_eq!(put(&mut cluster, at, Purpose::Flashback), not_prepared);
    assert_eq!(permit(&cluster, at, Purpose::Flashback), not_prepared);
    flashback(&mut cluster, REGION, Some(BEGAN));
    assert_eq!(put(&mut cluster, at, Purpose::Any), Err(in_progress()));
    assert_eq!(put(&mut cluster, at, Purpose::ReadAt(TimeStamp(1))), Err(in_progress()));
    assert_eq!(put(&mut cluster, at, Purpose::Flashback), Ok(()));
    for replica in 0..3 {
        let permit = |purpose| permit(&cluster, replica, purpose);
        assert_eq!(permit(Purpose::Flashback), Ok(()));
        assert_eq!(permit(Purpose::ReadAt(TimeStamp(499))), Ok(()));
        assert_eq!(permit(Purpose::ReadAt(BEGAN)), Err(in_progress()));
        assert_eq!(permit(Purpose::Any), Err(in_progress()));
    }
    // Both steps may be repeated.
    flashback(&mut cluster, REGION, Some(BEGAN));
    flashback(&mut cluster, REGION, None);
    flashback(&mut cluster, REGION, None);
    assert_eq!(put(&mut cluster, at, Purpose::Flashback), not_prepared);
    assert_eq!(put(&mut cluster, at, Purpose::Any), Ok(()));
    assert_eq!(cluster.check_equal(REGION).flashback, None);
}

/// What was proposed while the region was open takes no effect once it is closed.
#[test]
fn a_write_that_was_on_its_way_is_refused_when_it_is_applied() {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    let mut node = machine.start(ShardConfig::default());
    let now = base::Instant::ZERO;
    node.settle(now);
    let slots = [Slot::default(), Slot::default()];
    let close = |began, slot: &Slot| {
        let (header, reply) = (node.header(), slot.reply());
        ShardInput::Flashback(FlashbackRequest { header, began, reply })
    };
    let (begin, end) = (close(Some(BEGAN), &slots[0]), close(None, &slots[1]));
    node.inbox.push(begin);
    let open = node.put(b"open", b"v");
    node.turn_shard(now);
    assert!(!node.view().has_lease(now), "nobody reads here until it is known who may");
    node.settle(now);
    assert_eq!((slots[0].is_ok(), open.error()), (true, in_progress()));
    assert_eq!(node.get(b"open"), None);
    // The other way round.
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"closed", b"v");
    let header = RequestHeader { purpose: Purpose::Flashback, ..node.header() };
    node.inbox.push(end);
    let closed = node.propose(header, writes);
    node.settle(now);
    assert_eq!(closed.error(), RegionError::FlashbackNotPrepared(REGION));
    assert!(slots[1].is_ok());
    assert_eq!(node.get(b"closed"), None);
}

#[test]
fn it_survives_restarts_and_goes_with_snapshots() {
    let config = ShardConfig { log_entries_max: 10, ..ShardConfig::default() };
    let mut cluster = Cluster::with(4, 3, config);
    cluster.leader();
    flashback(&mut cluster, REGION, Some(BEGAN));
    for store in 1..=3 {
        cluster.stop(store, None);
        cluster.start(store);
    }
    cluster.leader();
    // Members may change, so that a store can be replaced meanwhile.
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(20);
    assert_eq!(cluster.snapshots, [(REGION, PeerId(204))]);
    assert_eq!(cluster.check_equal(REGION).flashback, Some(BEGAN));
    let at = cluster.leader();
    assert_eq!(put(&mut cluster, at, Purpose::Any), Err(in_progress()));
    flashback(&mut cluster, REGION, None);
    assert_eq!(cluster.check_equal(REGION).flashback, None);
    assert_eq!(cluster.node(4).view().region.flashback, None);
}

#[test]
fn meanwhile_it_is_not_cut_merged_or_handed_over() {
    let mut cluster = Cluster::with(3, 3, ShardConfig::default());
    cluster.leader();
    cluster.split(REGION, b"j", 20);
    let (at, left) = (cluster.leader(), cluster.leader_of(LEFT));
    flashback(&mut cluster, REGION, Some(BEGAN));
    let view = cluster.view(at, REGION);
    let (header, neighbour) = (header_of(&view), (*cluster.view(left, LEFT).region).clone());
    let slots: Vec<Slot> = (0..3).map(|_| Slot::default()).collect();
    let to = view.region.peers[0].id;
    let cuts = vec![cut(&view.region, b"q", 30)];
    cluster.nodes[at].inbox.extend([
        ShardInput::Split(SplitRequest { header, cuts, reply: slots[0].reply() }),
        ShardInput::Merge(MergeRequest { header, target: neighbour, reply: slots[1].reply() }),
        ShardInput::TransferLeader(TransferRequest { header, to, reply: slots[2].reply() }),
    ]);
    cluster.deliver();
    slots.iter().for_each(|slot| assert_eq!(slot.error(), in_progress()));
    let slot = cluster.try_change(REGION, &[crate::common::remove(999)]);
    assert!(matches!(slot.error(), RegionError::EpochNotMatch { .. }), "it was looked at");
}

/// The neighbour that shall take a region over is closed before it does: the other waits, and
/// becomes a part of it once it is open.
#[test]
fn a_merge_waits_until_its_target_is_open() {
    let mut cluster = Cluster::with(3, 3, ShardConfig::default());
    cluster.leader();
    cluster.split(REGION, b"j", 20);
    let (at, left) = (cluster.leader(), cluster.leader_of(LEFT));
    let target: Region = (*cluster.view(at, REGION).region).clone();
    flashback(&mut cluster, REGION, Some(BEGAN));
    let slot = Slot::default();
    let header = header_of(&cluster.view(left, LEFT));
    let request = MergeRequest { header, target, reply: slot.reply() };
    cluster.nodes[left].inbox.push(ShardInput::Merge(request));
    cluster.ticks(30);
    assert!(slot.is_ok(), "{:?}", slot.answer());
    assert_eq!(cluster.check_equal(REGION).range, KeyRange::new("j", ""));
    flashback(&mut cluster, REGION, None);
    cluster.ticks(30);
    assert_eq!(cluster.check_equal(REGION).range, KeyRange::all());
    assert!(cluster.node(1).views.get(LEFT).is_none());
}
