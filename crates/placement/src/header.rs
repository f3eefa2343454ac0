//! Headers: every answer names the cluster, every request is asked for it.

use base::{ClusterId, TimeStamp};
use proto::pdpb;

use crate::PlacementError;

/// The header of an answer that holds no error.
pub fn success(cluster: ClusterId) -> pdpb::ResponseHeader {
    assert!(cluster.0 != 0, "clients take a cluster id of zero for no cluster");
    pdpb::ResponseHeader { cluster_id: cluster.0, error: None }
}

/// The header of an answer that says why the call was refused. `None` if `error` does not travel in
/// a header but as a gRPC status.
pub fn refusal(cluster: ClusterId, error: &PlacementError) -> Option<pdpb::ResponseHeader> {
    let error = error.in_header()?;
    Some(pdpb::ResponseHeader { error: Some(error), ..success(cluster) })
}

/// Checks that a request is meant for this cluster. An absent header counts as cluster 0, which
/// none is.
pub fn check(
    cluster: ClusterId,
    header: Option<&pdpb::RequestHeader>,
) -> Result<(), PlacementError> {
    assert!(cluster.0 != 0, "no cluster has the id zero");
    let got = header.map_or(0, |header| header.cluster_id);
    if got == cluster.0 {
        return Ok(());
    }
    Err(PlacementError::ClusterMismatch { need: cluster, got })
}

/// A timestamp as the protocol carries it.
pub fn timestamp(ts: TimeStamp) -> pdpb::Timestamp {
    pdpb::Timestamp {
        physical: i64::try_from(ts.physical_ms()).expect("46 bits fit"),
        logical: i64::try_from(ts.logical()).expect("18 bits fit"),
        suffix_bits: 0,
    }
}
