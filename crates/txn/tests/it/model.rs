//! Random transactions by simulated clients, against what snapshot isolation allows.
//!
//! Some clients move money between accounts, with optimistic or pessimistic transactions, in two
//! phases, with async commit or in one phase. Their requests are delayed, reordered, repeated
//! (sometimes long after the transaction is over) and lost, and so are the answers; clients crash
//! in the middle; whoever meets a lock resolves it; the leader crashes and forgets its memory.
//! After every step somebody may read all accounts at some timestamp.
//!
//! What must hold, from the first step to the last:
//! 1. The sum is the same in every snapshot, and a snapshot once read is read the same again.
//! 2. What a client was told stays so: committed (at that timestamp) or rolled back.
//! 3. A transaction is committed on all its keys, at one timestamp, or on none.
//! 4. No lost update: between what a transaction read and its own commit nobody wrote the key.
//! 5. In the end every lock can be resolved.

mod client;
mod world;

use base::Prng;
use world::World;

/// Steps of one run.
const STEPS: u64 = 1_000;

pub fn run(seed: u64) -> world::Figures {
    let mut world = World::new(Prng::new(seed));
    for _ in 0..STEPS {
        world.step();
    }
    world.finish()
}

/// `TXN_SEEDS=A..B` in the environment: these and no others.
fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("TXN_SEEDS") else { return 0..4_000 };
    let (first, end) = range.split_once("..").expect("A..B");
    first.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn random_transactions_keep_what_snapshot_isolation_promises() {
    let mut all = world::Figures::default();
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| run(seed));
        match result {
            Ok(figures) => all.add(&figures),
            Err(_) => panic!("seed {seed}"),
        }
    }
    println!("{all:?}");
    if seeds() != (0..4_000) {
        return;
    }
    // A model whose transactions never get through would find nothing.
    assert!(all.committed > 12_000, "{all:?}");
    assert!(all.rolled_back > 5_000 && all.resolved > 5_000, "{all:?}");
    assert!(all.one_phase > 4_000 && all.async_commits > 4_000, "{all:?}");
    assert!(all.pessimistic > 5_000 && all.late > 100_000 && all.restarts > 5_000, "{all:?}");
}
