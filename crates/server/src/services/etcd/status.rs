//! How a refusal travels: etcd's codes and words, which its clients compare.

use placement::etcd::{EtcdCode, EtcdError};
use tonic::{Code, Status};

use crate::placement_host::{DeskError, HostError};

/// The placement driver has left this node. Clients come again.
pub(super) fn leader_changed() -> Status {
    Status::unavailable("etcdserver: leader changed")
}

/// Nobody is known to lead.
pub(super) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// The node stops. Clients go elsewhere.
pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// Whether it was written is not known.
fn timed_out() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

pub(super) fn refused(error: EtcdError) -> Status {
    let code = match error.code() {
        EtcdCode::InvalidArgument => Code::InvalidArgument,
        EtcdCode::OutOfRange => Code::OutOfRange,
        EtcdCode::NotFound => Code::NotFound,
        EtcdCode::FailedPrecondition => Code::FailedPrecondition,
        EtcdCode::ResourceExhausted => Code::ResourceExhausted,
    };
    Status::new(code, error.to_string())
}

pub(super) fn of_host(error: &HostError) -> Status {
    match error {
        HostError::NotLeader(_) => leader_changed(),
        HostError::Region(_) => timed_out(),
        HostError::Placement(_) | HostError::Engine(_) => Status::unknown(error.to_string()),
    }
}

pub(super) fn of_desk(error: DeskError) -> Status {
    match error {
        DeskError::Refused(error) => refused(error),
        DeskError::Host(error) => of_host(&error),
        DeskError::Lost => timed_out(),
    }
}
