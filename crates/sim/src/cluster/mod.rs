//! Whole clusters: the actors of production, on a simulated clock, network and disk, from one seed.
//!
//! ```text
//!   seed ──> Plan: nodes, clients, weather, kinds of faults
//!              │
//!   Queue ──event──> World ──┬─ node 0 .. n: Shard, LogWriter, Applier, jobs   (crate store)
//!     ^                      │    on a MemoryDisk and a MemoryEngine           (crate storage)
//!     │                      │    the placement driver where the system region is led
//!     │                      ├─ Network: late, lost, twice, cut                (crate placement)
//!     │                      ├─ clients: caches of regions, retries            (crate txn)
//!     │                      └─ faults, admin traffic
//!     └── what leaves a turn, each effect at a time of its own
//!   after each turn: checks.   At the end: heal, liveness, equality, histories.
//! ```
//!
//! Everything happens on one thread, in the order of virtual time; whatever is drawn is drawn from
//! generators that the seed made. So a seed is a history, and [`RunReport::hash`] is its name.
//!
//! | what | where |
//! | --- | --- |
//! | events and time | `queue`, `event`, `world` |
//! | a node: its actors' turns and effects, its start | `process`, `drive`, `boot` |
//! | placement driver, what it is told, what a node is asked | `host`, `reporter`, `serve` |
//! | clients and what they do | `client`, `workload`; transactional ones: `txn` |
//! | admin traffic | `admin`, `bursts` |
//! | what goes wrong, and the bounds within which it may | `faults`, `network`, `clock` |
//! | promises of each step | `checks`, `promises`, `looks` |
//! | of clients, and of the end | `history`, `linear`, `heal` |

mod admin;
mod boot;
mod bursts;
mod checks;
mod client;
mod clock;
mod drive;
mod event;
mod faults;
mod heal;
mod history;
mod host;
mod linear;
mod looks;
mod minimise;
mod model;
#[cfg(feature = "mutations")]
mod mutations;
mod network;
mod plan;
mod process;
mod promises;
mod queue;
mod reporter;
pub mod scenarios;
mod serve;
mod totals;
mod trace;
mod txn;
mod workload;
mod world;

use std::time::Duration;

use base::Instant;

pub use self::admin::AdminKind;
use self::event::Event;
pub use self::faults::Fault;
pub use self::minimise::{Minimal, minimise};
#[cfg(feature = "mutations")]
pub use self::mutations::{Hunt, Mutation, hunt};
pub use self::plan::Options;
pub use self::totals::Totals;
pub use self::trace::TraceFilter;
use self::world::World;
use crate::Broken;

/// What a run was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// The seed.
    pub seed: u64,
    /// A number that differs when runs do.
    pub hash: u64,
    /// How often what happened.
    pub totals: Totals,
}

/// One run. Panics at the first promise that is broken, with its name before a colon.
pub fn run(seed: u64, options: &Options) -> RunReport {
    let mut world = World::new(seed, options);
    world.begin();
    let end = Instant::ZERO + options.duration;
    world.run_until(end);
    world.heal();
    world.into_report(seed)
}

/// One run; a panic in it becomes an error and prints nothing.
pub fn run_caught(seed: u64, options: &Options) -> Result<RunReport, Broken> {
    #[cfg(feature = "mutations")]
    let _broken = mutations::Breaking::new(options.breaks);
    crate::verdict::caught(seed, || run(seed, options))
}

impl World {
    /// Nodes start, one after the other; clients, faults and admin traffic come when they run.
    pub(crate) fn begin(&mut self) {
        for slot in 0..self.nodes.len() {
            self.queue.after(Duration::from_millis(30 * slot as u64), Event::Start(slot, 0));
        }
        for client in 0..self.clients.len() {
            let at = 500 + 7 * client as u64;
            self.queue.after(Duration::from_millis(at), Event::Client(client));
        }
        self.begin_txns();
        if !self.plan.faults.is_empty() {
            // Some runs are disturbed while the cluster is founded.
            let at = if self.prng.one_in(4) { 10 } else { 4_000 };
            self.queue.after(Duration::from_millis(at), Event::Fault);
        }
        if !self.plan.options.admin.is_empty() {
            self.queue.after(Duration::from_secs(2), Event::Admin);
        }
    }

    /// What the run was, its histories checked.
    fn into_report(mut self, seed: u64) -> RunReport {
        let verdict = self.history.check();
        self.check_txns();
        let totals = &mut self.totals;
        (totals.keys, totals.tangled) = (verdict.keys, verdict.unknown);
        totals.states_compared = self.checks.states_compared;
        totals.leases_compared = self.checks.leases_compared;
        totals.merges = self.checks.merges();
        totals.starts = self.nodes.iter().map(|node| node.life).sum();
        totals.virtual_ms = self.queue.now().0 / 1_000_000;
        RunReport { seed, hash: self.trace.hash(), totals: self.totals }
    }
}
