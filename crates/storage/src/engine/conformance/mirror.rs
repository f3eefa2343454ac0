//! Random operations on both engines and on a plain map: all answers are equal.

use std::collections::BTreeMap;

use base::Prng;

use super::*;

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; Cf::ALL.len()];

/// Few and short, so that operations meet; of bytes at the ends of their range, so that order is
/// tested.
fn random_key(prng: &mut Prng) -> Vec<u8> {
    (0..prng.below(4)).map(|_| [0, 1, b'k', 0xfe, 0xff][prng.below(5) as usize]).collect()
}

fn random_cf(prng: &mut Prng) -> Cf {
    Cf::ALL[prng.below(4) as usize]
}

fn random_value(prng: &mut Prng) -> Vec<u8> {
    let len = if prng.one_in(50) { 20_000 } else { prng.below(20) };
    let byte = prng.next_u64() as u8;
    vec![byte; len as usize]
}

fn random_batch(prng: &mut Prng, model: &mut Model) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..prng.below(10) {
        let (cf, key) = (random_cf(prng), random_key(prng));
        let family = &mut model[cf as usize];
        match prng.below(10) {
            0 => {
                let end = random_key(prng);
                if !end.is_empty() {
                    batch.delete_range(cf, &key, &end);
                    family.retain(|k, _| k < &key || k >= &end);
                }
            }
            1..=3 => {
                batch.delete(cf, &key);
                family.remove(&key);
            }
            _ => {
                let value = random_value(prng);
                batch.put(cf, &key, &value);
                family.insert(key, value);
            }
        }
    }
    batch
}

fn random_table(prng: &mut Prng, model: &mut Model) -> (Cf, BTreeMap<Vec<u8>, Vec<u8>>) {
    let cf = random_cf(prng);
    let count = 1 + prng.below(5);
    let pairs: BTreeMap<_, _> =
        (0..count).map(|_| (random_key(prng), random_value(prng))).collect();
    model[cf as usize].extend(pairs.clone());
    (cf, pairs)
}

/// The pairs of `model` inside `range`.
fn inside(model: &Model, cf: Cf, range: &KeyRange) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = model[cf as usize].iter().filter(|(key, _)| range.contains(key));
    pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn check_gets(
    engine: &dyn Engine,
    snapshot: Option<&dyn Snapshot>,
    model: &Model,
    keys: &[Vec<u8>],
) {
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    for cf in Cf::ALL {
        let expected: Vec<Option<Bytes>> =
            keys.iter().map(|key| model[cf as usize].get(*key).cloned().map(Bytes::from)).collect();
        let (many, one): (_, Vec<_>) = match snapshot {
            Some(snapshot) => (
                snapshot.multi_get(cf, &keys),
                keys.iter().map(|key| snapshot.get(cf, key).expect("get")).collect(),
            ),
            None => (
                engine.multi_get(cf, &keys),
                keys.iter().map(|key| engine.get(cf, key).expect("get")).collect(),
            ),
        };
        assert_eq!(many.expect("multi-get"), expected);
        assert_eq!(one, expected);
        for (key, value) in keys.iter().zip(&expected).filter(|_| snapshot.is_none()) {
            let cached = engine.get_if_cached(cf, key).expect("get");
            assert!(cached == Cached::Unknown || cached == Cached::Known(value.clone()));
        }
    }
}

/// A random walk: after each step the cursor stands where the model says.
fn check_walk(snapshot: &dyn Snapshot, model: &Model, prng: &mut Prng) {
    let cf = random_cf(prng);
    let range = KeyRange::new(random_key(prng), random_key(prng));
    let pairs = inside(model, cf, &range);
    let options = IterOptions { fill_cache: prng.one_in(2), ..IterOptions::within(range) };
    let mut cursor = snapshot.iter(cf, options).expect("a cursor");
    let mut at: Option<usize> = None;
    for _ in 0..prng.below(20) {
        let key = random_key(prng);
        let (valid, expected) = match prng.below(6) {
            0 => (cursor.seek_to_first(), Some(0)),
            1 => (cursor.seek_to_last(), pairs.len().checked_sub(1)),
            2 => (cursor.seek(&key), Some(pairs.partition_point(|(k, _)| *k < key))),
            3 => {
                let behind = pairs.partition_point(|(k, _)| *k <= key);
                (cursor.seek_for_prev(&key), behind.checked_sub(1))
            }
            4 => (cursor.next(), at.map(|at| at + 1)),
            _ => (cursor.prev(), at.and_then(|at| at.checked_sub(1))),
        };
        at = expected.filter(|at| *at < pairs.len());
        assert_eq!(valid.expect("a step"), at.is_some());
        assert_eq!(cursor.valid(), at.is_some());
        if let Some(at) = at {
            assert_eq!((cursor.key(), cursor.value()), (&pairs[at].0[..], &pairs[at].1[..]));
        }
    }
}

