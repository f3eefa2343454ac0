use bytes::Bytes;

use super::*;
use crate::Mutation;
use crate::mvcc::LockKind;

const REGION: RegionId = RegionId(2);

fn key(name: &str) -> Key {
    Key::new(Bytes::copy_from_slice(name.as_bytes()))
}

fn lock(kind: LockKind, start_ts: u64) -> Lock {
    Lock::new(kind, "a".into(), TimeStamp(start_ts), 100)
}

fn publish(concurrency: &mut Concurrency, name: &str, floor: u64, max: u64) -> Option<u64> {
    let (key, lock) = (key(name), lock(LockKind::Put, 5));
    let locks = [(&key, &lock)].into_iter();
    concurrency.publish(locks, TimeStamp(floor), TimeStamp(max)).map(|ts| ts.0)
}

#[test]
fn commits_are_above_reads() {
    let mut concurrency = Concurrency::new();
    let read = |ts| ReadOptions::at(TimeStamp(ts));
    assert_eq!(concurrency.begin_read(&[key("a")], &read(50)), Ok(()));
    assert_eq!(publish(&mut concurrency, "a", 10, 0), Some(51));
    assert_eq!(publish(&mut concurrency, "b", 70, 0), Some(70));
    assert_eq!(publish(&mut concurrency, "c", 10, 50), None, "above what the client allows");
    assert_eq!(concurrency.locks().count(), 2);
    assert!(concurrency.begin_read(&[key("a")], &read(51)).is_err());
    assert_eq!(concurrency.begin_read(&[key("a")], &read(50)), Ok(()));
    assert_eq!(concurrency.begin_read(&[key("b")], &read(69)), Ok(()));
    assert!(concurrency.begin_read_range(&KeyRange::all(), &read(60)).is_err());
    let above_a = KeyRange::new(key("aa").region(), Bytes::new());
    assert_eq!(concurrency.begin_read_range(&above_a, &read(60)), Ok(()));
    concurrency.withdraw(&[key("a"), key("b")]);
    assert_eq!(concurrency.begin_read(&[key("a"), key("b")], &read(99)), Ok(()));
    assert_eq!(concurrency.max_ts(), TimeStamp(99));
}

#[test]
fn the_newest_and_committed_locks_wait_too() {
    let mut concurrency = Concurrency::new();
    assert_eq!(publish(&mut concurrency, "a", 10, 0), Some(10));
    // The primary of a lock that is no async commit: in the engine it would be passed.
    let newest = ReadOptions::at(TimeStamp::MAX);
    assert!(concurrency.begin_read(&[key("a")], &newest).is_err());
    let mut read = ReadOptions::at(TimeStamp(20));
    read.access.insert(TimeStamp(5));
    assert!(concurrency.begin_read(&[key("a")], &read).is_err(), "its value is not there yet");
    read.bypass.insert(TimeStamp(5));
    assert_eq!(concurrency.begin_read(&[key("a")], &read), Ok(()));
    read.bypass.clear();
    read.isolation = Isolation::ReadCommitted;
    assert_eq!(concurrency.begin_read(&[key("a")], &read), Ok(()));
}

#[test]
fn made_up_timestamps_are_refused() {
    let mut concurrency = Concurrency::new();
    concurrency.set_limit(TimeStamp(100));
    assert_eq!(concurrency.raise_max_ts(TimeStamp(100)), Ok(()));
    let error = concurrency.raise_max_ts(TimeStamp(101)).expect_err("above the limit");
    assert!(error.to_string().contains("invalid max_ts update"));
    assert_eq!(concurrency.raise_max_ts(TimeStamp::MAX), Ok(()));
    assert_eq!(concurrency.max_ts(), TimeStamp(100));
}

