//! What the store tells the placement driver: region heartbeats when something changed and once a
//! minute, store heartbeats every ten seconds, and, for the system region itself, that the
//! placement driver lives here now. And back: the orders that come for the regions led here.
//!
//! ```text
//!   store thread ── Report ──> pass_on ─> PlacementHost: lead, step down
//!                                │
//!                                ├─────> ask_about: a region whose log lies here without a replica
//!                                └─────> Regions ──┬─ it runs here: PlacementHost, orders
//!                                                  └─ elsewhere: a RegionHeartbeat stream, orders
//!                                           orders ──> ShardInput::ChangePeers, TransferLeader
//!                     Stores ── StoreHeartbeat every ten seconds, wherever it runs
//! ```
//!
//! Each runs by itself: the news that this node leads must not wait for a call to the leader of
//! before. A placement driver that has just begun, here or elsewhere, knows no region: all that are
//! led here are reported to it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{RegionId, StoreId};
use placement::{Order, Step};
use proto::{metapb, pdpb};
use store::{
    ChangePeersRequest, MergeRequest, RegionError, RegionReport, Report, RequestHeader, ShardInput,
    TransferRequest,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

mod flow;

use self::flow::Untold;
use crate::backoff::Backoff;
use crate::disk_watch::DiskWatch;
use crate::placement_host::HostError;
use crate::placement_link::{KnownMembers, LinkError, LocalMembers, PlacementLink};
use crate::splitter::{Splitter, halve_region, split_region};
use crate::store_handle::reply_into;

/// Time between two heartbeats of the store.
const STORE_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The first pause before a refused heartbeat of the store is sent again. A node that founds its
/// cluster is refused until that is done, some milliseconds later.
const RETRY_FIRST: Duration = Duration::from_millis(10);

/// The longest such pause: a store that starts is not known yet.
const RETRY_LONGEST: Duration = Duration::from_millis(200);

/// A heartbeat of the store that is not answered for so long is sent again.
const HEARTBEAT_BUDGET: Duration = Duration::from_secs(2);

/// Region heartbeats on their way to another node.
const STREAM_HEARTBEATS_MAX: usize = 1_024;

/// A leader of the placement driver that does not take a heartbeat for so long is given up.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// What a reporter is made of.
#[derive(Clone)]
pub(crate) struct Reporter {
    link: PlacementLink,
    /// Who the members are, and where that is kept.
    members: LocalMembers,
    known: KnownMembers,
    /// This store, as it is announced.
    store: metapb::Store,
    disk: DiskWatch,
}

impl Reporter {
    pub(crate) fn new(
        link: &PlacementLink,
        members: &LocalMembers,
        known: KnownMembers,
        store: &metapb::Store,
        disk: &DiskWatch,
    ) -> Self {
        let (link, members) = (link.clone(), members.clone());
        Self { link, members, known, store: store.clone(), disk: disk.clone() }
    }

    /// Starts its tasks. Returns whether the last heartbeat of the store was taken; `on_fatal` is
    /// told if the placement driver's rows cannot be read.
    pub(crate) fn start(
        self,
        tasks: &mut JoinSet<()>,
        reports: mpsc::UnboundedReceiver<Report>,
        on_fatal: impl Fn(String) + Send + 'static,
    ) -> watch::Receiver<bool> {
        let (accepted, accepts) = watch::channel(false);
        let (sender, regions) = mpsc::unbounded_channel();
        let (again, hurry) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let splitter = Splitter::start(self.link.clone(), tasks);
        tasks.spawn(pass_on(self.link.clone(), reports, sender, splitter, on_fatal));
        let untold = Untold::default();
        let signals = (again.clone(), hurry.clone());
        tasks.spawn(Stores::new(self.clone(), untold.clone(), signals).run(accepted));
        let (led, retries) = (BTreeMap::new(), retries(&self.link));
        let regions = Regions { link: self.link, retries, regions, led, untold, again, hurry };
        tasks.spawn(regions.run());
        accepts
    }
}

/// Tells the store what placement knows of a region. If nobody says, the store asks again.
async fn ask_about(link: PlacementLink, region: RegionId) {
    let Ok(known) = link.region(region, HEARTBEAT_BUDGET).await else { return };
    let input = match known.region {
        Some(known) => ShardInput::OrphanKnown(proto::region_from_proto(&known)),
        None => {
            let Ok(stores) = link.stores(HEARTBEAT_BUDGET).await else { return };
            let stores = stores.iter().map(|store| StoreId(store.id)).collect();
            ShardInput::OrphanUnknown(region, stores)
        }
    };
    link.host().store().inbox().tell(input);
}

/// Passes reports on, and tells the placement driver's home what concerns it.
async fn pass_on(
    link: PlacementLink,
    mut reports: mpsc::UnboundedReceiver<Report>,
    regions: mpsc::UnboundedSender<Report>,
    splitter: Splitter,
    on_fatal: impl Fn(String),
) {
    let mut asking = JoinSet::new();
    while let Some(report) = reports.recv().await {
        match report {
            Report::WantsSplit(wanted) => {
                splitter.want(wanted);
                continue;
            }
            Report::Orphan(region) => {
                while asking.try_join_next().is_some() {}
                asking.spawn(ask_about(link.clone(), region));
                continue;
            }
            Report::Leads(_) | Report::Lost(_) => {}
        }
        let taken: Result<(), HostError> = match &report {
            Report::Leads(report) if report.region.id.is_system() => link.host().lead(report),
            Report::Lost(region) if region.is_system() => {
                link.host().step_down();
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = taken {
            on_fatal(format!("the placement driver cannot start: {error}"));
        }
        if regions.send(report).is_err() {
            return;
        }
    }
}

/// Sends the store's heartbeats.
struct Stores {
    reporter: Reporter,
    started_unix_seconds: u64,
    /// When the last heartbeat was taken.
    told_unix_seconds: u64,
    untold: Untold,
    /// Told when a placement driver has taken a heartbeat after one that was not taken.
    again: Arc<Notify>,
    /// Tells that another placement driver has begun.
    hurry: Arc<Notify>,
}

impl Stores {
    fn new(reporter: Reporter, untold: Untold, (again, hurry): (Arc<Notify>, Arc<Notify>)) -> Self {
        let started_unix_seconds = reporter.link.host().wall_ms() / 1000;
        let told_unix_seconds = started_unix_seconds;
        Self { reporter, started_unix_seconds, told_unix_seconds, untold, again, hurry }
    }

    async fn run(mut self, accepted: watch::Sender<bool>) {
        let (mut was_taken, mut retry) = (false, retries(&self.reporter.link));
        loop {
            let taken = self.heartbeat().await;
            if taken && !was_taken {
                self.again.notify_one();
            }
            was_taken = taken;
            accepted.send_replace(taken);
            if taken {
                self.reporter.members.remember(&self.reporter.known).await;
            }
            let wait = match taken {
                true => {
                    retry.reset();
                    STORE_HEARTBEAT_INTERVAL
                }
                false => retry.pause(),
            };
            // Whichever comes first.
            let _ = tokio::time::timeout(wait, self.hurry.notified()).await;
        }
    }

    /// Returns whether it was taken.
    async fn heartbeat(&mut self) -> bool {
        let Reporter { link, store, disk, .. } = &self.reporter;
        let (capacity, available) = disk.space();
        let handle = link.host().store();
        let (flow, now) = (self.untold.so_far(), link.host().wall_ms() / 1000);
        let mut stats = pdpb::StoreStats {
            store_id: store.id,
            capacity,
            available,
            used_size: handle.engine().properties().file_bytes,
            region_count: u32::try_from(handle.views().all().len()).unwrap_or(u32::MAX),
            start_time: u32::try_from(self.started_unix_seconds).unwrap_or(u32::MAX),
            ..Default::default()
        };
        flow.tell(&mut stats, self.told_unix_seconds, now);
        let header = link.header();
        let request =
            pdpb::StoreHeartbeatRequest { header, stats: Some(stats), ..Default::default() };
        match link.store_heartbeat(&request, HEARTBEAT_BUDGET).await {
            Ok(()) => {
                self.untold.told(flow);
                self.told_unix_seconds = now;
                true
            }
            Err(error @ LinkError::Unavailable { .. }) => {
                tracing::debug!(%error, "heartbeat not delivered");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "heartbeat refused");
                false
            }
        }
    }
}

/// Reports the regions led here.
struct Regions {
    link: PlacementLink,
    /// Pauses until the next stream.
    retries: Backoff,
    regions: mpsc::UnboundedReceiver<Report>,
    /// The latest report of each region led here.
    led: BTreeMap<RegionId, RegionReport>,
    /// Told what was read and written.
    untold: Untold,
    again: Arc<Notify>,
    hurry: Arc<Notify>,
}

/// Whether there is more to do.
#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    /// The store thread is gone.
    End,
}

/// A stream to the placement driver elsewhere.
struct Stream {
    heartbeats: mpsc::Sender<pdpb::RegionHeartbeatRequest>,
    answers: Streaming<pdpb::RegionHeartbeatResponse>,
}

impl Regions {
    async fn run(mut self) {
        let mut leads = self.link.host().leads();
        loop {
            let here = *leads.borrow_and_update();
            let then = if here { self.report_here().await } else { self.report_elsewhere().await };
            if then == Then::End {
                return;
            }
        }
    }

    /// As long as the placement driver runs here.
    async fn report_here(&mut self) -> Then {
        let mut leads = self.link.host().leads();
        let mut orders = self.link.host().bind(self.link.host().store().store_id());
        self.hurry.notify_one();
        self.led.values().for_each(|report| self.tell(report));
        let again = self.again.clone();
        loop {
            tokio::select! {
                report = self.regions.recv() => match report {
                    Some(report) => if let Some(report) = self.take(report) {
                        self.tell(&report);
                    },
                    None => return Then::End,
                },
                Some(order) = orders.recv() => self.obey(order),
                () = again.notified() => self.led.values().for_each(|report| self.tell(report)),
                () = until(&mut leads, false) => return Then::GoOn,
            }
        }
    }

    /// As long as it runs elsewhere, or nobody knows where.
    async fn report_elsewhere(&mut self) -> Then {
        let mut leads = self.link.host().leads();
        let link = self.link.clone();
        // A member that is about to stop takes a stream, and ends it at once.
        let pause = self.retries.pause();
        let mut opening = Box::pin(open_stream(&link, pause));
        let mut stream = loop {
            tokio::select! {
                stream = &mut opening => break stream,
                report = self.regions.recv() => match report {
                    Some(report) => drop(self.take(report)),
                    None => return Then::End,
                },
                () = until(&mut leads, true) => return Then::GoOn,
            }
        };
        let opened = Instant::now();
        self.hurry.notify_one();
        let led: Vec<_> = self.led.values().cloned().collect();
        for report in &led {
            if !self.send(&stream, report).await {
                return Then::GoOn;
            }
        }
        loop {
            let alive = tokio::select! {
                report = self.regions.recv() => match report {
                    Some(report) => match self.take(report) {
                        Some(report) => self.send(&stream, &report).await,
                        None => true,
                    },
                    None => return Then::End,
                },
                answer = stream.answers.message() => self.answered(answer),
                () = until(&mut leads, true) => return Then::GoOn,
            };
            if opened.elapsed() >= RETRY_LONGEST {
                self.retries.reset();
            }
            if !alive {
                link.remote().forget_leader();
                return Then::GoOn;
            }
        }
    }

    /// Takes a report down; returns it if it is to be passed on.
    fn take(&mut self, report: Report) -> Option<RegionReport> {
        match report {
            Report::Leads(report) => {
                self.untold.count(&report);
                self.led.insert(report.region.id, report.clone());
                Some(report)
            }
            Report::Lost(region) => {
                self.led.remove(&region);
                None
            }
            Report::WantsSplit(_) | Report::Orphan(_) => None,
        }
    }

    /// Tells the placement driver here.
    fn tell(&self, report: &RegionReport) {
        let (host, request) = (self.link.host(), report.to_proto(self.link.header()));
        // A heartbeat that finds no placement driver, or one that does not know the cluster yet, is
        // made good by a later one.
        match host.update(|placement| placement.region_heartbeat(&request)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "heartbeat refused"),
            Err(error) => tracing::debug!(%error, "heartbeat not delivered"),
        }
        host.region_reported();
    }

    /// Tells the placement driver elsewhere; false if the stream is of no use any more.
    async fn send(&self, stream: &Stream, report: &RegionReport) -> bool {
        let heartbeat = stream.heartbeats.send(report.to_proto(self.link.header()));
        let sent = matches!(tokio::time::timeout(STREAM_TIMEOUT, heartbeat).await, Ok(Ok(())));
        self.link.host().region_reported();
        sent
    }

    /// Returns whether the stream goes on.
    fn answered(
        &self,
        answer: Result<Option<pdpb::RegionHeartbeatResponse>, tonic::Status>,
    ) -> bool {
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return false,
            Err(status) => {
                tracing::debug!(error = status.message(), "the stream of heartbeats ended");
                return false;
            }
        };
        if let Some(error) = answer.header.as_ref().and_then(|header| header.error.as_ref()) {
            tracing::debug!(error = error.message, "heartbeat refused");
        }
        if let Some(order) = Order::from_wire(&answer) {
            self.obey(order);
        }
        true
    }

    /// Hands an order to the store. It is checked there against the region as it is; if it is
    /// refused, the placement driver sees that nothing happened.
    fn obey(&self, order: Order) {
        let Order { region_id, epoch, leader, step } = order;
        tracing::info!(region = %region_id, ?step, "ordered");
        let header = RequestHeader::new(region_id, leader, epoch);
        let (send, receive) = tokio::sync::oneshot::channel();
        let reply = reply_into(send);
        let input = match step {
            Step::ChangePeers(changes) => {
                ShardInput::ChangePeers(ChangePeersRequest { header, changes, reply })
            }
            Step::TransferLeader(to) => {
                ShardInput::TransferLeader(TransferRequest { header, to: to.id, reply })
            }
            Step::Merge(target) => ShardInput::Merge(MergeRequest { header, target, reply }),
            Step::Split(keys) => {
                tokio::spawn(cut_at(self.link.clone(), header, keys));
                return;
            }
        };
        self.link.host().store().request(input);
        tokio::spawn(async move {
            if let Err(error) = receive.await.unwrap_or(Err(RegionError::Undetermined)) {
                tracing::debug!(region = %region_id, %error, "order refused");
            }
        });
    }
}

