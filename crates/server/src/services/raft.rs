//! What other stores call: `Raft`, `BatchRaft` and `Snapshot` of `tikvpb.Tikv`.
//!
//! ```text
//!   BatchRaft ── cluster? ── each message: store? sense? ── credit ──> mailbox of the store thread
//!   Snapshot  ── cluster? ── one of few at once? ── files to disk, checked ── message ──> mailbox
//! ```
//!
//! A stream of messages is answered when it ends, and ends when the caller goes, this node stops or
//! something is wrong:
//!
//! | what is wrong | status |
//! | --- | --- |
//! | no cluster id in the metadata, or none that is a number | INVALID_ARGUMENT |
//! | another cluster's | FAILED_PRECONDITION |
//! | a message for another store | INVALID_ARGUMENT |
//! | too many snapshots at once | RESOURCE_EXHAUSTED |
//! | the same snapshot is being received already | ABORTED |
//! | the snapshot's files are not what the message promises | DATA_LOSS |
//! | the disk here | UNAVAILABLE |
//!
//! A message that makes no sense is counted and skipped: what is behind it may be fine.
//!
//! Bound: messages that the store thread has not looked at yet hold a credit of their size. With
//! none left the stream is not read from, and what the caller cannot send it drops.

use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, StoreId};
use bytes::Bytes;
use proto::raft_serverpb::{self, Done, SnapshotChunk};
use proto::tikvpb::BatchRaftMessage;
use raft::Body;
use store::snapshot::{SnapshotError, SnapshotFolder};
use store::{
    RaftMessage, ShardInput, alive_from_proto, credit_from_proto, raft_message_from_proto,
    receiver_of,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::metrics::Metrics;
use crate::transport::{CLUSTER_ID, Inbox, weight};

/// Chunks of one snapshot between the network and the disk.
const CHUNKS_WAITING_MAX: usize = 2;

/// Who sends a snapshot must send its next piece within this time.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// How much may be on its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RaftLimits {
    /// Messages that the store thread has not looked at yet may have this size together, about.
    pub(crate) waiting_kib_max: u32,
    /// Snapshots that are received at once, from all stores.
    pub(crate) snapshots_max: usize,
}

impl Default for RaftLimits {
    fn default() -> Self {
        Self { waiting_kib_max: 64 << 10, snapshots_max: 8 }
    }
}

/// What the service needs.
pub(crate) struct RaftParts {
    /// The cluster that this store belongs to.
    pub(crate) cluster_id: ClusterId,
    /// This store.
    pub(crate) store_id: StoreId,
    pub(crate) inbox: Arc<dyn Inbox>,
    /// Where the files of snapshots go.
    pub(crate) snapshots: SnapshotFolder,
    pub(crate) metrics: Arc<Metrics>,
    /// Streams end when it turns true.
    pub(crate) closed: watch::Receiver<bool>,
    pub(crate) limits: RaftLimits,
}

/// The receiving end of the other stores' transports. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RaftService {
    parts: Arc<RaftParts>,
    /// In KiB.
    credit: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
}