#[test]
fn a_new_leader_syncs_first() {
    let mut concurrency = Concurrency::new();
    assert!(!concurrency.is_synced(REGION));
    let first = concurrency.begin_sync(REGION);
    let second = concurrency.begin_sync(REGION);
    assert!(!concurrency.finish_sync(REGION, first, TimeStamp(70)), "of an earlier term");
    assert!(!concurrency.is_synced(REGION));
    concurrency.set_limit(TimeStamp(75));
    assert!(concurrency.finish_sync(REGION, second, TimeStamp(80)));
    assert!(concurrency.is_synced(REGION));
    assert_eq!(concurrency.max_ts(), TimeStamp(80));
    assert_eq!(publish(&mut concurrency, "a", 10, 0), Some(81));
    concurrency.forget(REGION);
    assert!(!concurrency.is_synced(REGION));
    assert!(!concurrency.finish_sync(REGION, second, TimeStamp(90)));
}

#[test]
#[should_panic(expected = "its latch was not held")]
fn two_writers_of_a_key() {
    let mut concurrency = Concurrency::new();
    publish(&mut concurrency, "a", 1, 0);
    publish(&mut concurrency, "a", 1, 0);
}

fn pessimistic(name: &str) -> (Key, Lock) {
    (key(name), lock(LockKind::Pessimistic, 5))
}

#[test]
fn pessimistic_locks_follow_leadership() {
    let mut locks = PessimisticLocks::new(1 << 10);
    let three = [pessimistic("a"), pessimistic("b"), pessimistic("c")];
    assert_eq!(locks.insert(6, 1, &three), Err(Refused::Closed));
    locks.open(6, 1);
    assert_eq!(locks.insert(5, 1, &three), Err(Refused::Closed), "of another term");
    assert_eq!(locks.insert(6, 2, &three), Err(Refused::Closed), "of another version");
    assert_eq!(locks.insert(6, 1, &three), Ok(()));
    assert_eq!(locks.of_keys(&[key("b"), key("x")]).len(), 1);
    locks.mark(&[key("b")]);
    let over = locks.hand_over().expect("open");
    let keys: Vec<_> = over.writes.iter().map(written).collect();
    assert_eq!(keys, [key("a").region(), key("c").region()], "b is being removed already");
    assert_eq!(locks.hand_over(), None);
    assert_eq!(locks.insert(6, 1, &three), Err(Refused::Closed), "leadership is moving");
    assert_eq!(locks.all().len(), 3, "reads still see them");
    // It came to nothing before anything was proposed.
    locks.resume(1, false);
    locks.unmark(&[key("b")]);
    assert_eq!(locks.hand_over().expect("open").writes.len(), 3);
    locks.resume(2, true);
    assert!(locks.is_empty(), "the engine has them");
    assert_eq!(locks.insert(6, 2, &three), Ok(()));
    locks.remove(&[key("a"), key("nobody")]);
    assert_eq!(locks.len(), 2);
    locks.clear();
    assert_eq!(locks.insert(6, 2, &three), Err(Refused::Closed));
}

#[test]
fn pessimistic_locks_have_a_limit() {
    let mut locks = PessimisticLocks::new(400);
    locks.open(6, 1);
    let mut held = 0;
    for i in 0..10 {
        let one = [pessimistic(&i.to_string())];
        held += u32::from(locks.insert(6, 1, &one).is_ok());
    }
    assert_eq!(held, 2);
    assert_eq!(locks.insert(6, 1, &[pessimistic("0")]), Ok(()), "a replacement takes no room");
    assert_eq!(locks.insert(6, 1, &[pessimistic("9")]), Err(Refused::Full));
    locks.remove(&[key("0")]);
    assert_eq!(locks.insert(6, 1, &[pessimistic("9"), pessimistic("9")]), Ok(()), "named twice");
    locks.remove(&[key("1"), key("9")]);
    assert!(locks.is_empty());
    assert_eq!(locks.insert(6, 1, &[pessimistic("0"), pessimistic("1")]), Ok(()));
}

fn written(write: &Mutation) -> Bytes {
    let Mutation::Put { cf: storage::engine::Cf::Lock, key, value } = write else {
        panic!("a lock is put");
    };
    assert_eq!(Lock::decode(value).expect("a lock").kind, LockKind::Pessimistic);
    key.clone()
}
