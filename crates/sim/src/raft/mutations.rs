//! The check of the checks: nodes that break one rule on purpose must be found.

use std::fmt;
use std::time::{Duration, Instant};

use raft::Rule;

use super::{Broken, RaftOptions, run_caught};

/// How the hunt for one broken rule went.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The rule that every node broke.
    pub rule: Rule,
    /// Seeds that were run.
    pub seeds: u64,
    /// How long that took.
    pub took: Duration,
    /// What found it, if anything did.
    pub found: Option<Broken>,
}

/// Runs seeds until one shows that `rule` is broken, or for `limit`.
pub fn hunt(rule: Rule, limit: Duration) -> Hunt {
    let options = RaftOptions { breaks: Some(rule), ..RaftOptions::default() };
    let began = Instant::now();
    let mut seeds = 0;
    loop {
        let found = run_caught(seeds, &options).err();
        seeds += 1;
        if found.is_some() || began.elapsed() >= limit {
            return Hunt { rule, seeds, took: began.elapsed(), found };
        }
    }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, seconds) = (format!("{:?}", self.rule), self.took.as_secs_f64());
        write!(f, "| {rule:<26} | {:>7} | {seconds:>7.2} | ", self.seeds)?;
        match &self.found {
            None => write!(f, "not found |"),
            Some(broken) => {
                let line: String =
                    broken.what.lines().next().unwrap_or_default().chars().take(70).collect();
                let who = if broken.is_of_core() { "the core: " } else { "" };
                write!(f, "{who}{line} |")
            }
        }
    }
}
