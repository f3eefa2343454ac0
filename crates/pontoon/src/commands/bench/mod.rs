//! `pontoon bench`: loads a server and says how it did.
//!
//! ```text
//!   client 1 ─┐  each: choose a key, send, wait, record;      ┌─ connection 1
//!   client 2 ─┼─ the next one only when it is answered ───────┼─ connection 2 ──▶ server
//!   client n ─┘                                               └─ ...
//! ```
//!
//! A closed loop: with more clients the server sees more at once. The first failure ends the run
//! and is its result.

mod keys;
mod pace;
mod raw;
mod regions;
mod report;
mod txn;

use std::io::Write;
use std::time::Duration;

use client::{ApiVersion, TxnOptions};
pub use keys::{Chooser, Distribution, key};
pub use report::{Latencies, Report, Summary};

use super::CommandError;
use super::flags::api_version;

/// Flags of `pontoon bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// What to load the server with.
    #[command(subcommand)]
    pub interface: Interface,
}

/// Families of calls.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Interface {
    /// Raw key-value calls.
    Raw(RawArgs),
    /// Transactions.
    Txn(TxnArgs),
    /// Cuts the key space into many regions, to see what they cost.
    Regions(RegionsArgs),
}

/// Flags of `pontoon bench regions`.
#[derive(Clone, Debug, clap::Args)]
pub struct RegionsArgs {
    /// How many regions to make, beside those that there are.
    #[arg(value_name = "COUNT", value_parser = at_least_one)]
    pub count: usize,
    /// Address of the server (of its placement driver).
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    pub addr: String,
}

/// What each client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Writes one key at a time.
    Put,
    /// Reads one key at a time.
    Get,
    /// Reads rows from a key on.
    Scan,
    /// Reads or writes one key, by --read-fraction.
    Mixed,
    /// Writes all keys once, in order and in batches.
    Load,
}

impl Workload {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Scan => "scan",
            Workload::Mixed => "mixed",
            Workload::Load => "load",
        }
    }
}

/// Flags of `pontoon bench raw` and `pontoon bench txn`.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Address of the server (of its placement driver).
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    pub addr: String,
    /// Version of the API that the server was started with.
    #[arg(long, value_name = "VERSION", default_value = "1", value_parser = api_version)]
    pub api_version: ApiVersion,
    /// Clients, each with one operation under way.
    #[arg(long, visible_alias = "threads", default_value_t = 64, value_parser = at_least_one)]
    pub clients: usize,
    /// Connections that the clients share.
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub connections: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    pub value_size: usize,
    /// Keys, or accounts, to choose from.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// How keys are chosen.
    #[arg(long, value_name = "NAME", default_value = "uniform")]
    pub distribution: Distribution,
    /// How long to go on (10s, 500ms, 2m); `load` ends with its keys.
    #[arg(long, default_value = "10s", value_parser = duration, conflicts_with = "ops")]
    pub duration: Duration,
    /// How many operations to do, in place of a duration.
    #[arg(long)]
    pub ops: Option<u64>,
    /// Seed of the choice of keys: the same seed chooses the same keys.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `pontoon bench raw`.
#[derive(Clone, Debug, clap::Args)]
pub struct RawArgs {
    /// What each client does.
    #[arg(value_name = "WORKLOAD")]
    pub workload: Workload,
    /// What it has in common with others.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Part of reads in the workload `mixed`.
    #[arg(long, default_value_t = 0.5, value_parser = fraction)]
    pub read_fraction: f64,
    /// Rows of a scan.
    #[arg(long, default_value_t = 100)]
    pub scan_length: u32,
    /// Rows of a batch in the workload `load`.
    #[arg(long, default_value_t = 250, value_parser = at_least_one)]
    pub batch: usize,
}

/// What each client does in its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TxnWorkload {
    /// Reads keys as of one moment.
    ReadOnly,
    /// Reads keys and writes them.
    Update,
    /// Moves money between two accounts; at the end all of it must be there.
    Transfer,
    /// Writes all keys once, in order and in batches.
    Load,
}

impl TxnWorkload {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TxnWorkload::ReadOnly => "read-only",
            TxnWorkload::Update => "update",
            TxnWorkload::Transfer => "transfer",
            TxnWorkload::Load => "load",
        }
    }
}

/// Flags of `pontoon bench txn`.
#[derive(Clone, Debug, clap::Args)]
pub struct TxnArgs {
    /// What each client does.
    #[arg(value_name = "WORKLOAD")]
    pub workload: TxnWorkload,
    /// What it has in common with others.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Keys of a transaction in the workloads `read-only` and `update`.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub keys_per_txn: usize,
    /// Keys are locked when they are read, instead of by the commit.
    #[arg(long)]
    pub pessimistic: bool,
    /// Commit in two phases, always.
    #[arg(long)]
    pub two_phases: bool,
    /// Keys of a transaction in the workload `load`.
    #[arg(long, default_value_t = 250, value_parser = at_least_one)]
    pub batch: usize,
}

impl TxnArgs {
    /// How its transactions behave.
    fn options(&self) -> TxnOptions {
        let options = match self.pessimistic {
            true => TxnOptions::pessimistic(),
            false => TxnOptions::optimistic(),
        };
        if self.two_phases { options.two_phases() } else { options }
    }
}

/// Runs a bench to its end and prints its report.
pub fn run(args: &BenchArgs) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::new(format!("cannot start threads: {e}")))?;
    let text = match &args.interface {
        Interface::Raw(args) => {
            text(&runtime.block_on(Box::pin(raw::run(args)))?, args.common.json)
        }
        Interface::Txn(args) => {
            text(&runtime.block_on(Box::pin(txn::run(args)))?, args.common.json)
        }
        Interface::Regions(args) => {
            let made = runtime.block_on(regions::cut(&args.addr, args.count))?;
            format!("{made} regions more")
        }
    };
    writeln!(std::io::stdout(), "{text}")
        .map_err(|e| CommandError::new(format!("cannot write the report: {e}")))
}

fn text(report: &Report, json: bool) -> String {
    match json {
        true => serde_json::to_string(report).expect("a report is plain numbers and text"),
        false => report.to_string(),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a number".to_owned()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    let fraction: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.0..=1.0).contains(&fraction) {
        true => Ok(fraction),
        false => Err("it lies between 0 and 1".to_owned()),
    }
}

/// A duration with its unit: `10s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number with a unit, such as 10s".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number
            .checked_mul(60)
            .map(Duration::from_secs)
            .ok_or_else(|| "that is too long".to_owned()),
        _ => Err("the units are ms, s and m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("10").is_err() && duration("s").is_err() && duration("1h").is_err());
        assert!(duration("18446744073709551615m").is_err());
        assert_eq!(fraction("0.25"), Ok(0.25));
        assert!(fraction("1.5").is_err() && fraction("NaN").is_err());
        assert!(at_least_one("0").is_err() && at_least_one("3") == Ok(3));
    }
}
