//! The shard's part in snapshots: which of those that arrive are taken, and what becomes of those
//! that were made.

use base::rule::{Rule, keep};
use base::{KeyRange, PeerId, RegionId};
use raft::{Body, Snapshot};

use super::Shard;
use crate::apply::ApplyInput;
use crate::input::{Outbox, RaftMessage};
use crate::job::Job;
use crate::replica::Replica;
use crate::snapshot::{DiscardSnapshot, SnapshotError, SnapshotFiles, SnapshotKey, SnapshotName};

/// Why a snapshot may be taken later.
const TAKEN: &str = "another region has a part of its keys";

impl Shard {
    /// Whether a message may go to raft: a snapshot only if it can be installed. Else its files go,
    /// and the leader hears nothing and makes another in time.
    pub(super) fn admits(&mut self, message: &RaftMessage, out: &mut Outbox) -> bool {
        let Body::Snapshot { snapshot, .. } = &message.message.body else { return true };
        let id = message.region_id;
        self.credits.close(id);
        let replica = self.replicas.get(&id);
        let cause = match self.check_snapshot(replica, id, snapshot) {
            Ok(range) => {
                self.admitted.push((id, range));
                return true;
            }
            Err(cause) => cause,
        };
        let key = SnapshotKey::new(id, snapshot.pos);
        tracing::info!(snapshot = %key, cause, "a snapshot is not taken");
        if !replica.is_some_and(|replica| replica.is_installing(key)) {
            let name = SnapshotName::Received(key);
            out.jobs.push(Job::DiscardSnapshot(DiscardSnapshot(name)));
        }
        if cause == TAKEN {
            self.make_room(id, snapshot, out);
        }
        false
    }

    fn check_snapshot(
        &self,
        replica: Option<&Replica>,
        id: RegionId,
        snapshot: &Snapshot,
    ) -> Result<KeyRange, &'static str> {
        let region = replica.ok_or("no replica is here")?.admit(snapshot)?;
        match self.is_taken(&region.range, id) && keep(Rule::SnapshotIntoFreeKeys) {
            true => Err(TAKEN),
            false => Ok(region.range),
        }
    }

    /// Whether another region has data in the range: it lives here, is about to, or did.
    pub(super) fn is_taken(&self, range: &KeyRange, but: RegionId) -> bool {
        if but.is_system() {
            return false;
        }
        let others = self.replicas.iter().filter(|(id, _)| **id != but && !id.is_system());
        let coming = others.filter_map(|(_, replica)| replica.coming_range());
        // Raft takes them over at the end of the turn.
        let admitted = self.admitted.iter().filter(|(id, _)| *id != but);
        let coming = coming.chain(admitted.map(|(_, range)| range));
        let left = self.leaving.iter().filter(|(id, _)| !id.is_system());
        let left = left.filter_map(|(_, range)| range.as_ref());
        self.views.overlapping(range, but).is_some()
            || coming.chain(left).any(|taken| taken.overlaps(range))
    }

    /// The files leave with raft's message, or go.
    pub(super) fn snapshot_built(
        &mut self,
        region: RegionId,
        to: PeerId,
        result: Result<SnapshotFiles, SnapshotError>,
        out: &mut Outbox,
    ) {
        out.apply.push(ApplyInput::SnapshotBuilt);
        let replica = self.replica(region);
        let unwanted = match (result, replica) {
            (Ok(files), Some(replica)) => {
                let name = files.name();
                replica.snapshot_made(to, files.snapshot).err().map(|_| name)
            }
            (Ok(files), None) => Some(files.name()),
            (Err(error), replica) => {
                tracing::warn!(%region, %to, %error, "a snapshot is not made");
                if let Some(replica) = replica {
                    replica.snapshot_sent(to, false);
                }
                None
            }
        };
        out.jobs.extend(unwanted.map(|name| Job::DiscardSnapshot(DiscardSnapshot(name))));
    }
}
