//! The desk for etcd's keys: where requests that write wait for their turn, and one clerk who takes
//! all that wait and writes them together.
//!
//! ```text
//!   Put, Txn, KeepAlive ... ──> desk ──> clerk: plan all ── one proposal ── commit ──> answers
//!                                          │                                   └──> watches
//!                                          └── chores when they are due: leases, history
//! ```
//!
//! While a proposal is on its way the next requests gather, so the rate does not hang on how long
//! one takes. Renewals of leases and the look for leases that have run out take turns as well: a
//! lease that was renewed is not taken away by a plan that was made before.

use std::time::Duration;

use base::Term;
use placement::etcd::{EtcdBatch, EtcdChores, EtcdError, EtcdReply, EtcdWrite};
use placement::{Change, Placement};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{HostError, NotPlacementLeader, PlacementHost};

/// So many requests may wait; more have to wait to wait.
const WAITING_MAX: usize = 4_096;

/// So many are planned together.
const BATCH_MAX: usize = 512;

/// After chores that could not be done.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why a request was not answered.
#[derive(Debug)]
pub(crate) enum DeskError {
    /// The rules say no; nothing was written.
    Refused(EtcdError),
    /// The placement driver does not run here, or does so no longer: whether something was written
    /// is not known in the latter case.
    Host(HostError),
    /// The batch failed; the first of its requests was told why. It may be written all the same.
    Lost,
}

struct Waiting {
    write: EtcdWrite,
    answer: oneshot::Sender<Result<EtcdReply, DeskError>>,
}

/// The desk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EtcdDesk {
    host: PlacementHost,
    waiting: mpsc::Sender<Waiting>,
    changed: watch::Receiver<()>,
}

/// Who writes what is handed in. There is one.
struct EtcdClerk {
    host: PlacementHost,
    waiting: mpsc::Receiver<Waiting>,
    changed: watch::Sender<()>,
    /// When chores are due.
    chores_at: Option<Instant>,
}

impl EtcdDesk {
    /// Opens the desk; its clerk is one of the tasks.
    pub(crate) fn open(host: PlacementHost, tasks: &mut JoinSet<()>) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let changed = watch::Sender::new(());
        let desk = Self { host: host.clone(), waiting: sender, changed: changed.subscribe() };
        tasks.spawn(EtcdClerk { host, waiting, changed, chores_at: None }.run());
        desk
    }

    /// The placement driver, should it run here.
    pub(crate) fn host(&self) -> &PlacementHost {
        &self.host
    }

    /// Told whenever keys may have changed.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }

    /// Answers once what was asked is applied.
    pub(crate) async fn write(&self, write: EtcdWrite) -> Result<EtcdReply, DeskError> {
        let (answer, receive) = oneshot::channel();
        // Both fail when the node stops.
        self.waiting.send(Waiting { write, answer }).await.map_err(|_| DeskError::Lost)?;
        receive.await.unwrap_or(Err(DeskError::Lost))
    }

    /// Answers from memory, when it is sure that nobody has written anything newer.
    pub(crate) async fn read<R>(&self, read: impl FnOnce(&Placement) -> R) -> Result<R, HostError> {
        let (term, answer) = self.host.read_in_term(read)?;
        self.host.confirm_term(term).await?;
        Ok(answer)
    }

    /// Answers from memory.
    pub(crate) fn read_soon<R>(&self, read: impl FnOnce(&Placement) -> R) -> Result<R, HostError> {
        Ok(self.host.read(read)?)
    }
}

impl PlacementHost {
    fn read_in_term<R>(
        &self,
        read: impl FnOnce(&Placement) -> R,
    ) -> Result<(Term, R), NotPlacementLeader> {
        let led = self.led();
        let led = led.as_ref().ok_or(NotPlacementLeader)?;
        Ok((led.term, read(&led.placement)))
    }

    /// Makes sure that this node leads in this term still.
    pub(super) async fn confirm_term(&self, term: Term) -> Result<(), HostError> {
        if !self.has_lease_in(term) {
            self.confirm().await?;
        }
        let (now, ()) = self.read_in_term(|_| ())?;
        if now == term { Ok(()) } else { Err(NotPlacementLeader.into()) }
    }
}

