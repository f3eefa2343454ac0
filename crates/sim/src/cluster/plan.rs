//! What a seed decides before anything happens: how many of everything, and which weather.

use std::collections::BTreeSet;
use std::time::Duration;

use base::Prng;
use store::ShardConfig;
use store::split_check::SplitConfig;

use super::admin::AdminKind;
use super::faults::Fault;
use super::txn::TxnPlan;

/// How a run goes, beside its seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Virtual time of clients and faults; healing comes after it.
    pub duration: Duration,
    /// Nodes; `None`: the seed decides.
    pub nodes: Option<usize>,
    /// Clients; `None`: the seed decides.
    pub clients: Option<usize>,
    /// Kinds of faults that may happen. Empty: none.
    pub faults: BTreeSet<Fault>,
    /// What is done to regions beside what the placement driver orders.
    pub admin: BTreeSet<AdminKind>,
    /// Entries after which a log shrinks; `None`: the seed decides.
    pub log_entries_max: Option<u64>,
    /// Ticks after which an idle group sleeps, zero: never; `None`: the seed decides.
    pub sleep_ticks: Option<u32>,
    /// Time between two calls of a client; `None`: the seed decides.
    pub think: Option<Duration>,
    /// Whether there are transactional clients; `None`: the seed decides.
    pub transactions: Option<bool>,
    /// Whether each applied state is compared, or one in eight.
    pub thorough: bool,
    /// Which lines to print.
    pub trace: Option<super::TraceFilter>,
    /// The rule that is broken, to see that the checks find it.
    #[cfg(feature = "mutations")]
    pub breaks: Option<super::Mutation>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(60),
            nodes: None,
            clients: None,
            faults: Fault::ALL.into_iter().collect(),
            admin: AdminKind::ALL.into_iter().collect(),
            log_entries_max: None,
            sleep_ticks: None,
            think: None,
            transactions: None,
            thorough: true,
            trace: None,
            #[cfg(feature = "mutations")]
            breaks: None,
        }
    }
}

impl Options {
    /// Five nodes as they are configured by themselves (idle groups sleep after two seconds), with
    /// twenty clients, and nothing fails: what the speed of the simulator is told by.
    pub fn calm() -> Self {
        Self {
            nodes: Some(5),
            clients: Some(20),
            faults: BTreeSet::new(),
            sleep_ticks: Some(20),
            think: Some(Duration::from_secs(1)),
            transactions: Some(false),
            thorough: false,
            ..Self::default()
        }
    }
}

/// What the seed and the options come to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    /// Keys of registers.
    pub(crate) keys: u64,
    pub(crate) think: Duration,
    /// Mean time between two faults; faults that last do so for some of these.
    pub(crate) fault_interval: Duration,
    /// Kinds of faults of this run.
    pub(crate) faults: Vec<Fault>,
    pub(crate) admin_interval: Duration,
    /// One message in so many is lost while the network is bad.
    pub(crate) loss: u64,
    pub(crate) message_delay: Duration,
    pub(crate) sync_delay: Duration,
    pub(crate) log_entries_max: u64,
    pub(crate) drift_ppm: i64,
    pub(crate) max_store_down: Duration,
    pub(crate) sleep_ticks: u32,
    /// Time that is left to those who keep something in memory before a region moves.
    pub(crate) hand_over_ticks: u32,
    /// Keys at which a store wants to cut a region.
    pub(crate) region_max_keys: u64,
    /// One read in so many is sent to any replica; never if zero.
    pub(crate) replica_reads: u64,
    /// Within which a shard, and an applier, takes its turn: what comes meanwhile is one turn.
    pub(crate) shard_delay: Duration,
    pub(crate) apply_delay: Duration,
    /// Regions of which a member waits for a snapshot are asked to merge, on and on.
    pub(crate) merges_meanwhile: bool,
    /// How long the files of a snapshot may take beside.
    pub(crate) snapshot_delay: Duration,
    /// Transactional clients, where the options want them.
    pub(crate) txn: Option<TxnPlan>,
}

