//! Leave to read a region from the engine of this store, on the reader's own thread.
//!
//! ```text
//!   RegionViews::permit ──┬─ a lease, or a safe timestamp ──> ReadPermit ── data ── recheck
//!                         └─ NeedsReadIndex ──> the shard asks the leader, waits until applied
//!                                └──> RegionViews::permit_after_index ──> the same
//! ```
//!
//! A permit is worth nothing before [`RegionViews::recheck`] is content *after* the data was taken:
//! the lease may have run out in between, the region may have been cut, or the replica may be gone
//! and another one in its place, whose data are not complete yet.

use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Instant, TimeStamp};

use crate::RegionError;
use crate::view::{RegionView, RegionViews, RequestHeader};

/// Which replica may answer a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader.
    Leader,
    /// Any: one that follows asks the leader how far it must have applied.
    Replica,
    /// Any that knows everything up to this timestamp; the leader answers with what is now. Zero:
    /// any state will do that was complete at some time.
    Past(TimeStamp),
}

/// Why a read is not allowed here and now.
#[derive(Debug)]
pub enum ReadRefusal {
    /// For the client.
    Region(RegionError),
    /// Ask the shard first ([`ShardInput::ReadIndex`](crate::ShardInput::ReadIndex)).
    NeedsReadIndex,
}

/// What a permit rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    /// The leader's lease, which must hold until the data is taken.
    Lease,
    /// The replica has applied everything that was committed when the read began, or before the
    /// timestamp that it asks for.
    Applied,
}

/// Leave to read, given at a moment. See the module's page.
#[derive(Clone, Debug)]
pub struct ReadPermit {
    view: Arc<RegionView>,
    ground: Ground,
}

impl ReadPermit {
    /// The region as it was at that moment.
    pub fn view(&self) -> &RegionView {
        &self.view
    }
}

impl RegionViews {
    /// Whether the replica here may answer a read at `now`. Checks store, region, peer, leader,
    /// term and epoch in this order.
    pub fn permit(
        &self,
        header: &RequestHeader,
        from: ReadFrom,
        now: Instant,
    ) -> Result<ReadPermit, ReadRefusal> {
        let any_replica = from != ReadFrom::Leader;
        let view = self.route_to(header, any_replica).map_err(ReadRefusal::Region)?;
        if view.has_lease(now) {
            return Ok(ReadPermit { view, ground: Ground::Lease });
        }
        match from {
            ReadFrom::Past(ts) if !view.is_leader() => {
                let safe_ts = self.safe_times().of(&view);
                if safe_ts == TimeStamp::default() || ts > safe_ts {
                    let (region, peer) = (view.region.id, view.peer.id);
                    let error = RegionError::DataIsNotReady { region, peer, safe_ts };
                    return Err(ReadRefusal::Region(error));
                }
                Ok(ReadPermit { view, ground: Ground::Applied })
            }
            _ => Err(ReadRefusal::NeedsReadIndex),
        }
    }

    /// Like [`permit`](Self::permit), after the shard has answered that the replica here is far
    /// enough.
    pub fn permit_after_index(
        &self,
        header: &RequestHeader,
        from: ReadFrom,
    ) -> Result<ReadPermit, RegionError> {
        let view = self.route_to(header, from != ReadFrom::Leader)?;
        if !view.has_data {
            return Err(not_ready(&view));
        }
        Ok(ReadPermit { view, ground: Ground::Applied })
    }

    /// The second look, after the data was taken.
    pub fn recheck(&self, permit: &ReadPermit, now: Instant) -> Result<(), RegionError> {
        if !keep(Rule::SecondLook) {
            return Ok(());
        }
        let (first, id) = (&permit.view, permit.view.region.id);
        let view = self.get(id).ok_or(RegionError::RegionNotFound(id))?;
        view.check_epoch(Some(first.region.epoch))?;
        match permit.ground {
            Ground::Lease if view.still_readable(first, now) => Ok(()),
            Ground::Lease => Err(RegionError::StaleCommand(id)),
            Ground::Applied if view.has_same_data(first) => Ok(()),
            Ground::Applied => Err(not_ready(&view)),
        }
    }

    fn route_to(
        &self,
        header: &RequestHeader,
        any_replica: bool,
    ) -> Result<Arc<RegionView>, RegionError> {
        let view = self.find(header)?;
        let checked = match any_replica {
            true => view.check_replica(header),
            false => view.check(header),
        };
        checked.map_err(|error| self.with_siblings(error))?;
        Ok(view)
    }
}

fn not_ready(view: &RegionView) -> RegionError {
    let reason = "a snapshot replaces the data here";
    RegionError::ReadIndexNotReady { region: view.region.id, reason }
}
