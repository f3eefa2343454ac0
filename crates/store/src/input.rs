//! What goes into a shard and what comes out: the only way in or out of deciding code.

use std::sync::Arc;

use base::limits::{RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM};
use base::{
    Cut, Epoch, Index, KeyRange, Peer, PeerChange, PeerId, Region, RegionId, StoreId, Term,
    TimeStamp,
};
use raft::HardState;
use storage::log::LogBatch;

use crate::apply::{Applied, ApplyInput};
use crate::bootstrap;
use crate::command::Writes;
use crate::consistency::RegionHash;
use crate::inspection::{InspectReply, Inspection, ReplicaStatus};
use crate::job::Job;
use crate::leading::LeaderEvent;
use crate::log_writer::{Done, LogStep, LogWrite};
use crate::merge::{Absorbed, MergeState};
use crate::reply::{ReplyTo, WriteResult};
use crate::snapshot::{SnapshotError, SnapshotFiles};
use crate::split_check::{SplitChecked, SplitWanted};
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
    /// With `tombstone`: the whole region is no more, it became a part of this one, which was then
    /// as it says here.
    pub merged_into: Option<Box<Region>>,
}

/// A sign of life of one store to another, with which it shares groups that sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreAlive {
    /// Who lives.
    pub from: StoreId,
    /// Who is told.
    pub to: StoreId,
    /// Differs from one start of the sender to the next.
    pub incarnation: u64,
    /// The receiver shall answer. If not, this is an answer.
    pub asks: bool,
}

/// What two stores say about room for a snapshot, for a leader's member on the other store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotCredit {
    /// The region.
    pub region_id: RegionId,
    /// Who speaks.
    pub from: Peer,
    /// To whom.
    pub to: Peer,
    /// The leader's term.
    pub term: Term,
    /// The leader wants to make a snapshot, or makes or sends it still. If not, the member's store
    /// has room for it.
    pub asks: bool,
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
    /// Whether a replica that does not lead may take the request too.
    pub any_replica: bool,
    /// Answered with `Ok` once the engine here holds everything that was committed when the request
    /// came; if the replica leads, its lease is renewed by then.
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

/// A region is to be closed for all but its flashback, or opened again. Both may be repeated.
///
/// ```text
///   Flashback { began: Some(start_ts) }   answered: the region is closed, on all replicas
///   Propose, ReadIndex, permit            with Purpose::Flashback: what the flashback does
///   Flashback { began: None }             answered: the region is open again
/// ```
#[derive(Debug)]
pub struct FlashbackRequest {
    /// The region, and what the caller believes of it.
    pub header: RequestHeader,
    /// The timestamp at which the flashback begins; none: it is over.
    pub began: Option<TimeStamp>,
    /// Answered once that is applied or refused.
    pub reply: ReplyTo,
}

