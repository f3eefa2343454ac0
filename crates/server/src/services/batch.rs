//! `BatchCommands`: many requests in one message, answers in any order. The path that fast clients
//! use for everything.
//!
//! ```text
//!   message ─┬─ gets ─── lease, cache, lease again ─────────────────────────► answers at once
//!            ├─ puts, deletes ─── joined by region ─── proposal ─── applied ──┐
//!            └─ others, and what the cache does not have ─── a task each ─────┤
//!                                                                             ▼
//!   stream ◄── messages of up to 128 answers ◄──────────────────── queue of the stream
//! ```
//!
//! One stream is one value that makes the next message when it is asked for one. It is asked only
//! when the client has room for it, so a client that does not read is not read from either; and it
//! takes no more requests while too many wait.
//!
//! Invariants:
//! 1. Each request id gets exactly one answer, of the kind of its request. What owes an answer is a
//!    value ([`Owed`]) that ends the stream if it is lost.
//! 2. No command waits for another: nothing here waits while it handles a message.
//! 3. A stream that is cut leaves nothing behind: its work ends by itself, and its answers go
//!    nowhere.

mod transactions;

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use base::RegionId;
use futures_util::{Stream, stream};
use proto::kvrpcpb;
use proto::tikvpb::batch_commands_request::request::Cmd as Command;
use proto::tikvpb::batch_commands_response::Response;
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use proto::tikvpb::{
    BatchCommandsEmptyRequest, BatchCommandsEmptyResponse, BatchCommandsRequest,
    BatchCommandsResponse,
};
use store::{ReadFrom, ReadRefusal, RequestHeader, WriteResult};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::kv::{Health, no_plugins};
use super::raw::{RawService, Write, WriteGroup, WriteKind};
use super::txn::{Job, TxnService};
use crate::errors::{self, Refusal};

/// The most answers in one message.
const ANSWERS_MAX: usize = 128;

/// While so many requests of a stream wait for their answers, no more are taken.
const WAITING_MAX: usize = 16 << 10;

/// The answers to `inbound`, until it ends or `closed` turns true.
pub(super) fn serve(
    (raw, txn): (RawService, TxnService),
    health: Health,
    inbound: Streaming<BatchCommandsRequest>,
    closed: watch::Receiver<bool>,
) -> impl Stream<Item = Result<BatchCommandsResponse, Status>> + Send {
    let (sender, done) = mpsc::unbounded_channel();
    let (ready, jobs, gets) = (Ready::default(), Vec::new(), Vec::new());
    let (waiting, failed) = (0, false);
    let batch = Batch { raw, txn, health, sender, done, waiting, ready, failed, jobs, gets };
    let state = (batch, inbound, closed, true);
    stream::unfold(state, |(mut batch, mut inbound, mut closed, mut open)| async move {
        let message = batch.next(&mut inbound, &mut closed, &mut open).await?;
        Some((message, (batch, inbound, closed, open)))
    })
}

/// One stream.
struct Batch {
    raw: RawService,
    txn: TxnService,
    health: Health,
    /// For those who will answer later. At most [`WAITING_MAX`] answers and one message's are in
    /// the queue.
    sender: mpsc::UnboundedSender<Done>,
    done: mpsc::UnboundedReceiver<Done>,
    /// Requests that owe their answer to the queue.
    waiting: usize,
    ready: Ready,
    /// The stream has reported an error: nothing follows.
    failed: bool,
    /// Transactional commands of the message at hand.
    jobs: Vec<Job>,
    /// Its transactional gets.
    gets: Vec<(u64, kvrpcpb::GetRequest)>,
}

/// What comes out of the queue.
enum Done {
    /// One request is answered, or the stream cannot go on.
    One(u64, Result<Box<Answer>, Status>),
    /// A proposal is applied or refused.
    Writes(Vec<(u64, WriteKind)>, WriteResult),
}

/// Gets of one region, with their request ids.
type Gets = Vec<(u64, kvrpcpb::RawGetRequest)>;

