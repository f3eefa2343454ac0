//! How replicas come and go.
//!
//! ```text
//!   message of a leader or candidate ──> uninitialised ──snapshot──> initialised
//!   split of a region that is here ──────────┴──────────────────────────┘  │
//!                                                                          │ removed, or told so
//!   nothing <── data deleted <── log removed <── Tombstone, engine synced <┘
//! ```
//!
//! A store has one replica of a region at most, and a region one peer on a store. So a message to
//! another peer of this store, which is a member under a later epoch, proves that the one here was
//! removed, and a message under an epoch of before a removal proves nothing. Ids need not be
//! compared. A message with a range is proof that its receiver is a member under its epoch.
//!
//! What a replica voted outlives it: its term and vote stay in the log for those that come after
//! it, which may be stricter than need be and never laxer.

use std::sync::Arc;

use base::limits::{RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM};
use base::rule::{Rule, keep};
use base::{Epoch, Peer, PeerId, Region, RegionId};
use raft::{Body, HardState};
use storage::log::LogBatch;

use super::Shard;
use crate::apply::{Applied, ApplyInput, Milestone};
use crate::input::{Birth, Outbox, RaftMessage, RegionReport, Report};
use crate::job::Job;
use crate::log_writer::LogStep;
use crate::replica::Replica;
use crate::snapshot::DestroyData;
use crate::states::{self, ApplyState, LocalState};
use crate::{Fatal, bootstrap};

/// Why a replica is there when a snapshot goes on.
const LIVES: &str = "a replica does not leave while a snapshot is on its way into it";

/// A replica that left this store, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grave {
    peer: PeerId,
    conf_ver: u64,
    /// Who were members when it left, as far as it knew.
    others: Vec<Peer>,
    /// The region is durably a Tombstone.
    closed: bool,
    /// The region is no more, for anybody: it became a part of this one.
    pub(super) merged: Option<Box<Region>>,
}

impl Grave {
    /// Whether `peer`, spoken to under `epoch`, is the one that left or one of before.
    fn holds(&self, peer: PeerId, epoch: Epoch) -> bool {
        peer == self.peer || epoch.conf_ver < self.conf_ver || self.merged.is_some()
    }
}

impl Shard {
    /// A message of a region: for the replica here, for one that does not exist yet, or for one
    /// that exists no more.
    pub(super) fn message(&mut self, message: RaftMessage, out: &mut Outbox) {
        let id = message.region_id;
        if message.to.store_id != self.store_id {
            tracing::warn!(region = %id, to = %message.to.store_id, "not for this store");
            return;
        }
        if let Some(target) = message.merged_into.clone().filter(|_| message.tombstone) {
            return self.hear_merged(id, target, out);
        }
        if is_hint(&message) {
            if let Some(replica) = self.replica(id) {
                replica.contact(message.from);
            }
            return;
        }
        if self.disk_full && feeds(&message) {
            return;
        }
        match self.replicas.get(&id) {
            Some(replica) if replica.is_leaving() => return,
            Some(replica) if message.tombstone && replica.peer().id != message.to.id => return,
            Some(replica) if is_from_gone(replica, &message) => {
                return out.send.push(tombstone(replica, &message));
            }
            Some(replica) if replica.peer().id != message.to.id => {
                let ours = replica.region().epoch.conf_ver;
                let later = message.epoch.conf_ver > ours && message.range.is_some();
                if !later || !self.replace(&message, out) {
                    return;
                }
            }
            Some(_) => {}
            None => {
                if !self.conceive(&message, None, out) {
                    self.early.keep(&message);
                    if !self.tell_of_merge(&message, out) {
                        self.give_hints(&message, out);
                    }
                    return self.drop_files(&message, out);
                }
            }
        }
        let replica = &self.replicas[&id];
        if message.tombstone {
            if message.epoch.conf_ver > replica.region().epoch.conf_ver {
                self.destroy(id, message.epoch, None, out);
            }
        } else if self.admits(&message, out)
            && let Some(replica) = self.replica(id)
        {
            replica.step(message);
        }
    }

