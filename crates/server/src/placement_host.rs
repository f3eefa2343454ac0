//! The placement driver's home: a [`Placement`] that exists while this node leads the system
//! region.
//!
//! ```text
//!   the region is led here, its rows are applied ──> load ──> Some(Placement)
//!   write: plan(&Placement) ──> rows ──> proposal, in this term only ──> applied ──> commit(rows)
//!   schedule: what regions need ──> orders ──> their leaders' heartbeat streams
//!   the leadership is lost ──> None: every call answers "not leader"
//! ```
//!
//! Writes take turns, so that a plan always sees what the one before it wrote. Nothing is answered
//! that is not applied. Raft itself checks the leadership: a plan made in one term cannot be
//! written in another. Timestamps alone come from memory, so they are given out under the lease of
//! the system region, or when the group was asked after they were taken: no other leader has given
//! out larger ones before.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{ClusterId, Instant, KeyRange, RegionId, Term, TimeStamp};
use bytes::Bytes;
use placement::{Change, Placement, PlacementError, RowChanges, Settings, TsoWait};
use storage::engine::{Cf, Engine, EngineError, IterOptions};
use storage::keys;
use store::{Proposal, ReadRequest, RegionError, RegionReport, RequestHeader, ShardInput, Writes};
use tokio::sync::{oneshot, watch};

mod etcd;
mod orders;

pub(crate) use etcd::{DeskError, EtcdDesk};

use crate::clock::Clock;
use crate::store_handle::{StoreHandle, reply_into};

/// So long a question may wait for the cluster to be founded, or for the placement driver to begin.
const FOUNDING_WAIT: Duration = Duration::from_secs(1);

/// The placement driver does not run here: ask another member, or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not leader")]
pub struct NotPlacementLeader;

