//! Leases: keys that go away when nobody renews them.
//!
//! When a lease ends is known to the leader alone, in its own monotonic time: a renewal writes
//! nothing. What a new leader gives is in the row: the whole time to live, or, for a lease that is
//! long, what was left when it was last written down (a *checkpoint*). So a lease of an hour is not
//! an hour longer after each change of leader, and one that lives a minute costs no writes.

use std::time::Duration;

use base::Instant;
use bytes::Bytes;
use proto::etcdserverpb::{
    LeaseLeasesResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

use super::{LEASE_TTL_MAX, LEASE_TTL_MIN};
use crate::rows::{self, RowKey};
use crate::{Placement, PlacementError};

/// What is left of a lease is written down when it is so much less than what its row says.
pub(super) const CHECKPOINT: Duration = Duration::from_secs(300);

/// A lease, as far as rows tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// As granted, in seconds.
    pub(super) ttl: i64,
    /// What a new leader gives, in seconds.
    pub(super) left: i64,
}

impl Terms {
    pub(super) fn new(ttl: i64) -> Self {
        Self { ttl, left: ttl }
    }

    pub(super) fn row(self) -> Bytes {
        assert!(0 < self.left && self.left <= self.ttl && self.ttl <= LEASE_TTL_MAX, "{self:?}");
        rows::pair(self.ttl.unsigned_abs(), self.left.unsigned_abs())
    }
}

/// A lease in memory.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(super) terms: Terms,
    /// When it ends; `None` until the leader has seen it.
    ends: Option<Instant>,
}

impl Lease {
    pub(super) fn read(row: &RowKey, value: &Bytes) -> Result<Self, PlacementError> {
        let (ttl, left) = rows::read_pair(row, value)?;
        let seconds = |number: u64| i64::try_from(number).ok().filter(|s| *s <= LEASE_TTL_MAX);
        let (Some(ttl), Some(left)) = (seconds(ttl), seconds(left)) else {
            return Err(row.bad("a time to live that was never granted"));
        };
        if !(LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) || !(1..=ttl).contains(&left) {
            return Err(row.bad("a time to live that was never granted"));
        }
        Ok(Self { terms: Terms { ttl, left }, ends: None })
    }

    /// This is what was written of a lease that runs already. To write down what is left of it
    /// changes nothing here.
    pub(super) fn follow(&mut self, old: &Lease) {
        if self.terms.left < self.terms.ttl {
            self.ends = old.ends;
        }
    }

    /// It begins to run, unless it does already.
    pub(super) fn start(&mut self, now: Instant) {
        self.ends.get_or_insert(now + seconds(self.terms.left));
    }

    /// It has its whole time again.
    pub(super) fn renew(&mut self, now: Instant) {
        assert!(self.terms.left == self.terms.ttl, "a new leader would give less");
        self.ends = Some(now + seconds(self.terms.ttl));
    }

    /// What is left; one that does not run yet has all that its row says.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.map_or(seconds(self.terms.left), |ends| ends.since(now))
    }

    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// What the row should say, if that is much less than what it says.
    pub(super) fn checkpoint(&self, now: Instant) -> Option<Terms> {
        let left = self.left(now);
        if left + CHECKPOINT > seconds(self.terms.left) || self.has_ended(now) {
            return None;
        }
        // Rounded up: a lease may end late, not early.
        let left = i64::try_from(left.as_secs()).expect("below the time to live") + 1;
        Some(Terms { left: left.min(self.terms.left), ..self.terms })
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).expect("a time to live is positive"))
}

impl Placement {
    /// LeaseTimeToLive: what is left of a lease, and its keys if they are asked for. A lease that
    /// is not there has a time to live of -1.
    pub fn etcd_lease_time_to_live(
        &self,
        request: &LeaseTimeToLiveRequest,
        now: Instant,
    ) -> LeaseTimeToLiveResponse {
        let header = Some(self.etcd_header(self.etcd.revision));
        let lease = self.etcd.leases.get(&request.id).filter(|lease| !lease.has_ended(now));
        let Some(lease) = lease else {
            let (id, ttl) = (request.id, -1);
            return LeaseTimeToLiveResponse { header, id, ttl, ..Default::default() };
        };
        let ttl = i64::try_from(lease.left(now).as_secs()).expect("below the time to live");
        assert!(ttl <= lease.terms.ttl, "{ttl} seconds are left of {}", lease.terms.ttl);
        let keys = if request.keys {
            self.etcd.keys_of(request.id).cloned().collect()
        } else {
            Vec::new()
        };
        let granted_ttl = lease.terms.ttl;
        LeaseTimeToLiveResponse { header, id: request.id, ttl, granted_ttl, keys }
    }

    /// LeaseLeases: the ids of all leases.
    pub fn etcd_leases(&self) -> LeaseLeasesResponse {
        let leases = self.etcd.leases.keys().map(|id| LeaseStatus { id: *id }).collect();
        LeaseLeasesResponse { header: Some(self.etcd_header(self.etcd.revision)), leases }
    }
}
