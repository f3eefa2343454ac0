//! The reader against a plain model, and its cost on long chains of versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{INIT_EPOCH, KeyRange, Prng, Region, RegionId, TimeStamp};
use bytes::Bytes;
use storage::engine::{
    Cf, Cursor, Engine, EngineError, IterOptions, MemoryEngine, Snapshot, WriteBatch,
};

use super::super::*;
use crate::TxnError;

fn region() -> Region {
    let (range, peers) = (KeyRange::all(), Vec::new());
    Region { id: RegionId(2), range, epoch: INIT_EPOCH, peers, flashback: None }
}

fn ts(number: u64) -> TimeStamp {
    TimeStamp(number)
}

/// What a key has at each commit timestamp: a value, nothing, or no change.
type History = BTreeMap<u64, Option<Option<u64>>>;

/// Fills an engine with random versions of a few keys, some chains long; hints sometimes.
fn random_data(prng: &mut Prng, engine: &MemoryEngine) -> BTreeMap<Bytes, History> {
    let mut all = BTreeMap::new();
    let mut batch = WriteBatch::new();
    for i in 0..6u64 {
        let key = Key::new(format!("key{i}"));
        let mut history = History::new();
        let mut newest: Option<(TimeStamp, Write)> = None;
        let (mut at, length) = (0, prng.below(40));
        for _ in 0..length {
            at += 2 + prng.below(3);
            let (kind, outcome) = match prng.below(8) {
                0 => (WriteKind::Put, Some(Some(at))),
                1 => (WriteKind::Delete, Some(None)),
                2 => (WriteKind::Rollback, None),
                _ => (WriteKind::Lock, None),
            };
            let start = if kind == WriteKind::Rollback { at } else { at - 1 };
            let short = (kind == WriteKind::Put && prng.one_in(2)).then(|| at.to_string().into());
            let mut write = Write::new(kind, ts(start), short);
            if kind == WriteKind::Lock && prng.below(4) > 0 {
                write.last_change = LastChange::above(newest.as_ref().map(|(at, w)| (*at, w)));
            }
            if write.has_long_value() {
                let place = key.versioned_data(ts(start));
                batch.put(Cf::Default, &place, at.to_string().as_bytes());
            }
            batch.put(Cf::Write, &key.versioned_data(ts(at)), &write.encode());
            history.insert(at, outcome);
            newest = Some((ts(at), write));
        }
        all.insert(key.user().clone(), history);
    }
    engine.write(&batch).expect("memory does not fail");
    all
}

fn expected(history: &History, at: u64) -> Option<Bytes> {
    let below = history.range(..=at).rev().find_map(|(_, outcome)| *outcome);
    below.flatten().map(|value| value.to_string().into())
}

#[test]
fn gets_and_scans_agree_with_a_model() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let engine = MemoryEngine::new();
        let data = random_data(&mut prng, &engine);
        let (snapshot, region) = (engine.snapshot(), region());
        let mut reader = Reader::new(&*snapshot, &region);
        for _ in 0..30 {
            let at = if prng.one_in(8) { u64::MAX } else { prng.below(120) };
            let read = ReadOptions::at(ts(at));
            let i = prng.below(data.len() as u64) as usize;
            let (user, history) = data.iter().nth(i).expect("below the count");
            let found = reader.get(&Key::new(user.clone()), &read).expect("readable");
            let found = found.map(|value| value.value);
            assert_eq!(found, expected(history, at), "seed {seed} {user:?} at {at}");
            let reverse = prng.one_in(2);
            let scan = Scan { limit: 100, reverse, ..Scan::default() };
            let rows = reader.scan(&scan, &read).expect("readable");
            let rows: Vec<(Bytes, Bytes)> = rows
                .into_iter()
                .map(|row| (row.key, row.outcome.expect("no locks").value))
                .collect();
            let visible =
                |(key, history): (&Bytes, &History)| Some((key.clone(), expected(history, at)?));
            let mut wanted: Vec<_> = data.iter().filter_map(visible).collect();
            if reverse {
                wanted.reverse();
            }
            assert_eq!(rows, wanted, "seed {seed} at {at}, reverse {reverse}");
        }
    }
}

/// A snapshot that counts how often cursors move.
struct Counting {
    inner: Arc<dyn Snapshot>,
    moves: Arc<AtomicU64>,
}

struct CountingCursor<'a> {
    inner: Box<dyn Cursor + 'a>,
    moves: Arc<AtomicU64>,
}

impl CountingCursor<'_> {
    fn count(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

impl Cursor for CountingCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.count();
        self.inner.seek(key)
    }
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.count();
        self.inner.seek_for_prev(key)
    }
    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        self.count();
        self.inner.seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        self.count();
        self.inner.seek_to_last()
    }
    fn next(&mut self) -> Result<bool, EngineError> {
        self.count();
        self.inner.next()
    }
    fn prev(&mut self) -> Result<bool, EngineError> {
        self.count();
        self.inner.prev()
    }
    fn valid(&self) -> bool {
        self.inner.valid()
    }
    fn key(&self) -> &[u8] {
        self.inner.key()
    }
    fn value(&self) -> &[u8] {
        self.inner.value()
    }
}

