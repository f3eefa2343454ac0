//! The shard's part in snapshots: which of those that arrive are taken, and what becomes of those
//! that were made.

use base::{KeyRange, PeerId, RegionId};
use raft::{Body, Snapshot};

use super::Shard;
use crate::input::{Outbox, RaftMessage};
use crate::job::Job;
use crate::replica::Replica;
use crate::snapshot::{DiscardSnapshot, SnapshotError, SnapshotFiles, SnapshotKey, SnapshotName};

impl Shard {
    /// Whether a message may go to raft: a snapshot only if it can be installed. Else its files go,
    /// and the leader hears nothing and makes another in time.
    pub(super) fn admits(&self, message: &RaftMessage, out: &mut Outbox) -> bool {
        let Body::Snapshot { snapshot, .. } = &message.message.body else { return true };
        let id = message.region_id;
        let replica = self.replicas.get(&id);
        let Err(cause) = self.check_snapshot(replica, id, snapshot) else { return true };
        let key = SnapshotKey::new(id, snapshot.pos);
        tracing::info!(snapshot = %key, cause, "a snapshot is not taken");
        if !replica.is_some_and(|replica| replica.is_installing(key)) {
            let name = SnapshotName::Received(key);
            out.jobs.push(Job::DiscardSnapshot(DiscardSnapshot(name)));
        }
        false
    }

    fn check_snapshot(
        &self,
        replica: Option<&Replica>,
        id: RegionId,
        snapshot: &Snapshot,
    ) -> Result<(), &'static str> {
        let region = replica.ok_or("no replica is here")?.admit(snapshot)?;
        match self.is_taken(&region.range, id) {
            true => Err("another region has a part of its keys"),
            false => Ok(()),
        }
    }

    /// Whether another region has data in the range: it lives here, is about to, or did.
    pub(super) fn is_taken(&self, range: &KeyRange, but: RegionId) -> bool {
        if but.is_system() {
            return false;
        }
        let others = self.replicas.iter().filter(|(id, _)| **id != but && !id.is_system());
        let coming = others.filter_map(|(_, replica)| replica.coming_range());
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
