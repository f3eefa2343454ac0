//! The older API of GC: one safe point for the cluster, and "service safe points" that hold it
//! back. What they mean is in `gc_state`.

use proto::pdpb;

use crate::gc_state::{Barrier, GC_WORKER, NULL_KEYSPACE, SafePoints};
use crate::{Change, Placement, PlacementError, RowChanges};

impl Placement {
    /// GetGCSafePoint.
    pub fn get_gc_safe_point(
        &self,
        request: &pdpb::GetGcSafePointRequest,
    ) -> Result<pdpb::GetGcSafePointResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let safe_point = self.gc.safe_points(NULL_KEYSPACE).gc;
        Ok(pdpb::GetGcSafePointResponse { header: Some(self.header()), safe_point })
    }

    /// UpdateGCSafePoint: raises the GC safe point, and the transaction safe point with it as far
    /// as that is needed. Barriers bound both. A lower value changes nothing. The answer tells
    /// where the GC safe point is now.
    pub fn update_gc_safe_point(
        &self,
        request: &pdpb::UpdateGcSafePointRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::UpdateGcSafePointResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let old = self.gc.safe_points(NULL_KEYSPACE);
        let txn = self.gc.reachable_txn(NULL_KEYSPACE, request.safe_point, wall_ms);
        let gc = old.gc.max(request.safe_point.min(txn));
        assert!(old.gc <= gc && gc <= txn, "{old:?}, then {txn} and {gc}");
        let mut rows = RowChanges::default();
        self.gc.plan_safe_points(NULL_KEYSPACE, SafePoints { txn, gc }, &mut rows);
        let header = Some(self.header());
        let reply = pdpb::UpdateGcSafePointResponse { header, new_safe_point: gc };
        Ok(Change { rows, reply })
    }

    /// UpdateServiceGCSafePoint: a service says which versions it still needs, for `ttl` seconds. A
    /// TTL of zero or less removes the service. A safe point below the current minimum comes too
    /// late and is not recorded. The answer tells the minimum over all live services.
    pub fn update_service_gc_safe_point(
        &self,
        request: &pdpb::UpdateServiceGcSafePointRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::UpdateServiceGcSafePointResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let Ok(service) = std::str::from_utf8(&request.service_id) else {
            return Err(PlacementError::invalid("the service's id is not UTF-8"));
        };
        if service == GC_WORKER {
            return self.update_gc_worker(request, wall_ms);
        }
        let mut rows = RowChanges::default();
        let txn = self.gc.safe_points(NULL_KEYSPACE).txn;
        let lowest = self.gc.blocker(NULL_KEYSPACE, wall_ms);
        if request.ttl <= 0 {
            self.gc.plan_removal(NULL_KEYSPACE, service, &mut rows);
        } else if request.safe_point >= txn {
            let barrier = Barrier::new(request.safe_point, request.ttl, wall_ms);
            self.gc.plan_barrier(NULL_KEYSPACE, service, barrier, wall_ms, &mut rows);
        }
        assert!(service != GC_WORKER, "it has no barrier");
        // The safe point itself is the minimum, but if a service is what holds it there, name it.
        let at_safe_point = lowest.filter(|(id, barrier)| barrier.ts == txn && *id != service);
        let reply = self.minimum(at_safe_point, txn, wall_ms);
        Ok(Change { rows, reply })
    }

    /// The service that runs GC: its safe point is the transaction safe point.
    fn update_gc_worker(
        &self,
        request: &pdpb::UpdateServiceGcSafePointRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::UpdateServiceGcSafePointResponse>, PlacementError> {
        if request.ttl != i64::MAX {
            let text = format!("the safe point of {GC_WORKER} cannot expire or be removed");
            return Err(PlacementError::invalid(text));
        }
        let old = self.gc.safe_points(NULL_KEYSPACE);
        let txn = self.gc.reachable_txn(NULL_KEYSPACE, request.safe_point, wall_ms);
        let mut rows = RowChanges::default();
        self.gc.plan_safe_points(NULL_KEYSPACE, SafePoints { txn, gc: old.gc }, &mut rows);
        let lowest = self.gc.blocker(NULL_KEYSPACE, wall_ms);
        assert!(txn >= old.txn, "{old:?}, then {txn}");
        let holder = lowest.filter(|(_, barrier)| barrier.ts == txn);
        let reply = self.minimum(holder, txn, wall_ms);
        Ok(Change { rows, reply })
    }

    fn minimum(
        &self,
        holder: Option<(&str, Barrier)>,
        min_safe_point: u64,
        wall_ms: u64,
    ) -> pdpb::UpdateServiceGcSafePointResponse {
        let (service, ttl) =
            holder.map_or((GC_WORKER, i64::MAX), |(id, barrier)| (id, barrier.ttl_s(wall_ms)));
        assert!(ttl > 0, "{service} has expired");
        pdpb::UpdateServiceGcSafePointResponse {
            header: Some(self.header()),
            service_id: service.to_owned().into(),
            ttl,
            min_safe_point,
        }
    }
}