impl Snapshot for Counting {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(cf, key)
    }
    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.inner.multi_get(cf, keys)
    }
    fn iter(&self, cf: Cf, options: IterOptions) -> Result<Box<dyn Cursor + '_>, EngineError> {
        let (inner, moves) = (self.inner.iter(cf, options)?, self.moves.clone());
        Ok(Box::new(CountingCursor { inner, moves }))
    }
}

/// Moves of cursors for one read of `k` and one scan over it in each direction.
fn cost(fill: impl Fn(&mut WriteBatch, &Key), at: TimeStamp) -> [u64; 3] {
    let (engine, key, mut batch) = (MemoryEngine::new(), Key::new("k"), WriteBatch::new());
    fill(&mut batch, &key);
    engine.write(&batch).expect("memory does not fail");
    let moves = Arc::new(AtomicU64::new(0));
    let snapshot = Counting { inner: engine.snapshot(), moves: moves.clone() };
    let (region, read) = (region(), ReadOptions::at(at));
    let mut cost = [0; 3];
    for (i, cost) in cost.iter_mut().enumerate() {
        let mut reader = Reader::new(&snapshot, &region);
        moves.store(0, Ordering::Relaxed);
        if i == 0 {
            assert!(reader.get(&key, &read).expect("readable").is_some());
        } else {
            let scan = Scan { limit: 9, reverse: i == 2, ..Scan::default() };
            assert_eq!(reader.scan(&scan, &read).expect("readable").len(), 1);
        }
        *cost = moves.load(Ordering::Relaxed);
    }
    cost
}

#[test]
fn long_chains_cost_no_more_than_short_ones() {
    let put = |batch: &mut WriteBatch, key: &Key, at: u64| {
        let write = Write::new(WriteKind::Put, ts(at - 1), Some("v".into()));
        batch.put(Cf::Write, &key.versioned_data(ts(at)), &write.encode());
    };
    let versions = |count: u64| {
        move |batch: &mut WriteBatch, key: &Key| (1..=count).for_each(|i| put(batch, key, 2 * i))
    };
    let fresh = cost(versions(1), TimeStamp::MAX);
    let old = cost(versions(20_000), TimeStamp::MAX);
    assert_eq!(old[0], fresh[0], "the newest of many versions is found as that of one");
    assert!(old[1] <= fresh[1] + 12 && old[2] <= fresh[2] + 20, "{old:?} {fresh:?}");
    let middle = cost(versions(20_000), ts(20_001));
    assert!(middle.iter().all(|moves| *moves < 30), "{middle:?}");
    // Records that change nothing, with hints.
    let hinted = |batch: &mut WriteBatch, key: &Key| {
        put(batch, key, 2);
        for i in 2..20_000u64 {
            let mut write = Write::new(WriteKind::Lock, ts(2 * i - 1), None);
            write.last_change = LastChange::At { commit_ts: ts(2), versions: i - 1 };
            batch.put(Cf::Write, &key.versioned_data(ts(2 * i)), &write.encode());
        }
    };
    let hinted = cost(hinted, TimeStamp::MAX);
    assert!(hinted.iter().all(|moves| *moves < 40), "{hinted:?}");
}

#[test]
fn damage_is_named() {
    let (engine, key, mut batch) = (MemoryEngine::new(), Key::new("k"), WriteBatch::new());
    batch.put(Cf::Lock, key.data(), b"H\0\x01\0h\0");
    batch.put(Cf::Write, &Key::new("w").versioned_data(ts(5)), b"?");
    let long = Write::new(WriteKind::Put, ts(3), None);
    batch.put(Cf::Write, &Key::new("x").versioned_data(ts(5)), &long.encode());
    engine.write(&batch).expect("memory does not fail");
    let (snapshot, region) = (engine.snapshot(), region());
    let mut reader = Reader::new(&*snapshot, &region);
    let mut get = |key: &'static str| reader.get(&Key::new(key), &ReadOptions::at(ts(9)));
    let Err(TxnError::Damaged { cf: Cf::Lock, cause: BadRecord::SharedLock, .. }) = get("k") else {
        panic!("a shared lock is refused");
    };
    let Err(TxnError::Damaged { cf: Cf::Write, cause: BadRecord::Kind(b'?'), .. }) = get("w")
    else {
        panic!("a bad record is refused");
    };
    let Err(TxnError::ValueMissing { start_ts, .. }) = get("x") else {
        panic!("a missing value is noticed");
    };
    assert_eq!(start_ts, ts(3));
}

#[test]
fn the_caller_can_interrupt() {
    let (engine, mut batch) = (MemoryEngine::new(), WriteBatch::new());
    let write = Write::new(WriteKind::Put, ts(1), Some("v".into())).encode();
    for i in 0..1000 {
        batch.put(Cf::Write, &Key::new(format!("{i:04}")).versioned_data(ts(2)), &write);
    }
    engine.write(&batch).expect("memory does not fail");
    let (snapshot, region) = (engine.snapshot(), region());
    let stop = || true;
    let mut reader = Reader::new(&*snapshot, &region).interrupted_by(&stop);
    let scan = Scan { limit: 10_000, ..Scan::default() };
    let answer = reader.scan(&scan, &ReadOptions::at(ts(9)));
    assert!(matches!(answer, Err(TxnError::Interrupted)));
}
