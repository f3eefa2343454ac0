//! The store of a node and its threads, put together from what lies on the disk.

use std::sync::Arc;
use std::time::Duration;

use placement::Settings;
use storage::engine::Engine;
use store::{
    LeaderEvent, LogWriter, Recovered, RegionViews, Report, Shard, ShardConfig, StoreIdent,
};
use tokio::sync::{mpsc, watch};

use super::disk::Opened;
use super::{SLEEP_TICKS, StartError};
use crate::clock::Clock;
use crate::config::Config;
use crate::gc::{Gc, Sweeper, SweeperThread};
use crate::metrics::Metrics;
use crate::placement_host::PlacementHost;
use crate::placement_link::{
    AddressBook, KnownMembers, LocalMembers, PlacementLink, Remote, members_in,
};
use crate::runtime::{OnFatal, Parts, Peers, Threads};
use crate::store_handle::{StoreHandle, StoreParts};
use crate::transport::Resolver;

/// Locks in memory are handed over within this time, or lost, before a region is cut, merges or is
/// led elsewhere.
const HAND_OVER_MS: u32 = 1_000;

/// The store, running, and the ways to the placement driver and the other stores.
pub(super) struct Core {
    pub(super) store: StoreHandle,
    pub(super) threads: Threads,
    pub(super) sweeper: SweeperThread,
    pub(super) link: PlacementLink,
    pub(super) members: LocalMembers,
    pub(super) known: KnownMembers,
    pub(super) resolver: Resolver,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) leading: mpsc::UnboundedReceiver<LeaderEvent>,
    pub(super) on_fatal: OnFatal,
    pub(super) fatal: watch::Receiver<Option<String>>,
    pub(super) recovered: Recovered,
}

impl Core {
    pub(super) fn start(
        config: &Config,
        clock: Clock,
        ident: &StoreIdent,
        (opened, known): (Opened, KnownMembers),
        advertise: &str,
    ) -> Result<Self, StartError> {
        let Opened { engine, gc, log, recovered, snapshots } = opened;
        let metrics = Arc::new(Metrics::default());
        let views = Arc::new(RegionViews::new(ident.store_id));
        let remote = remote(ident, &engine, &views, &known, advertise);
        let (on_fatal, fatal) = fatal_channel();
        let (report_sender, reports) = mpsc::unbounded_channel();
        let (leading_sender, leading) = mpsc::unbounded_channel();
        let peers = peers(ident, &engine, &views, &remote);
        let resolver = peers.resolver.clone();
        let threads = Threads::start(Parts {
            shard: Shard::new(shard_config(config, &clock, &gc), log.reader(), views.clone()),
            log_writer: LogWriter::new(log),
            engine: engine.clone(),
            snapshots: snapshots.clone(),
            gc: gc.clone(),
            peers,
            clock,
            metrics: metrics.clone(),
            on_report: Box::new(move |report: Report| drop(report_sender.send(report))),
            on_leading: Box::new(move |event| drop(leading_sender.send(event))),
            on_fatal: on_fatal.clone(),
        })
        .map_err(StartError::Threads)?;
        let sweeper = sweeper(&gc, &engine, &views, &on_fatal)?;
        let members = LocalMembers::new(&engine, &views, &remote, advertise);
        let store = StoreHandle::new(StoreParts {
            cluster_id: ident.cluster_id,
            api_version: config.storage.api_version.version(),
            engine,
            gc,
            views,
            mailbox: threads.mailbox().clone(),
            snapshots,
            clock,
            metrics,
        });
        let host = PlacementHost::new(store.clone(), settings(config));
        let link = PlacementLink::new(host, remote);
        Ok(Self {
            store,
            threads,
            sweeper,
            link,
            members,
            known,
            resolver,
            reports,
            leading,
            on_fatal,
            fatal,
            recovered,
        })
    }
}

/// The thread that collects.
fn sweeper(
    gc: &Gc,
    engine: &Arc<dyn Engine>,
    views: &Arc<RegionViews>,
    on_fatal: &OnFatal,
) -> Result<SweeperThread, StartError> {
    let (gc, engine, views) = (gc.clone(), engine.clone(), views.clone());
    let sweeper = Sweeper { gc, engine, views, on_fatal: on_fatal.clone() };
    sweeper.start().map_err(StartError::Threads)
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

fn shard_config(config: &Config, clock: &Clock, gc: &Gc) -> ShardConfig {
    let raft = &config.raft;
    ShardConfig {
        tick: Duration::from_millis(u64::from(raft.tick_ms)),
        election_ticks: raft.election_ticks,
        heartbeat_ticks: raft.heartbeat_ticks,
        log_entries_max: raft.log_entries_max,
        log_bytes_max: raft.log_mib_max << 20,
        log_store_bytes_max: raft.log_store_mib_max << 20,
        split: config.split(),
        sleep_ticks: if config.raftstore.hibernate_regions { SLEEP_TICKS } else { 0 },
        hand_over_ticks: HAND_OVER_MS.div_ceil(raft.tick_ms),
        garbage: gc.rule(),
        seed: clock.wall_ms(),
        ..ShardConfig::default()
    }
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
