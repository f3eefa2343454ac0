//! How a snapshot takes the place of what a replica holds.
//!
//! ```text
//!   message Snapshot (its files are here) ──> raft takes it over ──> Persist.snapshot
//!     Engine   the applier makes the region Applying, synced      what raft wants written from
//!     Log      the log begins behind the snapshot, synced         here on is held back: it speaks
//!     Files    a job clears the range and takes the files in      of a log that is not there yet
//!     Finish   the applier makes the region Normal, synced
//!   region, view and range map change; what was held back leaves, with the acknowledgement
//! ```
//!
//! A restart in the middle goes on at *Files*, with the log brought in order first. If the files
//! are damaged nothing was changed yet, but what was there before is not enough any more for the
//! log: the replica is *lost*, and asks for another snapshot.

use std::sync::Arc;

use base::{KeyRange, Region};
use raft::{HardState, Persist, Snapshot, SnapshotRequestError};

use super::{Replica, discard};
use crate::apply::{ApplyInput, Installation};
use crate::input::Outbox;
use crate::job::Job;
use crate::log_writer::LogStep;
use crate::snapshot::{InstallSnapshot, SnapshotData, SnapshotError, SnapshotKey, SnapshotName};
use crate::{Fatal, members, states};

/// A snapshot on its way into the replica.
pub(super) struct Install {
    pub(super) what: Installation,
    step: Step,
    /// It was begun by an earlier process.
    resumed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Engine,
    Log,
    Files,
    Finish,
}

/// What raft wants written behind the snapshot.
pub(super) type Held = Persist;

impl Install {
    /// Nothing else goes on in the replica.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }
}

