use base::{KeyRange, Prng, Region, RegionId, TimeStamp};
use bytes::Bytes;
use storage::engine::{Cf, Engine, MemoryEngine, WriteBatch};

use crate::mvcc::{Key, Lock, LockKind, oldest_locks};

fn region(id: u64, start: &str, end: &str) -> Region {
    let bound = |user: &str| {
        if user.is_empty() { Bytes::new() } else { Key::new(user.to_owned()).region() }
    };
    let range = KeyRange::new(bound(start), bound(end));
    Region { id: RegionId(id), range, epoch: base::INIT_EPOCH, peers: Vec::new(), flashback: None }
}

fn put(engine: &MemoryEngine, key: &str, kind: LockKind, start_ts: u64) {
    let key = Key::new(key.to_owned());
    let lock = Lock::new(kind, key.user().clone(), TimeStamp(start_ts), 1);
    let mut batch = WriteBatch::new();
    batch.put(Cf::Lock, key.data(), &lock.encode());
    engine.write(&batch).expect("memory");
}

fn oldest(engine: &MemoryEngine, regions: &[Region]) -> Vec<u64> {
    let regions: Vec<&Region> = regions.iter().collect();
    let found = oldest_locks(&*engine.snapshot(), &regions).expect("memory");
    found.into_iter().map(|ts| ts.0).collect()
}

#[test]
fn each_region_has_its_own() {
    let engine = MemoryEngine::new();
    put(&engine, "a", LockKind::Put, 50);
    put(&engine, "b", LockKind::Delete, 40);
    put(&engine, "c", LockKind::Pessimistic, 10);
    put(&engine, "d", LockKind::Lock, 20);
    put(&engine, "m", LockKind::Put, 30);
    // In no order, with a gap between them, and one that overlaps the others.
    let regions = [region(3, "m", ""), region(2, "", "c"), region(4, "c", "e"), region(5, "", "")];
    assert_eq!(oldest(&engine, &regions), [30, 40, u64::MAX, 30]);
    assert_eq!(oldest(&engine, &[region(2, "n", "")]), [u64::MAX]);
    let mut batch = WriteBatch::new();
    batch.put(Cf::Lock, Key::new("n").data(), b"?");
    engine.write(&batch).expect("memory");
    assert_eq!(
        oldest(&engine, &regions),
        [0, 40, u64::MAX, 0],
        "who cannot be read may be anything"
    );
}

#[test]
fn one_pass_finds_what_a_look_at_each_lock_does() {
    let mut prng = Prng::new(4);
    for _ in 0..50 {
        let (engine, mut locks) = (MemoryEngine::new(), Vec::new());
        for _ in 0..prng.below(40) {
            let (key, ts) = (format!("{:02}", prng.below(60)), 1 + prng.below(100));
            locks.retain(|(other, _)| *other != key);
            put(&engine, &key, LockKind::Put, ts);
            locks.push((key, ts));
        }
        let bound = |prng: &mut Prng| format!("{:02}", prng.below(60));
        let regions: Vec<Region> = (0..6)
            .map(|id| {
                let (a, b) = (bound(&mut prng), bound(&mut prng));
                region(2 + id, &a.clone().min(b.clone()), &a.max(b))
            })
            .collect();
        let expected: Vec<u64> = regions
            .iter()
            .map(|region| {
                let inside = locks
                    .iter()
                    .filter(|(key, _)| region.range.contains(&Key::new(key.clone()).region()));
                inside.map(|(_, ts)| *ts).min().unwrap_or(u64::MAX)
            })
            .collect();
        assert_eq!(oldest(&engine, &regions), expected);
    }
}
