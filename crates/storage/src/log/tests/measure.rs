//! Measurements, not checks: `cargo test --release -p pontoon-storage measure -- --ignored
//! --nocapture`.

use std::time::{Duration, Instant};

use super::*;
use crate::disk::RealDisk;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("raft-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    fn open(&self) -> RaftLog {
        RaftLog::open(Arc::new(RealDisk::new()), &self.0, LogOptions::default()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Time this thread spent on a core, so that what else the machine does is not counted.
fn core_time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let now = || -> Option<u64> {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        stat.split(' ').next()?.parse().ok()
    };
    let start = now();
    let (wall, result) = time(work);
    let core = start.zip(now()).map(|(start, end)| Duration::from_nanos(end - start));
    (core.unwrap_or(wall), result)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

#[test]
#[ignore = "measures"]
fn cost_of_an_entry() {
    for (len, per_batch) in [(100, 16), (100, 1), (1024, 16), (100, 250), (1 << 20, 1)] {
        let folder = Folder::new("entry");
        let mut log = folder.open();
        let rounds = (64 << 20) / (len * per_batch) as u64;
        let batches: Vec<LogBatch> = (0..rounds.min(1000))
            .map(|i| {
                let first = 1 + i * per_batch as u64;
                let mut one = LogBatch::new();
                one.append(R1, &entries(first, first + per_batch as u64 - 1, 5, len));
                one.put_state(R1, Bytes::from(vec![1; 30]));
                one
            })
            .collect();
        let (took, ()) = core_time(|| batches.iter().for_each(|one| log.write(one).unwrap()));
        // The same bytes without the log, to take the system call away.
        let plain = RealDisk::new().create(&folder.0.join("plain")).unwrap();
        plain.preallocate(72 << 20).unwrap();
        let bytes = vec![1; batches[0].byte_size() as usize];
        let mut offset = 0;
        let (bare, ()) = core_time(|| {
            for _ in &batches {
                plain.write_at(&bytes, offset).unwrap();
                offset += bytes.len() as u64;
            }
        });
        let count = batches.len() * per_batch;
        println!(
            "{per_batch:>3} x {len:>7} B: {:>6.0} ns an entry, {:>6.0} ns of them the write itself",
            took.as_nanos() as f64 / count as f64,
            bare.as_nanos() as f64 / count as f64,
        );
    }
}

#[test]
#[ignore = "measures"]
fn a_write_and_its_sync() {
    let folder = Folder::new("sync");
    let mut log = folder.open();
    let disk = RealDisk::new();
    let plain = disk.create(&folder.0.join("plain")).unwrap();
    let zeroed = disk.create(&folder.0.join("zeroed")).unwrap();
    zeroed.preallocate(8 << 20).unwrap();
    zeroed.sync_data().unwrap();
    let (mut ours, mut appended, mut overwritten) = (Vec::new(), Vec::new(), Vec::new());
    let mut offset = 0;
    for index in 1..=1000 {
        let one = batch(&[
            Change::Append(R1, vec![entry(index, 5, 100)]),
            Change::State(R1, Bytes::from(vec![1; 30])),
        ]);
        let bytes = vec![1; one.byte_size() as usize];
        ours.push(time(|| log.write(&one).and_then(|()| log.sync()).unwrap()).0);
        let write = |file: &Arc<dyn crate::disk::DiskFile>| {
            time(|| file.write_at(&bytes, offset).and_then(|()| file.sync_data()).unwrap()).0
        };
        appended.push(write(&plain));
        overwritten.push(write(&zeroed));
        offset += bytes.len() as u64;
    }
    println!(
        "write + fdatasync of one entry, median: log {:?}, append to a file {:?}, into zeros {:?}",
        median(ours),
        median(appended),
        median(overwritten),
    );
    let preparer = log.preparer();
    println!("prepare a segment: {:?}", time(|| preparer.prepare().unwrap()).0);
    let new = Folder::new("new");
    println!("open an empty folder: {:?}", time(|| new.open()).0);
}

#[test]
#[ignore = "measures"]
fn recovery() {
    for (len, per_batch) in [(100, 16), (100, 1), (4096, 4)] {
        let folder = Folder::new("recovery");
        let mut log = folder.open();
        let mut first = 1;
        while log.stats().bytes_written < 150 << 20 {
            let mut one = LogBatch::new();
            one.append(R1, &entries(first, first + per_batch - 1, 5, len));
            one.put_state(R1, Bytes::from(vec![1; 30]));
            log.write(&one).unwrap();
            first += per_batch;
        }
        log.sync().unwrap();
        let bytes = log.stats().bytes_written;
        drop(log);
        let took = median((0..5).map(|_| time(|| folder.open()).0).collect());
        let core = median((0..5).map(|_| core_time(|| folder.open()).0).collect());
        println!(
            "recover {} MiB, {} entries of {len} B, {per_batch} a batch: {took:?}, core {core:?}",
            bytes >> 20,
            first - 1,
        );
        let mut log = folder.open();
        let reader = log.reader();
        let (took, found) = time(|| reader.entries(R1, 1, 10_001, u64::MAX).unwrap());
        println!("  read 10000 entries: {took:?}");
        assert_eq!(found.len(), 10_000);
        log.write(&batch(&[Change::Truncate(R1, first - 1, 5)])).unwrap();
        let (took, report) = time(|| log.purge().unwrap());
        println!("  purge {} segments: {took:?}", report.segments_dropped);
    }
}
