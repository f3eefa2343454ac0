//! No message, and no order of calls, makes a node panic.
//!
//! `./x fuzz` looks for one with coverage as its guide; this test tries a slice of pseudo-random
//! stories on every change.

mod run;

use base::Prng;

/// Stories, and the longest one in bytes.
const STORIES: u64 = 50_000;
const BYTES_MAX: u64 = 1_000;

#[test]
fn no_message_makes_a_node_panic() {
    for seed in 0..STORIES {
        let mut prng = Prng::new(seed);
        let len = prng.below(BYTES_MAX);
        let bytes: Vec<u8> = (0..len).map(|_| prng.below(256) as u8).collect();
        run::run(&bytes, false);
    }
}
