//! A slice of the simulation of whole clusters that is short enough for every change.

use pontoon_sim::cluster::{Options, Totals, run_caught};

/// Seeds in the usual test run: some seconds. `./x sim` runs more.
const SEEDS: u64 = 40;

#[test]
fn clusters_keep_their_promises() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        match run_caught(seed, &Options::default()) {
            Ok(report) => totals.add(&report.totals),
            Err(broken) => panic!("{broken}\nagain: ./x sim --seed {seed} --trace"),
        }
    }
    println!("{totals}");
    assert_eq!(totals.missing(), [], "the runs do not reach what they should");
    assert!(totals.snapshots > 50 && totals.destroyed > 20, "{totals}");
    assert_eq!(totals.tangled, 0, "histories that nobody can tell: {totals}");
}

/// The same with transactional clients.
#[test]
fn transactions_keep_their_promises() {
    let options = Options { transactions: Some(true), ..Options::default() };
    let mut totals = Totals::default();
    for seed in 0..8 {
        match run_caught(seed, &options) {
            Ok(report) => totals.add(&report.totals),
            Err(broken) => panic!("{broken}\nagain: ./x sim --seed {seed} --transactions --trace"),
        }
    }
    println!("{totals}");
    assert!(totals.txns_committed > 1_000 && totals.sums > 100, "{totals}");
}

/// The same seed gives the same run, and another seed another.
#[test]
fn runs_repeat() {
    for seed in [3, 11] {
        let run = || run_caught(seed, &Options::default()).map(|report| report.hash);
        assert_eq!(run(), run(), "seed {seed}");
    }
    let hash = |seed| run_caught(seed, &Options::default()).map(|report| report.hash);
    assert_ne!(hash(1), hash(2));
}
