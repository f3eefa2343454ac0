//! A node, assembled: the page of start-up.
//!
//! ```text
//!   listen ─ folder ─ engine ─ log ─ identity ─ recover ─ threads
//!          ─ placement ─ first region ─ announce ─ serve
//! ```
//!
//! Everything that can refuse (a port in use, a folder of another program, a lost entry) refuses
//! before anything runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, Prng, StoreId};
use placement::DEFAULT_KEYSPACE_ID;
use proto::{metapb, pdpb};
use storage::disk::RealDisk;
use storage::engine::{Engine, EngineError, RocksEngine, RocksOptions};
use storage::log::{LogBatch, LogError, LogOptions, RaftLog};
use store::bootstrap::BootstrapError;
use store::{
    LogWriter, RecoverError, Recovered, RegionViews, Report, Shard, ShardConfig, ShardInput,
    StoreIdent,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use txn::ApiVersion;

use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::data_folder::{DataFolder, FolderError};
use crate::disk_watch::DiskWatch;
use crate::founding::{self, Founding};
use crate::keyspace_borders::split_at_borders;
use crate::listener::{self, Services};
use crate::metrics::Metrics;
use crate::placement_host::{HostError, PlacementHost};
use crate::reporter::Reporter;
use crate::runtime::{OnFatal, Parts, Threads};
use crate::store_handle::StoreHandle;

/// The line of TiKV that this node is compatible with: what clients that look at a store's version
/// go by.
pub const COMPATIBLE_VERSION: &str = "8.5.0";

/// Calls in progress have so long to end when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// Why a node does not start. Data is untouched.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port is in use, or not ours to take.
    #[error("listen address {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The engine cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The raft log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store's first records cannot be written or read.
    #[error(transparent)]
    Identity(#[from] BootstrapError),
    /// The folder's data is of another API version.
    #[error("the data folder holds data of API version {found}, but {asked} is asked for")]
    ApiVersion {
        /// What it holds.
        found: &'static str,
        /// What the configuration says.
        asked: &'static str,
    },
    /// The folder's data is of an API version that this program does not know.
    #[error("the data folder holds data of the unknown API version {0}")]
    UnknownApiVersion(i32),
    /// Engine and log do not go together.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The operating system gives no threads.
    #[error("threads: {0}")]
    Threads(std::io::Error),
    /// Placement did not answer in time.
    #[error("the first region could not be bootstrapped: {0}")]
    Bootstrap(String),
    /// Placement refuses this store.
    #[error(transparent)]
    Placement(#[from] HostError),
    /// The store stopped while the node was starting.
    #[error("the store stopped")]
    Stopped,
}

/// A running node. Stop it with [`Node::stop`]; dropping it leaves the threads to the end of the
/// process.
pub struct Node {
    address: SocketAddr,
    store: StoreHandle,
    threads: Threads,
    tasks: JoinSet<()>,
    closing: watch::Sender<bool>,
    fatal: watch::Receiver<Option<String>>,
    /// Locked until the node is gone.
    _folder: DataFolder,
}

impl Node {
    /// Opens the folder and serves. Returns when every region led here can be written to.
    pub async fn open(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let clock = Clock::start();
        let listener = listener::bind(config.listen).await?;
        let address = listener.local_addr().map_err(|cause| listen_error(config.listen, cause))?;
        let folder = DataFolder::open(&config.data_dir)?;
        let Opened { engine, log, ident, recovered } = open_store(&config, &folder, &clock)?;

        let metrics = Arc::new(Metrics::default());
        let views = Arc::new(RegionViews::new(ident.store_id));
        let (fatal_sender, fatal) = watch::channel(None);
        let on_fatal: OnFatal = Arc::new(move |text| stop_on(&fatal_sender, text));
        let (report_sender, reports) = mpsc::unbounded_channel();
        let shard = Shard::new(shard_config(&config, &clock), log.reader(), views.clone());
        let threads = Threads::start(Parts {
            shard,
            log_writer: LogWriter::new(log),
            engine: engine.clone(),
            clock,
            metrics: metrics.clone(),
            on_report: Box::new(move |report: Report| drop(report_sender.send(report))),
            on_fatal: on_fatal.clone(),
        })
        .map_err(StartError::Threads)?;

        let mailbox = threads.mailbox().clone();
        let store = StoreHandle::new(
            ident.cluster_id,
            config.storage.api_version.version(),
            engine,
            views,
            mailbox.clone(),
            clock,
            metrics,
        );
        let host = PlacementHost::new(store.clone());
        let advertise = config.advertise.clone().unwrap_or_else(|| address.to_string());
        let record = store_record(ident.store_id, &advertise, &folder, clock.unix_seconds());
        let least = 2 * (u64::from(config.storage.write_buffer_mib) << 20);
        let reserve = u64::from(config.storage.reserve_mib) << 20;
        let disk_watch = DiskWatch::new(folder.path().to_owned(), reserve, least);

        let (closing, closed) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let reporter = Reporter::new(host.clone(), record.clone(), disk_watch.clone());
        tasks.spawn(reporter.run(reports, move |text| on_fatal(text)));
        tasks.spawn(disk_watch.run(mailbox.clone()));
        let mut node = Self { address, store, threads, tasks, closing, fatal, _folder: folder };
        if let Err(error) = node.begin(&host, &mailbox, record, &recovered).await {
            node.stop().await;
            return Err(error);
        }
        let services = Services::new(node.store.clone(), host, advertise, &config, closed);
        node.tasks.spawn(listener::serve(listener, services));
        Ok(node)
    }

    /// From the replicas' first turn to the last one's leadership.
    async fn begin(
        &mut self,
        host: &PlacementHost,
        mailbox: &crate::runtime::Mailbox,
        record: metapb::Store,
        recovered: &Recovered,
    ) -> Result<(), StartError> {
        for birth in recovered.births.clone() {
            mailbox.tell(ShardInput::Create(birth)).map_err(|_| StartError::Stopped)?;
        }
        let start = async {
            host.wait_until_leading().await;
            let founded = Founding { host, mailbox, store: record.clone() }.run(recovered).await?;
            announce(host, record).await?;
            let births = recovered.births.iter().map(|birth| birth.region.id);
            let ours: Vec<_> = births.filter(|id| !id.is_system()).chain(founded).collect();
            host.wait_until_served(&ours).await;
            if self.store.api_version() == ApiVersion::V2 {
                let new = split_at_borders(host, DEFAULT_KEYSPACE_ID).await?;
                host.wait_until_served(&new).await;
            }
            Ok(())
        };
        let mut fatal = self.fatal.clone();
        tokio::select! {
            result = start => result,
            _ = fatal.wait_for(Option::is_some) => Err(StartError::Stopped),
        }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its store.
    pub fn store_id(&self) -> StoreId {
        self.store.store_id()
    }

    /// Its cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.store.cluster_id()
    }

    /// Waits until the store fails, and says why: the node cannot go on and should be stopped.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.clone();
        match fatal.wait_for(Option::is_some).await {
            Ok(text) => text.clone().expect("waited for"),
            Err(_) => "the store stopped".to_owned(),
        }
    }

    /// Takes no more calls, gives those in progress a moment, writes and applies what was taken,
    /// syncs.
    pub async fn stop(mut self) {
        self.closing.send_replace(true);
        let drain = async {
            while self.closing.receiver_count() > 0 {
                self.closing.closed().await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
            tracing::info!("calls still in progress are cut off");
        }
        self.tasks.shutdown().await;
        let (threads, engine) = (self.threads, self.store.engine().clone());
        let ended = tokio::task::spawn_blocking(move || {
            threads.stop();
            engine.sync()
        });
        match ended.await {
            Ok(Ok(())) => tracing::info!("stopped"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the last sync failed; the raft log has it all")
            }
            Err(error) => tracing::error!(%error, "the store did not stop in order"),
        }
    }
}

/// What lies on the disk, opened, checked and brought together.
struct Opened {
    engine: Arc<dyn Engine>,
    log: RaftLog,
    ident: StoreIdent,
    recovered: Recovered,
}

fn open_store(config: &Config, folder: &DataFolder, clock: &Clock) -> Result<Opened, StartError> {
    let engine: Arc<dyn Engine> = Arc::new(RocksEngine::open(&folder.engine(), &rocks(config))?);
    let disk = Arc::new(RealDisk::new());
    let log_options = LogOptions { salt: random(clock), ..LogOptions::default() };
    let mut log = RaftLog::open(disk, &folder.log(), log_options)?;
    let api_version = config.storage.api_version.version();
    let ident = founding::identity(&*engine, api_version, || new_cluster_id(clock))?;
    founding::system_region(&*engine, &mut log, &ident)?;
    let recovered = store::recover(&*engine, &log.reader(), ident.store_id)?;
    repair_log(&mut log, &recovered.log_repairs)?;
    Ok(Opened { engine, log, ident, recovered })
}

/// The first failure counts.
fn stop_on(fatal: &watch::Sender<Option<String>>, text: String) {
    tracing::error!("{text}");
    fatal.send_if_modified(|first| {
        let new = first.is_none();
        first.get_or_insert(text);
        new
    });
}

fn listen_error(address: SocketAddr, cause: std::io::Error) -> StartError {
    StartError::Listen { address, cause }
}

/// A cluster is known by a number that no other has: drawn once, from everything at hand that
/// differs.
fn new_cluster_id(clock: &Clock) -> ClusterId {
    // Clients of some languages read it as a signed number; some take zero for "none".
    ClusterId((random(clock) >> 1).max(1))
}

/// A number that nobody can foresee.
fn random(clock: &Clock) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    Prng::new(RandomState::new().hash_one(clock.wall_ms())).next_u64()
}

fn rocks(config: &Config) -> RocksOptions {
    let storage = &config.storage;
    RocksOptions {
        block_cache_bytes: (storage.block_cache_mib as usize) << 20,
        write_buffer_bytes: (storage.write_buffer_mib as usize) << 20,
        background_jobs: storage.background_jobs as usize,
        ..RocksOptions::default()
    }
}

fn shard_config(config: &Config, clock: &Clock) -> ShardConfig {
    let raft = &config.raft;
    ShardConfig {
        tick: Duration::from_millis(u64::from(raft.tick_ms)),
        election_ticks: raft.election_ticks,
        heartbeat_ticks: raft.heartbeat_ticks,
        log_entries_max: raft.log_entries_max,
        log_bytes_max: raft.log_mib_max << 20,
        seed: clock.wall_ms(),
        ..ShardConfig::default()
    }
}

fn repair_log(log: &mut RaftLog, log_repairs: &LogBatch) -> Result<(), StartError> {
    if log_repairs.is_empty() {
        return Ok(());
    }
    log.write(log_repairs)?;
    log.sync()?;
    Ok(())
}

fn store_record(
    id: StoreId,
    advertise: &str,
    folder: &DataFolder,
    unix_seconds: u64,
) -> metapb::Store {
    metapb::Store {
        id: id.0,
        address: advertise.to_owned(),
        status_address: advertise.to_owned(),
        peer_address: advertise.to_owned(),
        version: COMPATIBLE_VERSION.to_owned(),
        git_hash: env!("CARGO_PKG_VERSION").to_owned(),
        start_timestamp: i64::try_from(unix_seconds).unwrap_or(i64::MAX),
        deploy_path: folder.path().display().to_string(),
        node_state: metapb::NodeState::Serving.into(),
        ..Default::default()
    }
}

/// Tells placement where this store is now.
async fn announce(host: &PlacementHost, record: metapb::Store) -> Result<(), StartError> {
    let cluster_id = host.cluster_id().0;
    let header = Some(pdpb::RequestHeader { cluster_id, ..Default::default() });
    let request = pdpb::PutStoreRequest { header, store: Some(record) };
    host.write(|placement| placement.put_store(&request)).await?;
    Ok(())
}
