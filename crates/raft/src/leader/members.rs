//! Change of members, as the leader sees it.

use base::{EntryKind, Index};
use bytes::Bytes;

use super::Leader;
use crate::common::Common;
use crate::conf_change::{ConfChange, ConfChangeError, Leave};
use crate::error::ProposeError;
use crate::progress::Progress;
use crate::rules::Rule;

impl Leader {
    pub(crate) fn propose_conf_change(
        &mut self,
        common: &mut Common,
        kind: EntryKind,
        data: Bytes,
        change: &ConfChange,
    ) -> Result<Index, ProposeError> {
        let pending = self.conf_change > common.log.applied();
        if pending && common.keeps(Rule::OneChangeAtATime) {
            return Err(ConfChangeError::Pending.into());
        }
        let next = common.conf.after(change)?;
        let goes_at_once = !next.is_voter(common.id()) && !common.conf.is_joint();
        if goes_at_once {
            return Err(ConfChangeError::Leader.into());
        }
        self.conf_change = self.propose(common, kind, data)?;
        if !common.keeps(Rule::ChangeWhenApplied) {
            common.conf = next;
            self.on_members(common);
        }
        Ok(self.conf_change)
    }

    /// The members have changed.
    pub(crate) fn on_members(&mut self, common: &mut Common) {
        let (me, next) = (common.id(), common.log.last().index + 1);
        self.progress.retain(|member| common.conf.contains(member.id));
        for id in common.conf.members() {
            if id != me && self.get(id).is_none() {
                // It had no occasion to be heard yet.
                self.progress.push(Progress { heard: true, ..Progress::new(id, next) });
            }
        }
        self.progress.sort_unstable_by_key(|member| member.id);
        if self.successor().is_some_and(|to| !common.conf.is_voter(to)) {
            self.give_up_transfer();
        }
        // A smaller quorum may have what the larger one lacked.
        self.commit(common);
        self.stirred = true;
    }

    /// Ends a joint configuration that ends by itself, once its begin is applied.
    pub(super) fn leave_joint(&mut self, common: &mut Common) {
        let joint = common.conf.joint.as_ref();
        let due = joint.is_some_and(|joint| joint.leave == Leave::Automatic);
        if due && self.conf_change <= common.log.applied() && self.transfer.is_none() {
            self.conf_change = self.append(common, EntryKind::ConfChangeV2, Bytes::new());
        }
    }
}
