//! Handing over to a successor of choice (Raft dissertation, section 3.10).

use base::PeerId;

use super::Leader;
use crate::common::Common;
use crate::error::TransferError;
use crate::message::Body;

/// A hand-over that is pending. It is given up after an election timeout.
pub(super) struct Transfer {
    pub(super) to: PeerId,
    elapsed: u32,
    /// The successor has everything and was asked to campaign. Until the hand-over is given up no
    /// round begins, since that would keep others from voting for it.
    asked: bool,
}

impl Leader {
    /// Begins to hand over to `to`; to itself: gives up what is pending.
    pub(crate) fn transfer_to(&mut self, common: &Common, to: PeerId) -> Result<(), TransferError> {
        if !common.conf.is_voter(to) {
            return Err(TransferError::NotVoter { to });
        }
        let pending = self.transfer.as_ref().map(|transfer| transfer.to);
        if to == common.id() {
            self.give_up_transfer();
        } else if pending != Some(to) {
            self.transfer = Some(Transfer { to, elapsed: 0, asked: false });
            self.stirred = true;
        }
        Ok(())
    }

    /// To whom it is handing over.
    pub(crate) fn successor(&self) -> Option<PeerId> {
        self.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// Whether a successor may be campaigning at this moment by this leader's wish.
    pub(crate) fn has_asked(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.asked)
    }

    pub(super) fn tick_transfer(&mut self, common: &Common) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.elapsed += 1;
        if transfer.elapsed >= common.config.election_ticks {
            self.give_up_transfer();
        }
    }

    /// Goes on leading. A late successor finds that others have seen a round which began after
    /// this.
    pub(super) fn give_up_transfer(&mut self) {
        if self.transfer.take().is_some_and(|transfer| transfer.asked) {
            self.round_wanted = true;
        }
        self.stirred = true;
    }

    /// Asks the successor to campaign, once it has the whole log.
    pub(super) fn ask_successor(&mut self, common: &mut Common) {
        let Some(to) = self.successor().filter(|_| !self.has_asked()) else { return };
        let last = common.log.last().index;
        if self.get(to).is_none_or(|member| member.matched < last) {
            return;
        }
        self.transfer.as_mut().expect("it has a successor").asked = true;
        self.released = common.round;
        common.send(to, Body::TimeoutNow { round: common.round });
    }
}