impl Replica {
    /// The region as `snapshot`, which just arrived, describes it, or why it cannot be taken.
    pub(crate) fn admit(&self, snapshot: &Snapshot) -> Result<Region, &'static str> {
        if self.install.is_some() {
            return Err("another one is being installed");
        }
        if !self.applying.is_empty() && self.waits_for().is_none() {
            // What they cut off may be in the snapshot again.
            return Err("entries are being applied");
        }
        let data = SnapshotData::decode(self.region.id, &snapshot.data);
        let Ok(SnapshotData { region, .. }) = data else { return Err("it cannot be read") };
        if region.peer(self.peer.id).is_none_or(|peer| peer.store_id != self.peer.store_id) {
            return Err("this replica is no member by it");
        }
        if members::conf_of(&region) != snapshot.conf {
            return Err("it contradicts itself about the members");
        }
        Ok(region)
    }

    /// Whether this is the snapshot that is being installed.
    pub(crate) fn is_installing(&self, key: SnapshotKey) -> bool {
        self.install.as_ref().is_some_and(|install| install.key() == key)
    }

    pub(super) fn begin_install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: &HardState,
        out: &mut Outbox,
    ) {
        let id = self.region.id;
        let data = SnapshotData::decode(id, &snapshot.data).expect("it was read when it arrived");
        let pos = snapshot.pos;
        assert!(hard_state.commit >= pos.index, "region {id}: {hard_state:?} behind {pos}");
        // Entries behind it may be committed already, and are held back.
        let hard_state = HardState { commit: pos.index, ..*hard_state };
        let raft_state = states::encode_raft_state(&hard_state, pos.index);
        let (region, peer) = (Arc::new(data.region), self.peer.id);
        let absorbed = Arc::new(data.absorbed);
        let what = Installation { region, peer, pos, absorbed, raft_state };
        out.apply.push(ApplyInput::BeginInstall(what.clone()));
        self.installs += 1;
        self.install = Some(Install { what, step: Step::Engine, resumed: false });
        self.arrived = None;
    }

    /// What raft wants written waits until the snapshot is installed.
    pub(super) fn hold(&mut self, persist: &mut Persist) {
        let (entries, then) =
            (std::mem::take(&mut persist.entries), std::mem::take(&mut persist.then));
        let Persist { ticket, hard_state, .. } = *persist;
        self.held.push(Held { ticket, snapshot: None, hard_state, entries, then });
    }

    /// An earlier process left the region Applying; its log is in order.
    pub(crate) fn resume_install(&mut self, out: &mut Outbox) {
        let pos = raft::LogPos { index: self.applied.0, term: self.applied.1 };
        let raft_state = states::encode_raft_state(&self.node.hard_state(), pos.index);
        let (region, peer) = (self.region.clone(), self.peer.id);
        let absorbed = self.merging.absorbed().clone();
        let what = Installation { region, peer, pos, absorbed, raft_state };
        let install = Install { what, step: Step::Files, resumed: true };
        out.jobs.push(install.job(None));
        self.install = Some(install);
    }

    /// The region is durably Applying: its log goes, and begins anew.
    pub(crate) fn engine_is_ready(&mut self, out: &mut Outbox) {
        let (what, id) = (self.expect_step(Step::Engine, Step::Log), self.region.id);
        out.log.batch.truncate(id, what.pos.index, what.pos.term);
        out.log.batch.put_state(id, what.raft_state);
        out.log.tickets.push((id, LogStep::Restarted));
    }

    /// The log begins behind the snapshot: the data may be replaced.
    pub(crate) fn log_is_ready(&mut self, out: &mut Outbox) {
        self.expect_step(Step::Log, Step::Files);
        // All that was applied before is known by now, so also what was cut off the region.
        let old_range = self.is_initialised().then(|| self.region.range.clone());
        let install = self.install.as_ref().expect("it is at a step");
        out.jobs.push(install.job(old_range));
    }

    /// The data are replaced; or the files were damaged, and nothing happened.
    pub(crate) fn files_are_in(&mut self, result: Result<(), SnapshotError>, out: &mut Outbox) {
        let what = self.expect_step(Step::Files, Step::Finish);
        match result {
            Ok(()) => out.apply.push(ApplyInput::FinishInstall(what)),
            Err(error) => {
                tracing::error!(region = %self.region.id, %error, "a snapshot is not installed");
                self.installed(out);
                if let Err(error) = self.lose() {
                    out.fatal = Some(Fatal::raft(self.region.id, &error));
                }
            }
        }
    }

    /// The region is durably Normal: the replica is what the snapshot says.
    pub(crate) fn installed(&mut self, out: &mut Outbox) {
        let what = self.expect_step(Step::Finish, Step::Finish);
        let install = self.install.take().expect("it is at a step");
        discard(SnapshotName::Received(install.key()), out);
        let (index, term) = (what.pos.index, what.pos.term);
        assert!(index >= self.applied.0, "region {}: applied index went back", self.region.id);
        (self.applied, self.truncated, self.cut) = ((index, term), (index, term), index);
        // Those that waited for another region to end are never done: they are in the snapshot.
        self.forget_applying();
        self.lost = false;
        self.merging.replaced(what.absorbed);
        self.set_region(what.region);
        for mut held in std::mem::take(&mut self.held) {
            self.write(&mut held, out);
        }
        self.answer_reads(out);
    }

    /// The state machine is lost: raft asks for a snapshot until one comes.
    pub(super) fn lose(&mut self) -> Result<(), SnapshotRequestError> {
        self.lost = true;
        self.node.request_snapshot()
    }

    fn expect_step(&mut self, step: Step, next: Step) -> Installation {
        let id = self.region.id;
        let install = self.install.as_mut().expect("a step of an install belongs to one");
        assert_eq!(install.step, step, "region {id}: the install is at another step");
        install.step = next;
        install.what.clone()
    }
}

impl Install {
    fn key(&self) -> SnapshotKey {
        SnapshotKey::new(self.what.region.id, self.what.pos)
    }

    fn job(&self, old_range: Option<KeyRange>) -> Job {
        let (region, key) = (self.what.region.clone(), self.key());
        Job::InstallSnapshot(InstallSnapshot { region, key, old_range })
    }
}
