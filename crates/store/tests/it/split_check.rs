//! When and where regions are cut: by size, by number of keys, between user keys only, by load; and
//! that a cluster does it by itself.

use pontoon_store as store;

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Cluster, REGION, Slot, cut, header_of};
use base::{KeyRange, Peer, PeerId, Region, RegionId, StoreId, codec};
use bytes::Bytes;
use storage::engine::{Cf, Engine, MemoryEngine, WriteBatch};
use storage::keys;
use store::split_check::{CheckSplit, Found, LoadLimits, Measure, SplitConfig, SplitReason, half};
use store::{RegionError, RequestHeader, ShardConfig, ShardInput, SplitRequest};

fn region(start: &str, end: &str) -> Region {
    let range = KeyRange::new(start.to_owned(), end.to_owned());
    Region { range, ..Region::first(REGION, Peer::voter(PeerId(101), StoreId(1))) }
}

fn by_bytes(max_bytes: u64, piece_bytes: u64) -> SplitConfig {
    SplitConfig { max_bytes, piece_bytes, batch: 100, ..SplitConfig::default() }
}

fn by_keys(max_keys: u64, piece_keys: u64) -> SplitConfig {
    SplitConfig { max_keys, piece_keys, batch: 100, ..SplitConfig::default() }
}

fn look(engine: &MemoryEngine, region: &Region, config: SplitConfig) -> Found {
    let check = CheckSplit { region: Arc::new(region.clone()), config: Arc::new(config) };
    check.run(engine).expect("readable")
}

fn put(engine: &MemoryEngine, cf: Cf, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(cf, &keys::data_key(key), value);
    engine.write(&batch).expect("the engine works");
}

/// A version of a user key, as transactions store it.
fn version(user: &str, ts: u64) -> Vec<u8> {
    let mut key = codec::encode_bytes(user.as_bytes());
    key.extend_from_slice(&(!ts).to_be_bytes());
    key
}

fn encoded(user: &str) -> Bytes {
    codec::encode_bytes(user.as_bytes()).into()
}

/// TestSplitCheck: two versions of each key, which fill a piece together.
#[test]
fn a_region_is_cut_between_user_keys() {
    let engine = MemoryEngine::default();
    for user in ["k1", "k2", "k3"] {
        for ts in [1, 2] {
            put(&engine, Cf::Write, &version(user, ts), &[7; 8]);
        }
    }
    // 25 bytes a version: the piece of 50 is full with k1, and the rest is not too much.
    let found = look(&engine, &region("", ""), by_bytes(100, 50));
    assert_eq!(found.keys, [encoded("k2"), encoded("k3")]);
    assert_eq!(found.measure, Measure { bytes: 150, keys: 3 });
    let found = look(&engine, &region("", ""), by_bytes(150, 60));
    assert_eq!(found.keys, [encoded("k3")], "60 bytes end inside k2, which stays whole");
    assert_eq!(look(&engine, &region("", ""), by_bytes(151, 50)).keys, [] as [Bytes; 0]);
}

#[test]
fn one_key_with_many_versions_is_never_cut() {
    let engine = MemoryEngine::default();
    for ts in 0..1_000 {
        put(&engine, Cf::Write, &version("k", ts), &[7; 100]);
        put(&engine, Cf::Default, &version("k", ts), &[7; 100]);
    }
    for config in [by_bytes(2, 1), by_keys(2, 1), by_bytes(10_000, 5_000)] {
        assert_eq!(look(&engine, &region("", ""), config).keys, [] as [Bytes; 0]);
    }
    assert_eq!(half(&engine, &region("", "")).expect("readable"), None);
    put(&engine, Cf::Lock, &encoded("l"), b"");
    for config in [by_bytes(2, 1), by_keys(2, 1), by_bytes(10_000, 5_000)] {
        assert_eq!(look(&engine, &region("", ""), config).keys, [encoded("l")]);
    }
}

#[test]
fn all_families_count_in_one_order_of_keys() {
    let engine = MemoryEngine::default();
    for i in 0..30 {
        let user = format!("k{i:02}");
        match i % 3 {
            0 => put(&engine, Cf::Lock, &encoded(&user), b"a lock"),
            1 => put(&engine, Cf::Default, &version(&user, 5), b"a value"),
            _ => put(&engine, Cf::Write, &version(&user, 9), b"a commit"),
        }
    }
    // The store's own records are nobody's data.
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, b"zz", b"not a row");
    engine.write(&batch).expect("the engine works");
    let found = look(&engine, &region("", ""), by_keys(20, 10));
    assert_eq!(found.keys, [encoded("k10"), encoded("k20")]);
    let part = Region { range: KeyRange::new(encoded("k05"), encoded("k25")), ..region("", "") };
    let found = look(&engine, &part, by_keys(20, 10));
    assert_eq!((found.measure.keys, found.keys), (20, vec![encoded("k15")]), "its rows only");
    assert_eq!(half(&engine, &part).expect("readable"), Some(encoded("k15")));
}

