//! A node, assembled: the page of start-up.
//!
//! ```text
//!   listen ─ folder ─ engine ─ log ─ identity: found, or join ─ recover ─ threads, transport
//!          ─ serve ─ placement ─ first region ─ announce ─ heartbeats ─ ready
//! ```
//!
//! Everything that can refuse (a port in use, a folder of another program, a lost entry, another
//! cluster) refuses before anything runs. The port is served before the node is ready: its groups
//! need the other stores to elect their leaders. Clients that come early are told who leads, or
//! that nobody does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, RegionId, StoreId};
use placement::{API_VERSION_LABEL, DEFAULT_KEYSPACE_ID, Settings};
use proto::{metapb, pdpb};
use storage::engine::Engine;
use store::{
    Birth, LocalState, LogWriter, Recovered, RegionViews, Report, Shard, ShardConfig, ShardInput,
    StoreIdent,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use txn::ApiVersion;

use crate::clock::Clock;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::disk_watch::DiskWatch;
use crate::founding::Founding;
use crate::keyspace_borders::split_at_borders;
use crate::listener::{self, Services};
use crate::metrics::Metrics;
use crate::placement_host::PlacementHost;
use crate::placement_link::{
    AddressBook, KnownMembers, LinkError, LocalMembers, PlacementLink, Remote, members_in,
};
use crate::reporter::Reporter;
use crate::runtime::{OnFatal, Parts, Peers, Threads};
use crate::store_handle::{StoreHandle, StoreParts};

mod disk;
mod start_error;

use disk::{Disk, Opened};
pub use start_error::StartError;

/// The line of TiKV that this node is compatible with: what clients that look at a store's version
/// go by.
pub const COMPATIBLE_VERSION: &str = "8.5.0";

/// Calls in progress have so long to end when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// A node that starts waits so long for leaders that are elected with other nodes, and is ready
/// then even so: these nodes may be down.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a node that starts looks at its regions.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// One try to ask placement for a region.
const ASK_BUDGET: Duration = Duration::from_secs(1);

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
    /// Opens the folder and serves. Returns when the cluster knows the store, every region that
    /// lies here alone can be written to, and every other one has a leader (or is not likely to
    /// get one soon).
    pub async fn open(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let clock = Clock::start();
        let listener = listener::bind(config.listen).await?;
        let (address, advertise) = addresses(&config, &listener)?;
        let folder = DataFolder::open(&config.data_dir)?;
        let disk = Disk::open(&config, &folder, &clock)?;
        let (ident, joins) = disk.identity(&config, &clock, address, &advertise).await?;
        let Opened { engine, log, recovered, snapshots } = disk.recover(&folder, &ident)?;

        let metrics = Arc::new(Metrics::default());
        let views = Arc::new(RegionViews::new(ident.store_id));
        let known = KnownMembers::open(folder.members(), &config.join);
        let remote = remote(&ident, &engine, &views, &known, &advertise);
        let (on_fatal, fatal) = fatal_channel();
        let (report_sender, reports) = mpsc::unbounded_channel();
        let threads = Threads::start(Parts {
            shard: Shard::new(shard_config(&config, &clock), log.reader(), views.clone()),
            log_writer: LogWriter::new(log),
            engine: engine.clone(),
            snapshots: snapshots.clone(),
            peers: peers(&ident, &engine, &views, &remote),
            clock,
            metrics: metrics.clone(),
            on_report: Box::new(move |report: Report| drop(report_sender.send(report))),
            on_fatal: on_fatal.clone(),
        })
        .map_err(StartError::Threads)?;

        let api_version = config.storage.api_version.version();
        let members = LocalMembers::new(&engine, &views, &remote, &advertise);
        let store = StoreHandle::new(StoreParts {
            cluster_id: ident.cluster_id,
            api_version,
            engine,
            views,
            mailbox: threads.mailbox().clone(),
            snapshots,
            clock,
            metrics,
        });
        let host = PlacementHost::new(store.clone(), settings(&config));
        let link = PlacementLink::new(host.clone(), remote);
        let record = store_record(&ident, &advertise, api_version, &folder, clock.unix_seconds());
        let disk_watch = disk_watch(&config, &folder);
        let (closing, closed) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let reporter = Reporter::new(&link, &members, known, &record, &disk_watch);
        let accepted = reporter.start(&mut tasks, reports, move |text| on_fatal(text));
        tasks.spawn(host.clone().schedule());
        tasks.spawn(disk_watch.run(threads.mailbox().clone()));
        let services = Services::new(store.clone(), host, members, &config, closed);
        let mut node = Self { address, store, threads, tasks, closing, fatal, _folder: folder };
        let start = Start { link, record, joins, accepted, timeout: join_timeout(&config) };
        if let Err(error) = node.begin(start, listener, services, &recovered).await {
            node.stop().await;
            return Err(error);
        }
        Ok(node)
    }

    /// From the replicas' first turn on until the node is ready.
    async fn begin(
        &mut self,
        start: Start,
        listener: tokio::net::TcpListener,
        services: Services,
        recovered: &Recovered,
    ) -> Result<(), StartError> {
        for birth in recovered.births.clone() {
            let told = self.threads.mailbox().tell(ShardInput::Create(birth));
            told.map_err(|_| StartError::Stopped)?;
        }
        self.tasks.spawn(listener::serve(listener, services));
        let mut fatal = self.fatal.clone();
        tokio::select! {
            result = start.run(&self.threads, recovered) => result,
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

fn store_record(
    ident: &StoreIdent,
    advertise: &str,
    api_version: ApiVersion,
    folder: &DataFolder,
    unix_seconds: u64,
) -> metapb::Store {
    let label = metapb::StoreLabel {
        key: API_VERSION_LABEL.to_owned(),
        value: api_version.name().to_owned(),
    };
    metapb::Store {
        id: ident.store_id.0,
        address: advertise.to_owned(),
        status_address: advertise.to_owned(),
        peer_address: advertise.to_owned(),
        version: COMPATIBLE_VERSION.to_owned(),
        git_hash: env!("CARGO_PKG_VERSION").to_owned(),
        start_timestamp: i64::try_from(unix_seconds).unwrap_or(i64::MAX),
        deploy_path: folder.path().display().to_string(),
        node_state: metapb::NodeState::Serving.into(),
        labels: vec![label],
        ..Default::default()
    }
}

/// Where the node listens, and where it is reached.
fn addresses(
    config: &Config,
    listener: &tokio::net::TcpListener,
) -> Result<(SocketAddr, String), StartError> {
    let address = listener.local_addr().map_err(|cause| listen_error(config.listen, cause))?;
    let advertise = config.advertise.clone().unwrap_or_else(|| address.to_string());
    Ok((address, advertise))
}

fn fatal_channel() -> (OnFatal, watch::Receiver<Option<String>>) {
    let (sender, fatal) = watch::channel(None);
    (Arc::new(move |text| stop_on(&sender, text)), fatal)
}

fn peers(
    ident: &StoreIdent,
    engine: &Arc<dyn Engine>,
    views: &Arc<RegionViews>,
    remote: &Remote,
) -> Peers {
    let addresses = AddressBook::new(engine.clone(), views.clone(), remote.clone());
    let resolver = addresses.resolver();
    Peers { cluster_id: ident.cluster_id, store_id: ident.store_id, resolver }
}

/// The way to the placement driver elsewhere.
fn remote(
    ident: &StoreIdent,
    engine: &Arc<dyn Engine>,
    views: &Arc<RegionViews>,
    known: &KnownMembers,
    advertise: &str,
) -> Remote {
    let (engine, views, known) = (engine.clone(), views.clone(), known.clone());
    let advertise = advertise.to_owned();
    let addresses = move || {
        let mut addresses = members_in(&*engine, &views);
        addresses.extend(known.addresses());
        let mut seen = std::collections::BTreeSet::from([advertise.clone()]);
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    };
    Remote::new(ident.cluster_id, Box::new(addresses))
}

fn settings(config: &Config) -> Settings {
    Settings { max_store_down: Duration::from_secs(config.placement.max_store_down_s.into()) }
}

fn join_timeout(config: &Config) -> Duration {
    Duration::from_secs(config.join_timeout_s.into())
}

fn disk_watch(config: &Config, folder: &DataFolder) -> DiskWatch {
    let least = 2 * (u64::from(config.storage.write_buffer_mib) << 20);
    let reserve = u64::from(config.storage.reserve_mib) << 20;
    DiskWatch::new(folder.path().to_owned(), reserve, least)
}

/// What is left to do once everything runs.
struct Start {
    link: PlacementLink,
    record: metapb::Store,
    /// The store has just joined.
    joins: bool,
    /// Whether the placement driver took a heartbeat of the store.
    accepted: watch::Receiver<bool>,
    timeout: Duration,
}

impl Start {
    async fn run(mut self, threads: &Threads, recovered: &Recovered) -> Result<(), StartError> {
        let live =
            |birth: &&Birth| birth.local != LocalState::Tombstone && !birth.region.id.is_system();
        let births = recovered.births.iter().filter(live);
        let (mut sole, shared): (Vec<_>, Vec<_>) =
            births.partition(|birth| birth.region.peers.len() == 1);
        sole.retain(|birth| birth.region.peer_on(self.store_id()).is_some());
        let mut sole: Vec<RegionId> = sole.iter().map(|birth| birth.region.id).collect();
        if self.may_found(recovered) {
            let (link, store) = (&self.link, self.record.clone());
            let founding = Founding { link, mailbox: threads.mailbox(), store };
            let founded = founding.run(recovered).await?;
            sole.extend(founded.filter(|id| !sole.contains(id)));
        }
        self.announce().await?;
        let taken = self.accepted.wait_for(|accepted| *accepted).await;
        taken.map_err(|_| StartError::Stopped)?;
        self.wait_until_served(&sole).await;
        let shared: Vec<_> = shared.iter().map(|birth| birth.region.id).collect();
        self.wait_for_leaders(&shared).await;
        if self.link.host().store().api_version() == ApiVersion::V2 {
            match split_at_borders(&self.link, DEFAULT_KEYSPACE_ID).await {
                Ok(new) => self.wait_until_served(&new).await,
                // Another node leads by now, and sees to it when it starts.
                Err(LinkError::Region(error)) => tracing::warn!(%error, "borders not cut"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A cluster has its first region before it has a second store.
    fn may_found(&self, recovered: &Recovered) -> bool {
        let mut system = recovered.births.iter().filter(|birth| birth.region.id.is_system());
        let alone = system.any(|birth| birth.region.peers.len() == 1);
        self.store_id() == StoreId::FOUNDER && (alone || recovered.prepared.is_some())
    }

    /// Tells placement where this store is now.
    async fn announce(&self) -> Result<(), StartError> {
        let (header, store) = (self.link.header(), Some(self.record.clone()));
        let request = pdpb::PutStoreRequest { header, store };
        let announced = if self.joins {
            self.link.put_store(&request, self.timeout).await
        } else {
            self.link.patiently(|budget| self.link.put_store(&request, budget)).await
        };
        Ok(announced?)
    }

    /// Waits until each of `regions` is led here, serves, and is known to the placement driver, so
    /// that clients find all of them; or until somebody else leads it.
    async fn wait_until_served(&self, regions: &[RegionId]) {
        let mut reports = self.link.host().reports();
        for &id in regions {
            while !self.is_served(id).await {
                let _ = tokio::time::timeout(LOOK_INTERVAL, reports.changed()).await;
            }
        }
    }

    async fn is_served(&self, id: RegionId) -> bool {
        let Some(view) = self.link.host().store().views().get(id) else { return false };
        if view.leader.is_some() && !view.is_leader() {
            return true;
        }
        if !view.serves_reads {
            return false;
        }
        let known = self.link.region(id, ASK_BUDGET).await;
        let leader = known.ok().and_then(|region| region.leader);
        leader.is_some_and(|leader| leader.store_id == self.record.id)
    }

    async fn wait_for_leaders(&self, regions: &[RegionId]) {
        let views = self.link.host().store().views();
        let led = |id: &RegionId| views.get(*id).is_some_and(|view| view.leader.is_some());
        let all = async {
            while !regions.iter().all(led) {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        if tokio::time::timeout(LEADERS_TIMEOUT, all).await.is_err() {
            let without = regions.iter().filter(|id| !led(id)).count();
            tracing::warn!(regions = without, "ready, but for regions without a leader");
        }
    }

    fn store_id(&self) -> StoreId {
        StoreId(self.record.id)
    }
}
