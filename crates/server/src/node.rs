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

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, RegionId, StoreId};
use placement::{API_VERSION_LABEL, DEFAULT_KEYSPACE_ID};
use proto::{metapb, pdpb};
use store::{Birth, LocalState, Recovered, RegionView, ShardInput};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use txn::ApiVersion;

use crate::clock::Clock;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::disk_watch::DiskWatch;
use crate::founding::Founding;
use crate::gc::{Poll, SweeperThread};
use crate::keyspace_borders::split_at_borders;
use crate::listener::{self, Services};
use crate::placement_host::EtcdDesk;
use crate::placement_link::{KnownMembers, LinkError, PlacementLink};
use crate::reporter::Reporter;
use crate::runtime::Threads;
use crate::safe_ts::SafeTs;
use crate::services::Calls;
use crate::services::txn::TxnService;
use crate::store_handle::StoreHandle;

mod core;
mod disk;
mod start_error;

use self::core::Core;
use self::disk::Disk;
pub use self::start_error::StartError;

/// The line of TiKV that this node is compatible with: what clients that look at a store's version
/// go by.
pub const COMPATIBLE_VERSION: &str = "8.5.0";

/// Calls in progress have so long to end when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// A node that starts waits so long for leaders that are elected with other nodes, and is ready
/// then even so: these nodes may be down.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that stops waits so long for others to lead what it led, ...
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// ... and not longer than this for the next of them: the others may be down.
const HAND_OVER_STALL: Duration = Duration::from_millis(1_200);

/// How often a node that starts or stops looks at its regions.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A region in which nothing happened for so many ticks goes to sleep.
const SLEEP_TICKS: u32 = 20;

/// One try to ask placement for a region.
const ASK_BUDGET: Duration = Duration::from_secs(1);

