//! Waits are reported to whoever keeps the wait-for graph of the cluster: the leader of the region
//! that holds the first key.
//!
//! ```text
//!   Effect::Detect ... ──► reports ──┬─ it is here: Detector
//!                                    └─ elsewhere: a Detect stream ──► services::deadlock
//!                                                    cycles ◄──────────────┘
//! ```
//!
//! The graph is lost when that leadership moves; the stores find the new leader and report all
//! their waits anew. Until then a deadlock ends by the time-out of a wait.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{StoreId, Term, TimeStamp};
use bytes::Bytes;
use futures_util::StreamExt;
use proto::deadlock::deadlock_client::DeadlockClient;
use proto::deadlock::{
    DeadlockRequest, DeadlockRequestType, DeadlockResponse, ReplaceLockByKeyItem,
    ReplaceLocksByKeysRequest, WaitForEntry,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use txn::waiting::{Detector, WaitFor, key_hash};
use txn::{DeadlockFound, wire};

use super::TxnService;
use crate::transport::{channel_to, sign};

/// Reports on their way to another store.
const QUEUE_MAX: usize = 4_096;

/// One try to find out who leads the first region.
const ASK_BUDGET: Duration = Duration::from_secs(1);

/// After a failure to reach the detector no other try is made for so long.
const PAUSE: Duration = Duration::from_millis(200);

/// What the detector is told.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// A wait began.
    Waits(WaitFor),
    /// It is over.
    Over(WaitFor),
    /// The lock on the key is this transaction's now.
    Holder(Bytes, TimeStamp),
    /// The detector's store closed the stream: all waits are to be reported anew.
    Anew,
}

/// The graph, as of one leadership of the first region.
#[derive(Debug, Default)]
pub(super) struct Graph {
    term: Term,
    detector: Detector,
}