/// What one message asks for, sorted.
#[derive(Default)]
struct Sorted {
    reads: Vec<((RequestHeader, ReadFrom), Gets)>,
    writes: Vec<WriteGroup>,
}

impl Batch {
    /// The next message; `None` at the end.
    async fn next(
        &mut self,
        inbound: &mut Streaming<BatchCommandsRequest>,
        closed: &mut watch::Receiver<bool>,
        open: &mut bool,
    ) -> Option<Result<BatchCommandsResponse, Status>> {
        if self.failed {
            return None;
        }
        let outcome = self.next_message(inbound, closed, open).await.transpose();
        self.failed = matches!(outcome, Some(Err(_)));
        outcome
    }

    async fn next_message(
        &mut self,
        inbound: &mut Streaming<BatchCommandsRequest>,
        closed: &mut watch::Receiver<bool>,
        open: &mut bool,
    ) -> Result<Option<BatchCommandsResponse>, Status> {
        loop {
            while self.ready.len() < ANSWERS_MAX
                && let Ok(done) = self.done.try_recv()
            {
                self.settle(done)?;
            }
            if let Some(message) = self.ready.take_message() {
                return Ok(Some(message));
            }
            if !*open && self.waiting == 0 {
                return Ok(None);
            }
            let takes_more = *open && self.waiting < WAITING_MAX;
            tokio::select! {
                biased;
                done = self.done.recv() => self.settle(done.expect("the stream has a sender"))?,
                message = inbound.message(), if takes_more => match message? {
                    Some(message) => self.take(message)?,
                    None => *open = false,
                },
                _ = closed.wait_for(|closed| *closed), if *open => *open = false,
            }
        }
    }

    /// Turns what came out of the queue into answers.
    fn settle(&mut self, done: Done) -> Result<(), Status> {
        match done {
            Done::One(id, answer) => {
                self.waiting -= 1;
                self.ready.push(id, Some(*answer?));
            }
            Done::Writes(requests, result) => {
                self.waiting -= requests.len();
                self.ready.reserve(requests.len());
                for (id, kind) in requests {
                    let answer = kind.response(result.clone().map_err(Refusal::from))?;
                    self.ready.push(id, Some(answer));
                }
            }
        }
        Ok(())
    }

    /// Answers what can be answered at once, and sets the rest going.
    fn take(&mut self, message: BatchCommandsRequest) -> Result<(), Status> {
        self.raw.store().metrics().batch_message();
        let BatchCommandsRequest { requests, request_ids, .. } = message;
        if requests.len() != request_ids.len() {
            let (requests, ids) = (requests.len(), request_ids.len());
            let text = format!("a batch of {requests} requests with {ids} request ids");
            return Err(Status::invalid_argument(text));
        }
        self.ready.reserve(requests.len());
        let mut sorted = Sorted::default();
        for (id, request) in request_ids.into_iter().zip(requests) {
            match request.cmd {
                Some(command) => self.sort(id, command, &mut sorted)?,
                None => self.ready.push(id, None),
            }
        }
        for group in sorted.writes {
            self.propose(group);
        }
        for (target, requests) in sorted.reads {
            self.answer_gets(target, requests)?;
        }
        self.txn.begin_all(std::mem::take(&mut self.jobs));
        self.answer_txn_gets()
    }

    fn sort(&mut self, id: u64, command: Command, sorted: &mut Sorted) -> Result<(), Status> {
        let raw = self.raw.clone();
        match command {
            command if self.is_for_newborn(&command) => self.start(id, command)?,
            Command::RawGet(request) => self.sort_get(id, request, sorted)?,
            Command::RawPut(request) if !request.for_cas => {
                self.join(id, WriteKind::Put, raw.put_write(request), sorted)?;
            }
            Command::RawBatchPut(request) if !request.for_cas => {
                self.join(id, WriteKind::BatchPut, raw.batch_put_write(request), sorted)?;
            }
            Command::RawDelete(request) if !request.for_cas => {
                self.join(id, WriteKind::Delete, raw.delete_write(request), sorted)?;
            }
            Command::RawBatchDelete(request) if !request.for_cas => {
                self.join(id, WriteKind::BatchDelete, raw.batch_delete_write(request), sorted)?;
            }
            other => self.start(id, other)?,
        }
        Ok(())
    }