/// Somebody wants something of a region that needs no further words.
#[derive(Debug)]
pub struct RegionRequest {
    /// The region, and what the caller believes of it.
    pub header: RequestHeader,
    /// Answered once it is done or refused.
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

/// Somebody wants a region to become a part of its neighbour.
#[derive(Debug)]
pub struct MergeRequest {
    /// The region that shall vanish, and what the caller believes of it: both counters of the epoch
    /// must be right.
    pub header: RequestHeader,
    /// The neighbour that takes it over. It must still be so when the merge ends.
    pub target: Region,
    /// Answered once the region waits for its end or the merge is refused: `ServerIsBusy` where it
    /// may work later, `EpochNotMatch` where it does not fit the regions. Whether it came to an end
    /// is seen from the target.
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
    /// If it merges, or merged and is gone.
    pub merge: Option<Arc<MergeState>>,
    /// The regions that it absorbed.
    pub absorbed: Arc<Absorbed>,
}

impl Birth {
    /// A region that was just bootstrapped on this store.
    pub fn initial(region: Region) -> Self {
        let hard_state = bootstrap::initial_hard_state();
        let (apply, local) = (ApplyState::initial(), LocalState::Normal);
        let (merge, absorbed) = (None, Arc::default());
        Self { region: Arc::new(region), apply, hard_state, local, merge, absorbed }
    }
}

/// What a shard is told.
pub enum ShardInput {
    /// A raft message arrived, perhaps of a region without a replica here. A snapshot's files came
    /// before it.
    Message(RaftMessage),
    /// Another store lives.
    Alive(StoreAlive),
    /// Another store asks for room for a snapshot, or has some.
    Credit(SnapshotCredit),
    /// A client writes.
    Propose(Proposal),
    /// A client reads, and there is no lease to answer by.
    ReadIndex(ReadRequest),
    /// A region is to be cut.
    Split(SplitRequest),
    /// A region is to be closed for a flashback, or opened.
    Flashback(FlashbackRequest),
    /// The members of a region are to be changed.
    ChangePeers(ChangePeersRequest),
    /// The leadership of a region is to be handed over.
    TransferLeader(TransferRequest),
    /// The replicas of a region are to be compared. Answered once its leader's is known to be what
    /// the others compare theirs with; the others stop their store if theirs differ.
    Check(RegionRequest),
    /// The log of a region is to forget what all living members have applied.
    CompactLog(RegionRequest),
    /// Somebody wants to look at a replica.
    Inspect(Inspection),
    /// The store is about to stop: whatever is led here is to be led elsewhere, if it can be.
    HandOver,
    /// A region is to become a part of its neighbour.
    Merge(MergeRequest),
    /// What was kept in memory for the region is in the engine, or never will be: the answer to
    /// [`LeaderEvent::HandOver`], with what that said.
    HandedOver {
        /// The region.
        region_id: RegionId,
        /// In which it was led.
        term: Term,
        /// Of the question.
        ticket: u64,
    },
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
    /// A [`Job::CheckSplit`] is done.
    SplitChecked(SplitChecked),
    /// A [`Job::DestroyData`] is done.
    DataDestroyed(RegionId),
    /// A [`Job::ComputeHash`] is done.
    HashComputed {
        /// Of this region.
        region_id: RegionId,
        /// What was found; `None`: this store has collected more than the others may have.
        hash: Option<RegionHash>,
    },
    /// What placement knows of a region, the answer to [`Report::Orphan`].
    OrphanKnown(Region),
    /// Placement knows nothing of a region, the other answer to [`Report::Orphan`], but all stores
    /// that there are.
    OrphanUnknown(RegionId, Vec<StoreId>),
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
                | Self::Flashback(_)
                | Self::ChangePeers(_)
                | Self::TransferLeader(_)
                | Self::Merge(_)
                | Self::Check(_)
                | Self::CompactLog(_)
                | Self::Inspect(_)
        )
    }

    /// Answers whoever waits for it, if somebody does: the input was not taken.
    pub fn refuse(self, error: RegionError) {
        let reply = match self {
            Self::Propose(Proposal { reply, .. })
            | Self::ReadIndex(ReadRequest { reply, .. })
            | Self::Split(SplitRequest { reply, .. })
            | Self::Flashback(FlashbackRequest { reply, .. })
            | Self::ChangePeers(ChangePeersRequest { reply, .. })
            | Self::TransferLeader(TransferRequest { reply, .. })
            | Self::Merge(MergeRequest { reply, .. })
            | Self::Check(RegionRequest { reply, .. })
            | Self::CompactLog(RegionRequest { reply, .. }) => reply,
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
    /// A region led here should be cut: ids are needed for its parts.
    WantsSplit(SplitWanted),
    /// A log of this region lies here, and no replica: what does placement know of it? Asked again
    /// once in a while.
    Orphan(RegionId),
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
    /// Bytes read since the last report.
    pub read_bytes: u64,
    /// Keys read since the last report.
    pub read_keys: u64,
    /// Bytes that the region's data take up, about; zero: not known yet.
    pub approximate_bytes: u64,
    /// Keys in the region, about; zero: not known yet.
    pub approximate_keys: u64,
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
            read_bytes: 0,
            read_keys: 0,
            approximate_bytes: 0,
            approximate_keys: 0,
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
    /// Signs of life.
    pub alive: Vec<StoreAlive>,
    /// Of room for snapshots.
    pub credits: Vec<SnapshotCredit>,
    /// For the log writer.
    pub log: LogWrite,
    /// For the applier.
    pub apply: Vec<ApplyInput>,
    /// Answers to callers.
    pub replies: Vec<(ReplyTo, WriteResult)>,
    /// Answers to those who look at replicas.
    pub inspected: Vec<(InspectReply, Option<ReplicaStatus>)>,
    /// For the placement driver.
    pub reports: Vec<Report>,
    /// For whoever keeps something in memory for regions that are led here.
    pub leading: Vec<LeaderEvent>,
    /// For the pool.
    pub jobs: Vec<Job>,
    /// The node must stop.
    pub fatal: Option<Fatal>,
}
