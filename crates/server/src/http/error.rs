//! A request that is not answered with what it asked for: a status, and a JSON string that says
//! why.

use ::placement::PlacementError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use proto::pdpb::ErrorType;

use crate::placement_host::{HostError, NotPlacementLeader};

/// The answer.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    text: String,
}

impl HttpError {
    /// The request makes no sense.
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// There is no such thing.
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    /// The thing is there, but cannot be used like this.
    pub(super) fn method(text: impl Into<String>) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, text: text.into() }
    }

    /// Not now.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }

    fn internal(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (self.status, Json(self.text)).into_response()
    }
}

impl From<NotPlacementLeader> for HttpError {
    fn from(_: NotPlacementLeader) -> Self {
        // Clients look for these words.
        Self::unavailable("no leader")
    }
}

impl From<PlacementError> for HttpError {
    fn from(error: PlacementError) -> Self {
        let text = error.to_string();
        match error {
            PlacementError::NotBootstrapped => Self::unavailable(text),
            PlacementError::Refused { kind: ErrorType::EntryNotFound, .. } => Self::not_found(text),
            PlacementError::Refused { kind: ErrorType::DuplicatedEntry, .. } => {
                Self { status: StatusCode::CONFLICT, text }
            }
            PlacementError::Refused { .. } | PlacementError::Invalid { .. } => {
                Self::bad_request(text)
            }
            PlacementError::ClusterMismatch { .. } | PlacementError::BadRow { .. } => {
                Self::internal(text)
            }
        }
    }
}

impl From<HostError> for HttpError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::NotLeader(error) => error.into(),
            HostError::Placement(error) => error.into(),
            HostError::Region(_) => Self::unavailable(error.to_string()),
            HostError::Engine(_) => Self::internal(error.to_string()),
        }
    }
}
