//! Why a region refused a request. The edge (crate `server`) turns each into the `errorpb.Error`
//! that clients act on.

use std::sync::Arc;

use base::{Peer, PeerId, Region, RegionId, StoreId, TimeStamp};
use bytes::Bytes;

/// A refusal. Unless the variant says otherwise the request had no effect and never will, so that
/// the client may send it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The request names another store: its sender's address book is out of date.
    #[error("request is for store {requested}, this is store {actual}")]
    StoreNotMatch {
        /// The store the request names.
        requested: StoreId,
        /// This store.
        actual: StoreId,
    },
    /// No replica of the region lies on this store.
    #[error("region {0} is not on this store")]
    RegionNotFound(RegionId),
    /// The region's replica here is another one than the request names.
    #[error("region {region}: request is for peer {requested}, this is peer {actual}")]
    MismatchPeerId {
        /// The region.
        region: RegionId,
        /// The peer the request names.
        requested: PeerId,
        /// The peer that is here.
        actual: PeerId,
    },
    /// The replica here does not lead the region.
    #[error("region {region}: peer here is not leader")]
    NotLeader {
        /// The region.
        region: RegionId,
        /// Who leads it, if known.
        leader: Option<Peer>,
    },
    /// Leadership was lost or changed hands; the proposal was replaced by another entry and will
    /// never be applied.
    #[error("region {0}: command is stale")]
    StaleCommand(RegionId),
    /// The region's key range changed since the client learnt it.
    #[error("region {}: epoch does not match", .current.first().map_or(RegionId(0), |r| r.id))]
    EpochNotMatch {
        /// The region as it is now, first; then what else became of the old one, as far as known.
        current: Vec<Arc<Region>>,
    },
    /// A key of the request lies outside the region.
    #[error("key is not in region {}", .region.id)]
    KeyNotInRegion {
        /// The offending key, in the form in which regions are split.
        key: Bytes,
        /// The region as it is.
        region: Arc<Region>,
    },
    /// The request, as a log entry, is over the limit.
    #[error("region {region}: entry of {size} bytes is too large")]
    RaftEntryTooLarge {
        /// The region.
        region: RegionId,
        /// Bytes of the entry.
        size: u64,
    },
    /// A queue is full or the store falls behind; try later.
    #[error("server is busy: {reason}")]
    ServerIsBusy {
        /// Which queue, or why.
        reason: String,
    },
    /// A read of the past that is not that far past here yet: try the leader, or another replica.
    #[error("region {region}: data is not ready, the safe timestamp here is {safe_ts}")]
    DataIsNotReady {
        /// The region.
        region: RegionId,
        /// The replica here.
        peer: PeerId,
        /// Up to here it can be read; zero if that is not known.
        safe_ts: TimeStamp,
    },
    /// The leader did not say in time up to where a follower must have applied; try again.
    #[error("region {region}: read index is not ready: {reason}")]
    ReadIndexNotReady {
        /// The region.
        region: RegionId,
        /// Why.
        reason: &'static str,
    },
    /// The region is about to become a part of its neighbour; try again, there or here.
    #[error("region {0} is in merging mode, it takes no proposals")]
    ProposalInMergingMode(RegionId),
    /// The data of the region is being made what it was at some time: until that is over only reads
    /// of before it began are let in.
    #[error("region {region} is flashed back since {began}")]
    FlashbackInProgress {
        /// The region.
        region: RegionId,
        /// The timestamp at which it began.
        began: TimeStamp,
    },
    /// A part of a flashback, in a region where none has begun.
    #[error("region {0}: no flashback has begun")]
    FlashbackNotPrepared(RegionId),
    /// The disk is full: writes are refused, reads go on.
    #[error("store {0}: disk is full")]
    DiskFull(StoreId),
    /// The node stops, and whether the request took effect is not known.
    #[error("the store is shutting down, result undetermined")]
    Undetermined,
}