/// Cuts a region as it was ordered.
async fn cut_at(link: PlacementLink, header: RequestHeader, keys: Vec<bytes::Bytes>) {
    let region = header.region_id;
    let Some(view) = link.host().store().views().get(region) else { return };
    if header.epoch != Some(view.region.epoch) || !view.is_leader() {
        tracing::debug!(%region, "an order to split that does not fit");
        return;
    }
    let split = match keys.is_empty() {
        true => halve_region(&link, &view.region, view.peer).await,
        false => split_region(&link, &view.region, view.peer, keys).await,
    };
    if let Err(error) = split {
        tracing::debug!(%region, %error, "order refused");
    }
}

/// Until the placement driver runs here, or does not.
async fn until(leads: &mut watch::Receiver<bool>, here: bool) {
    // The sender lives as long as the link.
    let _ = leads.wait_for(|leads| *leads == here).await;
}

/// Pauses of this store until the placement driver is spoken to again.
fn retries(link: &PlacementLink) -> Backoff {
    Backoff::new(RETRY_FIRST, RETRY_LONGEST, link.host().store().store_id().0)
}

/// Opens a stream to whoever leads, after a pause, as soon as somebody does.
async fn open_stream(link: &PlacementLink, pause: Duration) -> Stream {
    let mut retry = retries(link);
    tokio::time::sleep(pause).await;
    loop {
        match try_open(link).await {
            Ok(stream) => return stream,
            Err(cause) => {
                tracing::debug!(cause, "no stream of heartbeats");
                link.remote().forget_leader();
                tokio::time::sleep(retry.pause()).await;
            }
        }
    }
}

async fn try_open(link: &PlacementLink) -> Result<Stream, String> {
    let mut client = link.remote().leader().await?;
    let (heartbeats, receiver) = mpsc::channel(STREAM_HEARTBEATS_MAX);
    let open = client.region_heartbeat(ReceiverStream::new(receiver));
    let opened = tokio::time::timeout(STREAM_TIMEOUT, open).await;
    let opened = opened.map_err(|_| "no answer".to_owned())?;
    let answers = opened.map_err(|status| status.message().to_owned())?.into_inner();
    Ok(Stream { heartbeats, answers })
}