/// The bounds with which the tests of client-rust run.
#[test]
fn bounds_of_a_few_keys_are_exact() {
    let engine = MemoryEngine::default();
    let key = |i: usize| format!("key-{i:04}");
    let all = |count: usize| {
        (0..count).for_each(|i| put(&engine, Cf::Default, key(i).as_bytes(), b"v"));
        look(&engine, &region("", ""), by_keys(10, 7)).keys
    };
    assert_eq!(all(9), [] as [Bytes; 0], "below the bound");
    assert_eq!(all(10), [key(7)], "three are left, and one cut is needed");
    assert_eq!(all(16), [key(7)], "a rest of two stays with the piece before");
    assert_eq!(all(17), [key(7), key(14)]);
    let many = all(2_000);
    assert_eq!(many.len(), 100, "no more at once than asked for");
    let wanted: Vec<_> = (1..=100).map(|i| key(7 * i)).collect();
    assert_eq!(many, wanted);
    // An edge: a key that is the region's start is no place to cut.
    let edge = region(&key(7), &key(14));
    assert_eq!(look(&engine, &edge, by_keys(7, 6)).keys, [key(13)]);
    assert_eq!(look(&engine, &edge, by_keys(8, 7)).keys, [] as [Bytes; 0]);
    assert_eq!(look(&engine, &region("x", "y"), by_keys(2, 1)), Found::default(), "nothing there");
}

