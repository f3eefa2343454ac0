//! Random histories of a store that keeps snapshot isolation, and of stores that break it.

use std::collections::BTreeMap;

use base::{Instant, Prng};
use pontoon_sim::check::lists::check;
use pontoon_sim::check::{Act, Kind, Outcome, Style, Txn};

const LISTS: u64 = 3;

/// What the store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Nobody looks for newer versions before a commit.
    NoConflicts,
    /// Each list is read as of a moment of its own.
    TornReads,
    /// A rolled back transaction is applied.
    AppliesAborted,
    /// A transaction is applied to its first list alone.
    HalfCommits,
    /// Who begins reads as of some moments ago.
    OldSnapshots,
}

/// All versions of the lists, by the time of their commit.
struct Store {
    versions: BTreeMap<u64, Vec<(u64, Vec<u64>)>>,
    clock: u64,
}

impl Store {
    fn read(&self, list: u64, at: u64) -> Vec<u64> {
        let versions = self.versions.get(&list).map_or(&[][..], |versions| versions);
        let seen = versions.iter().rev().find(|(commit, _)| *commit <= at);
        seen.map(|(_, values)| values.clone()).unwrap_or_default()
    }

    fn newest(&self, list: u64) -> u64 {
        self.versions.get(&list).and_then(|all| all.last()).map_or(0, |(commit, _)| *commit)
    }
}

struct Running {
    txn: Txn,
    start: u64,
    writes: BTreeMap<u64, Vec<u64>>,
}

fn step(store: &mut Store, running: &mut Running, prng: &mut Prng, next: &mut u64, fault: Fault) {
    store.clock += 1;
    let list = prng.below(LISTS);
    let at = match fault {
        Fault::TornReads => store.clock,
        Fault::OldSnapshots => running.start.saturating_sub(40),
        _ => running.start,
    };
    let mut values = store.read(list, at);
    values.extend(running.writes.get(&list).into_iter().flatten());
    running.txn.acts.push(Act::Read(list, values));
    if prng.one_in(2) {
        *next += 1;
        running.writes.entry(list).or_default().push(*next);
        running.txn.acts.push(Act::Append(list, *next));
    }
}

fn end(store: &mut Store, mut running: Running, prng: &mut Prng, fault: Fault) -> Txn {
    store.clock += 1;
    let newer = running.writes.keys().any(|list| store.newest(*list) > running.start);
    let conflict = newer && fault != Fault::NoConflicts;
    let aborts = conflict || prng.one_in(10);
    let mut writes = std::mem::take(&mut running.writes);
    if fault == Fault::HalfCommits {
        writes = writes.into_iter().take(1).collect();
    }
    if !aborts || (fault == Fault::AppliesAborted && prng.one_in(4)) {
        for (list, appended) in writes {
            let before = match fault {
                // As a store of whole values does: what came in between is gone.
                Fault::NoConflicts => running.start,
                _ => u64::MAX,
            };
            let mut values = store.read(list, before);
            values.extend(appended);
            store.versions.entry(list).or_default().push((store.clock, values));
        }
    }
    let unknown = prng.one_in(10);
    running.txn.outcome = match (unknown, aborts) {
        (true, _) => Outcome::Unknown,
        (false, true) => Outcome::Failed,
        (false, false) => Outcome::Committed,
    };
    running.txn.ended = (!unknown).then_some(Instant(store.clock));
    running.txn
}

fn history(seed: u64, fault: Fault) -> Vec<Txn> {
    let mut prng = Prng::new(seed);
    let mut store = Store { versions: BTreeMap::new(), clock: 1 };
    let (mut next, mut done, mut open) = (0, Vec::new(), Vec::<Running>::new());
    for _ in 0..300 {
        if open.len() < 4 {
            store.clock += 1;
            let txn = Txn {
                client: open.len(),
                style: Style::Snapshot,
                acts: Vec::new(),
                begun: Instant(store.clock),
                ended: None,
                outcome: Outcome::Unknown,
            };
            store.clock += 1;
            open.push(Running { txn, start: store.clock, writes: BTreeMap::new() });
        }
        let at = prng.below(open.len() as u64) as usize;
        if open[at].txn.acts.len() < 6 && !prng.one_in(4) {
            step(&mut store, &mut open[at], &mut prng, &mut next, fault);
        } else {
            let running = open.swap_remove(at);
            done.push(end(&mut store, running, &mut prng, fault));
        }
    }
    done
}

#[test]
fn snapshot_isolation_passes() {
    let mut versions = 0;
    for seed in 0..300 {
        match check(&history(seed, Fault::None)) {
            Ok(figures) => versions += figures.versions,
            Err(anomaly) => panic!("seed {seed}: {anomaly}"),
        }
    }
    assert!(versions > 3_000, "the histories show {versions} versions only");
}

#[test]
fn broken_stores_are_found() {
    let kinds = [
        (Fault::NoConflicts, &[Kind::LostUpdate, Kind::NoOrder][..]),
        (Fault::TornReads, &[Kind::Internal, Kind::ReadSkew, Kind::NonAdjacent]),
        (Fault::AppliesAborted, &[Kind::AbortedRead]),
        (
            Fault::HalfCommits,
            &[Kind::LostUpdate, Kind::ReadSkew, Kind::RealTime, Kind::NonAdjacent],
        ),
        (Fault::OldSnapshots, &[Kind::RealTime, Kind::LostUpdate, Kind::ReadSkew]),
    ];
    for (fault, kinds) in kinds {
        let mut found = BTreeMap::<String, u32>::new();
        for seed in 0..50 {
            if let Err(anomaly) = check(&history(seed, fault)) {
                *found.entry(format!("{:?}", anomaly.kind)).or_default() += 1;
            }
        }
        let sum: u32 = found.values().sum();
        assert!(sum > 30, "{fault:?} is found {sum} times of 50: {found:?}");
        let named = kinds.iter().any(|kind| found.contains_key(&format!("{kind:?}")));
        assert!(named, "{fault:?}: {found:?}");
    }
}
