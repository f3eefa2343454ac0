//! The check of the model: each rule, broken on purpose, makes it fail.

use std::panic;

use base::rule::{Rule, break_rule};

use crate::model;

/// Runs before a rule counts as missed. Most are found in the first hundred.
const SEEDS: u64 = 6_000;

/// Rules of which the model has no part, as it has one store and no other leader, and no scheduler;
/// and those whose breach comes to matter when requests are very late, which they are not in it.
/// The simulator of whole clusters has all that.
const ELSEWHERE: [Rule; 8] = [
    Rule::ReplicasMeetShownLocks,
    Rule::SyncMaxTs,
    Rule::NoteRecords,
    Rule::RecordsBelowFloor,
    Rule::ProtectRollbacks,
    Rule::FlagOverlapped,
    Rule::PushMinCommitTs,
    Rule::ChecksRaiseMaxTs,
];

#[test]
fn broken_rules_are_found() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for rule in Rule::OF_TXN.iter().copied().filter(|rule| !ELSEWHERE.contains(rule)) {
        break_rule(Some(rule));
        let fails = |seed: &u64| panic::catch_unwind(|| model::run(*seed)).is_err();
        let found = (0..SEEDS).find(fails);
        break_rule(None);
        println!("{rule:?}: {found:?}");
        if found.is_none() {
            missed.push(rule);
        }
    }
    panic::set_hook(loud);
    assert_eq!(missed, [], "broken, and not found");
}
