//! Admin requests that come together, or again and again: what one of them began is not known
//! everywhere when the next one comes. And what meets a region that is half done with something.
//!
//! | burst | what it does |
//! | --- | --- |
//! | crowd | a few requests for one region and its neighbours within a moment |
//! | on and off | a merge whose target changes meanwhile: it is off; then again, until it is done |
//! | come and go | a region moves, is cut before the new member has anything, and parts move on |
//!
//! | half done | what meets it |
//! | --- | --- |
//! | a node has what changes a region, and not heard of its commit | it hears nothing, or ends |
//! | a snapshot was made, or its files were damaged | a crowd |
//! | a member waits for a snapshot, on and on | a merge, into somebody who is slow |
//! | a cut of a region is proposed, and its leader applies nothing for a while | a merge of it |
//! | a log takes long to be durable | merges of what is led there |

use std::sync::Arc;

use base::{Entry, EntryKind, KeyRange, Peer, PeerChange, PeerRole, RegionId, StoreId};
use prost::Message;
use proto::raft_cmdpb;
use raft::Body;
use store::{RaftMessage, RegionView, ShardInput};

use super::admin::AdminKind;
use super::event::{Actor, Event, Slot};
use super::faults::{Fault, Mend};
use super::world::{World, ms};

/// Tries of a merge that is to be done in the end.
const TRIES: u8 = 8;

/// Of so many messages that bring what changes a region one leaves its receiver in doubt; and of
/// those about merges, which are rarer.
const DOUBTS: u64 = 24;
const MERGE_DOUBTS: u64 = 8;

/// Of so many snapshots that are made, and of so many that are damaged, one meets a crowd.
const MADE: u64 = 12;
const DAMAGED: u64 = 2;

/// Of so many questions whether a store has room for a snapshot one meets a merge.
const MEANWHILE: u64 = 3;

impl World {
    /// Several requests instead of one.
    pub(crate) fn burst(&mut self) {
        let Some((slot, view)) = self.some_leader() else { return };
        if view.region.id.is_system() {
            return;
        }
        match self.prng.below(3) {
            0 => self.crowd(slot, &view),
            1 => self.on_and_off(slot, &view),
            _ => self.come_and_go(slot, &view),
        }
    }

    fn crowd(&mut self, slot: Slot, view: &RegionView) {
        if self.plan.faults.contains(&Fault::Stall) && self.prng.one_in(2) {
            self.stall_applier(slot);
            self.merge_unapplied(slot, view);
        }
        self.crowd_at(view.region.id);
    }

    /// The node applies nothing for a while.
    fn stall_applier(&mut self, slot: Slot) {
        let until = self.now() + ms(20 + self.prng.below(1_500));
        self.nodes[slot].stalled = Some((Actor::Applier, until));
    }

    /// The region is cut, and merges as it was before that: all members have the cut in their logs
    /// by then.
    fn merge_unapplied(&mut self, slot: Slot, view: &RegionView) {
        let admin = &self.plan.options.admin;
        if admin.contains(&AdminKind::Split) && admin.contains(&AdminKind::Merge) {
            self.split_somewhere(slot, view);
            let soon = ms(10 + self.prng.below(300));
            self.queue.after(soon, Event::MergeAgain(view.region.id, 2));
        }
    }

    /// A log is slow: all others may have what its own node has not. Regions that are led there
    /// merge.
    pub(super) fn merge_from(&mut self, slot: Slot) {
        let may = self.plan.options.admin.contains(&AdminKind::Merge);
        let Some(views) = self.nodes[slot].views().filter(|_| may) else { return };
        let led = views.all().into_iter().filter(|view| view.is_leader());
        let led: Vec<_> = led.map(|view| view.region.id).filter(|id| !id.is_system()).collect();
        for region in led {
            let soon = ms(self.prng.below(400));
            self.queue.after(soon, Event::MergeAgain(region, 2));
        }
    }

    fn crowd_at(&mut self, region: RegionId) {
        for _ in 0..2 + self.prng.below(4) {
            let soon = ms(self.prng.below(60));
            self.queue.after(soon, Event::AdminOf(region));
        }
    }

    /// A node hears what shall change a region, but perhaps not that it is committed, for long.
    pub(crate) fn in_doubt(&mut self, slot: Slot, message: &RaftMessage) {
        let Body::Append { entries, .. } = &message.message.body else { return };
        let changes = entries.iter().filter_map(change_of).min();
        let Some(times) = changes.filter(|_| !message.region_id.is_system()) else { return };
        if self.healing || !self.prng.one_in(times) {
            return;
        }
        if self.plan.faults.contains(&Fault::CutOneWay) && self.prng.one_in(2) {
            // What it says about it is heard.
            let others = (0..self.nodes.len()).filter(|other| *other != slot);
            self.cut_links(others.map(|other| (other, slot)).collect());
        } else {
            self.tempted(slot, 1);
        }
    }

