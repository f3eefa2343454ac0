//! `pontoon ctl`: looks at a cluster and changes it by hand.
//!
//! ```text
//!   any node's address ──▶ Cluster: the members, the placement driver's leader, the stores
//!        │                     ├─ /pd/api/v1/...  of the leader: stores, regions, operators
//!        │                     └─ /region/ID      of each store with a copy
//!   show: what there is     change: an operator, then wait what comes of it     check: compare
//! ```
//!
//! Every command ends within its time (`--timeout`), and says what it waited for. What it prints is
//! for people; `--json` prints what the servers said.

mod change;
mod check;
mod cluster;
mod show;

use std::time::Duration;

use clap::Subcommand;

use super::CommandError;
use cluster::Cluster;

/// Flags of `pontoon ctl`.
#[derive(Clone, Debug, clap::Args)]
pub struct CtlArgs {
    /// Address of any node of the cluster; several, separated by commas, if some may be down.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub addr: Vec<String>,
    /// Seconds after which to give up.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Print JSON in the place of tables.
    #[arg(long)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What `pontoon ctl` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Show all stores.
    Stores,
    /// Show all regions.
    Regions {
        /// Only those with a copy on this store.
        #[arg(long, value_name = "ID")]
        store: Option<u64>,
    },
    /// Show one region as each of its copies sees it.
    Region {
        /// The region; `system` is that of the placement driver.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
    },
    /// Show what is being done to regions.
    Operators,
    /// Take back what was asked for a region.
    Cancel {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
    },
    /// Add a voting copy on a store.
    AddPeer {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
        /// The store.
        #[arg(value_name = "STORE")]
        store: u64,
    },
    /// Remove the copy on a store.
    RemovePeer {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
        /// The store.
        #[arg(value_name = "STORE")]
        store: u64,
    },
    /// Let the copy on a store lead.
    TransferLeader {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
        /// The store.
        #[arg(value_name = "STORE")]
        store: u64,
    },
    /// Put the copies on these stores and no others.
    TransferRegion {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
        /// The stores.
        #[arg(value_name = "STORE", required = true)]
        stores: Vec<u64>,
    },
    /// Cut a region in two.
    Split {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
        /// Where the second one begins, as `ctl regions` writes keys.
        #[arg(value_name = "KEY", allow_hyphen_values = true)]
        key: String,
        /// The key is given as hex digits.
        #[arg(long)]
        hex: bool,
    },
    /// Make a region a part of its neighbour.
    Merge {
        /// The region that vanishes.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
        /// The neighbour that stays.
        #[arg(value_name = "INTO", value_parser = region_id)]
        into: u64,
    },
    /// Let the log of a region forget what all living copies have.
    Compact {
        /// The region.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: u64,
    },
    /// Compare the copies of a region, or of all: a copy that differs stops its node.
    Check {
        /// The region; all if none is given.
        #[arg(value_name = "REGION", value_parser = region_id)]
        region: Option<u64>,
    },
    /// Empty a store and strike it off.
    RemoveStore {
        /// The store.
        #[arg(value_name = "STORE")]
        store: u64,
        /// Its disk is gone: its address is free at once.
        #[arg(long)]
        destroyed: bool,
    },
    /// Keep a store that is being removed.
    KeepStore {
        /// The store.
        #[arg(value_name = "STORE")]
        store: u64,
    },
    /// Pause a checker (replica, learner, joint-state, merge) so that nothing moves by itself.
    Pause {
        /// The checker.
        #[arg(value_name = "CHECKER")]
        checker: String,
        /// For how long; 0 resumes it.
        #[arg(value_name = "SECONDS")]
        seconds: u64,
    },
}

fn region_id(text: &str) -> Result<u64, String> {
    if text == "system" {
        return Ok(base::RegionId::SYSTEM.0);
    }
    text.parse().map_err(|_| format!("{text:?} is no region: a number is one, or system"))
}

/// Runs one command to its end.
pub fn run(args: &CtlArgs) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(format!("cannot start: {error}")))?;
    runtime.block_on(execute(args))
}

async fn execute(args: &CtlArgs) -> Result<(), CommandError> {
    let mut cluster = Cluster::find(&args.addr, Duration::from_secs(args.timeout)).await?;
    let json = args.json;
    let cluster = &mut cluster;
    match &args.command {
        CtlCommand::Stores => show::stores(cluster, json).await,
        CtlCommand::Regions { store } => show::regions(cluster, *store, json).await,
        CtlCommand::Region { region } => show::region(cluster, *region, json).await,
        CtlCommand::Operators => show::operators(cluster, json).await,
        CtlCommand::Cancel { region } => change::cancel(cluster, *region).await,
        CtlCommand::AddPeer { region, store } => change::add_peer(cluster, *region, *store).await,
        CtlCommand::RemovePeer { region, store } => {
            change::remove_peer(cluster, *region, *store).await
        }
        CtlCommand::TransferLeader { region, store } => {
            change::transfer_leader(cluster, *region, *store).await
        }
        CtlCommand::TransferRegion { region, stores } => {
            change::transfer_region(cluster, *region, stores).await
        }
        CtlCommand::Split { region, key, hex } => change::split(cluster, *region, key, *hex).await,
        CtlCommand::Merge { region, into } => change::merge(cluster, *region, *into).await,
        CtlCommand::Compact { region } => change::compact(cluster, *region).await,
        CtlCommand::Check { region } => check::run(cluster, *region, json).await,
        CtlCommand::RemoveStore { store, destroyed } => {
            change::remove_store(cluster, *store, *destroyed).await
        }
        CtlCommand::KeepStore { store } => change::keep_store(cluster, *store).await,
        CtlCommand::Pause { checker, seconds } => change::pause(cluster, checker, *seconds).await,
    }
}
