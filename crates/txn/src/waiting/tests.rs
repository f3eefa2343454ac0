use std::time::Duration;

use base::{Instant, Prng};

use super::*;
use crate::mvcc::Key;

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn key(name: &str) -> Key {
    Key::new(Bytes::copy_from_slice(name.as_bytes()))
}

fn waiter(id: u64, start_ts: u64, deadline_ms: u64) -> Waiter {
    Waiter {
        id,
        start_ts: TimeStamp(start_ts),
        mode: WaitMode::Retry,
        deadline: at(deadline_ms),
        resource_group_tag: Bytes::new(),
    }
}

fn enqueue(waits: &mut LockWaits, now_ms: u64, holder: u64, id: u64, start_ts: u64) {
    let waiter = waiter(id, start_ts, now_ms + 1000);
    assert!(waits.enqueue(at(now_ms), &key("k"), TimeStamp(holder), waiter));
}

fn ids(woken: impl IntoIterator<Item = Woken>) -> Vec<u64> {
    woken.into_iter().map(|woken| woken.waiter.id).collect()
}

#[test]
fn the_oldest_transaction_is_woken_first() {
    let mut waits = LockWaits::new();
    enqueue(&mut waits, 0, 1, 11, 30);
    enqueue(&mut waits, 0, 1, 12, 10);
    enqueue(&mut waits, 0, 1, 13, 20);
    assert!(waits.released(at(5), &key("other"), TimeStamp(1), TimeStamp(0)).is_none());
    let woken = waits.released(at(5), &key("k"), TimeStamp(1), TimeStamp(9)).expect("the first");
    assert_eq!(woken.waiter.id, 12);
    let why = WokenWhy::Released { holder: TimeStamp(1), commit_ts: TimeStamp(9) };
    assert_eq!(woken.why, why);
    // It does nothing: the next one's turn comes after a while, one at a time.
    assert!(ids(waits.expire(at(24))).is_empty());
    assert_eq!(waits.next_timer(), Some(at(25)));
    assert_eq!(ids(waits.expire(at(25))), [13]);
    assert_eq!(ids(waits.expire(at(45))), [11]);
    assert!(waits.is_empty() && waits.next_timer().is_none());
}

#[test]
fn nobody_else_is_woken_once_the_key_is_locked_again() {
    let mut waits = LockWaits::new();
    (0..3).for_each(|i| enqueue(&mut waits, 0, 1, i, 10 + i));
    assert_eq!(ids(waits.released(at(5), &key("k"), TimeStamp(1), TimeStamp(0))), [0]);
    waits.acquired(at(8), &key("k"), TimeStamp(10));
    assert!(ids(waits.expire(at(500))).is_empty());
    assert!(waits.waits(at(500)).iter().all(|wait| wait.holder == TimeStamp(10)));
    let timed_out = waits.expire(at(1000));
    assert_eq!(timed_out[0].why, WokenWhy::TimedOut { unchanged_for_ms: 992 });
    assert_eq!(ids(timed_out), [1, 2]);
}

#[test]
fn a_waiter_leaves_once() {
    let mut waits = LockWaits::new();
    enqueue(&mut waits, 0, 1, 7, 10);
    assert_eq!(waits.cancel(7).map(|waiter| waiter.id), Some(7));
    assert_eq!(waits.cancel(7), None);
    assert!(waits.released(at(1), &key("k"), TimeStamp(1), TimeStamp(0)).is_none());
    assert!(waits.is_empty() && waits.next_timer().is_none());
}

#[test]
fn ten_thousand_waiters_of_one_key_cost_one_step_a_hand_over() {
    let mut waits = LockWaits::new();
    let count = 10_000;
    for i in 0..count {
        // A permutation, so that they do not come in order.
        let start_ts = 10 + (i * 7919) % count;
        assert!(waits.enqueue(at(0), &key("hot"), TimeStamp(1), waiter(i, start_ts, 1_000_000)));
    }
    let mut holder = TimeStamp(1);
    for turn in 0..count {
        let woken = waits.released(at(turn), &key("hot"), holder, TimeStamp(0)).expect("a waiter");
        assert_eq!(woken.waiter.start_ts, TimeStamp(10 + turn), "oldest first");
        holder = woken.waiter.start_ts;
        waits.acquired(at(turn), &key("hot"), holder);
        assert_eq!(waits.expire(at(turn)).len(), 0, "nobody else is disturbed");
        assert_eq!(waits.len() as u64, count - turn - 1);
    }
    assert!(waits.is_empty() && waits.next_timer().is_none());
}

#[test]
fn random_lines_keep_their_books() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut waits = LockWaits::new();
        let mut standing = std::collections::BTreeSet::new();
        let mut now = 0;
        for id in 0..300 {
            now += prng.below(8);
            let name = prng.below(3).to_string();
            let holder = TimeStamp(1 + prng.below(3));
            match prng.below(6) {
                0..=2 => {
                    let waiter = waiter(id, 10 + prng.below(50), now + prng.below(60));
                    assert!(waits.enqueue(at(now), &key(&name), holder, waiter));
                    standing.insert(id);
                }
                3 => {
                    for id in ids(waits.released(at(now), &key(&name), holder, TimeStamp(0))) {
                        assert!(standing.remove(&id), "woken twice");
                    }
                }
                4 => waits.acquired(at(now), &key(&name), holder),
                _ => {
                    let id = prng.below(id + 1);
                    assert_eq!(waits.cancel(id).is_some(), standing.remove(&id));
                }
            }
            for id in ids(waits.expire(at(now))) {
                assert!(standing.remove(&id), "woken twice");
            }
            assert!(waits.next_timer().is_none_or(|timer| timer > at(now)));
            assert_eq!((waits.len(), waits.waits(at(now)).len()), (standing.len(), standing.len()));
        }
        assert_eq!(waits.expire(at(now + 1000)).len(), standing.len());
        assert!(waits.is_empty());
    }
}

