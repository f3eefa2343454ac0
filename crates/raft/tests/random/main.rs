//! Seeded random runs of whole groups, with a check of Raft's promises after every step.
//!
//! Each step picks one of: a tick, a message (delivered, lost, doubled, out of order), a write that
//! becomes durable, a page that is applied, a proposal, a read, a cut of the network, a crash that
//! loses what was not durable, a restart. At the end everything heals and the group must agree and
//! go on.
//!
//! `PONTOON_RAFT_SEEDS=5000 cargo test --release -p pontoon-raft --test random` runs more seeds;
//! `PONTOON_RAFT_SEED=17` runs that one with a trace.

mod check;
mod sim;

use sim::Sim;

/// Seeds in the usual test run.
const SEEDS: u64 = 120;
/// Steps of each before it heals.
const STEPS: usize = 3_000;

/// Names the seed if the run panics.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failed: PONTOON_RAFT_SEED={} cargo test --release -p pontoon-raft --test random",
                self.0
            );
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn groups_keep_their_promises() {
    let one = number("PONTOON_RAFT_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("PONTOON_RAFT_SEEDS").unwrap_or(SEEDS),
    };
    let mut totals = sim::Totals::default();
    for seed in seeds {
        let _guard = Guard(seed);
        let mut sim = Sim::new(seed, one.is_some());
        for _ in 0..STEPS {
            sim.step();
        }
        sim.heal_and_agree();
        totals.add(&sim.totals);
    }
    println!("{totals:?}");
    if one.is_none() {
        assert!(totals.are_telling(), "the runs do not reach what they should: {totals:?}");
    }
}

/// The same seed gives the same run.
#[test]
fn runs_repeat() {
    let run = |seed| {
        let mut sim = Sim::new(seed, false);
        (0..2_000).for_each(|_| sim.step());
        (sim.totals, sim.fingerprint())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).1, run(4).1);
}