impl EtcdClerk {
    /// Works until nobody can hand in anything any more.
    async fn run(mut self) {
        let mut leads = self.host.leads();
        // It may run here already.
        leads.mark_changed();
        loop {
            let chores_at = self.chores_at;
            let chores = async {
                match chores_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                waiting = self.waiting.recv() => {
                    let Some(first) = waiting else { return };
                    self.serve(first).await;
                    self.chores_at = earlier(self.chores_at, self.chores_wait());
                }
                () = chores => {
                    let done = self.do_chores().await;
                    let wait = if done { self.chores_wait() } else { Some(RETRY_INTERVAL) };
                    self.chores_at = wait.map(|wait| Instant::now() + wait);
                }
                changed = leads.changed() => {
                    changed.expect("the sender lives as long as the host");
                    let leads = *leads.borrow_and_update();
                    self.chores_at = leads.then(Instant::now);
                }
            }
        }
    }

    fn chores_wait(&self) -> Option<Duration> {
        self.host.read(Placement::etcd_chores_wait).ok()?
    }

    /// Writes this one and all others that wait.
    async fn serve(&mut self, first: Waiting) {
        let mut waiting = vec![first];
        while waiting.len() < BATCH_MAX
            && let Ok(next) = self.waiting.try_recv()
        {
            waiting.push(next);
        }
        // Whoever has gone away shall not find later that it was written after all.
        waiting.retain(|waiting| !waiting.answer.is_closed());
        let (mut writes, mut answers) = (Vec::new(), Vec::new());
        for Waiting { write, answer } in waiting {
            writes.push(write);
            answers.push(answer);
        }
        while !writes.is_empty() {
            match self.write(&writes).await {
                Ok(batch) => {
                    writes.drain(..batch.replies.len());
                    let told = answers.drain(..batch.replies.len());
                    for (answer, reply) in told.zip(batch.replies) {
                        // Whoever waited may have gone away.
                        let _ = answer.send(reply.map_err(DeskError::Refused));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a batch of writes to etcd's keys");
                    let mut error = Some(DeskError::Host(error));
                    for answer in answers.drain(..) {
                        let _ = answer.send(Err(error.take().unwrap_or(DeskError::Lost)));
                    }
                    return;
                }
            }
        }
    }

    async fn write(&self, writes: &[EtcdWrite]) -> Result<EtcdBatch, HostError> {
        let (now, wall_ms) = (self.host.now(), self.host.wall_ms());
        let (term, ()) = self.host.read_in_term(|_| ())?;
        let plan = |placement: &Placement| {
            let Change { rows, reply } = placement.plan_etcd(writes, now, wall_ms);
            let wrote = !rows.is_empty();
            Ok(Change { rows, reply: (reply, wrote) })
        };
        let (batch, wrote) = self.host.write(plan).await?;
        if wrote {
            self.changed.send_replace(());
        } else {
            self.host.confirm_term(term).await?;
        }
        self.host.update(|placement| placement.etcd_settle(&batch, now))?;
        Ok(batch)
    }

    /// A round of chores. Whether it was done.
    async fn do_chores(&self) -> bool {
        let now = self.host.now();
        let plan = |placement: &Placement| Ok(placement.plan_etcd_chores(now));
        match self.host.write(plan).await {
            Ok(chores) => self.finish_chores(&chores),
            Err(error) => {
                tracing::debug!(%error, "chores of etcd's keys");
                false
            }
        }
    }

    fn finish_chores(&self, chores: &EtcdChores) -> bool {
        self.changed.send_replace(());
        let now = self.host.now();
        self.host.update(|placement| placement.etcd_chores_done(chores, now)).is_ok()
    }
}

fn earlier(at: Option<Instant>, wait: Option<Duration>) -> Option<Instant> {
    let new = wait.map(|wait| Instant::now() + wait);
    at.into_iter().chain(new).min()
}
