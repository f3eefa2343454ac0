//! The check of the checks: clusters that break one rule on purpose must be found, by seeds that
//! know nothing of it.

use std::fmt;
use std::time::{Duration, Instant};

use base::rule;
use store::ShardConfig;

use super::plan::Plan;
use super::{Options, run_caught};
use crate::Broken;

/// A rule that all nodes break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Of `storage`, `store` or `placement`.
    Store(rule::Rule),
    /// Of `raft`.
    Raft(raft::Rule),
    /// Of `txn`.
    Txn(rule::Rule),
}

impl Mutation {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let store = rule::Rule::OF_STORE.iter().copied().map(Self::Store);
        let raft = raft::Rule::ALL.into_iter().map(Self::Raft);
        let txn = rule::Rule::OF_TXN.iter().copied().map(Self::Txn);
        store.chain(txn).chain(raft).collect()
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Store(rule) => format!("{rule:?}"),
            Self::Raft(rule) => format!("raft {rule:?}"),
            Self::Txn(rule) => format!("txn {rule:?}"),
        }
    }
}

/// While it is there, this thread breaks the rule.
pub(crate) struct Breaking;

impl Breaking {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        rule::break_rule(match mutation {
            Some(Mutation::Store(broken) | Mutation::Txn(broken)) => Some(broken),
            _ => None,
        });
        Self
    }
}

impl Drop for Breaking {
    fn drop(&mut self) {
        rule::break_rule(None);
    }
}

/// Tells a shard which rule of raft its replicas break.
pub(crate) fn prepare(plan: &Plan, config: &mut ShardConfig) {
    if let Some(Mutation::Raft(broken)) = plan.options.breaks {
        config.breaks = Some(broken);
    }
}

/// How the hunt for one broken rule went.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The rule that every node broke.
    pub mutation: Mutation,
    /// Seeds that were run.
    pub seeds: u64,
    /// How long that took one processor.
    pub took: Duration,
    /// What found it, if anything did.
    pub found: Option<Broken>,
}

/// Runs seeds until one shows that the rule is broken, or for `limit` of a processor's time: others
/// may be busy here as well.
pub fn hunt(mutation: Mutation, limit: Duration) -> Hunt {
    let transactions = matches!(mutation, Mutation::Txn(_)).then_some(true);
    let options = Options { transactions, breaks: Some(mutation), ..Options::default() };
    let (began, before) = (Instant::now(), processor_time());
    let mut seeds = 0;
    loop {
        let found = run_caught(seeds, &options).err();
        seeds += 1;
        let took = match (before, processor_time()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => began.elapsed(),
        };
        if found.is_some() || took >= limit {
            return Hunt { mutation, seeds, took, found };
        }
    }
}

/// What this thread has had of a processor, as the system counts it, in hundredths of a second.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th behind.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    let ticks = times.sum::<Option<u64>>()?;
    Some(Duration::from_millis(10 * ticks))
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, seconds) = (self.mutation.name(), self.took.as_secs_f64());
        write!(f, "| {rule:<31} | {:>5} | {seconds:>7.1} | ", self.seeds)?;
        match &self.found {
            None => write!(f, "not found |"),
            Some(broken) => {
                let line: String =
                    broken.what.lines().next().unwrap_or_default().chars().take(70).collect();
                let who = if broken.is_of_core() { "itself: " } else { "" };
                write!(f, "{who}{line} |")
            }
        }
    }
}