fn all_pairs(engine: &dyn Engine) -> Model {
    let snapshot = engine.snapshot();
    Cf::ALL.map(|cf| {
        let mut cursor = snapshot.iter(cf, IterOptions::default()).expect("a cursor");
        let mut pairs = BTreeMap::new();
        let mut valid = cursor.seek_to_first().expect("seek");
        while valid {
            pairs.insert(cursor.key().to_vec(), cursor.value().to_vec());
            valid = cursor.next().expect("next");
        }
        pairs
    })
}

type Snapshots = [Arc<dyn Snapshot>; 2];

/// One operation on both engines and the model.
fn step(
    round: u64,
    prng: &mut Prng,
    benches: &mut [Bench; 2],
    model: &mut Model,
    open: &mut Vec<(Snapshots, Model)>,
) {
    match prng.below(60) {
        0 => {
            open.clear();
            benches.iter_mut().for_each(Bench::restart);
        }
        1 => benches.iter().for_each(|bench| bench.engine.flush().expect("flush")),
        2 => benches.iter().for_each(|bench| bench.engine.sync().expect("sync")),
        3..=5 => {
            let (cf, pairs) = random_table(prng, model);
            for bench in &*benches {
                let path = bench.dir.path().join(format!("table-{round}"));
                let mut table = bench.engine.sst_writer(cf, &path).expect("a table");
                for (key, value) in &pairs {
                    table.put(key, value).expect("put");
                }
                table.finish().expect("finish");
                bench.engine.ingest(cf, &[path]).expect("ingest");
            }
        }
        6 if prng.one_in(4) => {
            open.clear();
            for bench in benches {
                let dir = bench.dir.path().join(format!("checkpoint-{round}"));
                bench.engine.checkpoint(&dir).expect("checkpoint");
                bench.switch(&dir);
            }
        }
        7..=9 => {
            let snapshots = [benches[0].engine.snapshot(), benches[1].engine.snapshot()];
            open.push((snapshots, model.clone()));
        }
        10..=12 if !open.is_empty() => {
            open.swap_remove(prng.below(open.len() as u64) as usize);
        }
        _ => {
            let batch = random_batch(prng, model);
            benches.iter().for_each(|bench| bench.engine.write(&batch).expect("write"));
        }
    }
}

#[test]
fn both_engines_answer_like_a_map() {
    for seed in 0..3 {
        let prng = &mut Prng::new(seed);
        let mut benches = [Bench::new(Kind::Rocks), Bench::new(Kind::Memory)];
        let (mut model, mut open) = (Model::default(), Vec::new());
        for round in 0..400 {
            step(round, prng, &mut benches, &mut model, &mut open);
            let keys: Vec<_> = (0..5).map(|_| random_key(prng)).collect();
            for (which, bench) in benches.iter().enumerate() {
                check_gets(&*bench.engine, None, &model, &keys);
                let now = bench.engine.snapshot();
                check_walk(&*now, &model, prng);
                if let Some((snapshots, model)) = open.first() {
                    check_gets(&*bench.engine, Some(&*snapshots[which]), model, &keys);
                    check_walk(&*snapshots[which], model, prng);
                }
            }
        }
        for bench in &benches {
            assert_eq!(all_pairs(&*bench.engine), model, "seed {seed}");
        }
    }
}