/// Why a call of the placement driver failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// See [`NotPlacementLeader`].
    #[error(transparent)]
    NotLeader(#[from] NotPlacementLeader),
    /// The plan refused.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The plan was made, but its rows could not be written.
    #[error("the system region refused: {0}")]
    Region(#[from] RegionError),
    /// Its rows could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A loaded placement driver and the term it may write in.
struct Led {
    placement: Placement,
    term: Term,
    header: RequestHeader,
}

struct Shared {
    store: StoreHandle,
    clock: Clock,
    led: Mutex<Option<Led>>,
    writes: Arc<tokio::sync::Mutex<()>>,
    leads: watch::Sender<bool>,
    reported: watch::Sender<()>,
    settings: Settings,
    outlets: orders::Outlets,
}

/// The home. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PlacementHost(Arc<Shared>);

impl PlacementHost {
    pub(crate) fn new(store: StoreHandle, settings: Settings) -> Self {
        let clock = store.clock();
        Self(Arc::new(Shared {
            store,
            clock,
            led: Mutex::new(None),
            writes: Arc::default(),
            leads: watch::Sender::new(false),
            reported: watch::Sender::new(()),
            settings,
            outlets: orders::Outlets::default(),
        }))
    }

    /// The cluster.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.0.store.cluster_id()
    }

    /// Milliseconds since 1970 by this node's clock.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.0.clock.wall_ms()
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// The store of this node.
    pub(crate) fn store(&self) -> &StoreHandle {
        &self.0.store
    }

    /// Whether the placement driver runs here, and when that changes.
    pub(crate) fn leads(&self) -> watch::Receiver<bool> {
        self.0.leads.subscribe()
    }

    /// Told whenever a leader's report has been taken in.
    pub(crate) fn reports(&self) -> watch::Receiver<()> {
        self.0.reported.subscribe()
    }

    /// A leader's report has been taken in.
    pub(crate) fn region_reported(&self) {
        self.0.reported.send_replace(());
    }

    /// There is something to look at beside reports.
    pub(crate) fn look_soon(&self) {
        self.0.reported.send_replace(());
    }

    /// Returns when the cluster is there that this node is about to found, or after a while,
    /// whatever came of it. A client that is refused comes back half a second later, and that is
    /// long for a store that starts in a tenth of it.
    pub(crate) async fn founded(&self) {
        self.taken_over().await;
        let mut reports = self.reports();
        let founded = async {
            while self.read(|placement| !placement.is_bootstrapped()) == Ok(true) {
                if reports.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(FOUNDING_WAIT, founded).await;
    }

    /// Returns when the placement driver runs here, if this node was just elected to run it and is
    /// still reading its rows; else at once. Members name it as the leader already: whoever comes
    /// for that must not be sent away.
    async fn taken_over(&self) {
        if *self.0.leads.borrow() {
            return;
        }
        let mut leads = self.leads();
        let view = self.0.store.views().get(RegionId::SYSTEM);
        if view.is_some_and(|view| view.is_leader()) {
            let _ = tokio::time::timeout(FOUNDING_WAIT, leads.wait_for(|leads| *leads)).await;
        }
    }

    /// Answers from memory.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Placement) -> R) -> Result<R, NotPlacementLeader> {
        self.led().as_ref().map(|led| f(&led.placement)).ok_or(NotPlacementLeader)
    }

    /// Changes what is in memory alone (heartbeats).
    pub(crate) fn update<R>(
        &self,
        f: impl FnOnce(&mut Placement) -> R,
    ) -> Result<R, NotPlacementLeader> {
        self.led().as_mut().map(|led| f(&mut led.placement)).ok_or(NotPlacementLeader)
    }

    /// Plans, writes the plan's rows, and answers once they are applied.
    pub(crate) async fn write<R>(
        &self,
        plan: impl FnOnce(&Placement) -> Result<Change<R>, PlacementError>,
    ) -> Result<R, HostError> {
        self.taken_over().await;
        let turn = self.0.writes.clone().lock_owned().await;
        let Change { rows, reply } = self.read(plan)??;
        if !rows.is_empty() {
            // A caller that goes away must not keep memory from following what is written: the rest
            // runs by itself.
            let host = self.clone();
            let written = tokio::spawn(async move {
                let _turn = turn;
                host.write_rows(&rows).await
            });
            written.await.map_err(|_| NotPlacementLeader)??;
        }
        Ok(reply)
    }

    /// `count` timestamps: the largest of them; the others are right below it. `count` must not be
    /// zero.
    pub(crate) async fn timestamps(&self, count: u32) -> Result<TimeStamp, HostError> {
        self.taken_over().await;
        loop {
            let wall_ms = self.wall_ms();
            let (term, taken) = self.take_timestamps(wall_ms, count)?;
            match taken {
                // Made sure of after they were taken: whoever leads now in that term led then. Not
                // by waiting for a lease, which there may be none of for long: while the members of
                // the group change.
                Ok(timestamp) => {
                    self.confirm_term(term).await?;
                    self.0.store.metrics().timestamps(u64::from(count));
                    return Ok(timestamp);
                }
                Err(TsoWait::NextMillisecond) => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Err(TsoWait::Window) => {
                    self.write(|placement| Ok(placement.plan_tso_window(wall_ms, count))).await?;
                }
            }
        }
    }

    fn take_timestamps(
        &self,
        wall_ms: u64,
        count: u32,
    ) -> Result<(Term, Result<TimeStamp, TsoWait>), NotPlacementLeader> {
        let mut led = self.led();
        let led = led.as_mut().ok_or(NotPlacementLeader)?;
        Ok((led.term, led.placement.timestamps(wall_ms, count)))
    }

    fn has_lease_in(&self, term: Term) -> bool {
        let view = self.0.store.views().get(RegionId::SYSTEM);
        view.is_some_and(|view| view.term == term && view.has_lease(self.now()))
    }

    /// Asks the group whether this node leads it still, which renews the lease.
    async fn confirm(&self) -> Result<(), HostError> {
        let header = self.led().as_ref().map(|led| led.header).ok_or(NotPlacementLeader)?;
        let (send, receive) = oneshot::channel();
        let reply = reply_into(send);
        let request = ReadRequest { header, any_replica: false, reply };
        self.0.store.request(ShardInput::ReadIndex(request));
        Ok(receive.await.unwrap_or(Err(RegionError::Undetermined))?)
    }

    /// The caller holds the turn. If it is not known whether the rows were written, memory is no
    /// longer to be trusted.
    async fn write_rows(&self, rows: &RowChanges) -> Result<(), HostError> {
        let result = self.propose(rows)?.await;
        if matches!(result, Err(HostError::Region(RegionError::Undetermined))) {
            self.step_down();
        }
        let term = result?;
        match self.led().as_mut().filter(|led| led.term == term) {
            Some(led) => led.placement.commit(rows),
            None => return Err(NotPlacementLeader.into()),
        }
        Ok(())
    }

    fn propose(
        &self,
        rows: &RowChanges,
    ) -> Result<impl Future<Output = Result<Term, HostError>>, NotPlacementLeader> {
        let (header, term) =
            self.led().as_ref().map(|led| (led.header, led.term)).ok_or(NotPlacementLeader)?;
        let mut writes = Writes::new();
        for (key, value) in rows.iter() {
            match value {
                Some(value) => writes.put(Cf::Default, key, value),
                None => writes.delete(Cf::Default, key),
            }
        }
        let (send, receive) = oneshot::channel();
        let reply = reply_into(send);
        let proposal = Proposal { header, writes, only_in_term: Some(term), reply };
        self.0.store.request(ShardInput::Propose(proposal));
        Ok(async move {
            receive.await.unwrap_or(Err(RegionError::Undetermined))?;
            Ok(term)
        })
    }

    /// This node leads the system region in the report's term, and has applied everything before
    /// it.
    pub(crate) fn lead(&self, report: &RegionReport) -> Result<(), HostError> {
        let mut led = self.led();
        if led.as_ref().is_some_and(|led| led.term == report.term) {
            return Ok(());
        }
        let rows = rows(&**self.0.store.engine(), &KeyRange::all())?;
        let mut placement = Placement::load(self.cluster_id(), rows, self.now(), self.wall_ms())?;
        placement.configure(self.0.settings);
        let RegionReport { region, leader, term, .. } = report;
        let header =
            RequestHeader { term: *term, ..RequestHeader::new(region.id, *leader, region.epoch) };
        *led = Some(Led { placement, term: report.term, header });
        drop(led);
        tracing::info!(term = report.term, "the placement driver runs here");
        self.0.leads.send_replace(true);
        Ok(())
    }

    /// This node no longer leads the system region.
    pub(crate) fn step_down(&self) {
        if self.led().take().is_some() {
            tracing::info!("the placement driver has left this node");
        }
        self.0.leads.send_replace(false);
        self.0.outlets.close();
    }

    fn led(&self) -> MutexGuard<'_, Option<Led>> {
        self.0.led.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The placement driver's rows in `range`, as far as the replica here has applied them.
pub(crate) fn rows(
    engine: &dyn Engine,
    range: &KeyRange,
) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    let (start, end) = keys::data_range(RegionId::SYSTEM, range);
    let snapshot = engine.snapshot();
    let options = IterOptions::within(KeyRange::new(start, end));
    let mut cursor = snapshot.iter(Cf::Default, options)?;
    let mut rows = Vec::new();
    let mut valid = cursor.seek_to_first()?;
    while valid {
        let key = keys::origin_key(cursor.key()).expect("the range has the prefix");
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(cursor.value())));
        valid = cursor.next()?;
    }
    Ok(rows)
}
