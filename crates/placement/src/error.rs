//! Why a call fails, and who must act on it.

use base::ClusterId;
use proto::pdpb;
use proto::pdpb::ErrorType;

/// Why placement does not do what was asked. See each variant for how it travels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The caller talks to another cluster. Travels as gRPC FAILED_PRECONDITION.
    #[error("mismatch cluster id, need {need} but got {got}")]
    ClusterMismatch {
        /// This cluster.
        need: ClusterId,
        /// What the request said; 0 if nothing.
        got: u64,
    },
    /// No store has bootstrapped the cluster yet; the caller waits. Travels in the header.
    #[error("cluster is not bootstrapped")]
    NotBootstrapped,
    /// The request is well-formed and the answer is no. Travels in the header.
    #[error("{message}")]
    Refused {
        /// How PD's protocol classes the refusal.
        kind: ErrorType,
        /// For people; some clients look for words in it.
        message: String,
    },
    /// The request makes no sense, its sender has a bug. Travels as a gRPC status and ends a
    /// stream.
    #[error("{message}")]
    Invalid {
        /// What is wrong with the request.
        message: String,
    },
    /// A row of the system region cannot be read. The node must not serve placement.
    #[error("placement row {key}: {reason}")]
    BadRow {
        /// The row's key, escaped.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl PlacementError {
    /// A refusal without a class of its own.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused { kind: ErrorType::Unknown, message: message.into() }
    }

    /// A refusal of this class.
    pub(crate) fn refused_as(kind: ErrorType, message: impl Into<String>) -> Self {
        assert!(kind != ErrorType::Ok, "a refusal needs a reason");
        Self::Refused { kind, message: message.into() }
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    /// What goes into `header.error`; `None` if the error travels as a gRPC status.
    pub fn in_header(&self) -> Option<pdpb::Error> {
        let kind = match self {
            Self::NotBootstrapped => ErrorType::NotBootstrapped,
            Self::Refused { kind, .. } => *kind,
            Self::ClusterMismatch { .. } | Self::Invalid { .. } | Self::BadRow { .. } => {
                return None;
            }
        };
        Some(pdpb::Error { r#type: kind.into(), message: self.to_string() })
    }
}
