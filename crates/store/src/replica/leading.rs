//! What a leader does beside proposals: it changes members, hands over, lets the log shrink, and
//! tells the world.

use base::{Index, Instant, Peer, PeerChange, PeerId, PeerRole, Region};
use raft::{FlowStatus, MemberStatus};

use super::Replica;
use crate::RegionError;
use crate::apply::Waiting;
use crate::input::{ChangePeersRequest, Outbox, RegionReport, Report, TransferRequest};
use crate::members;
use crate::shard::ShardConfig;
use crate::view::RequestHeader;

/// A member that lacks more entries than this is not promoted, and is reported as pending.
const LAG_ENTRIES_MAX: u64 = 1_024;

impl Replica {
    /// Proposes the change of members or gives back the refusal.
    pub(crate) fn change_peers(&mut self, request: ChangePeersRequest, out: &mut Outbox) {
        let ChangePeersRequest { header, changes, reply } = request;
        self.wake();
        if let Err(error) = self.check_change(&header, &changes) {
            out.replies.push((reply, Err(error)));
            return;
        }
        let change = members::conf_change(&self.region, &changes);
        let data = members::encode(&self.region, &changes);
        let kind = base::EntryKind::ConfChangeV2;
        match self.node.propose_conf_change(kind, data, &change) {
            Ok((term, index)) => self.wait(Waiting { index, term, replies: vec![reply] }, out),
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    /// The change must fit the region, and leave a majority of voters that are alive.
    fn check_change(
        &self,
        header: &RequestHeader,
        changes: &[PeerChange],
    ) -> Result<(), RegionError> {
        self.check_leader(header)?;
        let mismatch = || RegionError::EpochNotMatch { current: vec![self.region.clone()] };
        if header.epoch != Some(self.region.epoch) {
            return Err(mismatch());
        }
        let next = match changes.is_empty() {
            true => return self.region.leave_joint().map(drop).ok_or_else(mismatch),
            false => self.region.change_peers(changes).ok_or_else(mismatch)?,
        };
        let busy = |reason: String| {
            let reason = format!("region {}: {reason}", self.region.id);
            Err(RegionError::ServerIsBusy { reason })
        };
        for change in changes {
            if let PeerChange::AddVoter(peer) = change
                && self.region.peer(peer.id).is_some()
                && self.lags(peer.id)
            {
                return busy(format!("learner {} lags behind", peer.id));
            }
        }
        // One of two voters is demoted before it goes: until the other knows for sure that it is
        // alone, and not only in memory, it may need the vote.
        let voters = members::conf_of(&self.region).voters;
        if let ([PeerChange::Remove(id)], [_, _]) = (changes, &voters[..])
            && voters.contains(id)
        {
            return busy(format!("peer {id} is one of two voters: demote it first"));
        }
        // A region with one voter cannot grow without one that nobody heard of yet.
        let alone = members::conf_of(&self.region).is_sole_voter(self.peer.id);
        if !alone && !self.has_live_majority(&next) {
            return busy("too few voters would be alive".to_owned());
        }
        Ok(())
    }

    fn has_live_majority(&self, next: &Region) -> bool {
        let decides = |peer: &&Peer| matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter);
        let voters = next.peers.iter().filter(decides);
        let alive = voters.clone().filter(|peer| self.is_alive(peer.id));
        alive.count() * 2 > voters.count()
    }

    pub(super) fn is_alive(&self, id: PeerId) -> bool {
        id == self.peer.id || self.contacts.is_alive(id, self.ticks)
    }

    fn lags(&self, id: PeerId) -> bool {
        let status = self.node.status();
        let member = status.members.iter().find(|member| member.id == id);
        !self.is_alive(id) || member.is_none_or(|member| self.is_behind(member, status.last))
    }

    /// The store is about to stop: whoever can lead best shall.
    pub(crate) fn hand_over(&mut self) {
        self.wake();
        let status = self.node.status();
        if !self.node.is_leader() || status.transferring_to.is_some() {
            return;
        }
        let fits = |peer: &&Peer| {
            let votes = matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter);
            votes && peer.id != self.peer.id && !self.lags(peer.id)
        };
        let matched = |peer: &&Peer| {
            let member = status.members.iter().find(|member| member.id == peer.id);
            member.map_or(0, |member| member.matched)
        };
        let Some(heir) = self.region.peers.iter().filter(fits).max_by_key(matched) else { return };
        if let Err(error) = self.node.transfer_leader(heir.id) {
            tracing::debug!(region = %self.region.id, %error, "not handed over");
        }
    }

