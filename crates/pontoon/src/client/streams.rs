//! Commands over `BatchCommands` streams: many callers share a few connections.
//!
//! ```text
//!   run ──▶ queue ──▶ one message of all that waits ──▶ stream ──▶ store
//!    ▲                                                               │
//!    └── answer, by request id ◀── reader ◀── message of answers ◀───┘
//! ```
//!
//! A stream that breaks takes its waiting commands with it: each is sent again on a new one, which
//! is safe because every command here can be repeated.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proto::tikvpb::{
    BatchCommandsRequest, BatchCommandsResponse, batch_commands_request, batch_commands_response,
};
use proto::{errorpb, kvrpcpb};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::backoff::Backoff;
use super::region_cache::CachedRegion;
use super::region_error::{self, Remedy};
use super::router::{Router, Side};
use super::{ApiVersion, CALL_TIMEOUT, ClientError, stores};

type Command = batch_commands_request::request::Cmd;
type Answer = batch_commands_response::response::Cmd;

/// Commands in one message at most, as TiKV's own clients have it.
const COMMANDS_A_MESSAGE_MAX: usize = 128;

/// Commands that may wait for a stream; more wait in their callers.
const QUEUE_MAX: usize = 4096;

/// Messages that may wait for the connection.
const MESSAGES_MAX: usize = 16;

/// How long the waits between tries may be in all.
const BUDGET: Duration = Duration::from_secs(10);

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Read one key.
    Get(Bytes),
    /// Write one key.
    Put(Bytes, Bytes),
    /// Write many keys, in order.
    Load(Vec<(Bytes, Bytes)>),
    /// Read so many rows from a key on, within its region.
    Scan(Bytes, u32),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written.
    Done,
    /// Read: so many rows.
    Rows(usize),
}

/// A client that sends over streams. Callers choose a lane, which is a connection of its own.
#[derive(Debug)]
pub struct Streams {
    router: Router,
    lanes: Mutex<BTreeMap<(u64, usize), Lane>>,
}

impl Streams {
    /// Connects to the placement driver at `address`; streams are opened when they are needed.
    pub async fn connect(address: &str, version: ApiVersion) -> Result<Streams, ClientError> {
        let router = Router::connect(address, version).await?;
        Ok(Streams { router, lanes: Mutex::default() })
    }

    /// Does `operation` over the connection `lane`, as often as it takes.
    pub async fn run(&self, lane: usize, operation: Operation) -> Result<Outcome, ClientError> {
        let data_key = |key: &Bytes| self.router.api.data_key(key);
        match operation {
            Operation::Get(key) => {
                let key = data_key(&key);
                let request = kvrpcpb::RawGetRequest { key: key.clone(), ..Default::default() };
                self.repeat(lane, &key, |_| Command::RawGet(request.clone())).await
            }
            Operation::Put(key, value) => {
                let key = data_key(&key);
                let request =
                    kvrpcpb::RawPutRequest { key: key.clone(), value, ..Default::default() };
                self.repeat(lane, &key, |_| Command::RawPut(request.clone())).await
            }
            Operation::Scan(key, limit) => {
                let start_key = data_key(&key);
                let request = kvrpcpb::RawScanRequest { start_key, limit, ..Default::default() };
                self.repeat(lane, &request.start_key, |_| Command::RawScan(request.clone())).await
            }
            Operation::Load(pairs) => self.load(lane, pairs).await,
        }
    }

    /// Writes `pairs` region by region, in one command for each.
    async fn load(&self, lane: usize, pairs: Vec<(Bytes, Bytes)>) -> Result<Outcome, ClientError> {
        let pair = |(key, value): &(Bytes, Bytes)| kvrpcpb::KvPair {
            key: self.router.api.data_key(key),
            value: value.clone(),
            ..Default::default()
        };
        let mut left: Vec<_> = pairs.iter().map(pair).collect();
        while let Some(first) = left.first().map(|pair| pair.key.clone()) {
            let inside = |region: &CachedRegion, pair: &kvrpcpb::KvPair| {
                region.range.contains(&self.router.api.placement_key(&pair.key))
            };
            let taken = Mutex::new(0);
            let build = |region: &CachedRegion| {
                let pairs = left.iter().take_while(|pair| inside(region, pair)).cloned();
                let pairs: Vec<_> = pairs.collect();
                *taken.lock().expect("no holder of this lock panics") = pairs.len();
                Command::RawBatchPut(kvrpcpb::RawBatchPutRequest { pairs, ..Default::default() })
            };
            self.repeat(lane, &first, build).await?;
            let taken = taken.into_inner().expect("no holder of this lock panics");
            assert!(taken > 0, "the first pair lies in the region that was looked up for it");
            left.drain(..taken);
        }
        Ok(Outcome::Done)
    }

