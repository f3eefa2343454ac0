//! The formats. The expected bytes are written out by hand from the format's description: kind,
//! zigzag length and text, LEB128 numbers, tagged fields.

use base::{Prng, TimeStamp};
use bytes::Bytes;

use super::super::*;

fn ts(number: u64) -> TimeStamp {
    TimeStamp(number)
}

#[test]
fn keys() {
    // TestEncodeKey, TestDecodeKey.
    let key = Key::new("abc");
    assert_eq!(key.data(), b"zabc\0\0\0\0\0\xfa");
    assert_eq!(&key.region()[..], b"abc\0\0\0\0\0\xfa");
    assert_eq!(
        &key.versioned_region(ts(1))[..],
        b"abc\0\0\0\0\0\xfa\xff\xff\xff\xff\xff\xff\xff\xfe"
    );
    assert_eq!(key.versioned_data(ts(0))[10..], [0xff; 8]);
    assert_eq!(key.versioned_data(TimeStamp::MAX)[10..], [0; 8]);
    let versioned = key.versioned_data(ts(77));
    assert_eq!(split_versioned(&versioned), Ok((key.data(), ts(77))));
    assert!(key.is_of(&versioned) && !Key::new("ab").is_of(&versioned));
    assert_eq!(Key::from_data(key.data()), Ok(key));
    for bad in
        [&b""[..], b"z", b"sabc\0\0\0\0\0\xfa", b"zabc\0\0\0\0\0\xfa\0", b"zabc\0\0\0\0\x01\xfa"]
    {
        assert_eq!(Key::from_data(bad), Err(BadRecord::Key), "{bad:?}");
    }
    assert_eq!(split_versioned(b"1234567"), Err(BadRecord::Key));
}

#[test]
fn keys_are_in_order() {
    let mut prng = Prng::new(5);
    let mut random = || {
        let key: Vec<u8> = (0..prng.below(12)).map(|_| prng.below(3) as u8 * 0x7f).collect();
        (Bytes::from(key), ts(prng.below(4)))
    };
    for _ in 0..5_000 {
        let ((a, at_a), (b, at_b)) = (random(), random());
        let (x, y) = (Key::new(a.clone()), Key::new(b.clone()));
        assert_eq!(x.cmp(&y), a.cmp(&b));
        let by_place = x.versioned_data(at_a).cmp(&y.versioned_data(at_b));
        assert_eq!(by_place, a.cmp(&b).then(at_b.cmp(&at_a)), "key ascending, time descending");
    }
}

fn full_lock() -> Lock {
    let mut lock = Lock::new(LockKind::Put, "pk".into(), ts(300), 3_000);
    lock.short_value = Some("vv".into());
    lock.for_update_ts = ts(0x0102);
    lock.txn_size = 3;
    lock.min_commit_ts = ts(0x0203);
    lock.secondaries = Some(vec!["s1".into(), Bytes::new()]);
    lock.rollback_ts = vec![ts(7), ts(8)];
    lock.last_change = LastChange::At { commit_ts: ts(9), versions: 200 };
    lock.source = 1;
    lock.with_conflict = true;
    lock.generation = 5;
    lock
}

#[test]
fn locks() {
    let short = Lock::new(LockKind::Delete, "p".into(), ts(1), 0);
    assert_eq!(short.encode(), b"D\x02p\x01\0");
    let pessimistic =
        Lock { for_update_ts: ts(2), ..Lock::new(LockKind::Pessimistic, "p".into(), ts(1), 9) };
    assert_eq!(pessimistic.encode(), b"S\x02p\x01\x09f\0\0\0\0\0\0\0\x02");
    let async_secondary = Lock { secondaries: Some(vec![]), ..short.clone() };
    assert_eq!(async_secondary.encode(), b"D\x02p\x01\0a\0");
    let mut expected = b"P\x04pk\xac\x02\xb8\x17".to_vec();
    expected.extend_from_slice(b"v\x02vv");
    expected.extend_from_slice(b"f\0\0\0\0\0\0\x01\x02");
    expected.extend_from_slice(b"t\0\0\0\0\0\0\0\x03");
    expected.extend_from_slice(b"c\0\0\0\0\0\0\x02\x03");
    expected.extend_from_slice(b"a\x02\x04s1\0");
    expected.extend_from_slice(b"r\x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08");
    expected.extend_from_slice(b"l\0\0\0\0\0\0\0\x09\xc8\x01");
    expected.extend_from_slice(b"s\x01F");
    expected.extend_from_slice(b"g\0\0\0\0\0\0\0\x05");
    assert_eq!(full_lock().encode(), expected);
    assert_eq!(Lock::decode(&expected), Ok(full_lock()));
    let none = Lock { last_change: LastChange::None, ..short };
    assert_eq!(none.encode(), b"D\x02p\x01\0l\0\0\0\0\0\0\0\0\x01");
}