impl TxnService {
    /// The term in which the first region is led here.
    fn leads_first_region(&self) -> Option<Term> {
        let views = self.store().views();
        let view = views.get(views.region_of(b"")?)?;
        (view.is_leader() && view.serves_reads).then_some(view.term)
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.shared.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the detector is here.
    pub(crate) fn detects(&self) -> bool {
        self.leads_first_region().is_some()
    }

    /// All edges that are known here.
    pub(crate) fn known_waits(&self) -> Vec<WaitFor> {
        self.graph().detector.waits()
    }

    /// Takes a report, if the detector is here. The answer is the cycle that it closes.
    pub(crate) fn detect(&self, report: &Report) -> Result<Option<DeadlockFound>, NotHere> {
        let term = self.leads_first_region().ok_or(NotHere)?;
        let mut graph = self.graph();
        if graph.term != term {
            *graph = Graph { term, detector: Detector::new() };
            for wait in self.state().scheduler.edges() {
                // One that closes a cycle is found again when one of the others is reported anew.
                let _ = graph.detector.detect(self.store().clock().now(), &wait);
            }
        }
        match report {
            Report::Waits(wait) if wait.txn != wait.holder => {
                return Ok(graph.detector.detect(self.store().clock().now(), wait));
            }
            Report::Over(wait) => graph.detector.clean_up_wait(wait.txn, &wait.key),
            Report::Holder(key, holder) => graph.detector.replace_holder(key, *holder),
            Report::Waits(_) | Report::Anew => {}
        }
        Ok(None)
    }

    /// Passes reports on. Runs until it is aborted.
    pub(super) async fn report_waits(self, mut reports: mpsc::UnboundedReceiver<Report>) {
        let mut elsewhere: Option<mpsc::Sender<DeadlockRequest>> = None;
        let mut failed: Option<Instant> = None;
        while let Some(report) = reports.recv().await {
            match self.detect(&report) {
                Ok(None) => {}
                Ok(Some(found)) => self.found(&report, &found),
                Err(NotHere) => {
                    if elsewhere.as_ref().is_none_or(mpsc::Sender::is_closed) {
                        elsewhere = None;
                        if failed.is_some_and(|when| when.elapsed() < PAUSE) {
                            continue;
                        }
                        elsewhere = self.connect_detector().await;
                        failed = elsewhere.is_none().then(Instant::now);
                        if failed.is_some() {
                            self.report_anew_soon();
                        }
                    } else if let Some(stream) = &elsewhere
                        && stream.send(to_proto(&report)).await.is_err()
                    {
                        self.report(Report::Anew);
                    }
                }
            }
        }
    }

    /// Tells the detector, sooner or later.
    pub(super) fn report(&self, report: Report) {
        // Nobody takes reports when the node stops.
        let _ = self.shared.reports.send(report);
    }

    /// Waits that nobody could be told of are told of a little later.
    fn report_anew_soon(&self) {
        if self.state_edges().is_empty() {
            return;
        }
        let service = self.clone();
        self.shared.runtime.spawn(async move {
            tokio::time::sleep(PAUSE).await;
            service.report(Report::Anew);
        });
    }

    fn found(&self, report: &Report, found: &DeadlockFound) {
        let Report::Waits(wait) = report else { return };
        self.deadlock(wait.txn, &wait.key, found);
    }

    fn deadlock(&self, txn: TimeStamp, key: &Bytes, found: &DeadlockFound) {
        let mut state = self.state();
        state.scheduler.deadlock(txn, key, found);
        self.finish(state);
    }

    /// A stream to the detector's store, which knows all waits of this one.
    async fn connect_detector(&self) -> Option<mpsc::Sender<DeadlockRequest>> {
        let store =
            self.detector_store().await.filter(|store| *store != self.store().store_id())?;
        let channel = channel_to(&self.shared.resolver, store).await.ok()?;
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        let request = Request::new(ReceiverStream::new(requests));
        let request = sign(request, self.store().cluster_id());
        let answers = DeadlockClient::new(channel).detect(request).await.ok()?.into_inner();
        let service = self.clone();
        self.shared.runtime.spawn(async move { service.take_answers(answers).await });
        for wait in self.state_edges() {
            sender.send(to_proto(&Report::Waits(wait))).await.ok()?;
        }
        Some(sender)
    }

    fn state_edges(&self) -> Vec<WaitFor> {
        self.state().scheduler.edges()
    }

    async fn detector_store(&self) -> Option<StoreId> {
        let views = self.store().views();
        let here = views.region_of(b"").and_then(|region| views.get(region));
        if let Some(leader) = here.and_then(|view| view.leader) {
            return Some(leader.store_id);
        }
        let region = self.shared.link.region_of_key(b"", ASK_BUDGET).await.ok()?;
        Some(StoreId(region.leader?.store_id))
    }

    async fn take_answers(&self, mut answers: Streaming<DeadlockResponse>) {
        while let Some(Ok(answer)) = answers.next().await {
            let Some(entry) = answer.entry else { continue };
            let found = DeadlockFound {
                lock_ts: TimeStamp(entry.wait_for_txn),
                lock_key: entry.key.clone(),
                deadlock_key_hash: answer.deadlock_key_hash,
                deadlock_key: answer.deadlock_key,
                chain: answer.wait_chain.into_iter().map(wait_of).collect(),
            };
            self.deadlock(TimeStamp(entry.txn), &entry.key, &found);
        }
        self.report(Report::Anew);
    }
}

/// The first region is led elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotHere;

fn wait_of(entry: WaitForEntry) -> WaitFor {
    WaitFor {
        txn: TimeStamp(entry.txn),
        holder: TimeStamp(entry.wait_for_txn),
        key: entry.key,
        resource_group_tag: entry.resource_group_tag,
        waited_ms: entry.wait_time,
    }
}

fn to_proto(report: &Report) -> DeadlockRequest {
    let mut request = DeadlockRequest::default();
    match report {
        Report::Waits(wait) => request.entry = Some(wire::wait_for_entry(wait)),
        Report::Over(wait) => {
            request.set_tp(DeadlockRequestType::CleanUpWaitFor);
            request.entry = Some(wire::wait_for_entry(wait));
        }
        Report::Holder(key, holder) => {
            let (key_hash, key) = (key_hash(key), key.clone());
            let item =
                ReplaceLockByKeyItem { key_hash, key, new_lock_ts: holder.0, ..Default::default() };
            let items = vec![item];
            request.replace_locks_by_keys = Some(ReplaceLocksByKeysRequest { items });
        }
        Report::Anew => {}
    }
    request
}

/// What another store reports.
pub(crate) fn from_proto(request: DeadlockRequest) -> Vec<Report> {
    if let Some(replaced) = request.replace_locks_by_keys {
        let holder =
            |item: ReplaceLockByKeyItem| Report::Holder(item.key, TimeStamp(item.new_lock_ts));
        return replaced.items.into_iter().map(holder).collect();
    }
    let tp = request.tp();
    let Some(wait) = request.entry.map(wait_of) else { return Vec::new() };
    match tp {
        DeadlockRequestType::Detect => vec![Report::Waits(wait)],
        DeadlockRequestType::CleanUpWaitFor | DeadlockRequestType::CleanUp => {
            vec![Report::Over(wait)]
        }
    }
}

/// What another store is told.
pub(crate) fn answer(wait: &WaitFor, found: &DeadlockFound) -> DeadlockResponse {
    DeadlockResponse {
        entry: Some(wire::wait_for_entry(wait)),
        deadlock_key_hash: found.deadlock_key_hash,
        wait_chain: found.chain.iter().map(wire::wait_for_entry).collect(),
        deadlock_key: found.deadlock_key.clone(),
    }
}