    /// Whether the command is for a region that was just cut off another one: it waits on a task
    /// of its own until that region has a leader.
    fn is_for_newborn(&self, command: &Command) -> bool {
        let context = match command {
            Command::RawGet(request) => &request.context,
            Command::RawPut(request) => &request.context,
            Command::RawBatchPut(request) => &request.context,
            Command::RawDelete(request) => &request.context,
            Command::RawBatchDelete(request) => &request.context,
            _ => return false,
        };
        let region = context.as_ref().map(|context| RegionId(context.region_id));
        region.is_some_and(|region| self.raw.store().views().is_newborn(region))
    }

    /// Commands that are not joined with others.
    fn start(&mut self, id: u64, command: Command) -> Result<(), Status> {
        let raw = self.raw.clone();
        match command {
            Command::RawGet(request) => self.get_later(id, request),
            Command::RawPut(request) => {
                self.later(id, async move { raw.put(request).await.map(Answer::RawPut) });
            }
            Command::RawBatchPut(request) => {
                self.later(id, async move { raw.batch_put(request).await.map(Answer::RawBatchPut) })
            }
            Command::RawDelete(request) => {
                self.later(id, async move { raw.delete(request).await.map(Answer::RawDelete) });
            }
            Command::RawBatchDelete(request) => self.later(id, async move {
                raw.batch_delete(request).await.map(Answer::RawBatchDelete)
            }),
            Command::RawDeleteRange(request) => self.later(id, async move {
                raw.delete_range(request).await.map(Answer::RawDeleteRange)
            }),
            Command::RawBatchGet(request) => {
                self.later(id, async move { raw.batch_get(request).await.map(Answer::RawBatchGet) })
            }
            Command::RawScan(request) => {
                self.later(id, async move { raw.scan(request).await.map(Answer::RawScan) });
            }
            Command::RawBatchScan(request) => self
                .later(id, async move { raw.batch_scan(request).await.map(Answer::RawBatchScan) }),
            Command::RawCoprocessor(_) => {
                self.ready.push(id, Some(Answer::RawCoprocessor(no_plugins())));
            }
            Command::GetHealthFeedback(_) => {
                let feedback = self.health.feedback();
                self.ready.push(id, Some(Answer::GetHealthFeedback(feedback)));
            }
            Command::BroadcastTxnStatus(_) => {
                let answer = Answer::BroadcastTxnStatus(kvrpcpb::BroadcastTxnStatusResponse {});
                self.ready.push(id, Some(answer));
            }
            Command::Empty(request) => self.answer_empty(id, request),
            other => self.start_txn(id, other)?,
        }
        Ok(())
    }

    /// Echoes the id, after the time asked for.
    fn answer_empty(&mut self, id: u64, request: BatchCommandsEmptyRequest) {
        let answer = Answer::Empty(BatchCommandsEmptyResponse { test_id: request.test_id });
        if request.delay_time == 0 {
            self.ready.push(id, Some(answer));
            return;
        }
        self.later(id, async move {
            tokio::time::sleep(Duration::from_millis(request.delay_time)).await;
            Ok(answer)
        });
    }

    /// Puts a get to those of the same region.
    fn sort_get(
        &mut self,
        id: u64,
        request: kvrpcpb::RawGetRequest,
        sorted: &mut Sorted,
    ) -> Result<(), Status> {
        let target = match self.raw.target(request.context.as_ref()) {
            Ok(target) => (target.header, target.from),
            Err(refusal) => return self.refuse_get(id, refusal),
        };
        match sorted.reads.iter_mut().find(|(of, _)| *of == target) {
            Some((_, requests)) => requests.push((id, request)),
            None => sorted.reads.push((target, vec![(id, request)])),
        }
        Ok(())
    }