fn wait(txn: u64, holder: u64, name: &str) -> WaitFor {
    WaitFor {
        txn: TimeStamp(txn),
        holder: TimeStamp(holder),
        key: Bytes::copy_from_slice(name.as_bytes()),
        resource_group_tag: Bytes::from(format!("tag{txn}")),
        waited_ms: 0,
    }
}

#[test]
fn a_cycle_of_five() {
    let mut detector = Detector::new();
    for txn in 1..5 {
        assert_eq!(detector.detect(at(0), &wait(txn, txn + 1, &format!("k{txn}"))), None);
    }
    let found = detector.detect(at(0), &wait(5, 1, "k5")).expect("a cycle");
    assert_eq!(found.lock_ts, TimeStamp(1));
    assert_eq!(&found.lock_key[..], b"k5");
    let chain: Vec<_> = found.chain.iter().map(|wait| (wait.txn.0, wait.holder.0)).collect();
    assert_eq!(chain, [(1, 2), (2, 3), (3, 4), (4, 5)]);
    assert_eq!(&found.deadlock_key[..], b"k4");
    assert_eq!(found.deadlock_key_hash, key_hash(b"k4"));
    assert_eq!(&found.chain[0].resource_group_tag[..], b"tag1");
    assert_eq!(detector.len(), 4, "the closing edge is not added: its requester does not wait");
    // The victim gives up, somebody else goes on.
    detector.clean_up(TimeStamp(5));
    detector.clean_up_wait(TimeStamp(4), &"k4".into());
    assert_eq!(detector.detect(at(1), &wait(5, 1, "k5")), None);
    assert!(detector.detect(at(1), &wait(3, 5, "k3")).is_some(), "5 waits for 1, 2 and 3");
}

#[test]
fn two_ways_and_no_way() {
    let mut detector = Detector::new();
    assert_eq!(detector.detect(at(0), &wait(1, 2, "a")), None);
    assert_eq!(detector.detect(at(0), &wait(1, 3, "b")), None);
    assert_eq!(detector.detect(at(0), &wait(3, 4, "c")), None);
    assert_eq!(detector.detect(at(0), &wait(2, 4, "d")), None, "a diamond is no cycle");
    let found = detector.detect(at(0), &wait(4, 1, "e")).expect("a cycle");
    assert_eq!(found.chain.len(), 2);
    // The same edge at two keys stays until both are taken back.
    assert_eq!(detector.detect(at(0), &wait(1, 2, "a2")), None);
    detector.clean_up_wait(TimeStamp(1), &"a".into());
    detector.clean_up_wait(TimeStamp(1), &"a".into());
    assert_eq!(detector.waits().len(), 4);
    assert!(detector.detect(at(0), &wait(2, 1, "f")).is_some());
    detector.clean_up_wait(TimeStamp(1), &"a2".into());
    assert!(detector.detect(at(0), &wait(2, 1, "f")).is_none());
}

#[test]
fn edges_age_and_follow_the_lock() {
    let mut detector = Detector::new();
    assert_eq!(detector.detect(at(0), &wait(1, 2, "k")), None);
    assert!(detector.detect(at(30_000), &wait(2, 1, "x")).is_some());
    assert!(detector.detect(at(30_001), &wait(2, 1, "x")).is_none(), "the first is forgotten");
    detector.expire(at(30_001));
    assert_eq!(detector.len(), 1);
    let mut detector = Detector::new();
    for txn in 2..5 {
        assert_eq!(detector.detect(at(0), &wait(txn, 1, "k")), None);
    }
    detector.replace_holder(&"k".into(), TimeStamp(2));
    let waits: Vec<_> = detector.waits().iter().map(|wait| (wait.txn.0, wait.holder.0)).collect();
    assert_eq!(waits, [(3, 2), (4, 2)]);
    assert!(detector.detect(at(1), &wait(2, 4, "y")).is_some());
}

#[test]
fn the_graph_agrees_with_a_model() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut detector = Detector::new();
        let mut edges = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let (a, b) = (1 + prng.below(8), 1 + prng.below(8));
            match prng.below(5) {
                0 => {
                    detector.clean_up(TimeStamp(a));
                    edges.retain(|(txn, _)| *txn != a);
                }
                1 => {
                    detector.clean_up_wait(TimeStamp(a), &format!("k{b}").into());
                    edges.remove(&(a, b));
                }
                _ if a == b => {}
                _ => {
                    let found = detector.detect(at(0), &wait(a, b, &format!("k{b}")));
                    assert_eq!(found.is_some(), reaches(&edges, b, a), "seed {seed} {a} -> {b}");
                    if let Some(found) = found {
                        let ends = (found.chain[0].txn.0, found.chain.last().map(|w| w.holder.0));
                        assert_eq!(ends, (b, Some(a)));
                        let linked = |pair: &[WaitFor]| pair[0].holder == pair[1].txn;
                        assert!(found.chain.windows(2).all(linked));
                    } else {
                        edges.insert((a, b));
                    }
                }
            }
            assert_eq!(detector.len(), edges.len());
        }
    }
}

fn reaches(edges: &std::collections::BTreeSet<(u64, u64)>, from: u64, to: u64) -> bool {
    let mut seen = std::collections::BTreeSet::from([from]);
    loop {
        let next: Vec<u64> = edges
            .iter()
            .filter(|(a, b)| seen.contains(a) && !seen.contains(b))
            .map(|(_, b)| *b)
            .collect();
        if next.is_empty() {
            return seen.contains(&to) && from != to;
        }
        seen.extend(next);
    }
}
