//! What many versions cost, on RocksDB. Figures are for reading, not for passing:
//!
//! `cargo test --release -p pontoon-txn --test it versions -- --ignored --nocapture
//! --test-threads 1`, or `./x bench versions`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{KeyRange, RegionId, TimeStamp};
use bytes::Bytes;
use pontoon_txn as txn;
use storage::engine::{Cf, Engine, KeepAll, RocksEngine, RocksOptions, WriteBatch};
use storage::keys;
use txn::gc::{GcRule, GcState, SafePoints, Sweep};
use txn::mvcc::{Key, LastChange, ReadOptions, Reader, Scan, Write, WriteKind};

const MANY: u64 = 1_000_000;
const BATCH: usize = 4_096;

struct Bench {
    dir: tempfile::TempDir,
    engine: RocksEngine,
    state: Arc<GcState>,
}

impl Bench {
    fn new(filters: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Arc::new(GcState::new());
        let mut options = RocksOptions { garbage: Arc::new(KeepAll), ..RocksOptions::default() };
        if filters {
            options.garbage = Arc::new(GcRule::new(state.clone()));
        }
        let engine = RocksEngine::open(dir.path(), &options).expect("the folder can be opened");
        Self { dir, engine, state }
    }

    fn load(&self, records: impl Iterator<Item = (Key, u64, Write)>) {
        let mut batch = WriteBatch::new();
        for (key, commit_ts, write) in records {
            batch.put(Cf::Write, &key.versioned_data(TimeStamp(commit_ts)), &write.encode());
            if batch.len() == BATCH {
                self.engine.write(&batch).expect("it is written");
                batch.clear();
            }
        }
        self.engine.write(&batch).expect("it is written");
        self.settle();
    }

