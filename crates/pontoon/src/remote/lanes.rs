//! Commands over `BatchCommands` streams: many callers share a few connections.
//!
//! ```text
//!   call ──▶ queue ──▶ one message of all that waits ──▶ stream ──▶ store
//!    ▲                                                                │
//!    └── answer, by request id ◀── reader ◀── message of answers ◀────┘
//! ```
//!
//! A stream that breaks takes its waiting commands with it: nobody knows whether they were served.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use client::{ClientError, LinkError, StoreReply, StoreRequest};
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{
    BatchCommandsRequest, BatchCommandsResponse, batch_commands_request, batch_commands_response,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::convert::{self, Single, Way};
use super::placement::Placement;
use super::{channel, describe};

type Command = batch_commands_request::request::Cmd;
type Answer = batch_commands_response::response::Cmd;

/// Commands in one message at most, as TiKV's own clients have it.
const COMMANDS_A_MESSAGE_MAX: usize = 128;

/// Commands that may wait for a stream; more wait in their callers.
const QUEUE_MAX: usize = 4096;

/// Messages that may wait for the connection.
const MESSAGES_MAX: usize = 16;

/// How long one command may take: longer than a store makes anybody wait for a lock.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections to all stores, so many to each.
#[derive(Debug)]
pub(super) struct Lanes {
    connections: usize,
    next: AtomicUsize,
    open: Mutex<BTreeMap<(u64, usize), Lane>>,
}

impl Lanes {
    pub(super) fn new(connections: usize) -> Lanes {
        assert!(connections > 0, "nothing can be sent without a connection");
        Lanes { connections, next: AtomicUsize::new(0), open: Mutex::default() }
    }

    /// Sends one request over the next connection to the store.
    pub(super) async fn call(
        &self,
        placement: &Placement,
        store_id: u64,
        request: StoreRequest,
    ) -> Result<StoreReply, LinkError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.connections;
        let lane = self.lane(placement, store_id, number).await;
        let lane = lane.map_err(|error| match error {
            ClientError::Unreachable { cause, .. } => LinkError::Unsent(cause),
            error => LinkError::Unsent(error.to_string()),
        })?;
        let mut outcome = match convert::way(request) {
            Way::Stream(command) => lane.send(*command).await.and_then(convert::reply),
            Way::Single(single) => lane.call(*single).await,
        };
        let is_broken = match &mut outcome {
            // Somebody else has the store's address now.
            Ok(reply) => {
                reply.region_error().as_ref().is_some_and(|error| error.store_not_match.is_some())
            }
            Err(_) => true,
        };
        if is_broken {
            self.forget(store_id, number, &lane);
        }
        outcome
    }

    async fn lane(
        &self,
        placement: &Placement,
        store_id: u64,
        number: usize,
    ) -> Result<Lane, ClientError> {
        let known = self.open().get(&(store_id, number)).cloned();
        if let Some(lane) = known {
            return Ok(lane);
        }
        let address = placement.store(store_id).await?.address;
        let lane = Lane::open(&address).await?;
        Ok(self.open().entry((store_id, number)).or_insert(lane).clone())
    }

    fn forget(&self, store_id: u64, number: usize, lane: &Lane) {
        let mut open = self.open();
        let is_same = |open: &Lane| open.queue.same_channel(&lane.queue);
        if open.get(&(store_id, number)).is_some_and(is_same) {
            open.remove(&(store_id, number));
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<(u64, usize), Lane>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// A stream's answers.
#[derive(Debug)]
enum Stream {
    /// Those that are awaited, by request id.
    Open(HashMap<u64, oneshot::Sender<Answer>>),
    /// There will be none any more.
    Ended(LinkError),
}

impl Stream {
    /// Whoever still waits learns from the dropped sender that the stream is gone. A refusal is
    /// about one command; of several nobody knows which, and what became of the others.
    fn end(&mut self, why: LinkError) {
        let why = match (&*self, why) {
            (Stream::Open(awaited), LinkError::Refused(why)) if awaited.len() > 1 => {
                LinkError::Lost(why)
            }
            (_, why) => why,
        };
        *self = Stream::Ended(why);
    }
}

/// One connection to one store.
#[derive(Clone, Debug)]
struct Lane {
    queue: mpsc::Sender<Waiting>,
    stream: Arc<Mutex<Stream>>,
    single: TikvClient<Channel>,
}

impl Lane {
    async fn open(address: &str) -> Result<Lane, ClientError> {
        let single = TikvClient::new(channel(address).await?).max_decoding_message_size(usize::MAX);
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (messages, outbound) = mpsc::channel(MESSAGES_MAX);
        let stream = Arc::new(Mutex::new(Stream::Open(HashMap::new())));
        tokio::spawn(send_all(waiting, messages, stream.clone()));
        let (mut store, answers) = (single.clone(), stream.clone());
        tokio::spawn(async move {
            let ended = read_all(&mut store, outbound, &answers).await;
            lock(&answers).end(ended);
        });
        Ok(Lane { queue, stream, single })
    }

    async fn send(&self, command: Command) -> Result<Answer, LinkError> {
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { command, answer: sender };
        if self.queue.send(waiting).await.is_err() {
            return Err(LinkError::Unsent("the stream ended".to_owned()));
        }
        match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => match &*lock(&self.stream) {
                Stream::Ended(why) => Err(why.clone()),
                Stream::Open(_) => Err(LinkError::Lost("the command was dropped".to_owned())),
            },
            Err(_) => Err(LinkError::Lost("no answer in time".to_owned())),
        }
    }

    async fn call(&self, single: Single) -> Result<StoreReply, LinkError> {
        let mut store = self.single.clone();
        let called = async {
            Ok(match single {
                Single::MvccGetByKey(request) => {
                    StoreReply::MvccGetByKey(store.mvcc_get_by_key(request).await?.into_inner())
                }
                Single::RawGetKeyTtl(request) => {
                    StoreReply::RawGetKeyTtl(store.raw_get_key_ttl(request).await?.into_inner())
                }
                Single::RawCompareAndSwap(request) => {
                    let reply = store.raw_compare_and_swap(request).await?.into_inner();
                    StoreReply::RawCompareAndSwap(reply)
                }
            })
        };
        match tokio::time::timeout(COMMAND_TIMEOUT, called).await {
            Ok(outcome) => outcome.map_err(|status| link_error(&status)),
            Err(_) => Err(LinkError::Lost("no answer in time".to_owned())),
        }
    }
}

/// What a status says of the requests that it ends.
fn link_error(status: &Status) -> LinkError {
    match status.code() {
        Code::InvalidArgument | Code::Unimplemented | Code::FailedPrecondition => {
            LinkError::Refused(describe(status))
        }
        _ => LinkError::Lost(describe(status)),
    }
}

fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().expect("no holder of this lock panics")
}

/// Sends what waits, as much of it as there is in one message, until the stream or its callers are
/// gone.
async fn send_all(
    mut waiting: mpsc::Receiver<Waiting>,
    messages: mpsc::Sender<BatchCommandsRequest>,
    stream: Arc<Mutex<Stream>>,
) {
    let mut taken = Vec::with_capacity(COMMANDS_A_MESSAGE_MAX);
    let mut last_id = 0;
    while waiting.recv_many(&mut taken, COMMANDS_A_MESSAGE_MAX).await > 0 {
        let mut message = BatchCommandsRequest::default();
        {
            let mut stream = lock(&stream);
            let Stream::Open(awaited) = &mut *stream else { return };
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

/// Reads answers until there are no more, and says why.
async fn read_all(
    store: &mut TikvClient<Channel>,
    outbound: mpsc::Receiver<BatchCommandsRequest>,
    stream: &Mutex<Stream>,
) -> LinkError {
    let mut answers = match store.batch_commands(ReceiverStream::new(outbound)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return link_error(&status),
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => hand_out(message, stream),
            Ok(None) => return LinkError::Lost("the stream ended".to_owned()),
            Err(status) => return link_error(&status),
        }
    }
}

fn hand_out(message: BatchCommandsResponse, stream: &Mutex<Stream>) {
    let mut stream = lock(stream);
    let Stream::Open(awaited) = &mut *stream else {
        unreachable!("only the reader, which is us, ends it")
    };
    for (id, response) in message.request_ids.iter().zip(message.responses) {
        if let Some(sender) = awaited.remove(id)
            && let Some(answer) = response.cmd
        {
            // A caller that has stopped waiting needs no answer.
            let _ = sender.send(answer);
        }
    }
}
