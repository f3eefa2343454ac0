use std::collections::BTreeMap;
use std::sync::Arc;

use base::{KeyRange, Prng, TimeStamp};
use bytes::Bytes;
use storage::engine::{Cf, Engine, GarbageRule, IterOptions, MemoryEngine, WriteBatch};
use storage::keys;

use super::*;
use crate::mvcc::{Key, Write, WriteKind};

fn points(all: u64, own: &[(u32, u64)]) -> SafePoints {
    let own = own.iter().map(|(id, ts)| (*id, TimeStamp(*ts))).collect();
    SafePoints { all: TimeStamp(all), own }
}

#[test]
fn safe_points_of_keyspaces_are_their_own() {
    let points = points(10, &[(0x01_0203, 50)]);
    let of = |user: &'static [u8]| points.of(Key::new(user).data()).0;
    assert_eq!(of(b"x\x01\x02\x03key"), 50);
    assert_eq!(of(b"x\x01\x02\x04key"), 10);
    assert_eq!(of(b"r\x01\x02\x03key"), 10);
    assert_eq!(of(b"x"), 10, "a short key is padded and names no keyspace");
    assert_eq!(SafePoints::decode(&points.encode()), Some(points.clone()));
    assert_eq!(SafePoints::decode(&SafePoints::default().encode()), Some(SafePoints::default()));
    assert_eq!(SafePoints::decode(b"damaged"), None);
}

#[test]
fn safe_points_only_advance_and_are_used_one_poll_later() {
    let (state, engine) = (GcState::new(), MemoryEngine::new());
    let learn = |points| state.learn(&points, &engine).expect("memory");
    let key = Key::new("k");
    assert!(!learn(points(10, &[])), "nothing to collect yet");
    assert!(state.check(key.data(), TimeStamp(9)).is_err(), "refused at once");
    assert!(state.check(key.data(), TimeStamp(10)).is_ok());
    assert!(state.used().is_zero(), "and nothing dropped yet");
    assert!(learn(points(20, &[(7, 5)])));
    assert_eq!(*state.used(), points(10, &[]));
    assert_eq!(*state.told(), points(20, &[(7, 10)]), "a keyspace does not fall behind");
    learn(points(15, &[]));
    assert_eq!(*state.told(), points(20, &[(7, 15)]));
}

#[test]
fn a_replica_that_collected_beyond_the_horizon_has_nothing_to_say() {
    let (state, all) = (Arc::new(GcState::new()), KeyRange::all());
    let (rule, engine) = (GcRule::new(state.clone()), MemoryEngine::new());
    assert!(rule.beyond(b"", &all).is_some(), "nobody collects");
    state.learn(&points(10, &[]), &engine).expect("memory");
    assert!(rule.beyond(b"", &all).is_some(), "told, and not used yet");
    state.learn(&points(10, &[]), &engine).expect("memory");
    assert!(rule.beyond(b"", &all).is_none());
    assert!(rule.beyond(&points(9, &[]).encode(), &all).is_none());
    assert!(rule.beyond(&points(10, &[]).encode(), &all).is_some());
    assert!(rule.beyond(&points(10, &[(3, 9)]).encode(), &all).is_none());
    assert!(rule.beyond(b"?", &all).is_none());
    state.destroy([KeyRange::new("zb", "zd")].iter(), &engine).expect("memory");
    let horizon = points(10, &[]).encode();
    assert!(rule.beyond(&horizon, &KeyRange::new("zc", "ze")).is_none());
    assert!(rule.beyond(&horizon, &KeyRange::new("zd", "ze")).is_some());
    for number in 0..200u32 {
        let name = |suffix| Bytes::from(format!("zm{number:04}{suffix}"));
        state.destroy([KeyRange::new(name("a"), name("b"))].iter(), &engine).expect("memory");
    }
    assert!(rule.beyond(&horizon, &KeyRange::new("zm0199a", "zm0199b")).is_none());
    assert!(rule.beyond(&horizon, &KeyRange::new("za", "zb")).is_some());
}

