//! Messages that come too early: a region was cut elsewhere, its new part asks for votes, and here
//! the whole is not cut yet. Were they lost, the part would have no leader before an election
//! timeout has passed.

use std::collections::BTreeMap;

use base::{PeerId, RegionId};
use raft::Body;

use crate::input::RaftMessage;

/// Messages that are kept; more are lost, as the network might have lost them.
const MESSAGES_MAX: usize = 4_096;

/// The last call for votes of each candidate of regions that are not here yet.
#[derive(Default)]
pub(super) struct Early {
    new: BTreeMap<(RegionId, PeerId), RaftMessage>,
    old: BTreeMap<(RegionId, PeerId), RaftMessage>,
}

impl Early {
    /// Keeps it for a while, if it is one that makes a difference.
    pub(super) fn keep(&mut self, message: &RaftMessage) {
        let asks = matches!(message.message.body, Body::PreVote { .. } | Body::Vote { .. });
        if asks && message.range.is_some() && self.new.len() < MESSAGES_MAX {
            self.new.insert((message.region_id, message.from.id), message.clone());
        }
    }

    /// Those of a region that is here now.
    pub(super) fn take(&mut self, region: RegionId) -> Vec<RaftMessage> {
        let mut taken = Vec::new();
        for messages in [&mut self.old, &mut self.new] {
            let of = (region, PeerId::NONE)..=(region, PeerId(u64::MAX));
            taken.extend(messages.extract_if(of, |_, _| true).map(|(_, message)| message));
        }
        taken
    }

    /// An election timeout has passed: whoever asked before that has asked again since, or given
    /// up.
    pub(super) fn age(&mut self) {
        self.old = std::mem::take(&mut self.new);
    }
}