#[test]
fn writes() {
    let put = Write::new(WriteKind::Put, ts(300), Some("v".into()));
    assert_eq!(put.encode(), b"P\xac\x02v\x01v");
    assert_eq!(Write::new(WriteKind::Delete, ts(1), None).encode(), b"D\x01");
    assert_eq!(Write::new(WriteKind::Lock, ts(1), None).encode(), b"L\x01");
    assert_eq!(Write::rollback(ts(5), false).encode(), b"R\x05");
    assert_eq!(Write::rollback(ts(5), true).encode(), b"R\x05v\x01p");
    let mut full = Write::new(WriteKind::Put, ts(1), Some(Bytes::new()));
    full.has_overlapped_rollback = true;
    full.gc_fence = Some(ts(0));
    full.last_change = LastChange::None;
    full.source = 130;
    let expected = b"P\x01v\0RF\0\0\0\0\0\0\0\0l\0\0\0\0\0\0\0\0\x01S\x82\x01";
    assert_eq!(full.encode(), expected);
    assert_eq!(Write::decode(expected), Ok(full));
    assert_eq!(
        Write::decode(b"P\x01l\0\0\0\0\0\0\0\0\0").expect("unknown").last_change,
        LastChange::Unknown
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    assert_eq!(Lock::decode(b""), Err(BadRecord::Truncated));
    assert_eq!(Lock::decode(b"X\x02p\x01\0"), Err(BadRecord::Kind(b'X')));
    assert_eq!(Lock::decode(b"H\0\x01\0h\0"), Err(BadRecord::SharedLock));
    assert_eq!(Lock::decode(b"P\x02p\x01\0h\0"), Err(BadRecord::Field(b'h')));
    assert_eq!(Lock::decode(b"P\x03p\x01\0"), Err(BadRecord::Number));
    assert_eq!(
        Lock::decode(b"P\x02p\x01\0a\xff\xff\xff\xff\xff\xff\xff\x7f"),
        Err(BadRecord::Truncated)
    );
    assert_eq!(Write::decode(b"P\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(BadRecord::Number));
    assert_eq!(Write::decode(b"P\x01h"), Err(BadRecord::Field(b'h')));
    assert_eq!(Write::decode(b"P\x01l\0\0\0\0\0\0\0\x01\0"), Err(BadRecord::Number));
}

fn random_lock(prng: &mut Prng) -> Lock {
    let kinds = [LockKind::Put, LockKind::Delete, LockKind::Lock, LockKind::Pessimistic];
    let text = |prng: &mut Prng, max| -> Bytes {
        (0..prng.below(max)).map(|_| prng.next_u64() as u8).collect()
    };
    let number = |prng: &mut Prng| prng.next_u64() >> prng.below(64);
    let maybe = |prng: &mut Prng| prng.next_u64() * prng.below(2);
    Lock {
        kind: kinds[prng.below(4) as usize],
        primary: text(prng, 40),
        start_ts: ts(number(prng)),
        ttl_ms: number(prng),
        short_value: prng.one_in(2).then(|| text(prng, 256)),
        for_update_ts: ts(maybe(prng)),
        txn_size: maybe(prng),
        min_commit_ts: ts(maybe(prng)),
        secondaries: prng.one_in(2).then(|| (0..prng.below(4)).map(|_| text(prng, 20)).collect()),
        rollback_ts: (0..prng.below(3)).map(|_| ts(number(prng))).collect(),
        last_change: match prng.below(3) {
            0 => LastChange::Unknown,
            1 => LastChange::None,
            _ => LastChange::At { commit_ts: ts(number(prng) | 1), versions: number(prng) | 1 },
        },
        source: maybe(prng),
        with_conflict: prng.one_in(2),
        generation: maybe(prng),
    }
}

fn random_write(prng: &mut Prng) -> Write {
    let lock = random_lock(prng);
    let kinds = [WriteKind::Put, WriteKind::Delete, WriteKind::Lock, WriteKind::Rollback];
    Write {
        kind: kinds[prng.below(4) as usize],
        start_ts: lock.start_ts,
        short_value: lock.short_value,
        has_overlapped_rollback: prng.one_in(2),
        gc_fence: prng.one_in(2).then_some(lock.min_commit_ts),
        last_change: lock.last_change,
        source: lock.source,
    }
}

#[test]
fn records_come_back() {
    let mut prng = Prng::new(8);
    for _ in 0..20_000 {
        let lock = random_lock(&mut prng);
        assert_eq!(Lock::decode(&lock.encode()), Ok(lock));
        let write = random_write(&mut prng);
        assert_eq!(Write::decode(&write.encode()), Ok(write));
    }
}

#[test]
fn damage_never_panics_and_a_cut_is_noticed_or_ends_a_field() {
    let mut prng = Prng::new(9);
    for _ in 0..3_000 {
        let (lock, write) = (random_lock(&mut prng).encode(), random_write(&mut prng).encode());
        for record in [lock, write] {
            let cut = prng.below(record.len() as u64) as usize;
            let mut flipped = record.clone();
            flipped[cut] ^= 1 << prng.below(8);
            for bytes in [&record[..cut], &flipped[..]] {
                // A cut between two fields is a record of its own, and so may a flipped bit be.
                // Whatever is accepted says the same when it is written again.
                if let Ok(lock) = Lock::decode(bytes)
                    && lock.short_value.as_ref().is_none_or(|value| value.len() <= SHORT_VALUE_MAX)
                {
                    assert_eq!(Lock::decode(&lock.encode()), Ok(lock));
                }
                if let Ok(write) = Write::decode(bytes) {
                    assert_eq!(Write::decode(&write.encode()), Ok(write));
                }
            }
        }
    }
}
