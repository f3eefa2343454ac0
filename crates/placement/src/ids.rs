//! Ids of stores, regions and peers: one sequence for all, never used twice.

use base::StoreId;
use base::rule::{Rule, keep};
use proto::pdpb;

use crate::rows::RowKey;
use crate::{Change, Placement, PlacementError, RowChanges};

/// No id at or above this one is given out. What lies above is reserved (the system region and its
/// peers); nobody counts that far.
const ID_END: u64 = 1 << 62;

/// The largest id that was given out. It is saved with each batch, so a restart wastes none.
#[derive(Debug)]
pub(crate) struct Ids {
    last: u64,
}

const _: () = assert!(StoreId::FOUNDER.0 < ID_END && ID_END < u64::MAX);

impl Ids {
    /// No id given out but the founder's, which is older than the placement driver.
    pub(crate) fn new() -> Self {
        Self { last: StoreId::FOUNDER.0 }
    }

    /// What the saved row says.
    pub(crate) fn restore(&mut self, last: u64) -> Result<(), &'static str> {
        if last < self.last {
            return Err("goes back");
        }
        if keep(Rule::IdsAboveSaved) {
            self.last = last;
        }
        Ok(())
    }

    /// Plans `count` new consecutive ids; returns the first.
    pub(crate) fn plan(&self, count: u64, rows: &mut RowChanges) -> Result<u64, PlacementError> {
        assert!(count > 0, "a batch of no ids");
        let last = self.last.checked_add(count).filter(|&last| last < ID_END);
        let last = last.ok_or_else(|| PlacementError::refused("no ids are left"))?;
        assert!(self.last + 1 > StoreId::FOUNDER.0, "the founder's id was given out");
        rows.put_u64(&RowKey::LastId, last);
        Ok(self.last + 1)
    }

    /// Plans that none of `ids`, which a store uses already, is given out later.
    pub(crate) fn plan_used(
        &self,
        ids: &[u64],
        rows: &mut RowChanges,
    ) -> Result<(), PlacementError> {
        let largest = ids.iter().copied().max().unwrap_or(0);
        assert!(largest > 0, "callers refuse ids of zero");
        if largest >= ID_END {
            return Err(PlacementError::invalid(format!("id {largest} is reserved")));
        }
        if largest > self.last {
            rows.put_u64(&RowKey::LastId, largest);
        }
        Ok(())
    }
}

impl Placement {
    /// AllocID: gives out `count` consecutive ids (0 means 1); the answer names the last of them.
    pub fn alloc_id(
        &self,
        request: &pdpb::AllocIdRequest,
    ) -> Result<Change<pdpb::AllocIdResponse>, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        let count = request.count.max(1);
        let mut rows = RowChanges::default();
        let first = self.ids.plan(u64::from(count), &mut rows)?;
        let last = first + u64::from(count) - 1;
        assert!(!rows.is_empty() && last >= first, "ids leave only after they are saved");
        let reply = pdpb::AllocIdResponse {
            header: Some(self.header()),
            id: last,
            count: if count > 1 { count } else { 0 },
        };
        Ok(Change { rows, reply })
    }
}
