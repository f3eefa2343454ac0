//! What flows from the leader to its members, and what comes back.

use base::{Index, PeerId};

use super::Leader;
use crate::common::{Common, Next};
use crate::error::{SnapshotError, StepError};
use crate::log::entry_size;
use crate::message::{AppendOutcome, Body, LogPos};
use crate::progress::{Flow, Progress};
use crate::snapshot::{Snapshot, SnapshotWanted};
use crate::storage::Failure;

impl Leader {
    pub(super) fn on_append_response(
        &mut self,
        common: &mut Common,
        from: PeerId,
        outcome: AppendOutcome,
        round: u64,
    ) -> Result<Result<Next, StepError>, Failure> {
        let Some(member) = self.hear(common, from, round) else { return Ok(Ok(Next::Stay)) };
        let first = match member.flow {
            Flow::Snapshot { .. } => common.log.first_index()?,
            _ => 0,
        };
        let news = match outcome {
            AppendOutcome::Matched(index) if index > common.log.last().index => {
                return Ok(Err(StepError::Malformed("a match past the leader's log")));
            }
            AppendOutcome::Matched(index) => member.matches(index, first),
            AppendOutcome::Conflict { prev, hint } => {
                member.refused(prev, common.log.last_agreeable(hint)?.index);
                false
            }
        };
        if news {
            self.commit(common);
        }
        self.stirred = true;
        Ok(Ok(Next::Stay))
    }

    pub(super) fn on_heartbeat_response(
        &mut self,
        common: &mut Common,
        from: PeerId,
        round: u64,
    ) -> Result<(), Failure> {
        let Some(member) = self.hear(common, from, round) else { return Ok(()) };
        let behind = member.matched < common.log.last().index;
        match &mut member.flow {
            Flow::Probe { waiting } => *waiting = false,
            // What is on the way may be lost. An append without entries behind it is refused if so.
            Flow::Replicate(inflights) if inflights.count() > 0 => {
                let (id, prev) = (member.id, member.next - 1);
                if send_append(common, id, prev, 0)?.is_none() {
                    // Compacted meanwhile, so nothing can tell what was lost.
                    member.probe();
                }
            }
            Flow::Replicate(_) | Flow::Snapshot { .. } => {}
        }
        self.stirred |= behind || self.reads.len() > 0;
        Ok(())
    }

    /// What is on the way to `peer` is lost.
    pub(crate) fn on_unreachable(&mut self, peer: PeerId) {
        if let Some(member) = self.get_mut(peer)
            && matches!(member.flow, Flow::Replicate(_))
        {
            member.probe();
        }
    }

    /// A follower's state machine is damaged: it needs a snapshot although the log could serve it.
    pub(super) fn on_snapshot_request(
        &mut self,
        common: &mut Common,
        from: PeerId,
        at_least: Index,
    ) {
        let committed = common.log.committed();
        let Some(member) = self.hear(common, from, 0) else { return };
        // Nothing covers the end of its log before that is committed, or cut: appends see to that,
        // and it asks again.
        if at_least <= committed && !matches!(member.flow, Flow::Snapshot { .. }) {
            member.await_snapshot();
            let at_least = at_least.max(1);
            common.outbox().snapshots_wanted.push(SnapshotWanted { to: from, at_least });
        }
    }

    /// The snapshot that `to` waits for is there: it leaves.
    pub(crate) fn on_snapshot_made(
        &mut self,
        common: &mut Common,
        to: PeerId,
        snapshot: Snapshot,
    ) -> Result<Result<(), SnapshotError>, Failure> {
        let first = common.log.first_index()?;
        let index = snapshot.pos.index;
        let member = self.get_mut(to).filter(|member| member.awaits_snapshot());
        let Some(member) = member else { return Ok(Err(SnapshotError::NotWanted { to })) };
        if index > common.log.committed() || index + 1 < first {
            member.snapshot_over(false);
            return Ok(Err(SnapshotError::Useless { index, first }));
        }
        member.flow = Flow::Snapshot { index: Some(index) };
        let (snapshot, round) = (Box::new(snapshot), common.round);
        common.send(to, Body::Snapshot { snapshot, round });
        Ok(Ok(()))
    }

    /// The driver tells what became of a snapshot.
    pub(crate) fn on_snapshot_over(&mut self, to: PeerId, arrived: bool) {
        if let Some(member) = self.get_mut(to) {
            member.snapshot_over(arrived);
        }
    }
}

/// Sends a member what it lacks, as far as the flow allows.
pub(super) fn replicate(common: &mut Common, member: &mut Progress) -> Result<(), Failure> {
    let (count_max, bytes_max) = (common.config.inflight_max, common.config.inflight_bytes_max);
    while member.may_send(count_max, bytes_max) {
        let last = common.log.last().index;
        let lacks_commit = member.commit_sent < common.log.committed().min(member.next - 1);
        // The last probe may be lost, and with it all that was known of this one.
        let unproven =
            matches!(member.flow, Flow::Probe { .. }) && member.matched + 1 < member.next;
        let has_all = member.next > last && !lacks_commit && !unproven;
        if has_all || member.gathers(last, common.config.gather_entries) {
            break;
        }
        // Zero asks for no entry at all, but one is always sent.
        let append_max = common.config.append_bytes_max.max(1);
        let Some((sent, bytes)) = send_append(common, member.id, member.next - 1, append_max)?
        else {
            // Nobody makes a snapshot for one that does not answer.
            if member.heard {
                member.await_snapshot();
                let at_least = (common.log.first_index()? - 1).max(1);
                common.outbox().snapshots_wanted.push(SnapshotWanted { to: member.id, at_least });
            }
            break;
        };
        member.sent(sent, bytes, common.log.committed().min(sent));
    }
    Ok(())
}

/// Sends entries behind `prev`, none if `bytes_max` is zero. Returns the index of the last and
/// their bytes; `None` if the log does not reach back so far.
fn send_append(
    common: &mut Common,
    to: PeerId,
    prev: Index,
    bytes_max: usize,
) -> Result<Option<(Index, usize)>, Failure> {
    let Some(term) = common.log.term(prev)? else { return Ok(None) };
    let last = common.log.last().index;
    let mut entries = Vec::new();
    if bytes_max > 0 && prev < last {
        match common.log.entries(prev + 1, last, bytes_max)? {
            Some(found) => entries = found,
            None => return Ok(None),
        }
    }
    let sent = (prev + entries.len() as Index, entries.iter().map(entry_size).sum());
    let (commit, round) = (common.log.committed(), common.round);
    let prev = LogPos { index: prev, term };
    common.send(to, Body::Append { prev, entries, commit, round });
    Ok(Some(sent))
}
