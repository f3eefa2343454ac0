//! The newer API of GC: states by keyspace, the two safe points moved one by one, barriers.
//! What they mean is in `gc_state`.

use proto::pdpb;
use proto::pdpb::keyspace_scope::Keyspace;

use crate::gc_state::{Barrier, GC_WORKER, NULL_KEYSPACE, SafePoints};
use crate::{Change, Placement, PlacementError, RowChanges};

impl Placement {
    /// GetGCState: of the keyspace, or of the null keyspace if it has no state of its own.
    pub fn get_gc_state(
        &self,
        request: &pdpb::GetGcStateRequest,
        wall_ms: u64,
    ) -> Result<pdpb::GetGcStateResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let keyspace = self.state_keyspace(request.keyspace_scope.as_ref())?;
        let global = request
            .include_global_gc_barriers
            .then(|| pdpb::GlobalGcBarriersInfo { barriers: self.global_barriers(wall_ms) });
        Ok(pdpb::GetGcStateResponse {
            header: Some(self.header()),
            gc_state: Some(self.gc_state(keyspace, !request.exclude_gc_barriers, wall_ms)),
            global_gc_barriers: global,
        })
    }

    /// GetAllKeyspacesGCStates: of the null keyspace and of all with a state of their own.
    pub fn get_all_keyspaces_gc_states(
        &self,
        request: &pdpb::GetAllKeyspacesGcStatesRequest,
        wall_ms: u64,
    ) -> Result<pdpb::GetAllKeyspacesGcStatesResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let keyspaces = self.keyspaces.with_own_gc().chain([NULL_KEYSPACE]);
        let with_barriers = !request.exclude_gc_barriers;
        let global_gc_barriers = if request.exclude_global_gc_barriers {
            Vec::new()
        } else {
            self.global_barriers(wall_ms)
        };
        Ok(pdpb::GetAllKeyspacesGcStatesResponse {
            header: Some(self.header()),
            gc_states: keyspaces.map(|id| self.gc_state(id, with_barriers, wall_ms)).collect(),
            global_gc_barriers,
        })
    }

    /// AdvanceTxnSafePoint: as far as barriers let it. Going back is refused.
    pub fn advance_txn_safe_point(
        &self,
        request: &pdpb::AdvanceTxnSafePointRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::AdvanceTxnSafePointResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let keyspace = self.own_keyspace(request.keyspace_scope.as_ref())?;
        let (old, target) = (self.gc.safe_points(keyspace), request.target);
        if target < old.txn {
            let text = format!("the txn safe point cannot go back from {} to {target}", old.txn);
            return Err(PlacementError::refused(text));
        }
        let txn = self.gc.reachable_txn(keyspace, target, wall_ms);
        let mut rows = RowChanges::default();
        self.gc.plan_safe_points(keyspace, SafePoints { txn, gc: old.gc }, &mut rows);
        assert!(old.txn <= txn && txn <= target, "{old:?} to {txn}, not beyond {target}");
        let blocker = self.gc.blocker(keyspace, wall_ms).filter(|_| txn < target);
        assert!(blocker.is_some() || txn == target, "nothing holds it back");
        let blocker_description = blocker
            .map(|(id, barrier)| {
                let ttl_s = barrier.ttl_s(wall_ms);
                format!("GC barrier {id:?} at {}, for another {ttl_s} s", barrier.ts)
            })
            .unwrap_or_default();
        let reply = pdpb::AdvanceTxnSafePointResponse {
            header: Some(self.header()),
            old_txn_safe_point: old.txn,
            new_txn_safe_point: txn,
            blocker_description,
        };
        Ok(Change { rows, reply })
    }

    /// AdvanceGCSafePoint: up to the transaction safe point. Going back, or beyond it, is refused.
    pub fn advance_gc_safe_point(
        &self,
        request: &pdpb::AdvanceGcSafePointRequest,
    ) -> Result<Change<pdpb::AdvanceGcSafePointResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let keyspace = self.own_keyspace(request.keyspace_scope.as_ref())?;
        let (old, gc) = (self.gc.safe_points(keyspace), request.target);
        if gc < old.gc || gc > old.txn {
            let text = format!(
                "the GC safe point can go from {} up to the txn safe point {}, not to {gc}",
                old.gc, old.txn
            );
            return Err(PlacementError::refused(text));
        }
        let mut rows = RowChanges::default();
        self.gc.plan_safe_points(keyspace, SafePoints { txn: old.txn, gc }, &mut rows);
        assert!(old.gc <= gc && gc <= old.txn, "checked above");
        let reply = pdpb::AdvanceGcSafePointResponse {
            header: Some(self.header()),
            old_gc_safe_point: old.gc,
            new_gc_safe_point: gc,
        };
        Ok(Change { rows, reply })
    }

    /// SetGCBarrier: new, or in place of the one with the same id.
    pub fn set_gc_barrier(
        &self,
        request: &pdpb::SetGcBarrierRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::SetGcBarrierResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let keyspace = self.state_keyspace(request.keyspace_scope.as_ref())?;
        let (id, ts, ttl_s) = (&request.barrier_id, request.barrier_ts, request.ttl_seconds);
        check_barrier(id, ts, ttl_s, self.gc.safe_points(keyspace).txn)?;
        let barrier = Barrier::new(ts, ttl_s, wall_ms);
        let mut rows = RowChanges::default();
        self.gc.plan_barrier(keyspace, id, barrier, wall_ms, &mut rows);
        assert!(barrier.is_live(wall_ms), "its TTL is above zero");
        let new_barrier_info = Some(barrier.to_wire(id, wall_ms));
        let reply = pdpb::SetGcBarrierResponse { header: Some(self.header()), new_barrier_info };
        Ok(Change { rows, reply })
    }

    /// DeleteGCBarrier: the answer holds the barrier, if it was there.
    pub fn delete_gc_barrier(
        &self,
        request: &pdpb::DeleteGcBarrierRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::DeleteGcBarrierResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let keyspace = self.state_keyspace(request.keyspace_scope.as_ref())?;
        let id = &request.barrier_id;
        let mut rows = RowChanges::default();
        let deleted = self.gc.plan_removal(keyspace, id, &mut rows);
        let deleted_barrier_info = deleted.map(|barrier| barrier.to_wire(id, wall_ms));
        let header = Some(self.header());
        let reply = pdpb::DeleteGcBarrierResponse { header, deleted_barrier_info };
        Ok(Change { rows, reply })
    }

    /// SetGlobalGCBarrier: a barrier for all keyspaces.
    pub fn set_global_gc_barrier(
        &self,
        request: &pdpb::SetGlobalGcBarrierRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::SetGlobalGcBarrierResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let (id, ts, ttl_s) = (&request.barrier_id, request.barrier_ts, request.ttl_seconds);
        check_barrier(id, ts, ttl_s, self.gc.highest_txn_safe_point())?;
        let barrier = Barrier::new(ts, ttl_s, wall_ms);
        let mut rows = RowChanges::default();
        self.gc.plan_global_barrier(id, barrier, wall_ms, &mut rows);
        assert!(barrier.is_live(wall_ms), "its TTL is above zero");
        let new_barrier_info = Some(barrier.to_global_wire(id, wall_ms));
        let header = Some(self.header());
        let reply = pdpb::SetGlobalGcBarrierResponse { header, new_barrier_info };
        Ok(Change { rows, reply })
    }

    /// DeleteGlobalGCBarrier: the answer holds the barrier, if it was there.
    pub fn delete_global_gc_barrier(
        &self,
        request: &pdpb::DeleteGlobalGcBarrierRequest,
        wall_ms: u64,
    ) -> Result<Change<pdpb::DeleteGlobalGcBarrierResponse>, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        let id = &request.barrier_id;
        let mut rows = RowChanges::default();
        let deleted = self.gc.plan_global_removal(id, &mut rows);
        let deleted_barrier_info = deleted.map(|barrier| barrier.to_global_wire(id, wall_ms));
        let header = Some(self.header());
        let reply = pdpb::DeleteGlobalGcBarrierResponse { header, deleted_barrier_info };
        Ok(Change { rows, reply })
    }

    fn gc_state(&self, keyspace: u32, with_barriers: bool, wall_ms: u64) -> pdpb::GcState {
        let safe_points = self.gc.safe_points(keyspace);
        assert!(safe_points.gc <= safe_points.txn, "{safe_points:?}");
        let barriers = self.gc.barriers(keyspace, wall_ms).filter(|_| with_barriers);
        pdpb::GcState {
            keyspace_scope: Some(pdpb::KeyspaceScope {
                keyspace: Some(Keyspace::KeyspaceId(keyspace)),
            }),
            is_keyspace_level_gc: keyspace != NULL_KEYSPACE,
            txn_safe_point: safe_points.txn,
            gc_safe_point: safe_points.gc,
            gc_barriers: barriers.map(|(id, barrier)| barrier.to_wire(id, wall_ms)).collect(),
        }
    }

    fn global_barriers(&self, wall_ms: u64) -> Vec<pdpb::GlobalGcBarrierInfo> {
        let barriers = self.gc.global_barriers(wall_ms);
        barriers.map(|(id, barrier)| barrier.to_global_wire(id, wall_ms)).collect()
    }

    /// The keyspace whose state counts for the scope: its own or the null keyspace.
    fn state_keyspace(&self, scope: Option<&pdpb::KeyspaceScope>) -> Result<u32, PlacementError> {
        let id = scope_id(scope)?;
        if id == NULL_KEYSPACE {
            return Ok(id);
        }
        let has_own = self.keyspaces.has_own_gc(id).ok_or_else(|| {
            let kind = pdpb::ErrorType::EntryNotFound;
            PlacementError::refused_as(kind, format!("keyspace {id} not found"))
        })?;
        Ok(if has_own { id } else { NULL_KEYSPACE })
    }

    /// The same for a call that moves safe points: the scope must have a state of its own.
    fn own_keyspace(&self, scope: Option<&pdpb::KeyspaceScope>) -> Result<u32, PlacementError> {
        let id = scope_id(scope)?;
        if self.state_keyspace(scope)? == id {
            return Ok(id);
        }
        let text = format!("keyspace {id} has no GC of its own; the null keyspace's moves it");
        Err(PlacementError::refused(text))
    }
}

