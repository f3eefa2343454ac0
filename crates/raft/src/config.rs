//! The knobs of one group's node.

use base::{Index, PeerId};

use crate::rules::Rules;

/// How a [`RawNode`](crate::RawNode) behaves. `Config::new` gives the defaults; every field may be
/// changed after that.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own id. Not [`PeerId::NONE`].
    pub id: PeerId,
    /// A follower that hears nothing for a random number of ticks in `election_ticks + 1..2 *
    /// election_ticks` campaigns. Also how long a follower that heard from a leader votes for
    /// nobody. Default 10.
    pub election_ticks: u32,
    /// A leader begins a round of heartbeats after so many ticks. Less than `election_ticks`.
    /// Default 2.
    pub heartbeat_ticks: u32,
    /// Entries in one `Append`, in bytes; one entry is always sent, however large. Default 1 MiB.
    pub append_bytes_max: usize,
    /// `Append`s with entries on the way to one follower. At least one. Default 256.
    pub inflight_max: u32,
    /// Fewer entries than this are not sent to a follower while an `Append` with entries is on the
    /// way to it: they go together once it is answered, as by Nagle's algorithm (RFC 896). So many
    /// small writes become few messages, and under load a write takes up to a round trip longer.
    /// Default 0: nothing waits.
    pub gather_entries: u64,
    /// Entries on the way to one follower, in bytes. When reached, nothing more is sent until some
    /// are acknowledged. Default 16 MiB.
    pub inflight_bytes_max: usize,
    /// Committed entries in one `Ready`, in bytes; one entry is always handed out. Default 4 MiB.
    pub committed_bytes_max: usize,
    /// Proposals that the leader took and has not yet handed out as committed, in bytes. When
    /// reached, `propose` answers [`Busy`](crate::ProposeError::Busy). One proposal is always
    /// taken. Default 64 MiB.
    pub uncommitted_bytes_max: usize,
    /// Applied entries that a leader with followers keeps in memory for those that lag, in bytes.
    /// Default 64 KiB.
    pub tail_bytes_max: usize,
    /// Ask for pre-votes before campaigning, so that a node that was cut off does not disturb a
    /// working leader when it comes back. Default on.
    pub pre_vote: bool,
    /// A leader that hears from no quorum for an election timeout steps down, and whoever heard
    /// from a leader within an election timeout, or started within one, votes for nobody. Leases
    /// need it. Default on.
    pub check_quorum: bool,
    /// Who should lead: a voter that could lead itself refuses a candidate of lower priority than
    /// its own, if that one's log is not ahead of its own. A preferred leader gets a higher number.
    /// May be changed with [`RawNode::set_priority`](crate::RawNode::set_priority). Default 0.
    pub priority: i64,
    /// Seed of the election timeouts. Give each node of a group its own.
    pub seed: u64,
    /// The last entry that the state machine has applied. Nothing up to it is handed out again. The
    /// group's log must not end before it and must not begin after it.
    pub applied: Index,
    /// The one rule that this node breaks, for tests that must find it.
    #[cfg(feature = "mutations")]
    pub breaks: Option<crate::Rule>,
}

impl Config {
    /// The defaults, for node `id`.
    pub fn new(id: PeerId) -> Self {
        Self {
            id,
            election_ticks: 10,
            heartbeat_ticks: 2,
            append_bytes_max: 1 << 20,
            inflight_max: 256,
            gather_entries: 0,
            inflight_bytes_max: 16 << 20,
            committed_bytes_max: 4 << 20,
            uncommitted_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 10,
            pre_vote: true,
            check_quorum: true,
            priority: 0,
            seed: id.0,
            applied: 0,
            #[cfg(feature = "mutations")]
            breaks: None,
        }
    }

    /// The rules that this node keeps.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            #[cfg(feature = "mutations")]
            broken: self.breaks,
        }
    }

    /// Which rule the values break, if any.
    pub(crate) fn broken_rule(&self) -> Option<&'static str> {
        match self {
            c if c.id == PeerId::NONE => Some("id must not be zero"),
            c if c.heartbeat_ticks == 0 => Some("heartbeat_ticks must not be zero"),
            c if c.election_ticks <= c.heartbeat_ticks => {
                Some("election_ticks must be above heartbeat_ticks")
            }
            c if c.inflight_max == 0 => Some("inflight_max must not be zero"),
            c if c.inflight_bytes_max == 0 => Some("inflight_bytes_max must not be zero"),
            _ => None,
        }
    }
}