    /// Answers gets of one region: those in the cache at once, under one guard.
    fn answer_gets(
        &mut self,
        (header, from): (RequestHeader, ReadFrom),
        requests: Gets,
    ) -> Result<(), Status> {
        let guard = match self.raw.store().read(&header, from) {
            Ok(guard) => guard,
            Err(ReadRefusal::NeedsReadIndex) => {
                requests.into_iter().for_each(|(id, request)| self.get_later(id, request));
                return Ok(());
            }
            Err(ReadRefusal::Region(error)) => {
                let mut ids = requests.into_iter().map(|(id, _)| id);
                return ids.try_for_each(|id| self.refuse_get(id, error.clone().into()));
            }
        };
        let before = self.ready.len();
        for (id, request) in requests {
            match self.raw.get_cached(&guard, &request) {
                Some(answer) => self.ready.push(id, Some(Answer::RawGet(answer?))),
                None => self.get_later(id, request),
            }
        }
        self.raw.store().metrics().raw_reads((self.ready.len() - before) as u64);
        if let Err(error) = guard.check() {
            // What was read may be out of date: nothing of it leaves.
            let mut ids = self.ready.withdraw(before).into_iter();
            return ids.try_for_each(|id| self.refuse_get(id, error.clone().into()));
        }
        Ok(())
    }

    fn get_later(&mut self, id: u64, request: kvrpcpb::RawGetRequest) {
        let raw = self.raw.clone();
        self.later(id, async move { raw.get(request).await.map(Answer::RawGet) });
    }

    fn refuse_get(&mut self, id: u64, refusal: Refusal) -> Result<(), Status> {
        self.ready.push(id, Some(Answer::RawGet(errors::refuse(refusal)?)));
        Ok(())
    }

    /// Joins a write with others to its region, or answers why not.
    fn join(
        &mut self,
        id: u64,
        kind: WriteKind,
        write: Result<Write, Refusal>,
        sorted: &mut Sorted,
    ) -> Result<(), Status> {
        self.raw.store().metrics().raw_writes(1);
        if let Err(refusal) = write.and_then(|write| self.try_join(id, kind, &write, sorted)) {
            self.ready.push(id, Some(kind.response(Err(refusal))?));
        }
        Ok(())
    }

    fn try_join(
        &self,
        id: u64,
        kind: WriteKind,
        write: &Write,
        sorted: &mut Sorted,
    ) -> Result<(), Refusal> {
        if let Some(group) = sorted.writes.iter_mut().find(|group| group.takes(write)) {
            return Ok(group.join(id, kind, write)?);
        }
        let mut group = WriteGroup::open(&self.raw, write.target.header)?;
        group.join(id, kind, write)?;
        sorted.writes.push(group);
        Ok(())
    }

    fn propose(&mut self, group: WriteGroup) {
        self.waiting += group.len();
        let sender = self.sender.clone();
        group.propose(&self.raw, move |requests, result| {
            // The stream may be gone; then nobody waits.
            let _ = sender.send(Done::Writes(requests, result));
        });
    }

    /// Runs `work` on a task of its own, which answers request `id`.
    fn later(
        &mut self,
        id: u64,
        work: impl Future<Output = Result<Answer, Status>> + Send + 'static,
    ) {
        self.waiting += 1;
        let owed = Owed { id, sender: Some(self.sender.clone()) };
        tokio::spawn(async move { owed.answer(work.await) });
    }
}

/// The duty to answer one request. Dropped unanswered (a bug), it ends the stream, which a client
/// notices at once; a lost id it would notice after its own timeout only.
struct Owed {
    id: u64,
    sender: Option<mpsc::UnboundedSender<Done>>,
}