    /// A snapshot of a region that cannot come to be here.
    fn drop_files(&mut self, message: &RaftMessage, out: &mut Outbox) {
        assert!(!self.replicas.contains_key(&message.region_id), "else the replica decides");
        self.admits(message, out);
    }

    /// The message names another peer on this store under a later epoch: the one here was removed.
    /// Returns whether the other is here now.
    fn replace(&mut self, message: &RaftMessage, out: &mut Outbox) -> bool {
        let id = message.region_id;
        let replica = &self.replicas[&id];
        if replica.is_initialised() || replica.takes_snapshot() {
            self.destroy(id, message.epoch, None, out);
            return false;
        }
        let hard_state = replica.hard_state();
        self.replicas.remove(&id);
        self.touched.insert(id);
        self.conceive(message, Some(hard_state), out)
    }

    /// Makes an uninitialised replica if the message may do that.
    fn conceive(
        &mut self,
        message: &RaftMessage,
        hard_state: Option<HardState>,
        out: &mut Outbox,
    ) -> bool {
        let id = message.region_id;
        let Some(range) = &message.range else { return false };
        let body = &message.message.body;
        let begins =
            body.is_from_leader() || matches!(body, Body::Vote { .. } | Body::PreVote { .. });
        let buried = |grave: &Grave| grave.holds(message.to.id, message.epoch);
        let busy = self.unborn.contains_key(&id) || self.leaving.contains_key(&id);
        if !begins || message.tombstone || busy || self.graves.get(&id).is_some_and(buried) {
            return false;
        }
        if self.is_taken(range, id) {
            tracing::debug!(region = %id, "another region here must split or go first");
            return false;
        }
        let hard_state = match hard_state {
            Some(hard_state) => hard_state,
            None => match self.stored_hard_state(id) {
                Ok(hard_state) => hard_state.unwrap_or_default(),
                Err(fatal) => {
                    out.fatal = Some(fatal);
                    return false;
                }
            },
        };
        let life = self.next_life();
        let made = Replica::uninitialised(
            message,
            &self.log,
            hard_state,
            &self.config,
            (life, &mut self.prng),
        );
        match made {
            Ok(replica) => {
                self.replicas.insert(id, replica);
                self.touched.insert(id);
                true
            }
            Err(fatal) => {
                out.fatal = Some(fatal);
                false
            }
        }
    }

    pub(super) fn stored_hard_state(&self, id: RegionId) -> Result<Option<HardState>, Fatal> {
        let Some(state) = self.log.state(id) else { return Ok(None) };
        let state = states::decode_raft_state(id, &state);
        state.map(Some).map_err(|cause| Fatal::raft(id, &cause))
    }

    fn next_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    /// The replica of a region that was cut off one of ours. If an uninitialised replica of the
    /// same name is here, or its log (after a power loss the engine may have forgotten the split),
    /// then it goes on with that. One of another name is a later one, and wins.
    fn born(&mut self, region: &Arc<Region>, leads: bool, out: &mut Outbox) {
        let id = region.id;
        let peer = region.peer_on(self.store_id).expect("a part has the members of the whole");
        if let Some(None) = self.leaving.get(&id) {
            // Its log is known to be nobody's, and is about to go; then so is what it was cut off.
            self.views.remove(id);
            self.leaving.insert(id, Some(region.range.clone()));
            return;
        }
        let here = self.replicas.get(&id);
        assert!(here.is_none_or(|r| !r.is_initialised()), "region {id} is here and is born");
        if here.is_some_and(|replica| replica.peer().id != peer.id) {
            self.views.remove(id);
            self.leaving.insert(id, Some(region.range.clone()));
            self.bury(region, peer.id);
            return out.apply.push(ApplyInput::Destroy(region.clone(), peer.id, None));
        }
        let known = match here {
            Some(replica) => Some(replica.hard_state()),
            None => match self.stored_hard_state(id) {
                Ok(hard_state) => hard_state,
                Err(fatal) => return out.fatal = Some(fatal),
            },
        };
        let hard_state = match self.log.last_index(id) {
            0 => begin_log(&mut out.log.batch, id, known),
            _ => known.expect("a log with entries has a state"),
        };
        self.replicas.remove(&id);
        self.touched.insert(id);
        self.unborn.insert(id, leads);
        let (apply, local) = (ApplyState::initial(), LocalState::Normal);
        // It begins to exist once its log does.
        out.log.births.push(Birth {
            apply,
            hard_state,
            local,
            ..Birth::initial((**region).clone())
        });
        // Placement hears of the parts before the region gives up its range: no key is without a
        // region in between. This store leads them, unless another one is faster.
        if leads {
            out.reports.push(Report::Leads(RegionReport::of_birth(region, self.store_id)));
        }
    }

