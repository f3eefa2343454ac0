//! What the store tells of regions that are led here, and what is done about it: `max_ts` is
//! synced, locks in memory are handed over.

use std::time::Duration;

use base::{RegionId, Term};
use store::{LeaderEvent, Proposal, ReplyTo, RequestHeader, ShardInput, Writes};
use tokio::sync::mpsc;
use txn::concurrency::SyncTicket;
use txn::scheduler::{Ticket, Under};

use super::course::under;
use super::{Job, TxnService};
use crate::errors::{self, Refusal};
use crate::services::raw::add;

/// A command waits so long until `max_ts` is synced before its client is told to try again. Clients
/// give up their request after two seconds.
const SYNC_WAIT: Duration = Duration::from_secs(1);

/// One try to get a timestamp, and the pause after one that failed.
const SYNC_BUDGET: Duration = Duration::from_secs(1);
const SYNC_PAUSE: Duration = Duration::from_millis(50);

impl TxnService {
    /// Runs until the store has stopped.
    pub(super) async fn follow_leadership(self, mut events: mpsc::UnboundedReceiver<LeaderEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                LeaderEvent::Leads { region, term } => {
                    let version = region.epoch.version;
                    self.leads(Under { region: region.id, term, version });
                }
                LeaderEvent::HandOver { region_id, term, ticket } => {
                    self.hand_over(region_id, term, ticket);
                }
                LeaderEvent::Lost { region_id, .. } => self.lost(region_id),
            }
        }
    }

    fn leads(&self, under: Under) {
        let ticket = self.state().scheduler.leads(under);
        if let Some(ticket) = ticket {
            let service = self.clone();
            self.shared.runtime.spawn(async move { service.sync(under, ticket).await });
        }
    }

    async fn sync(&self, leads: Under, ticket: SyncTicket) {
        loop {
            match self.shared.link.min_ts(SYNC_BUDGET).await {
                Ok(ts) => {
                    self.state().scheduler.synced(leads.region, ticket, ts);
                    return self.shared.synced.notify_waiters();
                }
                Err(error) => {
                    tracing::debug!(%error, region = %leads.region, "max_ts is not synced yet");
                    tokio::time::sleep(SYNC_PAUSE).await;
                }
            }
            let view = self.store().views().get(leads.region);
            if view.is_none_or(|view| under(&view) != leads) {
                return;
            }
        }
    }

    /// A command needs a synced `max_ts`: it gives its latches back, waits, and begins anew.
    pub(super) fn wait_for_sync(&self, job: Job, ticket: Ticket, under: Under) {
        if job.waited_for_sync {
            let error = errors::max_ts_not_synced(under.region);
            return self.refuse(job, ticket, Refusal::Region(Box::new(error)));
        }
        self.abandon(ticket);
        let service = self.clone();
        self.shared.runtime.spawn(async move {
            let synced = async {
                loop {
                    let notified = service.shared.synced.notified();
                    if service.state().scheduler.is_synced(under) {
                        return;
                    }
                    notified.await;
                }
            };
            // Whatever came of it: the second try says so.
            let _ = tokio::time::timeout(SYNC_WAIT, synced).await;
            service.take(Job { waited_for_sync: true, ..job });
        });
    }

    fn lost(&self, region: RegionId) {
        let mut state = self.state();
        state.scheduler.lost(region);
        self.finish(state);
    }

    /// The locks in memory are proposed: before anything that a command proposes which runs from
    /// now on, so while the scheduler is locked.
    fn hand_over(&self, region_id: RegionId, term: Term, ticket: u64) {
        let view = self.store().views().get(region_id);
        let mut state = self.state();
        let locks = state.scheduler.hand_over(region_id, term, ticket);
        let (Some(locks), Some(view)) = (locks, view) else {
            drop(state);
            return self.handed_over((region_id, term, ticket), false);
        };
        let mut writes = Writes::new();
        locks.iter().for_each(|lock| add(&mut writes, lock));
        let header = RequestHeader::new(region_id, view.peer, view.region.epoch);
        let service = self.clone();
        let reply = ReplyTo::new(move |result| {
            service.handed_over((region_id, term, ticket), result.is_ok());
        });
        let proposal = Proposal { header, writes, only_in_term: Some(term), reply };
        // What is given back answers when it is dropped, and that locks the scheduler.
        let stopped = self.store().tell(ShardInput::Propose(proposal));
        drop(state);
        drop(stopped);
    }

    fn handed_over(&self, (region_id, term, ticket): (RegionId, Term, u64), applied: bool) {
        self.state().scheduler.handed_over(region_id, term, ticket, applied);
        // A store that has stopped needs to know nothing more.
        let _ = self.store().tell(ShardInput::HandedOver { region_id, term, ticket });
    }
}
