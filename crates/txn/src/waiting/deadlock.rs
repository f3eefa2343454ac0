//! The wait-for graph of a cluster: a cycle in it is a deadlock.
//!
//! One store keeps it (the leader of the first region). Others report an edge when a transaction
//! begins to wait, and take it back when it stops. Reports are lost with that store, or on the way:
//! the price is a wait that ends by its time-out. An edge that nobody took back is forgotten after
//! [`EDGE_TTL`], which is longer than any wait.
//!
//! A transaction waits at keys, and each key has one holder: that is how the graph is kept, so that
//! a lock that changes hands is one step, however many wait for it. A transaction may wait at
//! several keys, as requests of one may be under way together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Instant, TimeStamp};
use bytes::Bytes;

use super::WaitFor;
use crate::DeadlockFound;

/// An edge lives so long after it was last reported.
pub const EDGE_TTL: Duration = Duration::from_secs(30);

/// Most waits that the detector keeps. Above it new ones are not recorded: they end by time-out.
pub const EDGES_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Wait {
    resource_group_tag: Bytes,
    reported: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    holder: TimeStamp,
    /// How many wait. Never zero.
    waiting: usize,
}

/// The graph.
#[derive(Debug, Default)]
pub struct Detector {
    /// Who waits at which keys. Never an empty map.
    waits: BTreeMap<TimeStamp, BTreeMap<Bytes, Wait>>,
    /// Who holds the keys at which somebody waits.
    keys: BTreeMap<Bytes, Held>,
    count: usize,
}

impl Detector {
    /// Nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an edge, unless it closes a cycle: then it is not added, and the cycle is returned to
    /// the requester, who must not wait.
    pub fn detect(&mut self, now: Instant, wait: &WaitFor) -> Option<DeadlockFound> {
        assert!(wait.txn != wait.holder, "nobody waits for itself");
        if let Some(chain) = self.path(now, wait.holder, wait.txn) {
            let last = chain.last().expect("a path has an edge, or the two are one transaction");
            return Some(DeadlockFound {
                lock_ts: wait.holder,
                lock_key: wait.key.clone(),
                deadlock_key_hash: key_hash(&last.key),
                deadlock_key: last.key.clone(),
                chain,
            });
        }
        if self.count >= EDGES_MAX {
            self.expire(now);
        }
        if self.count < EDGES_MAX {
            self.add(now, wait);
        }
        None
    }

    fn add(&mut self, now: Instant, wait: &WaitFor) {
        let resource_group_tag = wait.resource_group_tag.clone();
        let added = Wait { resource_group_tag, reported: now };
        let before = self.waits.entry(wait.txn).or_default().insert(wait.key.clone(), added);
        let held = Held { holder: wait.holder, waiting: 0 };
        let held = self.keys.entry(wait.key.clone()).or_insert(held);
        held.holder = wait.holder;
        if before.is_none() {
            held.waiting += 1;
            self.count += 1;
        }
    }

    /// The edges of a shortest way from `from` to `to`. Every transaction is looked at once.
    fn path(&self, now: Instant, from: TimeStamp, to: TimeStamp) -> Option<Vec<WaitFor>> {
        let mut came_by: BTreeMap<TimeStamp, WaitFor> = BTreeMap::new();
        let mut seen = BTreeSet::from([from]);
        let mut frontier = vec![from];
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for txn in frontier {
                for (key, wait) in self.waits.get(&txn).into_iter().flatten() {
                    let holder = self.holder(key);
                    if is_old(wait, now) || !seen.insert(holder) {
                        continue;
                    }
                    came_by.insert(holder, edge(txn, holder, key, wait));
                    if holder == to {
                        return Some(walk_back(&came_by, from, to));
                    }
                    next.push(holder);
                }
            }
            frontier = next;
        }
        None
    }

    fn holder(&self, key: &Bytes) -> TimeStamp {
        self.keys[key].holder
    }

    /// `txn` no longer waits at `key`.
    pub fn clean_up_wait(&mut self, txn: TimeStamp, key: &Bytes) {
        let Some(keys) = self.waits.get_mut(&txn) else { return };
        if keys.remove(key).is_none() {
            return;
        }
        if keys.is_empty() {
            self.waits.remove(&txn);
        }
        self.leave(key);
    }

    /// One wait at `key` is taken out.
    fn leave(&mut self, key: &Bytes) {
        self.count -= 1;
        let held = self.keys.get_mut(key).expect("a key at which somebody waits has a holder");
        held.waiting -= 1;
        if held.waiting == 0 {
            self.keys.remove(key);
        }
    }

    /// `txn` has ended: it waits for nobody. Those who wait for it say so themselves.
    pub fn clean_up(&mut self, txn: TimeStamp) {
        for key in self.waits.remove(&txn).into_iter().flatten().map(|(key, _)| key) {
            self.leave(&key);
        }
    }

    /// The lock on `key` is `new`'s now, and those who waited at it wait on.
    pub fn replace_holder(&mut self, key: &Bytes, new: TimeStamp) {
        self.clean_up_wait(new, key);
        if let Some(held) = self.keys.get_mut(key) {
            held.holder = new;
        }
    }

    /// Forgets edges that nobody has reported for too long.
    pub fn expire(&mut self, now: Instant) {
        let old = |(txn, keys): (&TimeStamp, &BTreeMap<Bytes, Wait>)| {
            let old = keys.iter().filter(|(_, wait)| is_old(wait, now));
            old.map(|(key, _)| (*txn, key.clone())).collect::<Vec<_>>()
        };
        let old: Vec<(TimeStamp, Bytes)> = self.waits.iter().flat_map(old).collect();
        for (txn, key) in old {
            self.clean_up_wait(txn, &key);
        }
    }

    /// All edges, for people.
    pub fn waits(&self) -> Vec<WaitFor> {
        let of_txn = |(txn, keys): (&TimeStamp, &BTreeMap<Bytes, Wait>)| {
            let edges = keys.iter().map(|(key, wait)| edge(*txn, self.holder(key), key, wait));
            edges.collect::<Vec<_>>()
        };
        self.waits.iter().flat_map(of_txn).collect()
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn edge(txn: TimeStamp, holder: TimeStamp, key: &Bytes, wait: &Wait) -> WaitFor {
    let (key, resource_group_tag) = (key.clone(), wait.resource_group_tag.clone());
    WaitFor { txn, holder, key, resource_group_tag, waited_ms: 0 }
}

fn is_old(wait: &Wait, now: Instant) -> bool {
    now.since(wait.reported) > EDGE_TTL
}

/// The way back from `to`, turned round.
fn walk_back(
    came_by: &BTreeMap<TimeStamp, WaitFor>,
    from: TimeStamp,
    to: TimeStamp,
) -> Vec<WaitFor> {
    let mut chain = Vec::new();
    let mut at = to;
    while chain.is_empty() || at != from {
        let wait = came_by[&at].clone();
        at = wait.txn;
        chain.push(wait);
        assert!(chain.len() <= came_by.len(), "a shortest way visits nobody twice");
    }
    chain.reverse();
    chain
}

/// The number that stands for a key in reports and answers: FNV-1a of its user form.
pub fn key_hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