    async fn repeat(
        &self,
        lane: usize,
        key: &[u8],
        build: impl Fn(&CachedRegion) -> Command,
    ) -> Result<Outcome, ClientError> {
        let mut backoff = Backoff::new(BUDGET);
        loop {
            let region = self.router.locate(key, Side::Holding).await?;
            let mut command = build(&region);
            set_context(&mut command, self.router.context(&region));
            let last = match self.send(lane, &region, command).await {
                Ok(answer) => match self.read(&region, answer)? {
                    Ok(outcome) => return Ok(outcome),
                    Err(passing) => passing,
                },
                Err(ClientError::Unreachable { cause, .. }) => {
                    self.drop_lane(region.leader.store_id, lane);
                    self.router.forget(&region);
                    cause
                }
                Err(error) => return Err(error),
            };
            let tries = backoff.tries() + 1;
            let Some(wait) = backoff.next_wait() else {
                return Err(ClientError::GaveUp { call: "BatchCommands", tries, last });
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn send(
        &self,
        lane: usize,
        region: &CachedRegion,
        command: Command,
    ) -> Result<Answer, ClientError> {
        let store_id = region.leader.store_id;
        let known = self.lanes().get(&(store_id, lane)).cloned();
        let stream = match known {
            Some(stream) => stream,
            None => {
                let address = self.router.placement.store(store_id).await?.address;
                let stream = Lane::open(&address).await?;
                self.lanes().entry((store_id, lane)).or_insert(stream).clone()
            }
        };
        stream.send(command).await
    }

    fn read(
        &self,
        region: &Arc<CachedRegion>,
        answer: Answer,
    ) -> Result<Result<Outcome, String>, ClientError> {
        let (outcome, error, refusal) = split_answer(answer)?;
        if let Some(error) = error {
            let message = region_error::describe(&error);
            return match self.router.learn(region, &error) {
                Remedy::GiveUp => Err(ClientError::Refused { call: "BatchCommands", message }),
                _ => Ok(Err(message)),
            };
        }
        if !refusal.is_empty() {
            return Err(ClientError::Refused { call: "BatchCommands", message: refusal });
        }
        Ok(Ok(outcome))
    }

    fn drop_lane(&self, store_id: u64, lane: usize) {
        self.lanes().remove(&(store_id, lane));
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u64, usize), Lane>> {
        self.lanes.lock().expect("no holder of this lock panics")
    }
}

fn set_context(command: &mut Command, context: kvrpcpb::Context) {
    let slot = match command {
        Command::RawGet(request) => &mut request.context,
        Command::RawPut(request) => &mut request.context,
        Command::RawBatchPut(request) => &mut request.context,
        Command::RawScan(request) => &mut request.context,
        _ => unreachable!("only these four are built here"),
    };
    *slot = Some(context);
}

/// What an answer holds: the outcome, the region's error, the refusal.
fn split_answer(answer: Answer) -> Result<(Outcome, Option<errorpb::Error>, String), ClientError> {
    Ok(match answer {
        Answer::RawGet(reply) => {
            let rows = usize::from(!reply.not_found);
            (Outcome::Rows(rows), reply.region_error, reply.error)
        }
        Answer::RawPut(reply) => (Outcome::Done, reply.region_error, reply.error),
        Answer::RawBatchPut(reply) => (Outcome::Done, reply.region_error, reply.error),
        Answer::RawScan(reply) => {
            (Outcome::Rows(reply.kvs.len()), reply.region_error, String::new())
        }
        _ => {
            return Err(ClientError::Malformed {
                call: "BatchCommands",
                what: "answer of its kind",
            });
        }
    })
}

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// Answers that are awaited, by request id; none once the stream has ended.
type Awaited = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// One stream to one store.
#[derive(Clone, Debug)]
struct Lane {
    address: Arc<str>,
    queue: mpsc::Sender<Waiting>,
}

impl Lane {
    async fn open(address: &str) -> Result<Lane, ClientError> {
        let mut store = stores::connect(address).await?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (messages, outbound) = mpsc::channel(MESSAGES_MAX);
        let awaited = Awaited::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(send_all(waiting, messages, awaited.clone()));
        tokio::spawn(async move {
            if let Ok(answers) = store.batch_commands(ReceiverStream::new(outbound)).await {
                let mut answers = answers.into_inner();
                while let Ok(Some(message)) = answers.message().await {
                    hand_out(message, &awaited);
                }
            }
            // Whoever still waits learns from the dropped sender that the stream is gone.
            *awaited.lock().expect("no holder of this lock panics") = None;
        });
        Ok(Lane { address: address.into(), queue })
    }

    async fn send(&self, command: Command) -> Result<Answer, ClientError> {
        let broken = |cause: &str| ClientError::Unreachable {
            address: self.address.to_string(),
            cause: cause.to_owned(),
        };
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { command, answer: sender };
        self.queue.send(waiting).await.map_err(|_| broken("the stream ended"))?;
        match tokio::time::timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(broken("the stream ended")),
            Err(_) => Err(broken("no answer in time")),
        }
    }
}

/// Sends what waits, as much of it as there is in one message, until the stream or its callers are
/// gone.
async fn send_all(
    mut waiting: mpsc::Receiver<Waiting>,
    messages: mpsc::Sender<BatchCommandsRequest>,
    awaited: Awaited,
) {
    let mut taken = Vec::with_capacity(COMMANDS_A_MESSAGE_MAX);
    let mut last_id = 0;
    while waiting.recv_many(&mut taken, COMMANDS_A_MESSAGE_MAX).await > 0 {
        let mut message = BatchCommandsRequest::default();
        {
            let mut awaited = awaited.lock().expect("no holder of this lock panics");
            let Some(awaited) = awaited.as_mut() else { return };
            for Waiting { command, answer } in taken.drain(..) {
                last_id += 1;
                message.request_ids.push(last_id);
                message.requests.push(batch_commands_request::Request { cmd: Some(command) });
                awaited.insert(last_id, answer);
            }
        }
        // A stream that has ended drops what it cannot send; its reader has told the callers.
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

fn hand_out(message: BatchCommandsResponse, awaited: &Awaited) {
    let mut awaited = awaited.lock().expect("no holder of this lock panics");
    let awaited = awaited.as_mut().expect("only the reader, which is us, ends it");
    for (id, response) in message.request_ids.iter().zip(message.responses) {
        if let Some(sender) = awaited.remove(id)
            && let Some(answer) = response.cmd
        {
            // A caller that has stopped waiting needs no answer.
            let _ = sender.send(answer);
        }
    }
}