    /// A region whose states are durable, or that a restart remembers as gone.
    pub(super) fn create(&mut self, birth: &Birth, out: &mut Outbox) {
        let id = birth.region.id;
        if birth.local == LocalState::Tombstone {
            return self.remember(birth, out);
        }
        assert!(!self.replicas.contains_key(&id), "region {id} is here already");
        let leads = self.unborn.remove(&id).unwrap_or(false);
        let life = self.next_life();
        let made =
            Replica::new(birth, self.store_id, &self.log, &self.config, (life, &mut self.prng));
        let mut replica = match made {
            Ok(replica) => replica,
            Err(fatal) => return out.fatal = Some(fatal),
        };
        match birth.local {
            LocalState::Applying if keep(Rule::ResumeInstall) => replica.resume_install(out),
            _ => {
                let (region, peer) = (birth.region.clone(), replica.peer().id);
                let (state, term) = (birth.apply, replica.applied_term());
                let (merge, absorbed) = (birth.merge.clone(), birth.absorbed.clone());
                let create = ApplyInput::Create { region, state, term, peer, merge, absorbed };
                out.apply.push(create);
            }
        }
        replica.campaign_if_alone();
        if leads {
            replica.campaign();
        }
        self.replicas.insert(id, replica);
        self.touched.insert(id);
        self.watch_merges(id);
        self.publish(id);
        for early in self.early.take(id) {
            self.message(early, out);
        }
    }

    /// The replica's range is taken from this moment on, not only from the end of the turn.
    pub(super) fn publish(&self, id: RegionId) {
        if let Some(view) = self.replicas.get(&id).and_then(Replica::view) {
            self.views.publish(view);
        }
    }

    /// A replica that left before the restart. Perhaps its data are still there.
    fn remember(&mut self, birth: &Birth, out: &mut Outbox) {
        let (id, region) = (birth.region.id, &birth.region);
        let peer = region.peers.first().map_or(PeerId::NONE, |peer| peer.id);
        let grave = self.bury(region, peer);
        grave.closed = true;
        grave.merged = birth.merge.as_ref().map(|merge| Box::new(merge.target.clone()));
        if birth.apply != ApplyState::default() {
            self.leaving.insert(id, Some(region.range.clone()));
            self.destroy_data(id, out);
        }
    }

    pub(super) fn bury(&mut self, region: &Region, peer: PeerId) -> &mut Grave {
        let others = region.peers.iter().filter(|other| other.id != peer).copied().collect();
        let grave =
            Grave { peer, conf_ver: region.epoch.conf_ver, others, closed: false, merged: None };
        self.graves.entry(region.id).insert_entry(grave).into_mut()
    }

    /// Somebody who does not know that the replica here left may know nobody that is still a
    /// member: he is told of those that were when it left.
    fn give_hints(&self, message: &RaftMessage, out: &mut Outbox) {
        let id = message.region_id;
        let Some(grave) = self.graves.get(&id) else { return };
        if message.tombstone || message.epoch.conf_ver >= grave.conf_ver {
            return;
        }
        let to = message.from;
        for from in grave.others.iter().filter(|other| other.id != to.id) {
            let (epoch, body) = (Epoch::default(), Body::TermOver);
            let message = raft::Message { from: from.id, to: to.id, term: 1, body };
            let (from, range) = (*from, None);
            let hint = RaftMessage {
                region_id: id,
                from,
                to,
                epoch,
                message,
                range,
                tombstone: false,
                merged_into: None,
            };
            out.send.push(hint);
        }
    }

