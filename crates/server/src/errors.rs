//! All refusals, in the words of the protocol.
//!
//! Below this crate a refusal is a typed error that says who must act. On the wire it is one of
//! four things, and which one decides what a client does next:
//!
//! | here | on the wire | the client |
//! | --- | --- | --- |
//! | [`Refusal::Region`] | `region_error`, an `errorpb.Error` | refreshes its map, sends again |
//! | [`Refusal::Key`] | `error` or `errors`, a `kvrpcpb.KeyError` | resolves, retries or gives up |
//! | [`Refusal::Text`] | `error`, a text | hands it to its user |
//! | [`Refusal::Call`] | a gRPC status | drops the connection |
//!
//! Every `errorpb.Error` has a message, because old clients print that, and at most one detail.

use std::sync::Arc;

use base::{Region, RegionId};
use proto::{errorpb, kvrpcpb};
use storage::engine::EngineError;
use store::RegionError;
pub(crate) use store::region_error_to_proto as region_error;
use tonic::Status;
use txn::concurrency::{ReadRefused, TsTooLarge};
use txn::raw::RawError;
use txn::scheduler::SubmitRefused;
use txn::wire::requests::BadRequest;
use txn::{KeyError, RequestError, TxnError, wire};

/// Why a request does not get an ordinary answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The whole call fails, in a stream the whole stream.
    Call(Status),
    /// The client shall route anew or try again.
    Region(Box<errorpb::Error>),
    /// A transaction met something at a key.
    Key(Box<kvrpcpb::KeyError>),
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

impl From<BadRequest> for Refusal {
    fn from(error: BadRequest) -> Self {
        match error {
            BadRequest::Request(error) => error.into(),
            BadRequest::Abort(abort) => KeyError::from(abort).into(),
        }
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

/// The refusal of a transactional command in `region`.
pub(crate) fn txn_refusal(error: TxnError, region: &Arc<Region>) -> Refusal {
    match error {
        TxnError::Key(error) => (*error).into(),
        TxnError::Request(error) => error.into(),
        TxnError::KeyNotInRegion { key } => {
            RegionError::KeyNotInRegion { key, region: region.clone() }.into()
        }
        TxnError::Interrupted => Refusal::Region(Box::new(deadline_exceeded())),
        TxnError::Engine(error) => error.into(),
        TxnError::Damaged { ref key, .. } | TxnError::ValueMissing { ref key, .. } => {
            tracing::error!(region = %region.id, ?key, "{error}");
            Refusal::Text(error.to_string())
        }
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        Self::Key(Box::new(wire::key_error(&error)))
    }
}

impl From<TsTooLarge> for Refusal {
    fn from(error: TsTooLarge) -> Self {
        // Clients look for the words, in an error that has nothing else.
        let message = error.to_string();
        Self::Region(Box::new(errorpb::Error { message, ..Default::default() }))
    }
}

impl From<ReadRefused> for Refusal {
    fn from(error: ReadRefused) -> Self {
        match error {
            ReadRefused::Ts(error) => error.into(),
            ReadRefused::Key(error) => (*error).into(),
        }
    }
}

impl From<SubmitRefused> for Refusal {
    fn from(error: SubmitRefused) -> Self {
        match error {
            SubmitRefused::Ts(error) => error.into(),
            SubmitRefused::Busy => RegionError::ServerIsBusy { reason: error.to_string() }.into(),
        }
    }
}

/// Async commits must wait until the region's leader knows what was read under former ones.
pub(crate) fn max_ts_not_synced(region: RegionId) -> errorpb::Error {
    errorpb::Error {
        message: format!("region {region}: max timestamp is not synced"),
        max_timestamp_not_synced: Some(errorpb::MaxTimestampNotSynced {}),
        ..Default::default()
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

/// A response that can say "no".
pub(crate) trait Refusable: Sized {
    /// The response with this region error or, if there is none, with this text.
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self;

    /// The response with this error about a key. Those without a place for it say it as a text.
    fn refused_key(error: kvrpcpb::KeyError) -> Self {
        let text = if error.abort.is_empty() { format!("{error:?}") } else { error.abort };
        Self::refused(None, text)
    }
}

/// The response that says `refusal`; the status if it is not for a response.
pub(crate) fn refuse<T: Refusable>(refusal: Refusal) -> Result<T, Status> {
    match refusal {
        Refusal::Call(status) => Err(status),
        Refusal::Region(error) => Ok(T::refused(Some(*error), String::new())),
        Refusal::Key(error) => Ok(T::refused_key(*error)),
        Refusal::Text(error) => Ok(T::refused(None, error)),
    }
}

/// The response to an outcome.
pub(crate) fn settle<T: Refusable>(outcome: Result<T, Refusal>) -> Result<T, Status> {
    outcome.or_else(refuse)
}

#[cfg(test)]
mod tests;
