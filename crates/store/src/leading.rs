//! What whoever keeps something in memory for the regions that are led here must know: locks that
//! are not in the log, timestamps up to which was read.
//!
//! ```text
//!                            ┌───────────── the steps are over, or came to nothing ────────┐
//!                            ▼                                                              │
//!   leads, and has applied  Leads ──> keeps things ──> HandOver ──> proposes them ──> HandedOver
//!   an entry of its term     │ ▲                          │                             │
//!                            │ └ the region changed       └──────> Lost <───────────────┘
//!                            └──────────────────────────────────────┘
//! ```
//!
//! What he must know beside:
//!
//! - A view ([`RegionViews`](crate::RegionViews)) is published before the event of the same turn is
//!   told, and nothing may be kept before [`LeaderEvent::Leads`] names its term. Whoever computes
//!   something from what he keeps proposes it with
//!   [`Proposal::only_in_term`](crate::Proposal::only_in_term).
//! - What other stores know of reads (up to which timestamp a key was read) is not handed over. It
//!   has to be made good (by a timestamp of placement that is newer than all of them) when a term
//!   begins, and when the range of a region grew by a merge: the neighbour may have been led, and
//!   read, on another store.
//! - Stores stop by handing over what they lead ([`ShardInput::HandOver`]): this asks him, too.
//!
//! The events of a region come in the order in which things happened, and so do those of two
//! regions of which one was cut off the other. Three steps take away what is kept, as another store
//! will lead, or another region have the keys: a split, the begin of a merge, a transfer of the
//! leadership. Before them whoever keeps something is asked to propose it
//! ([`LeaderEvent::HandOver`]); the step waits for [`ShardInput::HandedOver`], which is to be said
//! once the proposal is applied or refused, but no longer than
//! [`ShardConfig::hand_over_ticks`](crate::ShardConfig::hand_over_ticks).
//!
//! Whatever else ends a leadership (an election, a removal, a leader that lacks what its own log
//! needs) asks nobody: what is kept may be lost at any time.
//!
//! [`ShardInput::HandedOver`]: crate::ShardInput::HandedOver
//! [`ShardInput::HandOver`]: crate::ShardInput::HandOver

use std::sync::Arc;

use base::{Region, RegionId, Term};

/// What happens to a leadership on this store; see above. Never of the system region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderEvent {
    /// The replica here leads the region in this term, and whatever earlier leaders committed is
    /// applied. Told when that begins; when a region that is led changed; and when steps that were
    /// waited for are over, whether they took place or not. What was handed over before is in the
    /// engine by then; what is kept for keys that are not the region's any more is nobody's.
    Leads {
        /// As it is now.
        region: Arc<Region>,
        /// In which it leads. Another one than before: nothing that was kept is valid any more.
        term: Term,
    },
    /// A step waits that will take away what is kept for the region. Nothing more is to be kept
    /// until the region is told of again; what there is is to be proposed, in this term only.
    HandOver {
        /// The region.
        region_id: RegionId,
        /// In which it leads.
        term: Term,
        /// To be repeated in the answer.
        ticket: u64,
    },
    /// It leads no longer: what is kept is worth nothing.
    Lost {
        /// The region.
        region_id: RegionId,
        /// In which it led.
        term: Term,
    },
}

impl LeaderEvent {
    /// The region whose leadership it is about.
    pub fn region_id(&self) -> RegionId {
        match self {
            Self::Leads { region, .. } => region.id,
            Self::HandOver { region_id, .. } | Self::Lost { region_id, .. } => *region_id,
        }
    }
}
