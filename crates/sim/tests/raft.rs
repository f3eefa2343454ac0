//! A slice of the model check that is short enough for every change.

use pontoon_sim::raft::{RaftOptions, Totals, run};

/// Seeds in the usual test run: a few seconds. `./x sim raft` runs more.
const SEEDS: u64 = 4_000;

/// Names the seed if the run panics.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again, with a trace: ./x sim raft --seed {}", self.0);
        }
    }
}

#[test]
fn groups_keep_their_promises() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let _guard = Guard(seed);
        totals.add(&run(seed, &RaftOptions::default()).totals);
    }
    println!("{totals}");
    assert_eq!(totals.missing(), [], "the runs do not reach what they should");
}

/// The same seed gives the same run, and another seed another.
#[test]
fn runs_repeat() {
    let run = |seed| run(seed, &RaftOptions::default());
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(3).fingerprint, run(4).fingerprint);
}