/// How long a thread that has nothing else to do needs to notice.
const AT_ONCE: Duration = Duration::from_micros(20);

/// What a clock may be wrong by, in millionths: leases are safe up to there.
pub(crate) const DRIFT_PPM_MAX: i64 = 20_000;

/// They cost more than all other clients, so most seeds are without.
fn draws_transactions(options: &Options, prng: &mut Prng) -> bool {
    options.transactions.unwrap_or_else(|| prng.one_in(4))
}

impl Plan {
    pub(crate) fn new(options: &Options, prng: &mut Prng) -> Self {
        let pick = |prng: &mut Prng, of: &[u64]| of[prng.below(of.len() as u64) as usize];
        let ms = Duration::from_millis;
        // A run of all kinds at once hides what a few of them would show.
        let chance = if options.faults.len() > 12 { pick(prng, &[1, 2, 2, 4]) } else { 1 };
        let faults = options.faults.iter().copied().filter(|_| prng.one_in(chance)).collect();
        let drawn = Self {
            nodes: pick(prng, &[3, 3, 4, 5, 5]) as usize,
            clients: 3 + prng.below(12) as usize,
            keys: pick(prng, &[4, 8, 16, 24]),
            think: ms(pick(prng, &[15, 40, 100, 300])),
            fault_interval: ms(pick(prng, &[300, 800, 2_000, 5_000])),
            faults,
            admin_interval: ms(pick(prng, &[300, 1_000, 3_000])),
            loss: pick(prng, &[5, 10, 30, 100]),
            message_delay: Duration::from_micros(pick(prng, &[100, 300, 1_000, 5_000])),
            sync_delay: Duration::from_micros(pick(prng, &[100, 500, 2_000, 8_000])),
            log_entries_max: pick(prng, &[6, 12, 30, 100]),
            drift_ppm: pick(prng, &[0, 100, DRIFT_PPM_MAX as u64]) as i64,
            max_store_down: ms(pick(prng, &[22_000, 40_000])),
            sleep_ticks: pick(prng, &[0, 3, 20]) as u32,
            hand_over_ticks: pick(prng, &[0, 2, 10]) as u32,
            region_max_keys: pick(prng, &[12, 40, 1_000_000]),
            replica_reads: pick(prng, &[0, 3, 10]),
            shard_delay: Duration::from_micros(pick(prng, &[20, 20, 20, 4_000])),
            apply_delay: Duration::from_micros(pick(prng, &[20, 20, 4_000, 40_000])),
            merges_meanwhile: prng.one_in(2),
            snapshot_delay: ms(pick(prng, &[1, 500, 4_000, 8_000])),
            txn: draws_transactions(options, prng).then(|| TxnPlan::draw(prng)),
            options: options.clone(),
        };
        let calm = options.faults.is_empty();
        Self {
            nodes: options.nodes.unwrap_or(drawn.nodes),
            clients: options.clients.unwrap_or(drawn.clients),
            think: options.think.unwrap_or(drawn.think),
            log_entries_max: options.log_entries_max.unwrap_or(drawn.log_entries_max),
            sleep_ticks: options.sleep_ticks.unwrap_or(drawn.sleep_ticks),
            drift_ppm: if calm { 0 } else { drawn.drift_ppm },
            shard_delay: if calm { AT_ONCE } else { drawn.shard_delay },
            apply_delay: if calm { AT_ONCE } else { drawn.apply_delay },
            ..drawn
        }
    }

    pub(crate) fn shard_config(&self, seed: u64) -> ShardConfig {
        ShardConfig {
            log_entries_max: self.log_entries_max,
            report_interval: Duration::from_secs(20),
            sync_interval: Duration::from_secs(1),
            sleep_ticks: self.sleep_ticks,
            hand_over_ticks: self.hand_over_ticks,
            split: SplitConfig {
                interval: Duration::from_secs(2),
                max_keys: self.region_max_keys,
                piece_keys: self.region_max_keys / 2,
                ..SplitConfig::default()
            },
            seed,
            ..ShardConfig::default()
        }
    }
}