/// The keyspace that a scope names; none means the null keyspace.
fn scope_id(scope: Option<&pdpb::KeyspaceScope>) -> Result<u32, PlacementError> {
    match scope.and_then(|scope| scope.keyspace) {
        None => Ok(NULL_KEYSPACE),
        Some(Keyspace::KeyspaceId(id)) => Ok(id),
        Some(Keyspace::KeyspaceIdentity(identity)) if identity.namespace_id == 0 => {
            Ok(identity.keyspace_id)
        }
        Some(Keyspace::KeyspaceIdentity(_)) => {
            Err(PlacementError::refused("this cluster has no namespaces"))
        }
    }
}

fn check_barrier(id: &str, ts: u64, ttl_s: i64, safe_point: u64) -> Result<(), PlacementError> {
    if id.is_empty() || id == GC_WORKER {
        return Err(PlacementError::refused(format!("{id:?} cannot be a barrier's id")));
    }
    if ts == 0 || ttl_s <= 0 {
        let text = format!("a barrier at {ts} for {ttl_s} seconds makes no sense");
        return Err(PlacementError::refused(text));
    }
    if ts < safe_point {
        let text = format!("a barrier at {ts} comes too late: the txn safe point is {safe_point}");
        return Err(PlacementError::refused(text));
    }
    Ok(())
}