impl Owed {
    fn answer(mut self, answer: Result<Answer, Status>) {
        if let Some(sender) = self.sender.take() {
            // The stream may be gone; then nobody waits.
            let _ = sender.send(Done::One(self.id, answer.map(Box::new)));
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let lost = Status::internal("a command of the batch was not finished");
            let _ = sender.send(Done::One(self.id, Err(lost)));
        }
    }
}

/// Answers that wait to be sent.
#[derive(Default)]
struct Ready {
    responses: VecDeque<Response>,
    ids: VecDeque<u64>,
}

impl Ready {
    fn push(&mut self, id: u64, cmd: Option<Answer>) {
        self.ids.push_back(id);
        self.responses.push_back(Response { cmd });
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    /// Makes room for so many more.
    fn reserve(&mut self, answers: usize) {
        self.ids.reserve(answers);
        self.responses.reserve(answers);
    }

    /// Takes all answers but the first `kept` back; returns the requests that they were for.
    fn withdraw(&mut self, kept: usize) -> VecDeque<u64> {
        self.responses.truncate(kept);
        self.ids.split_off(kept)
    }

    /// A message of the oldest answers; `None` if there are none.
    fn take_message(&mut self) -> Option<BatchCommandsResponse> {
        if self.ids.is_empty() {
            return None;
        }
        let (responses, request_ids) = if self.len() <= ANSWERS_MAX {
            // The usual case: the buffers go as they are.
            (std::mem::take(&mut self.responses).into(), std::mem::take(&mut self.ids).into())
        } else {
            (self.responses.drain(..ANSWERS_MAX).collect(), self.ids.drain(..ANSWERS_MAX).collect())
        };
        Some(BatchCommandsResponse { responses, request_ids, ..Default::default() })
    }
}

/// What people call a command.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Get(_) => "KvGet",
        Command::Scan(_) => "KvScan",
        Command::Prewrite(_) => "KvPrewrite",
        Command::Commit(_) => "KvCommit",
        Command::Import(_) => "KvImport",
        Command::Cleanup(_) => "KvCleanup",
        Command::BatchGet(_) => "KvBatchGet",
        Command::BatchRollback(_) => "KvBatchRollback",
        Command::ScanLock(_) => "KvScanLock",
        Command::ResolveLock(_) => "KvResolveLock",
        Command::Gc(_) => "KvGC",
        Command::DeleteRange(_) => "KvDeleteRange",
        Command::RawGet(_) => "RawGet",
        Command::RawBatchGet(_) => "RawBatchGet",
        Command::RawPut(_) => "RawPut",
        Command::RawBatchPut(_) => "RawBatchPut",
        Command::RawDelete(_) => "RawDelete",
        Command::RawBatchDelete(_) => "RawBatchDelete",
        Command::RawScan(_) => "RawScan",
        Command::RawDeleteRange(_) => "RawDeleteRange",
        Command::RawBatchScan(_) => "RawBatchScan",
        Command::Coprocessor(_) => "Coprocessor",
        Command::PessimisticLock(_) => "KvPessimisticLock",
        Command::PessimisticRollback(_) => "KVPessimisticRollback",
        Command::CheckTxnStatus(_) => "KvCheckTxnStatus",
        Command::TxnHeartBeat(_) => "KvTxnHeartBeat",
        Command::CheckSecondaryLocks(_) => "KvCheckSecondaryLocks",
        Command::RawCoprocessor(_) => "RawCoprocessor",
        Command::FlashbackToVersion(_) => "KvFlashbackToVersion",
        Command::PrepareFlashbackToVersion(_) => "KvPrepareFlashbackToVersion",
        Command::Flush(_) => "KvFlush",
        Command::BufferBatchGet(_) => "KvBufferBatchGet",
        Command::GetHealthFeedback(_) => "GetHealthFeedback",
        Command::BroadcastTxnStatus(_) => "BroadcastTxnStatus",
        Command::Empty(_) => "Empty",
    }
}
