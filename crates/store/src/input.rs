//! What goes into a shard and what comes out: the only way in or out of deciding code.

use std::sync::Arc;

use base::limits::{RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM};
use base::{
    Cut, Epoch, Index, KeyRange, Peer, PeerChange, PeerId, Region, RegionId, StoreId, Term,
};
use raft::HardState;
use storage::log::LogBatch;

use crate::apply::{Applied, ApplyInput};
use crate::bootstrap;
use crate::command::Writes;
use crate::job::Job;
use crate::log_writer::{Done, LogStep, LogWrite};
use crate::reply::{ReplyTo, WriteResult};
use crate::snapshot::{SnapshotError, SnapshotFiles};
use crate::states::{ApplyState, LocalState};
use crate::view::RequestHeader;
use crate::{Fatal, RegionError};

/// A raft message between two stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMessage {
    /// The group.
    pub region_id: RegionId,
    /// The sender.
    pub from: Peer,
    /// The receiver.
    pub to: Peer,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// What raft says.
    pub message: raft::Message,
    /// The region's keys as the sender knows them, in messages that may reach a store which has no
    /// replica yet. Also says that the receiver is a member under `epoch`.
    pub range: Option<KeyRange>,
    /// The receiver is not a member any more, as of `epoch`: it must go. `message` says nothing
    /// then.
    pub tombstone: bool,
}

/// Writes that some caller wants applied to one region, all or none.
#[derive(Debug)]
pub struct Proposal {
    /// The region, and what the caller believes of it.
    pub header: RequestHeader,
    /// The writes. Their keys were checked against the region of the header's epoch.
    pub writes: Writes,
    /// If set, refuse ([`RegionError::StaleCommand`](crate::RegionError::StaleCommand)) unless this
    /// is the term: what the writes were computed from is valid in that term only.
    pub only_in_term: Option<Term>,
    /// Whom to answer, once applied or refused.
    pub reply: ReplyTo,
}

/// A caller that wants to read what is committed now.
#[derive(Debug)]
pub struct ReadRequest {
    /// The region, and what the caller believes of it.
    pub header: RequestHeader,
    /// Answered with `Ok` once the engine holds everything that was committed when the request
    /// came; the region's lease is renewed by then.
    pub reply: ReplyTo,
}

/// Somebody wants a region cut.
#[derive(Debug)]
pub struct SplitRequest {
    /// The region, and what the caller believes of it.
    pub header: RequestHeader,
    /// Where; the ids are placement's.
    pub cuts: Vec<Cut>,
    /// Answered once the split is applied or refused.
    pub reply: ReplyTo,
}

/// Somebody wants the members of a region changed.
#[derive(Debug)]
pub struct ChangePeersRequest {
    /// The region, and what the caller believes of it: both counters of the epoch must be right.
    pub header: RequestHeader,
    /// One change takes effect at once, several go through a joint change, as
    /// [`Region::change_peers`] says. None: leave the joint change that is in progress.
    pub changes: Vec<PeerChange>,
    /// Answered once the change is applied or refused: `ServerIsBusy` where it may work later,
    /// `EpochNotMatch` where it does not fit the region.
    pub reply: ReplyTo,
}

/// Somebody wants another voter to lead a region.
#[derive(Debug)]
pub struct TransferRequest {
    /// The region, and what the caller believes of it.
    pub header: RequestHeader,
    /// Who shall lead.
    pub to: PeerId,
    /// Answered once the transfer is begun or refused. Whether it worked is seen from the leader.
    pub reply: ReplyTo,
}

/// A region whose replica begins to exist on this store, at start-up or after the bootstrap; or
/// which a restart remembers as gone.
#[derive(Clone, Debug)]
pub struct Birth {
    /// Its descriptor.
    pub region: Arc<Region>,
    /// How far it is applied.
    pub apply: ApplyState,
    /// Its raft state.
    pub hard_state: HardState,
    /// Whether it takes part, has a snapshot to install first, or left for ever.
    pub local: LocalState,
}

impl Birth {
    /// A region that was just bootstrapped on this store.
    pub fn initial(region: Region) -> Self {
        let hard_state = bootstrap::initial_hard_state();
        let (apply, local) = (ApplyState::initial(), LocalState::Normal);
        Self { region: Arc::new(region), apply, hard_state, local }
    }
}