/// Whether the caller of a call between stores is of the cluster `ours`.
pub(crate) fn check_cluster(ours: ClusterId, metadata: &MetadataMap) -> Result<(), Status> {
    let theirs = metadata.get(CLUSTER_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(theirs) = theirs else {
        return Err(Status::invalid_argument("the call does not name its cluster"));
    };
    if ClusterId(theirs) == ours {
        return Ok(());
    }
    let text = format!("mismatch cluster id, need {ours} but got {theirs}");
    Err(Status::failed_precondition(text))
}

impl RaftService {
    pub(crate) fn new(parts: RaftParts) -> Self {
        let credit = Arc::new(Semaphore::new(parts.limits.waiting_kib_max as usize));
        let receiving = Arc::new(Semaphore::new(parts.limits.snapshots_max));
        Self { parts: Arc::new(parts), credit, receiving }
    }

    /// Serves `Raft`.
    pub(crate) async fn raft(
        &self,
        request: Request<Streaming<raft_serverpb::RaftMessage>>,
    ) -> Result<Response<Done>, Status> {
        self.serve(request, |message| vec![message]).await
    }

    /// Serves `BatchRaft`.
    pub(crate) async fn batch_raft(
        &self,
        request: Request<Streaming<BatchRaftMessage>>,
    ) -> Result<Response<Done>, Status> {
        self.serve(request, |batch| batch.msgs).await
    }

    async fn serve<T>(
        &self,
        request: Request<Streaming<T>>,
        messages_of: impl Fn(T) -> Vec<raft_serverpb::RaftMessage>,
    ) -> Result<Response<Done>, Status> {
        self.check_cluster(request.metadata())?;
        let mut stream = request.into_inner();
        let mut closed = self.parts.closed.clone();
        let mut is_first_refusal = true;
        loop {
            let next = tokio::select! {
                next = stream.message() => next?,
                _ = closed.wait_for(|closed| *closed) => return Err(stopping()),
            };
            let Some(next) = next else { return Ok(Response::new(Done {})) };
            let (messages, bytes) = self.sort(messages_of(next), &mut is_first_refusal)?;
            if messages.is_empty() {
                continue;
            }
            let credit = tokio::select! {
                credit = self.credit(bytes) => credit,
                _ = closed.wait_for(|closed| *closed) => return Err(stopping()),
            };
            self.parts.inbox.messages(messages, credit);
        }
    }

    /// The messages that make sense, and their size.
    fn sort(
        &self,
        messages: Vec<raft_serverpb::RaftMessage>,
        is_first_refusal: &mut bool,
    ) -> Result<(Vec<RaftMessage>, usize), Status> {
        let counters = self.parts.metrics.transport();
        let mut sound = Vec::with_capacity(messages.len());
        let mut bytes = 0;
        for message in messages {
            self.check_store(&message)?;
            if let Some(alive) = alive_from_proto(&message) {
                self.parts.inbox.tell(ShardInput::Alive(alive));
                continue;
            }
            if let Some(credit) = credit_from_proto(&message) {
                self.parts.inbox.tell(ShardInput::Credit(credit));
                continue;
            }
            let refusal = match raft_message_from_proto(message) {
                Ok(message) if matches!(message.message.body, Body::Snapshot { .. }) => {
                    "a snapshot without its files".to_owned()
                }
                Ok(message) => {
                    bytes += weight(&message);
                    sound.push(message);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            counters.refused.add(1);
            if std::mem::take(is_first_refusal) {
                tracing::warn!("another store sends what makes no sense: {refusal}");
            }
        }
        counters.received.add(sound.len());
        counters.received_bytes.add(bytes);
        Ok((sound, bytes))
    }

    async fn credit(&self, bytes: usize) -> OwnedSemaphorePermit {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let kib = kib.min(self.parts.limits.waiting_kib_max);
        let credit = self.credit.clone().acquire_many_owned(kib).await;
        credit.expect("the semaphore is never closed")
    }

    /// Whether the caller is of this cluster.
    pub(crate) fn check_cluster(&self, metadata: &MetadataMap) -> Result<(), Status> {
        check_cluster(self.parts.cluster_id, metadata)
    }

    fn check_store(&self, message: &raft_serverpb::RaftMessage) -> Result<(), Status> {
        let ours = self.parts.store_id;
        match receiver_of(message) {
            Some(theirs) if theirs != ours => {
                let text = format!("a message for store {theirs}, but this is store {ours}");
                Err(Status::invalid_argument(text))
            }
            // A message for nobody makes no sense; that is for the next check to say.
            _ => Ok(()),
        }
    }

    /// Serves `Snapshot`.
    pub(crate) async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Done>, Status> {
        self.check_cluster(request.metadata())?;
        let Ok(_receiving) = self.receiving.try_acquire() else {
            return Err(Status::resource_exhausted("too many snapshots at once"));
        };
        let mut chunks = request.into_inner();
        let mut closed = self.parts.closed.clone();
        tokio::select! {
            done = self.receive(&mut chunks) => done.map(Response::new),
            _ = closed.wait_for(|closed| *closed) => Err(stopping()),
        }
    }

    async fn receive(&self, chunks: &mut Streaming<SnapshotChunk>) -> Result<Done, Status> {
        let head = next_chunk(chunks).await?.and_then(|chunk| chunk.message);
        let head = head.ok_or_else(|| Status::invalid_argument("a snapshot without a message"))?;
        self.check_store(&head)?;
        let message = raft_message_from_proto(head)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Body::Snapshot { snapshot, .. } = &message.message.body else {
            return Err(Status::invalid_argument("a message of another kind than Snapshot"));
        };
        let (region, pos) = (message.region_id, snapshot.pos);
        match self.receive_files(&message, snapshot, chunks).await {
            // It came before, and the answer was lost.
            Ok(()) | Err(Received::Refused(SnapshotError::Taken { complete: true, .. })) => {}
            Err(Received::Cut(status)) => {
                tracing::warn!(%region, %pos, error = status.message(), "a snapshot was cut off");
                return Err(status);
            }
            Err(Received::Refused(error)) => {
                tracing::warn!(%region, %pos, %error, "a snapshot was not received");
                return Err(Status::new(code_of(&error), error.to_string()));
            }
        }
        tracing::info!(%region, %pos, store = %message.from.store_id, "snapshot received");
        self.parts.metrics.transport().snapshots_received.add(1);
        self.parts.inbox.tell(ShardInput::Message(message));
        Ok(Done {})
    }

    /// Carries chunks to a thread that may wait for the disk. When this ends early, so does it.
    async fn receive_files(
        &self,
        message: &RaftMessage,
        snapshot: &raft::Snapshot,
        chunks: &mut Streaming<SnapshotChunk>,
    ) -> Result<(), Received> {
        let (folder, region, snapshot) =
            (self.parts.snapshots.clone(), message.region_id, snapshot.clone());
        let (pieces, mut waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = folder.writer(region, &snapshot)?;
            while let Some(piece) = waiting.blocking_recv() {
                match piece {
                    Piece::Data(data) => writer.write(&data)?,
                    Piece::End => {
                        writer.finish()?;
                        break;
                    }
                }
            }
            Ok(())
        });
        loop {
            let (piece, is_end) = match next_chunk(chunks).await.map_err(Received::Cut)? {
                Some(chunk) => (Piece::Data(chunk.data), false),
                None => (Piece::End, true),
            };
            if let Piece::Data(data) = &piece {
                self.parts.metrics.transport().snapshot_bytes.add(data.len());
            }
            // If nobody takes it the writer has failed, and says why.
            if pieces.send(piece).await.is_err() || is_end {
                break;
            }
        }
        drop(pieces);
        match writing.await {
            Ok(written) => written.map_err(Received::Refused),
            Err(error) => Err(Received::Cut(Status::internal(error.to_string()))),
        }
    }
}

/// What goes to the thread that writes.
enum Piece {
    Data(Bytes),
    /// The caller has sent everything; without it the stream was cut.
    End,
}

/// Why a snapshot is not here.
enum Received {
    Cut(Status),
    Refused(SnapshotError),
}

async fn next_chunk(
    chunks: &mut Streaming<SnapshotChunk>,
) -> Result<Option<SnapshotChunk>, Status> {
    let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
    next.unwrap_or_else(|_| Err(Status::deadline_exceeded("no piece of the snapshot came")))
}

fn code_of(error: &SnapshotError) -> Code {
    match error {
        SnapshotError::Taken { .. } => Code::Aborted,
        error if error.is_damage() => Code::DataLoss,
        _ => Code::Unavailable,
    }
}

fn stopping() -> Status {
    Status::unavailable("this node stops")
}
