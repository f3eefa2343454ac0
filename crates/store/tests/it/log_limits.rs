//! How large a region's log may become, and how much may wait to be applied.

use pontoon_store as store;

use std::sync::Arc;

use crate::common::{Cluster, Machine, Node, REGION, TICK, region_on};
use base::{Entry, EntryKind, Epoch, Instant};
use prost::Message;
use proto::raft_cmdpb;
use storage::engine::Cf;
use store::{
    Applier, ApplyInput, ApplyOutbox, ApplyState, ApplyTask, RegionError, ShardConfig, Writes,
};

fn running(config: ShardConfig) -> Node {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    let mut node = machine.start(config);
    node.settle(Instant(1));
    node
}

/// A few large writes: a region forgets them by their bytes, long before there are many of them.
#[test]
fn a_log_shrinks_by_its_bytes() {
    let config = ShardConfig { log_bytes_max: 64 << 10, ..ShardConfig::default() };
    let mut cluster = Cluster::with(3, 3, config);
    cluster.leader();
    for i in 0..20u8 {
        cluster.put(REGION, &[i], &vec![i; 16 << 10]);
        cluster.ticks(2);
    }
    cluster.ticks(5);
    for node in &cluster.nodes {
        let log = node.machine.open_log_reader();
        let (first, last) = (log.first_index(REGION), log.last_index(REGION));
        assert!(first > 6 && last - first < 12, "{first}..={last} on {}", node.machine.store_id);
    }
    assert_eq!(cluster.snapshots, [], "nobody lacked what went");
}

/// The entry with which a leader lets the log forget.
fn compact(at: u64, index: u64) -> Entry {
    let epoch = Epoch { conf_ver: 1, version: 1 };
    let compact_log = raft_cmdpb::CompactLogRequest {
        compact_index: index,
        compact_term: 6,
        ..Default::default()
    };
    let command = raft_cmdpb::RaftCmdRequest {
        header: Some(raft_cmdpb::RaftRequestHeader {
            region_epoch: Some(proto::epoch_to_proto(epoch)),
            ..Default::default()
        }),
        admin_request: Some(raft_cmdpb::AdminRequest {
            cmd_type: raft_cmdpb::AdminCmdType::CompactLog as i32,
            compact_log: Some(compact_log),
            ..Default::default()
        }),
        ..Default::default()
    };
    let data = command.encode_to_vec().into();
    Entry { index: at, term: 6, kind: EntryKind::Normal, data }
}

/// A leader of before asks for less than the one of now did, later: where the log begins stays.
#[test]
fn an_older_or_repeated_compaction_changes_nothing() {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    let mut applier = Applier::new(Arc::new(machine.engine.clone()));
    let create = ApplyInput::Create {
        region: Arc::new(region_on(&[1])),
        state: ApplyState::initial(),
        term: 5,
        peer: region_on(&[1]).peers[0].id,
        merge: None,
        absorbed: Arc::default(),
    };
    let entries = vec![compact(6, 5), compact(7, 6), compact(8, 7), compact(9, 6), compact(10, 7)];
    let began: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let task = ApplyTask { region_id: REGION, entries: vec![entry], waiting: Vec::new() };
            ApplyInput::Apply(task)
        })
        .collect();
    let mut out = ApplyOutbox::default();
    applier.turn(&mut vec![create], &mut out);
    let mut truncated = Vec::new();
    for task in began {
        let mut out = ApplyOutbox::default();
        applier.turn(&mut vec![task], &mut out);
        assert!(out.fatal.is_none());
        truncated.push(out.applied[0].truncated.0);
    }
    assert_eq!(truncated, [5, 6, 7, 7, 7]);
}

/// While the engine cannot keep up writes are refused as busy, reads by the lease are not; what
/// was taken is applied and answered in the end.
#[test]
fn writes_are_refused_while_too_much_waits_to_be_applied() {
    let mut node = running(ShardConfig::default());
    let mut slots = Vec::new();
    let mut now = Instant(2);
    let refused = loop {
        let mut writes = Writes::new();
        writes.put(Cf::Default, &[slots.len() as u8], &vec![0; 4 << 20]);
        let header = node.header();
        let slot = node.propose(header, writes);
        for _ in 0..2 {
            now = now + TICK;
            node.turn_shard(now);
            node.turn_log();
        }
        if slot.answer().is_some() {
            break slot;
        }
        slots.push(slot);
        assert!(slots.len() < 100, "nothing is ever refused");
    };
    assert!(matches!(refused.error(), RegionError::ServerIsBusy { .. }), "{:?}", refused.error());
    assert!(slots.len() >= 16, "64 MiB may wait, these were {} of 4", slots.len());
    assert!(node.view().has_lease(now), "it goes on to serve");
    node.settle(now);
    assert!(slots.iter().all(|slot| slot.is_ok()));
    let put = node.put(b"k", b"v");
    node.settle(now + TICK);
    assert!(put.is_ok());
}