/// Much data is not read, but estimated, and cut by halving.
#[test]
fn a_large_region_is_cut_into_pieces_of_about_the_wanted_size() {
    const VALUE: usize = 16 << 10;
    let engine = MemoryEngine::default();
    for i in 0..3_000u64 {
        let key = format!("user/{:08x}", i.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
        put(&engine, Cf::Default, key.as_bytes(), &[7; VALUE]);
    }
    let config = by_bytes(24 << 20, 16 << 20);
    let found = look(&engine, &region("", ""), config.clone());
    assert!((45 << 20..50 << 20).contains(&found.measure.bytes), "{:?}", found.measure);
    assert!((2_900..3_100).contains(&found.measure.keys), "{:?}", found.measure);
    assert_eq!(found.keys.len(), 1, "a rest of less than a piece is not cut off");
    let found = look(&engine, &region("", ""), by_bytes(24 << 20, 12 << 20));
    assert_eq!(found.keys.len(), 2);
    let mut start = Bytes::new();
    for key in found.keys.iter().cloned() {
        let part = Region { range: KeyRange::new(start, key.clone()), ..region("", "") };
        let bytes = look(&engine, &part, config.clone()).measure.bytes;
        assert!((11 << 20..13 << 20).contains(&bytes), "a piece of {bytes}");
        start = key;
    }
    let middle = half(&engine, &region("", "")).expect("readable").expect("it has a half");
    let (below, above) = ("user/7", "user/9");
    assert!(&middle[..] > below.as_bytes() && &middle[..] < above.as_bytes(), "{middle:?}");
    let by_keys = SplitConfig { max_keys: 150_000, piece_keys: 140_000, ..config };
    assert_eq!(look(&engine, &region("", ""), by_keys).keys.len(), 1, "by bytes, not by keys");
}

/// Does what the driver does with the wishes of stores. Ids begin at `next`.
fn split_as_wanted(cluster: &mut Cluster, next: &mut u64) -> usize {
    let mut done = 0;
    for at in 0..cluster.nodes.len() {
        for wanted in std::mem::take(&mut cluster.nodes[at].wants) {
            let cuts = wanted.keys.iter().map(|key| {
                *next += 1;
                cut(&wanted.region, key, *next)
            });
            let cuts = cuts.collect();
            let (slot, region) = (Slot::default(), &wanted.region);
            let header = RequestHeader::new(region.id, wanted.peer, region.epoch);
            let request = SplitRequest { header, cuts, reply: slot.reply() };
            cluster.nodes[at].inbox.push(ShardInput::Split(request));
            cluster.deliver();
            done += usize::from(slot.is_ok());
        }
    }
    done
}

fn config(split: SplitConfig) -> ShardConfig {
    ShardConfig { split, ..ShardConfig::default() }
}

/// TestOneSplit3B: five stores, one cut off, a hundred puts; the region is cut by itself, and the
/// store that missed it catches up.
#[test]
fn a_region_that_grows_is_cut_by_itself() {
    let split = SplitConfig { interval: Duration::from_secs(1), ..by_bytes(800, 500) };
    let mut cluster = Cluster::with(5, 5, config(split));
    cluster.leader();
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    cluster.cut.push(StoreId(5));
    let (mut next, mut splits) = (20, 0);
    for i in 0..100 {
        let key = format!("k{i:03}");
        let leader = cluster.leader_of(REGION);
        let range = &cluster.view(leader, REGION).region.range;
        let id = match range.contains(key.as_bytes()) {
            true => REGION,
            false => cluster.nodes[leader].views.region_of(key.as_bytes()).expect("no gap"),
        };
        cluster.put(id, key.as_bytes(), &[7; 20]);
        splits += split_as_wanted(&mut cluster, &mut next);
    }
    for _ in 0..30 {
        cluster.tick();
        splits += split_as_wanted(&mut cluster, &mut next);
    }
    assert!(splits > 0, "it was cut");
    let views = cluster.nodes[0].views.clone();
    let all = views.all();
    let mut ranges: Vec<_> = all.iter().map(|view| view.region.range.clone()).collect();
    ranges.sort();
    assert_eq!((&ranges[0].start[..], &ranges.last().expect("some").end[..]), (&b""[..], &b""[..]));
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{ranges:?}");
    // A request that still goes to the region as it was.
    let old = views.get(REGION).expect("it is here");
    assert!(matches!(old.check_key(b"k002"), Err(RegionError::KeyNotInRegion { .. })));
    cluster.cut.clear();
    cluster.ticks(60);
    for view in all {
        cluster.check_equal(view.region.id);
    }
    let wants: usize = cluster.nodes.iter().map(|node| node.wants.len()).sum();
    assert_eq!(wants, 0, "and all are small enough");
}

/// Leaders tell placement how much their regions hold, and tell it anew when that changes.
#[test]
fn the_size_is_told() {
    let split = SplitConfig { interval: Duration::from_secs(1), ..by_bytes(8 << 20, 1 << 20) };
    let mut cluster = Cluster::with(3, 3, config(split));
    let leader = cluster.leader();
    let told = |cluster: &Cluster| {
        let report = &cluster.nodes[leader].led[&REGION];
        (report.approximate_bytes, report.approximate_keys)
    };
    assert_eq!(told(&cluster), (0, 0));
    for i in 0..100u8 {
        cluster.put(REGION, &[i], &[7; 999]);
    }
    cluster.ticks(20);
    assert_eq!(told(&cluster), (100_000, 100), "measured exactly, once");
    for i in 0..100u8 {
        cluster.put(REGION, &[i], &[7; 999]);
    }
    cluster.ticks(20);
    assert_eq!(told(&cluster).1, 100, "overwritten, not more");
}

/// A region that others could lead a part of is cut where its requests fall into halves.
#[test]
fn a_hot_region_is_halved() {
    let limits = LoadLimits { requests: 1_000, bytes: 0, seconds: 3 };
    for members in [1, 3] {
        let split = SplitConfig { load: Some(limits), ..SplitConfig::default() };
        let mut cluster = Cluster::with(members, members, config(split));
        let leader = cluster.leader();
        let traffic = cluster.view(leader, REGION).traffic.clone();
        for second in 0..5u64 {
            for i in 0..2_000u64 {
                let number = (i * 7919 + second) % 1000;
                traffic.read(format!("k{number:03}").as_bytes(), 100);
            }
            cluster.ticks(10);
        }
        let wants = std::mem::take(&mut cluster.nodes[leader].wants);
        if members == 1 {
            assert_eq!(wants, [], "nobody else could lead a part of it");
            continue;
        }
        assert_eq!((wants.len(), wants[0].reason), (1, SplitReason::Load));
        let [key] = &wants[0].keys[..] else { panic!("one key: {wants:?}") };
        assert!(key[..] > b"k350"[..] && key[..] < b"k650"[..], "{key:?}");
    }
}

/// The part's call for votes comes to stores that have not cut the region yet.
#[test]
fn a_part_has_a_leader_at_once() {
    let mut cluster = Cluster::with(3, 3, ShardConfig::default());
    cluster.leader();
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    for (i, key) in [&b"d"[..], b"j", b"p"].into_iter().enumerate() {
        let id = 20 + i as u64;
        let leader = cluster.leader_of(REGION);
        let view = cluster.view(leader, REGION);
        let (slot, cuts) = (Slot::default(), vec![cut(&view.region, key, id)]);
        let request = SplitRequest { header: header_of(&view), cuts, reply: slot.reply() };
        cluster.nodes[leader].inbox.push(ShardInput::Split(request));
        cluster.deliver();
        assert!(slot.is_ok());
        let part = cluster.view(leader, RegionId(id));
        assert!(part.is_leader() && part.serves_reads, "no time has passed: {part:?}");
    }
}
