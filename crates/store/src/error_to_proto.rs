//! Why a region refuses a request, in the words of the protocol.
//!
//! Every `errorpb.Error` has a message, because old clients print that, and at most one detail.

use base::{PeerId, Region, RegionId, StoreId, TimeStamp};
use bytes::Bytes;
use proto::errorpb;

use crate::RegionError;

/// How long a client should wait before it asks a busy server again, in milliseconds: hand-overs,
/// full queues and steps of a merge mostly pass within this time.
const BUSY_BACKOFF_MS: u64 = 50;

/// A region error as clients understand it.
pub fn region_error_to_proto(error: &RegionError) -> errorpb::Error {
    let mut out = errorpb::Error { message: error.to_string(), ..Default::default() };
    match error {
        RegionError::StoreNotMatch { requested, actual } => {
            let (request_store_id, actual_store_id) = (requested.0, actual.0);
            let not_match = errorpb::StoreNotMatch { request_store_id, actual_store_id };
            out.store_not_match = Some(not_match);
        }
        RegionError::RegionNotFound(region) => {
            out.region_not_found = Some(errorpb::RegionNotFound { region_id: region.0 });
        }
        RegionError::MismatchPeerId { requested, actual, .. } => {
            let (request_peer_id, store_peer_id) = (requested.0, actual.0);
            let mismatch = errorpb::MismatchPeerId { request_peer_id, store_peer_id };
            out.mismatch_peer_id = Some(mismatch);
        }
        RegionError::NotLeader { region, leader } => {
            let leader = leader.as_ref().map(proto::peer_to_proto);
            out.not_leader = Some(errorpb::NotLeader { region_id: region.0, leader });
        }
        RegionError::StaleCommand(_) => out.stale_command = Some(errorpb::StaleCommand {}),
        RegionError::EpochNotMatch { current } => {
            let current_regions = current.iter().map(|r| proto::region_to_proto(r)).collect();
            out.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
        }
        RegionError::KeyNotInRegion { key, region } => {
            out.key_not_in_region = Some(key_not_in_region(key.clone(), region));
        }
        RegionError::RaftEntryTooLarge { region, size } => {
            out.raft_entry_too_large =
                Some(errorpb::RaftEntryTooLarge { region_id: region.0, entry_size: *size });
        }
        RegionError::ServerIsBusy { reason } => {
            out.server_is_busy = Some(server_is_busy(reason));
        }
        RegionError::DataIsNotReady { region, peer, safe_ts } => {
            out.data_is_not_ready = Some(data_is_not_ready(*region, *peer, *safe_ts));
        }
        RegionError::ReadIndexNotReady { region, reason } => {
            out.read_index_not_ready = Some(read_index_not_ready(*region, reason));
        }
        RegionError::FlashbackInProgress { region, began } => {
            out.flashback_in_progress = Some(flashback_in_progress(*region, *began));
        }
        RegionError::FlashbackNotPrepared(region) => {
            out.flashback_not_prepared = Some(flashback_not_prepared(*region));
        }
        RegionError::ProposalInMergingMode(region) => {
            out.proposal_in_merging_mode =
                Some(errorpb::ProposalInMergingMode { region_id: region.0 });
        }
        RegionError::DiskFull(store) => out.disk_full = Some(disk_full(*store, &out.message)),
        RegionError::Undetermined => {
            let message = out.message.clone();
            out.undetermined_result = Some(errorpb::UndeterminedResult { message });
        }
    }
    out
}

fn key_not_in_region(key: Bytes, region: &Region) -> errorpb::KeyNotInRegion {
    let base::KeyRange { start, end } = region.range.clone();
    errorpb::KeyNotInRegion { key, region_id: region.id.0, start_key: start, end_key: end }
}

fn data_is_not_ready(
    region: RegionId,
    peer: PeerId,
    safe_ts: TimeStamp,
) -> errorpb::DataIsNotReady {
    errorpb::DataIsNotReady { region_id: region.0, peer_id: peer.0, safe_ts: safe_ts.0 }
}

fn read_index_not_ready(region: RegionId, reason: &str) -> errorpb::ReadIndexNotReady {
    errorpb::ReadIndexNotReady { reason: reason.to_owned(), region_id: region.0 }
}

fn flashback_in_progress(region: RegionId, began: TimeStamp) -> errorpb::FlashbackInProgress {
    errorpb::FlashbackInProgress { region_id: region.0, flashback_start_ts: began.0 }
}

fn flashback_not_prepared(region: RegionId) -> errorpb::FlashbackNotPrepared {
    errorpb::FlashbackNotPrepared { region_id: region.0 }
}

fn disk_full(store: StoreId, reason: &str) -> errorpb::DiskFull {
    errorpb::DiskFull { store_id: vec![store.0], reason: reason.to_owned() }
}

fn server_is_busy(reason: &str) -> errorpb::ServerIsBusy {
    errorpb::ServerIsBusy {
        reason: reason.to_owned(),
        backoff_ms: BUSY_BACKOFF_MS,
        ..Default::default()
    }
}
