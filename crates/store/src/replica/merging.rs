//! A region becomes a part of its neighbour: what the replicas of both do. See the page of
//! `crate::merge`.
//!
//! From the moment at which a leader proposes that its region merge it serves no reads and takes
//! nothing but the merge's end: another store may learn of it, and take writes for these keys,
//! before this one does.

use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Entry, EntryKind, Index, PeerId, PeerRole, Region, Term};
use raft::LearnError;

use super::Replica;
use crate::RegionError;
use crate::apply::{MergeNews, Waiting};
use crate::command::{self, Admin, Command, Merge};
use crate::input::{Birth, MergeRequest, Outbox};
use crate::merge::{Absorbed, MergeState};

/// The end of a source's log that some member may lack is no longer than this.
const GAP_ENTRIES_MAX: u64 = 1_024;
const GAP_BYTES_MAX: usize = 4 << 20;

/// What a replica knows of merges.
#[derive(Default)]
pub(super) struct Merging {
    /// It waits to become a part of a neighbour.
    state: Option<Arc<MergeState>>,
    /// For so many of the store's ticks, since the target's leader was last asked to hand over.
    waited: u64,
    absorbed: Arc<Absorbed>,
    /// As leader of this term it proposed that, or that it is off.
    fence: (Term, Index),
    /// As leader of this term it proposed to take another region over.
    takes: (Term, Index),
    /// The applier waits for the end of another region's log, for so many of the store's ticks: its
    /// group may sleep meanwhile, when all others are done.
    waits: Option<(Arc<Merge>, u64)>,
    /// The region is no more, it became a part of this one.
    told: Option<Box<Region>>,
    /// When the leader was asked to hand over.
    asked_at: u64,
}

impl Merging {
    pub(super) fn new(birth: &Birth) -> Self {
        let (state, absorbed) = (birth.merge.clone(), birth.absorbed.clone());
        Self { state, absorbed, ..Self::default() }
    }

    pub(super) fn absorbed(&self) -> &Arc<Absorbed> {
        &self.absorbed
    }

    /// A snapshot replaced everything.
    pub(super) fn replaced(&mut self, absorbed: Arc<Absorbed>) {
        let told = self.told.take();
        *self = Self { absorbed, told, ..Self::default() };
    }
}

/// What keeps the end of a source's log from being applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// Nothing but time.
    All,
    /// The log here ends before, or the replica has no data.
    Unusable,
}

/// Whether the entry changes nothing but data, and leaves the log behind `min_index` alone.
fn is_data(entry: &Entry, min_index: Index) -> bool {
    if entry.kind != EntryKind::Normal || entry.data.is_empty() {
        return entry.kind == EntryKind::Normal;
    }
    match command::decode(&entry.data) {
        Ok(Command::Writes { .. }) => true,
        Ok(Command::Admin { admin: Admin::CompactLog { index, .. }, .. }) => index <= min_index,
        _ => false,
    }
}

