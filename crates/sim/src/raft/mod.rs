//! The model check of the raft core: groups of nodes under a seed's weather, every promise checked
//! after every step.
//!
//! ```text
//!   seed ──> Shape: size, knobs, weather, how often what is done
//!              │
//!              ▼ step: one thing at a time (workload)
//!   ┌──────────────────────────────────────────────────────────────┐
//!   │ Cluster   host 1 .. host n: node, writes on the way to its   │
//!   │           disk, pages on the way to its state machine        │
//!   │           Network: messages on the way, late, lost, cut      │
//!   └──────────────────────────┬───────────────────────────────────┘
//!        each thing a node hands out passes once through `checks`
//!                              ▼
//!           History: who led, what was written, what is committed
//! ```
//!
//! | promise | where it is checked |
//! | --- | --- |
//! | election safety, one vote a term | `check_elected`, `check_write` |
//! | log matching | `History::on_written`: a position fixes its content and what is before it |
//! | leader append-only | `check_node`, `check_replaced` |
//! | leader completeness | `check_elected`, by log matching at one position |
//! | state machine safety | `check_page`, `History::on_applied` |
//! | committed entries stay, and are durable on a quorum | `check_commit`, `check_replaced` |
//! | what a message says is durable | `check_leaving` |
//! | the same members everywhere | `History::on_change` |
//! | linearizable reads | `History::on_read_state` |
//! | a lease and a later leader never meet | `check_lease`, `check_elected` |
//! | liveness after everything healed | `heal` |
//!
//! A step costs what it touches: a node is compared with the observer's knowledge only from where
//! it was compared last, and two logs only by the positions that they share.
//!
//! Start with `workload` for what happens, `cluster` for the driver, `checks` for the promises.

mod checks;
mod cluster;
mod heal;
mod history;
mod host;
mod members;
#[cfg(feature = "mutations")]
mod mutations;
mod network;
mod shape;
mod snapshots;
mod totals;
mod trace;
mod workload;

#[cfg(feature = "mutations")]
pub use self::mutations::{Hunt, hunt};
pub use self::totals::{Event, Totals};
pub(crate) use self::trace::Said;
pub use crate::verdict::Broken;
#[cfg(feature = "mutations")]
pub use raft::Rule;

use self::cluster::Cluster;

/// Steps of a run by default.
pub const STEPS: u64 = 4_000;

/// Steps between two times at which everything heals.
const STEPS_OF_WEATHER: u64 = 2_000;

/// How a run goes, beside its seed.
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// Steps, those of healing not counted.
    pub steps: u64,
    /// Print a line for each effect.
    pub trace: bool,
    /// The rule that every node breaks, to see that the checks find it.
    #[cfg(feature = "mutations")]
    pub breaks: Option<Rule>,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            steps: STEPS,
            trace: false,
            #[cfg(feature = "mutations")]
            breaks: None,
        }
    }
}

/// What a run was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// The seed.
    pub seed: u64,
    /// Steps, those of healing not counted.
    pub steps: u64,
    /// How often what happened.
    pub totals: Totals,
    /// A number that differs when the runs do.
    pub fingerprint: u64,
}

/// One run; a panic in it becomes an error and prints nothing.
pub fn run_caught(seed: u64, options: &RaftOptions) -> Result<RunReport, Broken> {
    crate::verdict::caught(seed, || run(seed, options))
}

/// One run. Panics at the first promise that is broken, with its name before a colon.
pub fn run(seed: u64, options: &RaftOptions) -> RunReport {
    let mut cluster = Cluster::new(seed, options);
    let mut left = options.steps;
    while left > 0 {
        let steps = left.min(STEPS_OF_WEATHER);
        (0..steps).for_each(|_| cluster.step());
        cluster.heal_and_agree();
        left -= steps;
    }
    cluster.totals.count(Event::Forwarded, cluster.history.forwarded_taken);
    RunReport {
        seed,
        steps: options.steps,
        totals: cluster.totals,
        fingerprint: cluster.fingerprint(),
    }
}