/// The model of power losses: the state after each write. Where the engine goes back to must be one
/// of them, not older than the last sync.
#[test]
fn a_power_loss_goes_back_to_a_prefix() {
    let mut lost_in_all = 0;
    for seed in 0..200 {
        let prng = &mut Prng::new(seed);
        let engine = MemoryEngine::new();
        let mut states = vec![Model::default()];
        let mut synced = 0;
        for _ in 0..prng.below(80) {
            match prng.below(12) {
                0 => {
                    engine.sync().expect("sync");
                    synced = states.len() - 1;
                }
                1 => {
                    let before = engine.snapshot();
                    let lost = engine.power_loss(prng) as usize;
                    lost_in_all += lost;
                    assert!(states.len() - 1 - lost >= synced, "a synced write was lost");
                    states.truncate(states.len() - lost);
                    synced = states.len() - 1;
                    let gone = before.get(Cf::Default, b"k").expect_err("it is of before");
                    assert_eq!(gone.kind, EngineErrorKind::Gone);
                }
                2 => engine.kill(),
                _ => {
                    let mut model = states.last().expect("a state").clone();
                    engine.write(&random_batch(prng, &mut model)).expect("write");
                    states.push(model);
                }
            }
            assert_eq!(all_pairs(&engine), *states.last().expect("a state"), "seed {seed}");
        }
    }
    assert!(lost_in_all > 100, "power losses lost only {lost_in_all} writes");
}

#[test]
fn the_same_seed_loses_the_same() {
    let run = || {
        let prng = &mut Prng::new(5);
        let engine = MemoryEngine::new();
        for _ in 0..50 {
            engine.write(&random_batch(prng, &mut Model::default())).expect("write");
        }
        (engine.power_loss(prng), all_pairs(&engine))
    };
    assert_eq!(run(), run());
}

#[test]
fn ingested_keys_survive_a_power_loss() {
    let (bench, prng) = (Bench::new(Kind::Memory), &mut Prng::new(1));
    let mut batch = WriteBatch::new();
    batch.put(Cf::Default, b"a", b"unsynced");
    bench.engine.write(&batch).expect("write");
    let path = bench.dir.path().join("table");
    let mut table = bench.engine.sst_writer(Cf::Default, &path).expect("a table");
    table.put(b"a", b"ingested").expect("put");
    table.finish().expect("finish");
    bench.engine.ingest(Cf::Default, &[path]).expect("ingest");
    while bench.memory.power_loss(prng) == 0 {
        bench.engine.write(&batch).expect("write");
        bench.engine.delete_files_in_range(Cf::Lock, &KeyRange::all()).expect("delete");
    }
    let value = bench.engine.get(Cf::Default, b"a").expect("get").expect("a value");
    assert!(value == "ingested" || value == "unsynced");
}

#[test]
fn memory_keeps_only_what_somebody_may_ask_for() {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    batch.put(Cf::Default, b"key", &[1; 1000]);
    let bytes = || engine.properties().memtable_bytes;
    let write = || (0..100).for_each(|_| engine.write(&batch).expect("write"));
    write();
    assert!(bytes() > 100_000, "a power loss may go back to any of them");
    engine.sync().expect("sync");
    assert_eq!(bytes(), 1003);
    let snapshot = engine.snapshot();
    write();
    engine.sync().expect("sync");
    assert!(bytes() > 100_000);
    drop(snapshot);
    assert_eq!(bytes(), 1003);
    let mut deletion = WriteBatch::new();
    deletion.delete_range(Cf::Default, b"a", b"z");
    engine.write(&deletion).expect("write");
    engine.sync().expect("sync");
    assert_eq!((bytes(), engine.properties().keys), (0, 0));
    assert_eq!(engine.progress(), (201, 201));
}

#[test]
fn bounds_of_the_map_do_not_panic() {
    // `BTreeMap::range` panics on a range that ends before it starts.
    let empty = KeyRange::new("b", "a");
    let mut batch = WriteBatch::new();
    batch.put(Cf::Default, b"a", b"");
    for kind in [Kind::Rocks, Kind::Memory] {
        let engine = Bench::new(kind).engine;
        engine.write(&batch).expect("write");
        assert_eq!(engine.approximate_size(Cf::Default, &empty), Ok(0));
        assert_eq!(engine.delete_files_in_range(Cf::Default, &empty), Ok(()));
        assert!(engine.get(Cf::Default, b"a").expect("get").is_some());
    }
}