/// A running node. Stop it with [`Node::stop`]; dropping it leaves the threads to the end of the
/// process.
pub struct Node {
    address: SocketAddr,
    calls: Calls,
    store: StoreHandle,
    threads: Threads,
    sweeper: SweeperThread,
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
        let listener = listener::bind(config.listen).await?;
        let folder = DataFolder::open(&config.data_dir)?;
        Box::pin(Self::assemble(config, Some(listener), folder)).await
    }

    /// The same without a port: only this process can call it, by its [`Calls`]. It is alone in
    /// its cluster. With `in_memory` nothing is written to a disk, and the folder of the
    /// configuration is not looked at.
    pub async fn embed(config: Config, in_memory: bool) -> Result<Self, StartError> {
        config.check()?;
        let folder = match in_memory {
            true => DataFolder::in_memory(),
            false => DataFolder::open(&config.data_dir)?,
        };
        Box::pin(Self::assemble(config, None, folder)).await
    }

    async fn assemble(
        config: Config,
        listener: Option<TcpListener>,
        folder: DataFolder,
    ) -> Result<Self, StartError> {
        let clock = Clock::start();
        let (address, advertise) = addresses(&config, listener.as_ref())?;
        let disk = Disk::open(&config, &folder, &clock)?;
        let (ident, joins) = disk.identity(&config, &clock, address, &advertise).await?;
        let opened =
            (disk.recover(&folder, &ident)?, KnownMembers::open(folder.members(), &config.join));
        let core = Core::start(&config, clock, &ident, opened, &advertise)?;

        let Core { store, threads, sweeper, link, members, known, .. } = core;
        let record = store_record(&store, &advertise, &folder, clock.unix_seconds());
        let disk_watch = disk_watch(&config, &folder);
        let (closing, closed) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let reporter = Reporter::new(&link, &members, known, &record, &disk_watch);
        let on_fatal = core.on_fatal.clone();
        let accepted = reporter.start(&mut tasks, core.reports, move |text| on_fatal(text));
        tasks.spawn(link.host().clone().schedule());
        let txn = TxnService::new(store.clone(), link.clone(), core.resolver.clone());
        txn.start(&mut tasks, core.leading);
        let etcd = EtcdDesk::open(link.host().clone(), &mut tasks);
        let interval = config.raft.safe_ts_interval.0;
        tasks.spawn(SafeTs::new(link.clone(), txn.clone(), core.resolver, interval).run());
        let (gc, interval) = (store.gc().clone(), config.gc.poll_interval.0);
        tasks.spawn(Poll { link: link.clone(), gc, interval, on_fatal: core.on_fatal }.run());
        tasks.spawn(disk_watch.run(threads.mailbox().clone()));
        let calls = Calls::new(&store, &link, &txn, &members, &closed);
        let services = Services::new(&calls, &link, members, etcd, &config, closed);
        let serving = listener.map(|listener| listener::serve(listener, services));
        let fatal = core.fatal;
        let mut node = Self {
            address,
            calls,
            store,
            threads,
            sweeper,
            tasks,
            closing,
            fatal,
            _folder: folder,
        };
        let start = Start { link, record, joins, accepted, timeout: join_timeout(&config) };
        if let Err(error) = node.begin(start, serving, &core.recovered).await {
            node.stop().await;
            return Err(error);
        }
        Ok(node)
    }

    /// From the replicas' first turn on until the node is ready.
    async fn begin(
        &mut self,
        start: Start,
        serving: Option<impl Future<Output = ()> + Send + 'static>,
        recovered: &Recovered,
    ) -> Result<(), StartError> {
        for birth in recovered.births.clone() {
            let told = self.threads.mailbox().tell(ShardInput::Create(birth));
            told.map_err(|_| StartError::Stopped)?;
        }
        if let Some(serving) = serving {
            self.tasks.spawn(serving);
        }
        let mut fatal = self.fatal.clone();
        tokio::select! {
            result = start.run(&self.threads, recovered) => result,
            _ = fatal.wait_for(Option::is_some) => Err(StartError::Stopped),
        }
    }

    /// Its calls, for this process. They fail once the node is stopped.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Where it serves; port 0 if it does not.
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

    /// Hands over what is led here, then [halts](Self::halt).
    pub async fn stop(self) {
        self.hand_over().await;
        self.halt().await;
    }

    /// Takes no more calls, gives those in progress a moment, writes and applies what was taken,
    /// syncs.
    pub async fn halt(mut self) {
        drop(self.calls);
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
        let (threads, sweeper) = (self.threads, self.sweeper);
        let engine = self.store.engine().clone();
        let ended = tokio::task::spawn_blocking(move || {
            sweeper.stop();
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

impl Node {
    /// Regions that are led here and could be led elsewhere find new leaders while this node still
    /// answers, so that its end is no election timeout for anybody. Ends when none is left, when
    /// nothing changes any more, or after a time.
    async fn hand_over(&self) {
        let shared = |view: &&Arc<RegionView>| {
            let votes = |peer: &&base::Peer| peer.role != base::PeerRole::Learner;
            view.region.peers.iter().filter(votes).count() > 1
        };
        let views = self.store.views().all();
        let led = views.iter().filter(shared).filter(|view| view.is_leader());
        let led: BTreeSet<RegionId> = led.map(|view| view.region.id).collect();
        // Whoever was asked to lead is not elected yet; it may come back, too.
        let is_left = |view: &&Arc<RegionView>| {
            view.is_leader() || view.leader.is_none() && led.contains(&view.region.id)
        };
        let count = || self.store.views().all().iter().filter(shared).filter(is_left).count();
        let (before, started) = (led.len(), std::time::Instant::now());
        if before == 0 || self.fatal.borrow().is_some() {
            return;
        }
        if self.threads.mailbox().tell(ShardInput::HandOver).is_err() {
            return;
        }
        let (mut left, mut changed) = (before, started);
        while left > 0
            && started.elapsed() < HAND_OVER_TIMEOUT
            && changed.elapsed() < HAND_OVER_STALL
        {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = count();
            if now != left {
                (left, changed) = (now, std::time::Instant::now());
            }
        }
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(
            regions = before - left.min(before),
            left,
            took_ms,
            "leaderships handed over"
        );
    }
}

fn listen_error(address: SocketAddr, cause: std::io::Error) -> StartError {
    StartError::Listen { address, cause }
}

fn store_record(
    store: &StoreHandle,
    advertise: &str,
    folder: &DataFolder,
    unix_seconds: u64,
) -> metapb::Store {
    let label = metapb::StoreLabel {
        key: API_VERSION_LABEL.to_owned(),
        value: store.api_version().name().to_owned(),
    };
    metapb::Store {
        id: store.store_id().0,
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
    listener: Option<&TcpListener>,
) -> Result<(SocketAddr, String), StartError> {
    let address = match listener {
        Some(listener) => {
            listener.local_addr().map_err(|cause| listen_error(config.listen, cause))?
        }
        None => SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let advertise = config.advertise.clone().unwrap_or_else(|| address.to_string());
    Ok((address, advertise))
}

fn join_timeout(config: &Config) -> Duration {
    Duration::from_secs(config.join_timeout_s.into())
}

fn disk_watch(config: &Config, folder: &DataFolder) -> DiskWatch {
    if folder.is_in_memory() {
        return DiskWatch::of_memory();
    }
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
