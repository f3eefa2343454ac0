//! How a result travels: in an answer, in an answer's header, or as a gRPC status.

use placement::{PlacementError, header};
use proto::pdpb;
use tonic::{Response, Status};

use crate::placement_host::{HostError, PlacementHost};

/// The header of an answer, in the form in which messages have it.
pub(crate) type Header = Option<pdpb::ResponseHeader>;

/// The answer; or, if the placement driver refused in a way that travels in a header, what
/// `refused` makes of that header.
pub(crate) fn answer<R>(
    host: &PlacementHost,
    result: Result<R, HostError>,
    refused: impl FnOnce(Header) -> R,
) -> Result<Response<R>, Status> {
    let error = match result {
        Ok(reply) => return Ok(Response::new(reply)),
        Err(error) => error,
    };
    if let HostError::Placement(refusal) = &error
        && let Some(header) = header::refusal(host.cluster_id(), refusal)
    {
        return Ok(Response::new(refused(Some(header))));
    }
    Err(status(&error))
}

/// The status of a call that has no answer. Clients look for the words `not leader` and then ask
/// the members anew; so they should when the leadership was lost while the call was written.
pub(crate) fn status(error: &HostError) -> Status {
    match error {
        HostError::NotLeader(error) => Status::unavailable(error.to_string()),
        HostError::Placement(error @ PlacementError::ClusterMismatch { .. }) => {
            Status::failed_precondition(error.to_string())
        }
        HostError::Placement(error) => Status::unknown(error.to_string()),
        HostError::Region(error) => Status::unavailable(format!("not leader: {error}")),
        HostError::Engine(error) => Status::unknown(error.to_string()),
    }
}