/// The source.
impl Replica {
    /// Proposes that the region wait for its end, or gives back the refusal.
    pub(crate) fn prepare_merge(&mut self, request: MergeRequest, out: &mut Outbox) {
        let MergeRequest { header, target, reply } = request;
        // A leader that sleeps knows nothing of the members.
        self.wake();
        // What came before is written before.
        self.flush_proposals(out);
        let checked = self.check_header(&header).and_then(|()| {
            let next = self.region.prepare_merge();
            match header.epoch == Some(self.region.epoch) && target.commit_merge(&next).is_some() {
                true => self.check_log(),
                false => Err(RegionError::EpochNotMatch { current: vec![self.region.clone()] }),
            }
        });
        let min_index = match checked {
            Ok(min_index) => min_index,
            Err(error) => return out.replies.push((reply, Err(error))),
        };
        let entry = command::encode_prepare_merge(self.region.epoch, min_index, &target);
        match self.node.propose(entry) {
            Ok((term, index)) => {
                self.merging.fence = (term, index);
                self.wait(Waiting { index, term, replies: vec![reply] }, out);
            }
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    /// Up to where every member has the log durably, learners and this one too, if what follows is
    /// short and changes nothing but data.
    fn check_log(&self) -> Result<Index, RegionError> {
        assert!(self.queue.is_empty(), "it was flushed");
        if !self.serves_reads() {
            return Err(self.busy("it has just begun to be led"));
        }
        let status = self.node.status();
        let members = status.members.iter().filter(|member| member.id != self.peer.id);
        // The others may have what a power loss would take from this one.
        let own = if keep(Rule::MergeCountsLeader) { status.stable } else { status.last };
        let min_index = members.map(|member| member.matched).fold(own, Index::min);
        assert!(min_index <= status.last, "region {}: {min_index} is durable", self.region.id);
        let lacking = status.last - min_index;
        if min_index < self.truncated.0.max(self.cut) || lacking > GAP_ENTRIES_MAX {
            return Err(self.busy("a member lags behind"));
        }
        if lacking == 0 {
            return Ok(min_index);
        }
        let entries = self.node.entries(min_index + 1, status.last, GAP_BYTES_MAX);
        let entries = entries.filter(|entries| entries.len() as u64 == lacking);
        let Some(entries) = entries else { return Err(self.busy("a member lags far behind")) };
        match entries.iter().all(|entry| is_data(entry, min_index)) {
            true => Ok(min_index),
            false => Err(self.busy("something else changes it just now")),
        }
    }

    pub(super) fn busy(&self, why: &str) -> RegionError {
        RegionError::ServerIsBusy { reason: format!("region {}: {why}", self.region.id) }
    }

    /// Whether it waits for its end, or may in a moment.
    pub(crate) fn is_merging(&self) -> bool {
        let (term, index) = self.merging.fence;
        let proposed = term == self.node.term() && index > self.applied.0;
        self.merging.state.is_some() || proposed && keep(Rule::MergeFencesReads)
    }

    /// What it waits for.
    pub(crate) fn merge_state(&self) -> Option<&Arc<MergeState>> {
        self.merging.state.as_ref()
    }

    /// As leader, whether it has waited for so many ticks; it begins anew then.
    pub(crate) fn waited_for_end(&mut self, patience: u64) -> bool {
        if !self.node.is_leader() || self.merging.waited < patience {
            return false;
        }
        self.merging.waited = 0;
        true
    }

    pub(crate) fn absorbed(&self) -> &Absorbed {
        &self.merging.absorbed
    }

    /// What the target must know, if the replica here can tell.
    pub(crate) fn to_be_taken(&self) -> Option<Merge> {
        let state = self.merging.state.as_ref()?;
        // After a snapshot in between there is less here than there could be.
        let first = state.min_index.max(self.cut) + 1;
        let entries = self.node.entries(first, state.commit, usize::MAX)?;
        Some(Merge { source: (*self.region).clone(), entries })
    }

    /// The target will never take it over: the leader says so in the log, any other voter wants to
    /// lead.
    pub(crate) fn roll_back(&mut self, patience: u64, out: &mut Outbox) {
        let Some(commit) = self.merging.state.as_ref().map(|state| state.commit) else { return };
        if !self.node.is_leader() {
            let votes = self.peer.role == PeerRole::Voter;
            if votes && self.ticks.saturating_sub(self.merging.asked_at) >= patience {
                self.merging.asked_at = self.ticks;
                let _ = self.node.transfer_leader(self.peer.id);
            }
            return;
        }
        let (term, index) = self.merging.fence;
        let proposed = term == self.node.term() && index > self.applied.0;
        if proposed || !self.serves_reads() {
            return;
        }
        let entry = command::encode_rollback_merge(self.region.epoch, commit);
        match self.node.propose(entry) {
            Ok((term, index)) => {
                tracing::info!(region = %self.region.id, commit, "the merge is off");
                self.merging.fence = (term, index);
                self.wait(Waiting { index, term, replies: Vec::new() }, out);
            }
            Err(error) => tracing::debug!(region = %self.region.id, %error, "not rolled back"),
        }
    }

    /// The end of its log, which another region carries.
    pub(crate) fn learn(&mut self, merge: &Merge) -> Learnt {
        let ours = merge.source.peer(self.peer.id).is_some();
        if self.leaving || !ours {
            return Learnt::Unusable;
        }
        if self.install.is_some() {
            return Learnt::All;
        }
        if self.lost || !self.is_initialised() {
            return Learnt::Unusable;
        }
        match self.node.learn(merge.entries.clone()) {
            Ok(()) | Err(LearnError::Restoring | LearnError::Stopped) => Learnt::All,
            Err(LearnError::Gap { .. }) => Learnt::Unusable,
            Err(error) => panic!("region {}: the end of its log: {error}", self.region.id),
        }
    }

    /// The region became a part of `target`, somewhere.
    pub(crate) fn tell_merged(&mut self, target: Box<Region>) {
        self.merging.told = Some(target);
    }

    pub(crate) fn told_merged(&self) -> Option<&Region> {
        self.merging.told.as_deref()
    }
}

/// The target.
impl Replica {
    /// Whether it may take over a source that knew it under this epoch.
    pub(crate) fn may_take_over(&self, target: &Region) -> bool {
        let (term, index) = self.merging.takes;
        let proposed = term == self.node.term() && index > self.applied.0;
        self.region.epoch == target.epoch
            && self.region.flashback.is_none()
            && self.serves_reads()
            && !self.is_merging()
            && !self.leaving
            && !proposed
    }

    /// Whoever leads it does not take over a source that knew it under this epoch: the source's
    /// replica there may lag behind, or have lost its data, and get no snapshot while it merges.
    /// This one asks for the lead.
    pub(crate) fn ask_for_lead(&mut self, target: &Region) {
        let votes = self.peer.role == PeerRole::Voter && !self.node.is_leader();
        let sound = self.is_initialised() && !self.leaving && !self.lost;
        if votes && sound && self.region.epoch == target.epoch && !self.is_merging() {
            tracing::info!(region = %self.region.id, "asks for the lead, to take a region over");
            let _ = self.node.transfer_leader(self.peer.id);
        }
    }

    /// Proposes to take a region over.
    pub(crate) fn take_over(&mut self, merge: &Merge, out: &mut Outbox) {
        let entry = command::encode_commit_merge(self.region.epoch, merge);
        match self.node.propose(entry) {
            Ok((term, index)) => {
                self.merging.takes = (term, index);
                self.wait(Waiting { index, term, replies: Vec::new() }, out);
            }
            Err(error) => tracing::debug!(region = %self.region.id, %error, "nothing taken over"),
        }
    }

    pub(super) fn merge_news(&mut self, news: &MergeNews) {
        if let Some(state) = &news.state {
            self.merging.state = state.clone();
            self.merging.waited = 0;
            self.reported = None;
        }
        if let Some(absorbed) = &news.absorbed {
            self.merging.absorbed = absorbed.clone();
            self.merging.waits = None;
        }
        if let Some(merge) = &news.waits {
            self.merging.waits = Some((merge.clone(), 0));
        }
    }

    /// What its applier waits for, and for how many ticks already.
    pub(crate) fn waits_for(&self) -> Option<(Arc<Merge>, u64)> {
        self.merging.waits.clone()
    }

    /// A tick of the store passed, perhaps while the replica slept.
    pub(crate) fn waits_on(&mut self) {
        if let Some((_, ticks)) = &mut self.merging.waits {
            *ticks += 1;
        }
        self.merging.waited += u64::from(self.merging.state.is_some());
    }

    /// The region that it should take over is not here, and cannot be: whoever has taken it over
    /// has what is needed.
    pub(crate) fn do_without(&mut self) {
        if self.lost || self.install.is_some() || self.leaving {
            return;
        }
        if self.node.is_leader() {
            // Only another leader can make a snapshot.
            let heir = self.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
            let heir =
                heir.map(|peer| peer.id).find(|id| *id != self.peer.id && self.is_alive(*id));
            let _ = self.node.transfer_leader(heir.unwrap_or(PeerId::NONE));
        } else if let Err(error) = self.lose() {
            tracing::error!(region = %self.region.id, %error, "it lacks a region to take over");
        }
    }

    /// Whether its data are of no use, so that a snapshot must come.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether somebody leads of whom a snapshot can be had, or to whom it can leave the lead.
    pub(crate) fn knows_leader(&self) -> bool {
        self.node.leader().is_some()
    }

    /// Whether it waits for its end, or for that of another region.
    pub(crate) fn waits_for_merge(&self) -> bool {
        !self.leaving && (self.merging.state.is_some() || self.merging.waits.is_some())
    }

    /// Whether merges of this or another region wait for something here.
    pub(crate) fn has_merge_to_do(&self) -> bool {
        self.waits_for_merge() || !self.leaving && self.merging.told.is_some()
    }
}