    /// What is asked of a region meets members that wait for a snapshot.
    pub(crate) fn job_done(&mut self, result: &ShardInput) {
        let (region, times) = match result {
            ShardInput::SnapshotBuilt { region_id, .. } => (*region_id, MADE),
            ShardInput::SnapshotInstalled { region_id, result: Err(_) } => (*region_id, DAMAGED),
            _ => return,
        };
        let may = !self.healing && !self.plan.options.admin.is_empty() && !region.is_system();
        if may && self.prng.one_in(times) {
            self.crowd_at(region);
        }
    }

    /// Something is asked for a region, or for a neighbour of it.
    pub(crate) fn admin_of(&mut self, region: RegionId) {
        let Some((slot, view)) = self.leader_of(region).filter(|_| !self.healing) else { return };
        let neighbour = self.some_neighbour(&view.region);
        let (slot, view) = match neighbour.filter(|_| self.prng.one_in(3)) {
            Some(other) => match self.leader_of(other.id) {
                Some(found) => found,
                None => return,
            },
            None => (slot, view),
        };
        let kind = [AdminKind::Split, AdminKind::Merge, AdminKind::Change, AdminKind::Flashback];
        let kind = kind[self.prng.below(4) as usize];
        if self.plan.options.admin.contains(&kind) {
            self.ask(kind, slot, &view);
        }
    }

    fn ask(&mut self, kind: AdminKind, slot: Slot, view: &RegionView) {
        match kind {
            AdminKind::Split => self.split_somewhere(slot, view),
            AdminKind::Change => self.change_somehow(slot, view),
            AdminKind::Flashback => self.close(slot, view),
            _ => {
                if let Some(target) = self.some_neighbour(&view.region) {
                    self.merge_into(slot, view, target);
                }
            }
        }
    }

    /// A merge into a region as it was: it changes at the same moment.
    fn on_and_off(&mut self, slot: Slot, view: &Arc<RegionView>) {
        let admin = &self.plan.options.admin;
        if !admin.contains(&AdminKind::Merge) {
            return;
        }
        let changes = [AdminKind::Split, AdminKind::Change];
        let change = changes.into_iter().filter(|kind| admin.contains(kind)).collect::<Vec<_>>();
        let Some(target) = self.some_neighbour(&view.region) else { return };
        let led = self.leader_of(target.id).filter(|_| !change.is_empty());
        if let Some((at, led)) = led {
            let kind = change[self.prng.below(change.len() as u64) as usize];
            self.ask(kind, at, &led);
        }
        self.merge_into(slot, view, target);
        let followers = view.region.peers.iter().filter(|peer| peer.id != view.peer.id);
        let followers = followers.filter(|peer| peer.role == PeerRole::Voter);
        let away = followers.filter_map(|peer| self.stores.get(&peer.store_id)).next().copied();
        if let Some(away) = away.filter(|_| self.plan.faults.contains(&Fault::Isolate))
            && self.prng.one_in(2)
        {
            // It hears of the merge, and not that it is off.
            let soon = ms(2 + self.prng.below(150));
            self.queue.after(soon, Event::CutOff(away));
        }
        self.merge_later(view.region.id, TRIES);
    }

    fn merge_later(&mut self, region: RegionId, tries: u8) {
        let after = ms(50 + self.prng.below(600));
        self.queue.after(after, Event::MergeAgain(region, tries));
    }

    /// A member waits for a snapshot of a region that is led here. It may have lost what it had,
    /// when its log counts still: the region merges all the same, or a neighbour merges into it.
    pub(crate) fn merge_meanwhile(&mut self, slot: Slot, region: RegionId) {
        let may = self.plan.options.admin.contains(&AdminKind::Merge) && !region.is_system();
        let wanted = may && self.plan.merges_meanwhile && !self.healing;
        if !wanted || !self.prng.one_in(MEANWHILE) {
            return;
        }
        let view = self.nodes[slot].views().and_then(|views| views.get(region));
        let Some(other) = view.and_then(|view| self.some_neighbour(&view.region)) else { return };
        let merges = if self.prng.one_in(4) { other.id } else { region };
        let soon = ms(self.prng.below(40));
        self.queue.after(soon, Event::MergeAgain(merges, 2));
        let led = self.leader_of(other.id).filter(|(at, _)| *at != slot);
        if let Some((at, _)) = led.filter(|_| self.plan.faults.contains(&Fault::Stall)) {
            self.stall_applier(at);
        }
    }

