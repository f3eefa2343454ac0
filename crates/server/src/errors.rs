//! All refusals, in the words of the protocol.
//!
//! Below this crate a refusal is a typed error that says who must act. On the wire it is one of
//! three things, and which one decides what a client does next:
//!
//! | here | on the wire | the client |
//! | --- | --- | --- |
//! | [`Refusal::Region`] | `region_error`, an `errorpb.Error` | refreshes its map, sends again |
//! | [`Refusal::Text`] | `error`, a text | hands it to its user |
//! | [`Refusal::Call`] | a gRPC status | drops the connection |
//!
//! Every `errorpb.Error` has a message, because old clients print that, and at most one detail.

use std::sync::Arc;

use base::{Region, StoreId};
use proto::errorpb;
use storage::engine::EngineError;
use store::RegionError;
use tonic::Status;
use txn::RequestError;
use txn::raw::RawError;

/// Why a request does not get an ordinary answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The whole call fails, in a stream the whole stream.
    Call(Status),
    /// The client shall route anew or try again.
    Region(Box<errorpb::Error>),
    /// The user shall know.
    Text(String),
}

impl From<RegionError> for Refusal {
    fn from(error: RegionError) -> Self {
        Self::Region(Box::new(region_error(&error)))
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::Text(error.to_string())
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Text(error.to_string())
    }
}

/// The refusal of a raw read in `region`.
pub(crate) fn raw_refusal(error: RawError, region: &Arc<Region>) -> Refusal {
    match error {
        RawError::Request(error) => error.into(),
        RawError::KeyNotInRegion { key } => {
            RegionError::KeyNotInRegion { key, region: region.clone() }.into()
        }
        RawError::Damaged { ref key } => {
            tracing::error!(region = %region.id, ?key, "{error}");
            Refusal::Text(error.to_string())
        }
        RawError::Interrupted => Refusal::Region(Box::new(deadline_exceeded())),
        RawError::Engine(error) => error.into(),
    }
}

/// The refusal of a call that names another cluster.
pub(crate) fn cluster_mismatch(requested: u64, actual: u64) -> Refusal {
    let text = format!("cluster id mismatch: the request has {requested}, this is {actual}");
    Refusal::Call(Status::invalid_argument(text))
}

/// The time that the client gave the command has passed. Clients look for the words.
pub(crate) fn deadline_exceeded() -> errorpb::Error {
    const REASON: &str = "deadline is exceeded";
    let busy = errorpb::ServerIsBusy { reason: REASON.to_owned(), ..Default::default() };
    errorpb::Error {
        message: "Deadline is exceeded".to_owned(),
        server_is_busy: Some(busy),
        ..Default::default()
    }
}

/// A region error as clients understand it.
pub(crate) fn region_error(error: &RegionError) -> errorpb::Error {
    let mut out = errorpb::Error { message: error.to_string(), ..Default::default() };
    match error {
        RegionError::StoreNotMatch { requested, actual } => {
            out.store_not_match = Some(errorpb::StoreNotMatch {
                request_store_id: requested.0,
                actual_store_id: actual.0,
            });
        }
        RegionError::RegionNotFound(region) => {
            out.region_not_found = Some(errorpb::RegionNotFound { region_id: region.0 });
        }
        RegionError::MismatchPeerId { requested, actual, .. } => {
            out.mismatch_peer_id = Some(errorpb::MismatchPeerId {
                request_peer_id: requested.0,
                store_peer_id: actual.0,
            });
        }
        RegionError::NotLeader { region, leader } => {
            let leader = leader.as_ref().map(store::peer_to_proto);
            out.not_leader = Some(errorpb::NotLeader { region_id: region.0, leader });
        }
        RegionError::StaleCommand(_) => out.stale_command = Some(errorpb::StaleCommand {}),
        RegionError::EpochNotMatch { current } => {
            let current_regions = current.iter().map(|r| store::region_to_proto(r)).collect();
            out.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
        }
        RegionError::KeyNotInRegion { key, region } => {
            out.key_not_in_region = Some(errorpb::KeyNotInRegion {
                key: key.clone(),
                region_id: region.id.0,
                start_key: region.range.start.clone(),
                end_key: region.range.end.clone(),
            });
        }
        RegionError::RaftEntryTooLarge { region, size } => {
            out.raft_entry_too_large =
                Some(errorpb::RaftEntryTooLarge { region_id: region.0, entry_size: *size });
        }
        RegionError::ServerIsBusy { reason } => {
            let busy = errorpb::ServerIsBusy { reason: reason.clone(), ..Default::default() };
            out.server_is_busy = Some(busy);
        }
        RegionError::DiskFull(store) => out.disk_full = Some(disk_full(*store, &out.message)),
        RegionError::Undetermined => {
            let message = out.message.clone();
            out.undetermined_result = Some(errorpb::UndeterminedResult { message });
        }
    }
    out
}

fn disk_full(store: StoreId, reason: &str) -> errorpb::DiskFull {
    errorpb::DiskFull { store_id: vec![store.0], reason: reason.to_owned() }
}

/// A response that can say "no".
pub(crate) trait Refusable: Sized {
    /// The response with this region error or, if there is none, with this text.
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self;
}

/// The response that says `refusal`; the status if it is not for a response.
pub(crate) fn refuse<T: Refusable>(refusal: Refusal) -> Result<T, Status> {
    match refusal {
        Refusal::Call(status) => Err(status),
        Refusal::Region(error) => Ok(T::refused(Some(*error), String::new())),
        Refusal::Text(error) => Ok(T::refused(None, error)),
    }
}

/// The response to an outcome.
pub(crate) fn settle<T: Refusable>(outcome: Result<T, Refusal>) -> Result<T, Status> {
    outcome.or_else(refuse)
}

#[cfg(test)]
mod tests;