    /// Everything lies in files, and no flush or compaction is due.
    fn settle(&self) {
        self.engine.flush().expect("it is flushed");
        let busy = || {
            let now = self.engine.properties();
            now.running_compactions + now.running_flushes + now.pending_compaction_bytes > 0
        };
        let until = Instant::now() + Duration::from_secs(60);
        while busy() && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    fn learn(&self, safe_point: u64) {
        let points = SafePoints::of_all(TimeStamp(safe_point));
        for _ in 0..2 {
            self.state.learn(&points, &self.engine).expect("it is written");
        }
    }

    fn range() -> KeyRange {
        let (start, end) = keys::data_range(RegionId(2), &KeyRange::all());
        KeyRange::new(start, end)
    }

    fn sweep(&self) -> (u64, u64) {
        let mut sweep = Sweep::new(Self::range(), self.state.used());
        let (mut records, mut gone) = (0, 0);
        while !sweep.is_done() {
            let step = sweep.step(&*self.engine.snapshot(), 4_096).expect("it is read");
            self.engine.write(&step.batch).expect("it is written");
            records += step.records;
            gone += step.gone;
        }
        (records, gone)
    }

    /// Median time of one read with a reader of its own, as a request has.
    fn read(&self, name: &str, times: usize, mut read: impl FnMut(&mut Reader<'_>)) -> Duration {
        let region = super::node::region(KeyRange::all());
        let mut all = Vec::with_capacity(times);
        for _ in 0..times {
            let began = Instant::now();
            let snapshot = self.engine.snapshot();
            read(&mut Reader::new(&*snapshot, &region));
            all.push(began.elapsed());
        }
        all.sort();
        let median = all[times / 2];
        println!("{name:<58} {median:>12.2?}");
        median
    }

    fn disk_mib(&self) -> f64 {
        folder_bytes(self.dir.path()) as f64 / f64::from(1 << 20)
    }
}

fn folder_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten();
    entries.map(|entry| entry.metadata().map_or(0, |data| data.len())).sum()
}

fn put(start_ts: u64) -> Write {
    Write::new(WriteKind::Put, TimeStamp(start_ts), Some(Bytes::from_static(&[b'v'; 40])))
}

fn versions(key: &str, count: u64) -> impl Iterator<Item = (Key, u64, Write)> + use<> {
    let key = Key::new(key.to_owned());
    (1..=count).map(move |i| (key.clone(), 10 * i, put(10 * i - 5)))
}

fn fresh(prefix: &'static str, count: u64) -> impl Iterator<Item = (Key, u64, Write)> {
    (0..count).map(move |i| (Key::new(format!("{prefix}{i:08}")), 10, put(5)))
}

fn get(key: &Key, ts: TimeStamp, expect: bool) -> impl FnMut(&mut Reader<'_>) {
    let (key, read) = (key.clone(), ReadOptions::at(ts));
    move |reader| assert_eq!(reader.get(&key, &read).expect("no locks").is_some(), expect)
}

fn scan(from: &str, to: &str, rows: usize, reverse: bool) -> impl FnMut(&mut Reader<'_>) {
    let (low, high) = (Bytes::from(from.to_owned()), Bytes::from(to.to_owned()));
    let (start, end) = if reverse { (high, low) } else { (low, high) };
    let scan = Scan { start, end, limit: 1_000, reverse, ..Scan::default() };
    move |reader| {
        let found = reader.scan(&scan, &ReadOptions::at(TimeStamp(u64::MAX - 1)));
        assert_eq!(found.expect("no locks").len(), rows);
    }
}

#[test]
#[ignore = "prints figures"]
fn versions_of_one_key() {
    let bench = Bench::new(false);
    bench.load(fresh("fresh", 100_000).chain(versions("hot", MANY)).chain(fresh("other", 100_000)));
    println!("a key with {MANY} versions among 200000 of one; {:.1} MiB", bench.disk_mib());
    let (hot, cold) = (Key::new("hot"), Key::new("fresh00050000"));
    for _ in 0..2 {
        bench.read("get, newest, fresh key", 20_001, get(&cold, TimeStamp::MAX, true));
        bench.read("get, newest, many versions", 20_001, get(&hot, TimeStamp::MAX, true));
    }
    bench.read("get, in the middle of many versions", 2_001, get(&hot, TimeStamp(5 * MANY), true));
    bench.read("get, below all versions", 2_001, get(&hot, TimeStamp(5), false));
}

#[test]
#[ignore = "prints figures"]
fn versions_that_change_nothing() {
    for hints in [true, false] {
        let bench = Bench::new(false);
        let key = Key::new("hot");
        let lock = |i: u64| {
            let mut write = Write::new(WriteKind::Lock, TimeStamp(10 * i - 5), None);
            if hints {
                write.last_change = LastChange::At { commit_ts: TimeStamp(10), versions: i - 1 };
            }
            (key.clone(), 10 * i, write)
        };
        bench.load(versions("hot", 1).chain((2..=MANY).map(lock)));
        let name = if hints { "with hints" } else { "without hints" };
        let times = if hints { 20_001 } else { 5 };
        let name = format!("get above {MANY} records that change nothing, {name}");
        bench.read(&name, times, get(&key, TimeStamp::MAX, true));
    }
}

#[test]
#[ignore = "prints figures"]
fn versions_in_scans() {
    let bench = Bench::new(false);
    let many = (0..100).flat_map(|i| versions(&format!("many{i:03}"), MANY / 100));
    bench.load(fresh("fresh", 100).chain(many));
    for reverse in [false, true] {
        let way = if reverse { "reverse" } else { "forward" };
        let (one, many) = (scan("fresh", "g", 100, reverse), scan("many", "n", 100, reverse));
        bench.read(&format!("scan {way}, 100 keys of one version"), 501, one);
        bench.read(&format!("scan {way}, 100 keys of {} versions", MANY / 100), 501, many);
    }
}

#[test]
#[ignore = "prints figures"]
fn versions_deleted() {
    let bench = Bench::new(false);
    let name = |i: u64| Key::new(format!("key{i:08}"));
    let delete = |i: u64| (name(i), 20, Write::new(WriteKind::Delete, TimeStamp(15), None));
    bench.load(fresh("key", MANY).chain((0..MANY).map(delete)).chain(fresh("live", 10)));
    println!("{MANY} deleted keys, {:.1} MiB", bench.disk_mib());
    bench.read("scan over them, before", 3, scan("key", "m", 10, false));
    bench.read("scan over them in reverse, before", 3, scan("key", "m", 10, true));
    bench.learn(100);
    let began = Instant::now();
    let (records, gone) = bench.sweep();
    println!("sweep of {records} records, {gone} gone: {:.2?}", began.elapsed());
    bench.read("scan over them, after the sweep", 3, scan("key", "m", 10, false));
    let began = Instant::now();
    bench.engine.compact_range(Cf::Write, &Bench::range()).expect("it is merged");
    println!("compaction: {:.2?}, {:.1} MiB", began.elapsed(), bench.disk_mib());
    bench.read("scan over them, after the compaction", 101, scan("key", "m", 10, false));
    bench.read("scan over them in reverse", 101, scan("key", "m", 10, true));
}

#[test]
#[ignore = "prints figures"]
fn versions_collected() {
    for filters in [true, false] {
        let bench = Bench::new(filters);
        bench.load(versions("hot", MANY).chain(fresh("other", 1_000)));
        let before = bench.disk_mib();
        bench.learn(20 * MANY);
        let began = Instant::now();
        let how = match filters {
            true => "a compaction that leaves garbage out",
            false => {
                let (records, gone) = bench.sweep();
                println!("sweep of {records} records, {gone} gone: {:.2?}", began.elapsed());
                "a sweep and a compaction"
            }
        };
        bench.engine.compact_range(Cf::Write, &Bench::range()).expect("it is merged");
        let took = began.elapsed();
        println!("{how}: {took:.2?}, {before:.1} MiB before, {:.1} after", bench.disk_mib());
        bench.read("get, newest", 5_001, get(&Key::new("hot"), TimeStamp::MAX, true));
    }
}