    pub(super) fn applied(&mut self, applied: &Applied, out: &mut Outbox) {
        let id = applied.region_id;
        match applied.milestone {
            Some(Milestone::Applying) => self.replica(id).expect(LIVES).engine_is_ready(out),
            Some(Milestone::Installed) => {
                self.replica(id).expect(LIVES).installed(out);
                self.publish(id);
            }
            Some(Milestone::Destroyed(peer)) => {
                // It may have taken others over just before it was removed.
                self.taken(applied, out);
                applied.merge.taken.iter().for_each(|taken| self.views.remove(*taken));
                self.destroyed(id, peer, applied, out);
            }
            None => {
                let Some(replica) = self.replica(id) else {
                    self.taken(applied, out);
                    applied.merge.taken.iter().for_each(|taken| self.views.remove(*taken));
                    return self.parted(applied, false, out);
                };
                let leads = replica.is_leader();
                replica.applied(applied, out);
                self.taken(applied, out);
                self.publish_taken(id, applied);
                self.watch_merges(id);
                self.catch_up(id);
                self.parted(applied, leads, out);
            }
        }
    }

    /// The parts that were cut off a region come to be, also if it is about to leave itself; its
    /// keys are then fewer.
    fn parted(&mut self, applied: &Applied, leads: bool, out: &mut Outbox) {
        if let Some(region) = &applied.region
            && let Some(Some(range)) = self.leaving.get_mut(&applied.region_id)
        {
            *range = region.range.clone();
            self.views.add(&applied.births);
        }
        for region in &applied.births {
            self.born(region, leads, out);
        }
    }

    /// The replica is no member any more as of `epoch`: it goes, unless a snapshot is on its way
    /// into it; then it will be told again.
    pub(super) fn destroy(
        &mut self,
        id: RegionId,
        epoch: Epoch,
        merged_into: Option<Box<Region>>,
        out: &mut Outbox,
    ) {
        let replica = self.replicas.get_mut(&id).expect("somebody spoke to it");
        if replica.takes_snapshot() {
            return;
        }
        let (region, peer) = (replica.region(), replica.peer().id);
        let merged = merged_into.as_ref().map(|target| target.id.0);
        tracing::info!(region = %id, %peer, %epoch, ?merged, "the replica here was removed");
        let range = replica.is_initialised().then(|| region.range.clone());
        let conf_ver = epoch.conf_ver.max(region.epoch.conf_ver);
        let epoch = Epoch { conf_ver, ..region.epoch };
        let region = Arc::new(Region { epoch, ..(**region).clone() });
        replica.leave(out);
        self.touched.insert(id);
        self.views.remove(id);
        self.leaving.insert(id, range);
        self.bury(&region, peer).merged = merged_into.clone();
        self.merging.remove(&id);
        out.apply.push(ApplyInput::Destroy(region, peer, merged_into));
    }

