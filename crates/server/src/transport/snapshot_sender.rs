//! Snapshots on their way out: a few at once, each on a connection of its own, so that raft
//! messages do not wait behind them.
//!
//! ```text
//!   files ── SnapshotReader ── chunks of 1 MiB, no faster than allowed ── Snapshot stream ──> Done
//!                  ▲                                                            │
//!                  └───────── once more from its begin, a few times ◄───────────┘ cut off, busy
//! ```

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{PeerId, RegionId, StoreId};
use futures_util::{Stream, stream};
use proto::raft_serverpb::{self, SnapshotChunk};
use raft::Body;
use store::snapshot::{Pace, SnapshotReader};
use store::{RaftMessage, ShardInput, raft_message_to_proto};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Code;

use super::TransportParts;
use super::connect::{LinkError, connect, signed};

/// A transfer may take so long, and longer by its size.
const TIME_MIN: Duration = Duration::from_secs(120);

/// No working network is slower than this.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// A transfer that was cut off, or that came when the other store received too many already, is
/// begun again after this pause: raft would ask for another snapshot as soon as it knew that this
/// one is lost, and making one is work.
const PAUSE: Duration = Duration::from_secs(2);

/// Times that a transfer is begun.
const TRIES: u32 = 3;

/// How many, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotLimits {
    /// Transfers at the same time.
    pub(crate) at_once_max: usize,
    /// Transfers that may wait for others to end; their files lie on the disk meanwhile.
    pub(crate) waiting_max: usize,
    /// Of all transfers together.
    pub(crate) bytes_per_second: u64,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self { at_once_max: 2, waiting_max: 64, bytes_per_second: 64 << 20 }
    }
}

pub(super) struct SnapshotSender {
    parts: Arc<TransportParts>,
    permits: Semaphore,
    /// Transfers that run or wait.
    open: AtomicUsize,
    pace: Mutex<Pace>,
    started: Instant,
}

/// The shard's right to hear what became of a snapshot message. Told when it is dropped, so that
/// no way out forgets it.
struct Owed {
    region_id: RegionId,
    to: PeerId,
    arrived: bool,
    sender: Arc<SnapshotSender>,
}

impl Owed {
    fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Self { region_id, to, arrived, ref sender } = *self;
        sender.open.fetch_sub(1, Ordering::Relaxed);
        let counters = sender.parts.metrics.transport();
        if arrived { &counters.snapshots_sent } else { &counters.snapshots_lost }.add(1);
        sender.parts.inbox.tell(ShardInput::SnapshotSent { region_id, to, arrived });
    }
}

/// Whether the same files may arrive at another try: the stream broke, or the other store had no
/// room for it. One that cannot be reached at all is left alone, and so is one that refuses what
/// it was sent.
fn may_pass(error: &LinkError) -> bool {
    let LinkError::Refused(status) = error else { return false };
    !matches!(
        status.code(),
        Code::DataLoss | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented
    )
}

impl SnapshotSender {
    pub(super) fn new(parts: Arc<TransportParts>) -> Self {
        let limits = parts.snapshot_limits;
        Self {
            permits: Semaphore::new(limits.at_once_max),
            open: AtomicUsize::new(0),
            pace: Mutex::new(Pace::new(limits.bytes_per_second)),
            started: Instant::now(),
            parts,
        }
    }

    /// The transfer of a message with body `Snapshot` and of its files, to be run.
    pub(super) fn transfer(
        self: Arc<Self>,
        message: RaftMessage,
    ) -> impl Future<Output = ()> + Send + 'static {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let (region_id, to) = (message.region_id, message.to.id);
        let owed = Owed { region_id, to, arrived: false, sender: self.clone() };
        let limits = self.parts.snapshot_limits;
        let too_many = open >= limits.at_once_max + limits.waiting_max;
        async move {
            let store = message.to.store_id;
            match self.run(message, too_many).await {
                Ok(bytes) => {
                    tracing::info!(region = %region_id, %store, bytes, "snapshot sent");
                    owed.arrived();
                }
                Err(error) => {
                    tracing::warn!(region = %region_id, %store, %error, "snapshot not sent");
                    drop(owed);
                }
            }
        }
    }

    /// Returns the bytes of the files that arrived. They are gone from here, whatever happens.
    async fn run(self: &Arc<Self>, message: RaftMessage, too_many: bool) -> Result<u64, LinkError> {
        let _permit = if too_many {
            None
        } else {
            Some(self.permits.acquire().await.expect("the semaphore is never closed"))
        };
        let store = message.to.store_id;
        let (reader, message) = self.open(message).await?;
        if too_many {
            return Err(LinkError::Files("too many wait to be sent".to_owned()));
        }
        let bytes = reader.left();
        for _ in 1..TRIES {
            match self.send(store, &message, reader.rewound()).await {
                Err(error) if may_pass(&error) => {
                    tracing::info!(%store, %error, "a snapshot is sent once more");
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done.map(|()| bytes),
            }
        }
        self.send(store, &message, reader).await.map(|()| bytes)
    }

    async fn send(
        self: &Arc<Self>,
        store: StoreId,
        message: &raft_serverpb::RaftMessage,
        reader: SnapshotReader,
    ) -> Result<(), LinkError> {
        let limit = TIME_MIN + Duration::from_secs(reader.left() / SLOWEST_BYTES_PER_SECOND);
        let mut client = connect(&self.parts, store).await?;
        let call = client.snapshot(signed(&self.parts, self.chunks(message.clone(), reader)));
        tokio::time::timeout(limit, call).await.map_err(|_| LinkError::Slow)??;
        Ok(())
    }

    async fn open(
        &self,
        message: RaftMessage,
    ) -> Result<(SnapshotReader, raft_serverpb::RaftMessage), LinkError> {
        let folder = self.parts.snapshots.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let Body::Snapshot { snapshot, .. } = &message.message.body else {
                return Err(LinkError::Files("the message carries no snapshot".to_owned()));
            };
            let reader = folder.reader(message.region_id, message.message.to, snapshot);
            let reader = reader.map_err(|error| LinkError::Files(error.to_string()))?;
            Ok((reader, raft_message_to_proto(message)))
        });
        opened.await.unwrap_or_else(|error| Err(LinkError::Files(error.to_string())))
    }

    /// The message, then the files. A file that cannot be read ends the stream, and the receiver
    /// misses what was promised.
    fn chunks(
        self: &Arc<Self>,
        message: raft_serverpb::RaftMessage,
        reader: SnapshotReader,
    ) -> impl Stream<Item = SnapshotChunk> + Send + 'static {
        let state = (self.clone(), Some(message), reader);
        stream::unfold(state, |(sender, mut message, reader)| async move {
            if let Some(message) = message.take() {
                let chunk = SnapshotChunk { message: Some(message), ..Default::default() };
                return Some((chunk, (sender, None, reader)));
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut reader = reader;
                (reader.next_chunk(), reader)
            });
            let (data, reader) = match read.await.ok()? {
                (Ok(data), reader) => (data?, reader),
                (Err(error), _) => {
                    tracing::warn!(%error, "a snapshot cannot be read");
                    return None;
                }
            };
            sender.pause_for(data.len()).await;
            sender.parts.metrics.transport().snapshot_bytes.add(data.len());
            Some((SnapshotChunk { data, ..Default::default() }, (sender, None, reader)))
        })
    }

    /// Waits until so many bytes may be sent.
    async fn pause_for(&self, bytes: usize) {
        let now = base::Instant(self.started.elapsed().as_nanos() as u64);
        let pace = || self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = pace().take(now, bytes as u64).since(now);
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
    }
}
