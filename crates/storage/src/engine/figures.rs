//! What the engine costs. Not run by default: figures are for reading, not for passing.
//!
//! `cargo test --release -p pontoon-storage figures -- --ignored --nocapture --test-threads 1`

use std::path::Path;
use std::time::{Duration, Instant};

use base::Prng;

use super::{Cached, Cf, Engine, IterOptions, RocksEngine, RocksOptions, WriteBatch};

fn open(dir: &Path) -> RocksEngine {
    RocksEngine::open(dir, &RocksOptions::default()).expect("the folder can be opened")
}

/// Resident memory of this process, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("Linux");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") >> 10
}

/// CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|f| f.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

fn folder_kib(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries.map(|e| e.expect("an entry").metadata().expect("metadata").blocks()).sum::<u64>() / 2
}

fn key(number: u64) -> [u8; 20] {
    let mut key = *b"zkey-000000000000000";
    let mut rest = number;
    for byte in key[5..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Keys in an order that has nothing to do with their values.
fn scattered(number: u64) -> [u8; 20] {
    key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)
}

#[test]
#[ignore = "prints figures"]
fn figures_open_empty() {
    let mut times = Vec::new();
    for _ in 0..10 {
        let dir = tempfile::tempdir().expect("a folder");
        let start = Instant::now();
        let engine = open(dir.path());
        times.push(start.elapsed());
        drop(engine);
    }
    times.sort();
    let dir = tempfile::tempdir().expect("a folder");
    let engine = open(dir.path());
    engine.sync().expect("sync");
    println!("open of an empty folder: {:?} (median of 10), {:?}", times[5], times);
    println!("resident {} MiB, disk {} KiB", resident_mib(), folder_kib(dir.path()));
    let start = Instant::now();
    drop(engine);
    println!("close {:?}", start.elapsed());
    let start = Instant::now();
    let engine = open(dir.path());
    println!("open again {:?}, disk {} KiB", start.elapsed(), folder_kib(dir.path()));
    drop(engine);
}

#[test]
#[ignore = "prints figures"]
fn figures_put() {
    for per_batch in [1, 16, 64, 250] {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = open(dir.path());
        let (puts, mut batch) = (200_000u64, WriteBatch::new());
        let (start, cpu) = (Instant::now(), cpu_time());
        for number in 0..puts {
            batch.put_parts(Cf::Default, &[b"", &scattered(number)], &[&[7; 100]]);
            if batch.len() == per_batch {
                engine.write(&batch).expect("write");
                batch.clear();
            }
        }
        let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
        println!(
            "put in batches of {per_batch}: {} ns, cpu {} ns",
            wall.as_nanos() as u64 / puts,
            cpu.as_nanos() as u64 / puts
        );
        let mut times = Vec::new();
        for number in 0..100 {
            engine_put(&engine, &key(number));
            let start = Instant::now();
            engine.sync().expect("sync");
            times.push(start.elapsed());
        }
        times.sort();
        println!("sync: {:?} (median of 100)", times[50]);
    }
}

fn engine_put(engine: &RocksEngine, key: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(Cf::Default, key, b"v");
    engine.write(&batch).expect("write");
}

fn load(engine: &RocksEngine, rows: u64, key_of: impl Fn(u64) -> [u8; 20]) {
    let mut batch = WriteBatch::new();
    for number in 0..rows {
        batch.put(Cf::Default, &key_of(number), &[7; 100]);
        if batch.len() == 250 {
            batch.put(Cf::Raft, b"\x01\x02apply", &number.to_be_bytes());
            engine.write(&batch).expect("write");
            batch.clear();
        }
    }
}

fn timed_gets(engine: &RocksEngine, what: &str, key_of: impl Fn(&mut Prng) -> [u8; 20]) {
    let (mut prng, gets) = (Prng::new(1), 200_000);
    let (mut found, mut known) = (0, 0);
    let start = cpu_time();
    for _ in 0..gets {
        let key = key_of(&mut prng);
        found += u64::from(engine.get(Cf::Default, &key).expect("get").is_some());
    }
    let get = cpu_time() - start;
    let start = cpu_time();
    for _ in 0..gets {
        let key = key_of(&mut prng);
        let cached = engine.get_if_cached(Cf::Default, &key).expect("get");
        known += u64::from(cached != Cached::Unknown);
    }
    let cached = cpu_time() - start;
    println!(
        "  get {what}: {} ns, found {found} of {gets}; if cached: {} ns, known {known}",
        get.as_nanos() as u64 / gets,
        cached.as_nanos() as u64 / gets
    );
}

fn load_and_read(name: &str, key_of: fn(u64) -> [u8; 20]) {
    const ROWS: u64 = 1_000_000;
    let dir = tempfile::tempdir().expect("a folder");
    let engine = open(dir.path());
    let (start, cpu) = (Instant::now(), cpu_time());
    load(&engine, ROWS, key_of);
    let (wall, writer) = (start.elapsed(), cpu_time() - cpu);
    // What is still to do in the background counts as well.
    let mut quiet = 0;
    while quiet < 20 {
        let now = engine.properties();
        let running = now.running_compactions + now.running_flushes;
        let busy = running > 0 || now.level0_files >= 4;
        quiet = if busy { 0 } else { quiet + 1 };
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let cpu = cpu_time() - cpu;
    println!(
        "{name}: {ROWS} rows in {wall:?}, cpu {writer:?} then {cpu:?}: {} rows per cpu second",
        (ROWS as f64 / cpu.as_secs_f64()) as u64
    );
    println!("  resident {} MiB, disk {} MiB", resident_mib(), folder_kib(dir.path()) >> 10);
    println!("  {:?}", engine.properties());
    timed_gets(&engine, "present", |prng| key_of(prng.below(ROWS)));
    timed_gets(&engine, "missing", |prng| key_of(ROWS + prng.below(ROWS)));
    let snapshot = engine.snapshot();
    let start = Instant::now();
    let mut cursor = snapshot.iter(Cf::Default, IterOptions::default()).expect("a cursor");
    let (mut rows, mut valid) = (0u64, cursor.seek_to_first().expect("seek"));
    while valid {
        rows += u64::from(!cursor.key().is_empty() && !cursor.value().is_empty());
        valid = cursor.next().expect("next");
    }
    println!("  scan: {} ns a row, {rows} rows", start.elapsed().as_nanos() as u64 / rows);
    drop(cursor);
    drop(snapshot);
    println!("  resident {} MiB after reading", resident_mib());
    engine.sync().expect("sync");
    let copy = super::conformance::copy_folder(dir.path());
    let start = Instant::now();
    let killed = open(copy.path());
    let value = killed.get(Cf::Default, &key_of(17)).expect("get");
    println!("  open after kill: {:?} {}", start.elapsed(), value.is_some());
    drop(killed);
    drop(engine);
    let start = Instant::now();
    let engine = open(dir.path());
    let value = engine.get(Cf::Default, &key_of(17)).expect("get");
    println!("  open after stop: {:?} {}", start.elapsed(), value.is_some());
    engine.flush().expect("flush");
    drop(engine);
    let start = Instant::now();
    let engine = open(dir.path());
    let value = engine.get(Cf::Default, &key_of(17)).expect("get");
    println!("  open after flush and stop: {:?} {}", start.elapsed(), value.is_some());
    println!("  resident {} MiB", resident_mib());
}

#[test]
#[ignore = "prints figures"]
fn figures_get() {
    const ROWS: u64 = 100_000;
    let dir = tempfile::tempdir().expect("a folder");
    let engine = open(dir.path());
    load(&engine, ROWS, key);
    println!("{ROWS} rows");
    timed_gets(&engine, "from the memtable", |prng| key(prng.below(ROWS)));
    engine.flush().expect("flush");
    timed_gets(&engine, "from files, at first", |prng| key(prng.below(ROWS)));
    timed_gets(&engine, "from the cache", |prng| key(prng.below(ROWS)));
    timed_gets(&engine, "missing", |prng| key(ROWS + prng.below(ROWS)));
    load(&engine, ROWS / 2, |number| key(number * 2));
    timed_gets(&engine, "from cache and memtable", |prng| key(prng.below(ROWS)));
    let snapshot = engine.snapshot();
    let (mut prng, start) = (Prng::new(3), Instant::now());
    for _ in 0..ROWS {
        snapshot.get(Cf::Default, &key(prng.below(ROWS))).expect("get");
    }
    println!("  get of a snapshot: {} ns", start.elapsed().as_nanos() as u64 / ROWS);
    let start = Instant::now();
    for _ in 0..ROWS {
        drop(engine.snapshot());
    }
    println!("  snapshot: {} ns", start.elapsed().as_nanos() as u64 / ROWS);
    let start = Instant::now();
    for _ in 0..ROWS / 100 {
        let keys: Vec<_> = (0..100).map(|_| key(prng.below(ROWS))).collect();
        let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
        engine.multi_get(Cf::Default, &keys).expect("get");
    }
    println!("  multi-get of 100: {} ns a key", start.elapsed().as_nanos() as u64 / ROWS);
}

#[test]
#[ignore = "prints figures"]
fn figures_load_in_order() {
    load_and_read("in order", key);
}

#[test]
#[ignore = "prints figures"]
fn figures_load_scattered() {
    load_and_read("scattered", scattered);
}