    /// The region is durably a Tombstone of `peer`: its log goes. Its term and vote stay.
    fn destroyed(&mut self, id: RegionId, peer: PeerId, applied: &Applied, out: &mut Outbox) {
        let grave = self.graves.get_mut(&id).filter(|grave| grave.peer == peer);
        if grave.as_ref().is_some_and(|grave| grave.closed) {
            return;
        }
        let known = grave.map(|grave| grave.closed = true).is_some();
        let replica = self.replicas.get(&id).filter(|replica| replica.peer().id == peer);
        if replica.is_none() && peer == PeerId::NONE {
            return self.drop_orphan(id, out);
        }
        if replica.is_none() {
            // A split made it, and there was a later one already, whose log this is.
            return self.destroy_data(id, out);
        }
        if !known {
            // An entry removed it.
            let region = applied.region.as_ref().expect("the entry changed the region");
            self.views.remove(id);
            self.leaving.insert(id, Some(region.range.clone()));
            self.bury(region, peer).closed = true;
        }
        let mut replica = self.replicas.remove(&id).expect("it was just there");
        self.touched.insert(id);
        replica.leave(out);
        let hard_state = HardState { commit: 0, ..replica.hard_state() };
        let merged = self.graves.get(&id).is_some_and(|grave| grave.merged.is_some());
        if replica.was_reported() {
            out.reports.push(Report::Lost(id));
        }
        out.log.batch.remove(id);
        if !merged {
            out.log.batch.put_state(id, states::encode_raft_state(&hard_state, 0));
        }
        out.log.tickets.push((id, LogStep::Removed));
        out.log.purge = true;
        self.parted(applied, false, out);
    }

    /// The log is gone, durably: the data may go.
    pub(super) fn log_removed(&mut self, id: RegionId, out: &mut Outbox) {
        assert!(!self.replicas.contains_key(&id), "region {id} lost its log and lives");
        match self.leaving.get(&id) {
            Some(Some(_)) => self.destroy_data(id, out),
            _ => drop(self.leaving.remove(&id)),
        }
    }

    fn destroy_data(&self, id: RegionId, out: &mut Outbox) {
        let range = self.leaving.get(&id).cloned().flatten().expect("it had data");
        let other = self.views.overlapping(&range, id);
        assert!(id.is_system() || other.is_none(), "region {id}: its keys belong to {other:?}");
        out.jobs.push(Job::DestroyData(DestroyData { region: id, range }));
    }

    /// Nothing is left: another replica of the region may come, and others into its range.
    pub(super) fn data_destroyed(&mut self, id: RegionId, out: &mut Outbox) {
        self.leaving.remove(&id);
        out.apply.push(ApplyInput::Forget(id));
    }
}

/// Whether the message brings entries of users. A disk that is full takes none, as if the network
/// had lost them: the leader sends them again until there is room.
fn feeds(message: &RaftMessage) -> bool {
    let brings =
        matches!(&message.message.body, Body::Append { entries, .. } if !entries.is_empty());
    brings && !message.region_id.is_system()
}

/// Whether the message only says that its sender is, or was, a member.
fn is_hint(message: &RaftMessage) -> bool {
    message.epoch == Epoch::default() && message.message.body == Body::TermOver
}

/// Whether the sender is no member as far as the replica knows, and is behind it: it was removed.
fn is_from_gone(replica: &Replica, message: &RaftMessage) -> bool {
    let region = replica.region();
    replica.is_initialised()
        && !message.tombstone
        && region.peer(message.from.id).is_none()
        && message.epoch.conf_ver < region.epoch.conf_ver
}

/// Tells the sender that it was removed.
fn tombstone(replica: &Replica, message: &RaftMessage) -> RaftMessage {
    let (from, to) = (replica.peer(), message.from);
    let term = replica.term().max(1);
    RaftMessage {
        region_id: message.region_id,
        from,
        to,
        epoch: replica.region().epoch,
        message: raft::Message { from: from.id, to: to.id, term, body: Body::TermOver },
        range: None,
        tombstone: true,
        merged_into: None,
    }
}

/// The log of a region that is cut off another one, for a replica that may have voted already.
/// Returns its hard state.
pub(crate) fn begin_log(batch: &mut LogBatch, id: RegionId, known: Option<HardState>) -> HardState {
    let initial = bootstrap::initial_hard_state();
    let hard_state = match known {
        Some(known) if known.term >= initial.term => {
            HardState { commit: RAFT_INIT_LOG_INDEX, ..known }
        }
        _ => initial,
    };
    batch.truncate(id, RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM);
    batch.put_state(id, states::encode_raft_state(&hard_state, RAFT_INIT_LOG_INDEX));
    hard_state
}
