//! The house limits, as tests that read the tree.
//!
//! Clippy sees one crate at a time and rustfmt one line. What makes a code base pleasant or painful
//! lies between: how long files and functions get, which crate may know which, what a core crate
//! must never touch. These limits are checked here, on the sources as text.
//!
//! ```text
//!   tree ── finds and reads the files ──▶ source ── code, comments and tests told apart
//!                                            │
//!   manifest ── what a Cargo.toml names ─────┤
//!                                            ▼
//!   text_rules, code_rules, crate_rules ── findings ──▶ exceptions ── what is left fails the test
//! ```
//!
//! The limits are a ratchet. A place that does not keep one stands in [`exceptions`] by rule and
//! file with its count; the count may fall and must then be lowered, and may never rise.
//!
//! Start with `tests/house_limits.rs`, one test a rule. Nothing here depends on another crate.

pub mod code_rules;
pub mod crate_rules;
pub mod exceptions;
pub mod manifest;
pub mod source;
pub mod text_rules;
pub mod tree;

use std::fmt;

/// One place that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the root of the repository.
    pub path: String,
    /// Line, counted from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The rule's name, as in the list of exceptions.
    pub rule: &'static str,
    /// What is wrong, and what to do instead.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.why)
    }
}