/// A replica under random collection.
struct Replica {
    engine: MemoryEngine,
    state: Arc<GcState>,
}

impl Replica {
    fn new() -> Self {
        let state = Arc::new(GcState::new());
        let engine = MemoryEngine::new().with_garbage(Arc::new(GcRule::new(state.clone())));
        Self { engine, state }
    }

    fn range() -> KeyRange {
        let (start, end) = keys::data_range(base::RegionId(2), &KeyRange::all());
        KeyRange::new(start, end)
    }

    /// The placement driver is asked.
    fn learn(&self, safe: u64) {
        self.state.learn(&points(safe, &[]), &self.engine).expect("memory");
    }

    fn sweep(&self, prng: &mut Prng) {
        let mut sweep = Sweep::new(Self::range(), self.state.used());
        while !sweep.is_done() {
            let step = sweep.step(&*self.engine.snapshot(), 1 + prng.below(30));
            self.engine.write(&step.expect("memory").batch).expect("memory");
        }
    }

    /// What the newest read at `ts` finds of every key, values included.
    fn visible(&self, ts: TimeStamp) -> BTreeMap<Bytes, Bytes> {
        let (snapshot, region) = (self.engine.snapshot(), region());
        let mut reader = crate::mvcc::Reader::new(&*snapshot, &region);
        let scan = crate::mvcc::Scan { limit: 1000, ..Default::default() };
        let rows = reader.scan(&scan, &crate::mvcc::ReadOptions::at(ts)).expect("no damage");
        rows.into_iter().map(|row| (row.key, row.outcome.expect("no locks").value)).collect()
    }

    /// What counts of it beyond `horizon`: as the comparison of replicas does.
    fn counts(&self, horizon: &SafePoints) -> Vec<(Bytes, Bytes)> {
        let rule = GcRule::new(self.state.clone());
        let mut walk = rule.beyond(&horizon.encode(), &Self::range()).expect("within");
        let snapshot = self.engine.snapshot();
        let mut cursor =
            snapshot.iter(Cf::Write, IterOptions::within(Self::range())).expect("memory");
        let (mut valid, mut kept) = (cursor.seek_to_first().expect("memory"), Vec::new());
        while valid {
            if walk.next(cursor.key(), cursor.value()) == storage::engine::Fate::Stays {
                let copy = Bytes::copy_from_slice;
                kept.push((copy(cursor.key()), copy(cursor.value())));
            }
            valid = cursor.next().expect("memory");
        }
        kept
    }
}

fn region() -> base::Region {
    let range = KeyRange::all();
    base::Region {
        id: base::RegionId(2),
        range,
        epoch: base::INIT_EPOCH,
        peers: Vec::new(),
        flashback: None,
    }
}

/// One more version of a key, as a commit writes it.
fn version(batch: &mut WriteBatch, prng: &mut Prng, key: &Key, ts: u64) {
    let kind = match prng.below(6) {
        0 => WriteKind::Delete,
        1 => WriteKind::Lock,
        2 => WriteKind::Rollback,
        _ => WriteKind::Put,
    };
    let value = Bytes::from(format!("{ts}"));
    let start_ts = TimeStamp(if kind == WriteKind::Rollback { ts } else { ts - 1 });
    let is_long = prng.below(3) == 0;
    let short = (kind == WriteKind::Put && !is_long).then(|| value.clone());
    let write = Write::new(kind, start_ts, short);
    if write.has_long_value() {
        batch.put(Cf::Default, &key.versioned_data(start_ts), &value);
    }
    batch.put(Cf::Write, &key.versioned_data(TimeStamp(ts)), &write.encode());
}