    /// The region is to become a part of a neighbour, if it has not.
    pub(crate) fn merge_again(&mut self, region: RegionId, tries: u8) {
        if self.healing {
            return;
        }
        if let Some((slot, view)) = self.leader_of(region)
            && let Some(target) = self.some_neighbour(&view.region)
        {
            self.merge_into(slot, &view, target);
        }
        if tries > 1 {
            self.merge_later(region, tries - 1);
        }
    }

    /// A region moves: somebody else comes in the place of a member. While he waits for his first
    /// data, which may be long, the region is cut, and from some of its parts he goes again.
    fn come_and_go(&mut self, slot: Slot, view: &RegionView) {
        let may = !self.is_careful() && self.plan.options.admin.contains(&AdminKind::Change);
        let Some(store) = self.some_free_store(view).filter(|_| may) else {
            return self.crowd(slot, view);
        };
        let comes = Peer { id: self.next_peer(), store_id: store, role: PeerRole::Learner };
        let region = &view.region;
        let voters = region.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
        let goes = match voters.clone().count() > 2 {
            true => voters.map(|peer| peer.id).find(|id| *id != view.peer.id),
            false => None,
        };
        let goes = goes.map(PeerChange::Remove).into_iter();
        let changes = goes.chain([PeerChange::AddLearner(comes)]).collect();
        self.change_peers(slot, view, changes);
        if self.plan.faults.contains(&Fault::Stall) {
            let until = self.now() + ms(500 + self.prng.below(6_000));
            self.nodes[slot].stalled = Some((Actor::Build, until));
        }
        let cut = ms(10 + self.prng.below(400));
        self.queue.after(cut, Event::CutRegion(region.id));
        for _ in 0..2 {
            let soon = cut + ms(20 + self.prng.below(1_500));
            self.queue.after(soon, Event::Withdraw(region.id, region.range.clone(), store));
        }
    }

    /// The region is to be cut.
    pub(crate) fn cut_region(&mut self, region: RegionId) {
        let may = !self.healing && self.plan.options.admin.contains(&AdminKind::Split);
        if let Some((slot, view)) = self.leader_of(region).filter(|_| may) {
            self.split_somewhere(slot, &view);
        }
    }

    /// Parts of the region, which had this range, are to have no learner on the store any more.
    pub(crate) fn withdraw(&mut self, whole: RegionId, range: &KeyRange, store: StoreId) {
        if self.healing {
            return;
        }
        for slot in 0..self.nodes.len() {
            let views = self.nodes[slot].views().map(|views| views.all()).unwrap_or_default();
            for view in views.into_iter().filter(|view| view.is_leader()) {
                let region = &view.region;
                let other = region.id != whole && !region.id.is_system();
                let within = other && region.range.overlaps(range);
                let peer = region.peer_on(store).filter(|peer| peer.role == PeerRole::Learner);
                if let Some(peer) = peer.filter(|_| within)
                    && self.prng.one_in(2)
                {
                    self.change_peers(slot, &view, vec![PeerChange::Remove(peer.id)]);
                }
            }
        }
    }

    /// Nobody hears the node for a while.
    pub(crate) fn cut_off(&mut self, slot: Slot) {
        if self.healing {
            return;
        }
        let others = (0..self.nodes.len()).filter(|other| *other != slot);
        self.cut_links(others.flat_map(|other| [(slot, other), (other, slot)]).collect());
    }

    fn cut_links(&mut self, links: Vec<(Slot, Slot)>) {
        self.network.cut.extend(links.iter().copied());
        let after = ms(500 + self.prng.below(4_000));
        self.queue.after(after, Event::Mend(Mend::Cut(links)));
    }

    /// Who leads the region.
    pub(crate) fn leader_of(&self, region: RegionId) -> Option<(Slot, Arc<RegionView>)> {
        self.nodes.iter().enumerate().find_map(|(slot, node)| {
            let view = node.views()?.get(region)?;
            view.is_leader().then_some((slot, view))
        })
    }
}

/// If the entry changes the region itself: of how many of its kind one is awkward. As a
/// `RaftCmdRequest` it has a header, and behind it either writes or an admin request.
fn change_of(entry: &Entry) -> Option<u64> {
    /// Begins the admin request.
    const ADMIN: u8 = (3 << 3) | 2;
    if entry.kind != EntryKind::Normal {
        return Some(DOUBTS);
    }
    let header = entry.data.get(1).map_or(0, |len| usize::from(*len));
    if entry.data.get(2 + header) != Some(&ADMIN) {
        return None;
    }
    let admin = raft_cmdpb::RaftCmdRequest::decode(entry.data.clone()).ok()?.admin_request?;
    let begins = admin.prepare_merge.is_some();
    let merges = begins || admin.commit_merge.is_some() || admin.rollback_merge.is_some();
    let other = admin.splits.is_some() || admin.prepare_flashback.is_some();
    merges.then_some(MERGE_DOUBTS).or(other.then_some(DOUBTS))
}