/// What a shard is told.
pub enum ShardInput {
    /// A raft message arrived, perhaps of a region without a replica here. A snapshot's files came
    /// before it.
    Message(RaftMessage),
    /// A client writes.
    Propose(Proposal),
    /// A client reads and the lease does not hold.
    ReadIndex(ReadRequest),
    /// A region is to be cut.
    Split(SplitRequest),
    /// The members of a region are to be changed.
    ChangePeers(ChangePeersRequest),
    /// The leadership of a region is to be handed over.
    TransferLeader(TransferRequest),
    /// A replica begins to exist; its states are durable.
    Create(Birth),
    /// Writes to the log that no replica stands behind (bootstrap only), and whom to tell when they
    /// are durable.
    Log(LogBatch, Done),
    /// The log writer made these durable.
    Persisted(Vec<(RegionId, LogStep)>),
    /// The applier got this far.
    Applied(Vec<Applied>),
    /// The last [`Job::SyncEngine`] is done: the engine lost nothing of what was applied when it
    /// was asked for.
    EngineSynced,
    /// Messages to this store were dropped.
    Unreachable(StoreId),
    /// A [`Job::BuildSnapshot`] is done.
    SnapshotBuilt {
        /// Of this region.
        region_id: RegionId,
        /// For this peer.
        to: PeerId,
        /// What came of it.
        result: Result<SnapshotFiles, SnapshotError>,
    },
    /// The transport is done with a message of kind `Snapshot` that it was given.
    SnapshotSent {
        /// Of this region.
        region_id: RegionId,
        /// For this peer.
        to: PeerId,
        /// Whether the other store has all of it.
        arrived: bool,
    },
    /// A [`Job::InstallSnapshot`] is done, or failed because the files are damaged.
    SnapshotInstalled {
        /// Of this region.
        region_id: RegionId,
        /// What came of it.
        result: Result<(), SnapshotError>,
    },
    /// A [`Job::DestroyData`] is done.
    DataDestroyed(RegionId),
    /// The disk is full, or no longer: writes are refused meanwhile.
    DiskFull(bool),
}

impl ShardInput {
    /// Whether somebody outside of the store waits for an answer to it.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Propose(_)
                | Self::ReadIndex(_)
                | Self::Split(_)
                | Self::ChangePeers(_)
                | Self::TransferLeader(_)
        )
    }

    /// Answers whoever waits for it, if somebody does: the input was not taken.
    pub fn refuse(self, error: RegionError) {
        let reply = match self {
            Self::Propose(Proposal { reply, .. })
            | Self::ReadIndex(ReadRequest { reply, .. })
            | Self::Split(SplitRequest { reply, .. })
            | Self::ChangePeers(ChangePeersRequest { reply, .. })
            | Self::TransferLeader(TransferRequest { reply, .. }) => reply,
            _ => return,
        };
        reply.answer(Err(error));
    }
}

/// What the world should know about a region of this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The replica here leads and serves reads in this term: at the begin of the leadership, after
    /// each change and once in a while. Or it is about to: its region was cut off one that is led
    /// here. For the placement driver.
    Leads(RegionReport),
    /// The replica here no longer leads.
    Lost(RegionId),
}

/// A leader's report of its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionReport {
    /// The descriptor.
    pub region: Arc<Region>,
    /// The leader.
    pub leader: Peer,
    /// Its term.
    pub term: Term,
    /// Index of the last entry applied.
    pub applied: Index,
    /// Bytes written since the last report.
    pub written_bytes: u64,
    /// Keys written since the last report.
    pub written_keys: u64,
    /// Members that lag so far behind that they should not be promoted or led by, in the order of
    /// their ids. A change of it is reported soon.
    pub pending: Vec<PeerId>,
    /// Members that were not heard for a while, with the seconds since then.
    pub down: Vec<(PeerId, u64)>,
}

impl RegionReport {
    /// A region that was just cut off one that `store_id` leads.
    pub(crate) fn of_birth(region: &Arc<Region>, store_id: StoreId) -> Self {
        let leader = *region.peer_on(store_id).expect("it has the members of its parent");
        let (term, applied) = (RAFT_INIT_LOG_TERM, RAFT_INIT_LOG_INDEX);
        Self {
            region: region.clone(),
            leader,
            term,
            applied,
            written_bytes: 0,
            written_keys: 0,
            pending: Vec::new(),
            down: Vec::new(),
        }
    }
}

/// What leaves a turn of a shard. The driver drains it in the order of the fields.
#[derive(Default)]
pub struct Outbox {
    /// Messages that need not wait for anything.
    pub send: Vec<RaftMessage>,
    /// For the log writer.
    pub log: LogWrite,
    /// For the applier.
    pub apply: Vec<ApplyInput>,
    /// Answers to callers.
    pub replies: Vec<(ReplyTo, WriteResult)>,
    /// For the placement driver.
    pub reports: Vec<Report>,
    /// For the pool.
    pub jobs: Vec<Job>,
    /// The node must stop.
    pub fatal: Option<Fatal>,
}