/// Two replicas collect as they like; a third keeps everything. Readers at or above the safe point
/// cannot tell them apart, and neither can the comparison of replicas.
#[test]
fn replicas_that_collect_in_their_own_time_answer_alike() {
    for seed in 0..12 {
        let mut prng = Prng::new(seed);
        let replicas = [Replica::new(), Replica::new()];
        let whole = MemoryEngine::new();
        let whole = Replica { engine: whole, state: Arc::new(GcState::new()) };
        let (mut now, mut safe) = (10u64, 0u64);
        for _ in 0..200 {
            now += 2;
            let mut batch = WriteBatch::new();
            let key = Key::new(format!("k{}", prng.below(8)));
            version(&mut batch, &mut prng, &key, now);
            for replica in replicas.iter().chain([&whole]) {
                replica.engine.write(&batch).expect("memory");
            }
            for replica in &replicas {
                match prng.below(12) {
                    0 => replica.sweep(&mut prng),
                    1 => {
                        let range = KeyRange::all();
                        replica.engine.compact_range(Cf::Write, &range).expect("memory");
                    }
                    2 => replica.engine.sync().expect("memory"),
                    3 => {
                        safe = safe.max(now.saturating_sub(prng.below(30)));
                        replica.learn(safe);
                    }
                    _ => {}
                }
            }
            let ts = TimeStamp(safe + prng.below(now + 5 - safe));
            let expected = whole.visible(ts);
            for replica in &replicas {
                assert_eq!(replica.visible(ts), expected, "seed {seed}, at {ts}, safe {safe}");
            }
            let horizon = points(safe, &[]);
            let expected = whole.counts(&horizon);
            for replica in &replicas {
                assert_eq!(replica.counts(&horizon), expected, "seed {seed}, horizon {safe}");
            }
        }
        no_value_is_left_over(&replicas, safe);
    }
}

#[test]
fn destroyed_ranges_are_recalled_at_the_next_start() {
    let (engine, ranges) =
        (MemoryEngine::new(), [KeyRange::new("zb", "zd"), KeyRange::new("zx", "")]);
    GcState::new().destroy(ranges.iter(), &engine).expect("memory");
    engine.power_loss(&mut Prng::new(1));
    let rule_after = |row: &[u8]| {
        let (engine, state, mut batch) = (MemoryEngine::new(), GcState::new(), WriteBatch::new());
        batch.put(Cf::Raft, &keys::DESTROYED_RANGES, row);
        engine.write(&batch).expect("memory");
        state.recall(&engine).expect("memory");
        GcRule::new(Arc::new(state))
    };
    let row = engine.get(Cf::Raft, &keys::DESTROYED_RANGES).expect("memory").expect("durable");
    let rule = rule_after(&row);
    for (range, compares) in [(("za", "zb"), true), (("zc", "ze"), false), (("zz", ""), false)] {
        let compared = rule.beyond(b"", &KeyRange::new(range.0, range.1));
        assert_eq!(compared.is_some(), compares, "{range:?}");
    }
    assert!(rule_after(&row[..19]).beyond(b"", &KeyRange::new("za", "zb")).is_none(), "damaged");
}

/// A store that was started again knows how far it had collected before it has reached placement.
#[test]
fn who_was_started_again_refuses_what_may_be_gone() {
    let (key, horizon) = (Key::new("k"), points(10, &[]).encode());
    let before = Replica::new();
    before.learn(10);
    before.learn(12);
    let again = || {
        before.engine.power_loss(&mut Prng::new(1));
        let state = Arc::new(GcState::new());
        state.recall(&before.engine).expect("memory");
        state
    };
    let state = again();
    assert!(state.check(key.data(), TimeStamp(9)).is_err(), "its versions may be gone");
    assert!(state.check(key.data(), TimeStamp(10)).is_ok(), "the rest was told and not used");
    assert!(state.used().is_zero(), "it collects nothing yet");
    let rule = GcRule::new(state);
    assert!(rule.beyond(&points(9, &[]).encode(), &KeyRange::all()).is_none());
    assert!(rule.beyond(&horizon, &KeyRange::all()).is_some());
    before.learn(12);
    assert!(GcRule::new(again()).beyond(&horizon, &KeyRange::all()).is_none());
}

