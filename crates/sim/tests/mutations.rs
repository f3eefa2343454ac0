//! Each rule of the core, broken on purpose, is found by the checks.

use std::time::Duration;

use pontoon_sim::raft::{Rule, hunt};

/// How long the hunt for one rule may take.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn every_broken_rule_is_found() {
    println!("| rule | seeds | seconds | what found it |");
    let mut missed = Vec::new();
    for rule in Rule::ALL {
        let hunt = hunt(rule, LIMIT);
        println!("{hunt}");
        if hunt.found.is_none() {
            missed.push(rule);
        }
    }
    assert_eq!(missed, [], "broken, and not found");
}
