//! Places that break a limit and are known: a list that may only shrink.

use std::collections::BTreeMap;

use crate::Finding;

/// Rule, file and how often it is broken there. When a count falls, lower it here; when it reaches
/// zero, take the row out. New rows need a reason that convinces a reviewer.
pub const EXCEPTIONS: &[(&str, &str, usize)] = &[
    // The engine's snapshots and cursors borrow from their owner, which needs `self_cell` beside
    // the crates for RocksDB, checksums and files.
    ("dependency-count", "crates/storage/Cargo.toml", 1),
];

/// What is left of the findings when the exceptions are taken off; a row that allows too much is
/// one too.
pub fn unexpected(rule: &'static str, found: Vec<Finding>) -> Vec<Finding> {
    subtract(EXCEPTIONS, rule, found)
}

fn subtract(
    exceptions: &[(&str, &str, usize)],
    rule: &'static str,
    found: Vec<Finding>,
) -> Vec<Finding> {
    let mut by_file: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for finding in found {
        by_file.entry(finding.path.clone()).or_default().push(finding);
    }
    for (_, path, allowed) in exceptions.iter().filter(|(of, ..)| *of == rule) {
        let there = by_file.remove(*path).unwrap_or_default();
        if there.len() > *allowed {
            by_file.insert((*path).to_owned(), there);
        } else if there.len() < *allowed {
            let why = format!("{} left, {allowed} in EXCEPTIONS: lower it", there.len());
            let finding = Finding { path: (*path).to_owned(), line: 0, rule, why };
            by_file.insert((*path).to_owned(), vec![finding]);
        }
    }
    by_file.into_values().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_a_ratchet() {
        let finding = |line| Finding { path: "a".into(), line, rule: "r", why: String::new() };
        let exceptions = [("r", "a", 2), ("other", "a", 9)];
        assert!(subtract(&exceptions, "r", vec![finding(1), finding(2)]).is_empty());
        assert_eq!(subtract(&exceptions, "r", vec![finding(1), finding(2), finding(3)]).len(), 3);
        let left = subtract(&exceptions, "r", vec![finding(1)]);
        assert_eq!(left.len(), 1);
        assert!(left[0].why.contains("lower it"));
    }
}