/// Who takes a region over from a store that has collected further knows as much about it.
#[test]
fn who_takes_data_over_refuses_what_was_gone_from_them() {
    let (key, giver, taker) = (Key::new("k"), Replica::new(), Replica::new());
    let rule = |replica: &Replica| GcRule::new(replica.state.clone());
    taker.learn(5);
    rule(&taker).take_over(&rule(&giver).collected(), &taker.engine).expect("memory");
    assert_eq!(*taker.state.collected(), SafePoints::default(), "nothing was gone");
    giver.learn(10);
    giver.learn(12);
    rule(&taker).take_over(&rule(&giver).collected(), &taker.engine).expect("memory");
    assert!(taker.state.check(key.data(), TimeStamp(9)).is_err());
    assert!(taker.state.check(key.data(), TimeStamp(10)).is_ok());
    assert!(rule(&taker).beyond(&points(9, &[]).encode(), &KeyRange::all()).is_none());
    assert!(taker.state.used().is_zero(), "calls that passed the check before may be under way");
    taker.engine.power_loss(&mut Prng::new(1));
    let again = GcState::new();
    again.recall(&taker.engine).expect("memory");
    assert_eq!(*again.collected(), points(10, &[]));
}

/// After a last sweep, family `default` has the values of the records that are there and no others.
fn no_value_is_left_over(replicas: &[Replica], safe: u64) {
    for replica in replicas {
        replica.learn(safe);
        replica.learn(safe);
        let mut prng = Prng::new(1);
        (0..40).for_each(|_| replica.sweep(&mut prng));
        let snapshot = replica.engine.snapshot();
        let all = |cf| {
            let mut cursor = snapshot.iter(cf, IterOptions::default()).expect("memory");
            let (mut valid, mut found) = (cursor.seek_to_first().expect("memory"), Vec::new());
            while valid {
                found.push((cursor.key().to_vec(), cursor.value().to_vec()));
                valid = cursor.next().expect("memory");
            }
            found
        };
        let long = all(Cf::Write)
            .iter()
            .filter(|(_, v)| Write::decode(v).expect("ours").has_long_value())
            .count();
        assert_eq!(all(Cf::Default).len(), long, "values are those of records");
    }
}

/// The rule that deletions hide: dropping one by itself brings back what is below it.
#[test]
fn no_deletion_goes_before_what_it_hides() {
    let mut walk = Walk::new(Arc::new(points(100, &[])));
    let key = Key::new("k");
    let delete = Write::new(WriteKind::Delete, TimeStamp(8), None).encode();
    let fate = walk.fate(&key.versioned_data(TimeStamp(9)), &delete);
    let storage::engine::Fate::Goes(gone) = fate else { panic!("it goes") };
    assert!(gone.hides_older && !gone.is_alone());
    let put = Write::new(WriteKind::Put, TimeStamp(3), Some(Bytes::from("v"))).encode();
    let fate = walk.fate(&key.versioned_data(TimeStamp(4)), &put);
    assert_eq!(fate, storage::engine::Fate::Goes(storage::engine::Gone::default()));
}

#[test]
fn a_long_run_goes_as_one_range() {
    let replica = Replica::new();
    let key = Key::new("hot");
    let mut batch = WriteBatch::new();
    for ts in 1..=5_000u64 {
        let write = Write::new(WriteKind::Put, TimeStamp(2 * ts - 1), Some(Bytes::from("v")));
        batch.put(Cf::Write, &key.versioned_data(TimeStamp(2 * ts)), &write.encode());
    }
    replica.engine.write(&batch).expect("memory");
    let mut sweep = Sweep::new(Replica::range(), Arc::new(points(20_000, &[])));
    let step = sweep.step(&*replica.engine.snapshot(), 100_000).expect("memory");
    assert!(sweep.is_done());
    assert_eq!((step.records, step.gone, step.young), (5_000, 4_999, 0));
    assert_eq!(step.batch.len(), 1, "one deletion of a range");
    replica.engine.write(&step.batch).expect("memory");
    assert_eq!(replica.visible(TimeStamp(20_000)).len(), 1);
}