    fn is_behind(&self, member: &MemberStatus, last: Index) -> bool {
        matches!(member.flow, FlowStatus::Snapshot(_))
            || member.matched < self.truncated.0
            || member.matched + LAG_ENTRIES_MAX < last
    }

    /// Begins to hand over, or gives back the refusal.
    pub(crate) fn transfer(&mut self, request: TransferRequest, out: &mut Outbox) {
        let TransferRequest { header, to, reply } = request;
        // A leader that sleeps knows nothing of the members.
        self.wake();
        let result = self.check_header(&header).and_then(|()| {
            if to != self.peer.id && self.lags(to) {
                let reason = format!("region {}: peer {to} lags behind", self.region.id);
                return Err(RegionError::ServerIsBusy { reason });
            }
            self.node.transfer_leader(to).map_err(|error| {
                let reason = format!("region {}: {error}", self.region.id);
                RegionError::ServerIsBusy { reason }
            })
        });
        out.replies.push((reply, result));
    }

    /// Messages to the store were lost.
    pub(crate) fn unreachable(&mut self, store: base::StoreId) {
        if let Some(peer) = self.region.peer_on(store) {
            self.node.report_unreachable(peer.id);
        }
    }

    /// Tells the world when this replica begins to serve as leader or ceases to.
    pub(super) fn report_leadership(&mut self, now: Instant, out: &mut Outbox) {
        let serves = self.serves_reads().then(|| self.node.term());
        if !self.node.is_leader() {
            self.lease.expire();
            self.refuse_leaders_readers(out);
            self.drop_comparison(out);
        }
        if serves == self.reported {
            return;
        }
        self.reported = serves;
        match serves {
            Some(_) => self.report(now, out),
            None => out.reports.push(Report::Lost(self.region.id)),
        }
    }

    fn report(&mut self, now: Instant, out: &mut Outbox) {
        self.report_at = now;
        let (pending, down) = self.weak();
        self.reported_weak = weak_ids(&pending, &down);
        let size = self.tell_size();
        let before = std::mem::replace(&mut self.told_reads, self.traffic.sums());
        out.reports.push(Report::Leads(RegionReport {
            region: self.region.clone(),
            leader: self.peer,
            term: self.node.term(),
            applied: self.applied.0,
            written_bytes: std::mem::take(&mut self.written_bytes),
            written_keys: std::mem::take(&mut self.written_keys),
            read_bytes: self.told_reads.bytes - before.bytes,
            read_keys: self.told_reads.keys - before.keys,
            approximate_bytes: size.bytes,
            approximate_keys: size.keys,
            pending,
            down,
        }));
    }

    /// Repeats the leader's report if the last one is older than its interval, or if it told
    /// otherwise of members that lag or are down.
    pub(crate) fn report_again(&mut self, now: Instant, config: &ShardConfig, out: &mut Outbox) {
        if self.reported.is_none() || self.leaving {
            return;
        }
        let look = self.region.peers.len() > 1
            && self.ticks.is_multiple_of(u64::from(config.election_ticks));
        let due = now.since(self.report_at) >= config.report_interval
            || look && {
                let (pending, down) = self.weak();
                weak_ids(&pending, &down) != self.reported_weak
            };
        if due {
            self.report(now, out);
        }
    }

    /// Members that lag, and members that are not heard with the seconds since.
    fn weak(&self) -> (Vec<PeerId>, Vec<(PeerId, u64)>) {
        let status = self.node.status();
        let behind = status.members.iter().filter(|member| self.is_behind(member, status.last));
        let silent = status.members.iter().filter(|member| !self.is_alive(member.id));
        let seconds = |member: &MemberStatus| {
            let ticks = self.contacts.silence(member.id, self.ticks).unwrap_or(self.ticks);
            (member.id, (self.tick * u32::try_from(ticks).unwrap_or(u32::MAX)).as_secs())
        };
        (behind.map(|member| member.id).collect(), silent.map(seconds).collect())
    }
}

fn weak_ids(pending: &[PeerId], down: &[(PeerId, u64)]) -> Vec<PeerId> {
    let down = down.iter().map(|(id, _)| *id);
    // Nobody is peer 0: it stands between the two lists.
    pending.iter().copied().chain([PeerId::NONE]).chain(down).collect()
}
