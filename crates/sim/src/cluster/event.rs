//! What happens, and what is said between nodes and clients.

use base::{KeyRange, Peer, Region, RegionId, StoreId, TimeStamp};
use bytes::Bytes;
use client::{PlacementReply, PlacementRequest, StoreReply, StoreRequest};
use placement::Order;
use proto::pdpb;
use store::snapshot::SnapshotReader;
use store::{
    LeaderClaim, RaftMessage, ReadFrom, RegionError, RequestHeader, SnapshotCredit, StoreAlive,
};
use txn::latches::CommandId;
use txn::waiting::WaitFor;
use txn::{DeadlockFound, KeyError};

use super::txn::{Announcement, Detection, LeafId, TaskId, TxnReading};

/// A place where a node runs: an address. The stores that live there come and go.
pub(crate) type Slot = usize;

/// A call, by number.
pub(crate) type CallId = u64;

/// The parts of a node that take turns, each on a thread of its own in production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    Shard,
    Log,
    Applier,
    Disk,
    Build,
    Check,
    Range,
}

impl Actor {
    pub(crate) const ALL: [Self; 7] =
        [Self::Shard, Self::Log, Self::Applier, Self::Disk, Self::Build, Self::Check, Self::Range];
}

/// What a node does by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Go on with the start.
    Boot,
    /// Ask the placement driver whether it is still where it was.
    Beat,
    /// The placement driver looks at its regions.
    Look,
    /// Timestamps that waited for the clock.
    Stamps,
    /// How much room is on the disk.
    DiskWatch,
    /// Those who wait in line for locks.
    Lines,
    /// Ask once more what was read under earlier leaders.
    MaxTs(RegionId),
    /// Followers are to know more of the past.
    Past,
    /// What may be collected?
    SafePoint,
    /// Something is collected.
    Sweep,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Node(Slot, u64),
    Client(usize),
    /// A task of a transactional client.
    Task(usize),
}

/// Something that happens at a time.
pub(crate) enum Event {
    Wake(Slot, u64, Actor),
    Raft(Slot, Box<RaftMessage>, Option<Box<SnapshotReader>>),
    Alive(Slot, StoreAlive),
    Credit(Slot, SnapshotCredit),
    SnapshotSent {
        slot: Slot,
        life: u64,
        message: Box<RaftMessage>,
        arrived: bool,
    },
    Unreachable(Slot, u64, StoreId),
    Call(Slot, CallId, Caller, Box<Request>),
    Reply(CallId, Box<Reply>),
    Timeout(CallId),
    Order(Slot, Box<Order>),
    Timer(Slot, u64, Timer),
    /// The second half of a read that was let in.
    Read(Slot, u64, Box<super::serve::Reading>),
    Client(usize),
    Start(Slot, u64),
    Fault,
    /// What a fault did comes to its end.
    Mend(super::faults::Mend),
    Admin,
    /// Something is to be done to a region that is led there.
    AdminOn(Slot),
    /// Something is to be done to this region.
    AdminOf(RegionId),
    /// It is to become a part of a neighbour; so many tries are left.
    MergeAgain(RegionId, u8),
    /// It is to be cut.
    CutRegion(RegionId),
    /// Parts of the region, which had this range, are to lose their learners on the store.
    Withdraw(RegionId, KeyRange, StoreId),
    /// Nobody hears the node for a while.
    CutOff(Slot),
    /// Whoever leads the region hands over to this peer.
    HandOver(base::RegionId, base::PeerId),
    /// A task of a transactional client goes on.
    Task(TaskId),
    /// It slept long enough.
    Slept(LeafId),
    /// A transactional client ends.
    KillClient,
    /// A transactional command runs, or is looked at again.
    Command(Slot, u64, CommandId),
    /// The next part of a transactional read.
    TxnRead(Slot, u64, Box<TxnReading>),
    /// The detector at the first place hears from the second one.
    Detect(Slot, Slot, u64, Box<Detection>),
    /// A store hears that a wait of its closes a circle.
    Deadlock(Slot, u64, Box<(WaitFor, DeadlockFound)>),
}

/// What is asked of a node.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Does the placement driver run here, and in which term?
    Alive,
    Timestamps(u32),
    AllocId,
    /// Below which nobody reads any more.
    SafePoint,
    /// From now on below this one.
    MoveSafePoint(TimeStamp),
    GetRegion(Bytes),
    IsBootstrapped,
    Bootstrap(Box<pdpb::BootstrapRequest>),
    PutStore(Box<pdpb::PutStoreRequest>),
    StoreHeartbeat(Box<pdpb::StoreHeartbeatRequest>),
    RegionHeartbeat(Box<pdpb::RegionHeartbeatRequest>),
    AskSplit(Box<pdpb::AskBatchSplitRequest>),
    Kv(RequestHeader, ReadFrom, KvOp),
    /// Of transactional clients, for a store.
    Store(Box<StoreRequest>),
    /// Of transactional clients, for the placement driver.
    Driver(Box<PlacementRequest>),
    /// A replica is about to read.
    Announce(Box<Announcement>),
    /// Leaders say of themselves that they lead.
    Claims(Vec<LeaderClaim>),
}

/// What a client does with keys and values.
#[derive(Clone, Debug)]
pub(crate) enum KvOp {
    Get(Bytes),
    Scan { start: Bytes, end: Bytes },
    Put { pairs: Vec<(Bytes, Bytes)>, latched: bool },
    Delete { key: Bytes, latched: bool },
    Cas { key: Bytes, previous: Option<Bytes>, value: Bytes },
}

/// The answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The placement driver does not run here.
    NotLeader,
    Alive(u64),
    Timestamp(TimeStamp),
    Id(u64),
    Region(Option<(Region, Option<Peer>)>),
    Bootstrapped(bool),
    AlreadyBootstrapped,
    Done,
    SplitIds(Vec<pdpb::SplitId>),
    Refused,
    Kv(Result<KvAnswer, RegionError>),
    Store(Box<StoreReply>),
    Driver(Box<PlacementReply>),
    /// The read is known, unless a lock is in its way.
    Announced(Option<Box<KeyError>>),
    /// The claims about these regions are true.
    Agreed(Vec<RegionId>),
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KvAnswer {
    Value(Option<Bytes>),
    /// What is there, and up to where (not included; empty: to the end) was looked.
    Pairs(Vec<(Bytes, Bytes)>, Bytes),
    Done,
    Swapped {
        previous: Option<Bytes>,
        succeeded: bool,
    },
}

/// What a caller wanted to know, kept until the answer comes.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    Boot,
    Beat,
    StoreHeartbeat,
    RegionHeartbeat(RegionId),
    Split {
        region: RegionId,
        keys: Vec<Bytes>,
    },
    /// Of a client, in its so-manieth step.
    Client(u64),
    /// Of a task.
    Leaf(LeafId),
    /// A read that waits for its leader.
    Announced(Box<TxnReading>),
    /// What was read under earlier leaders of this region.
    MaxTs(RegionId),
    /// What may be collected.
    SafePoint,
    /// A timestamp up to which followers shall know everything.
    PastTs,
    /// Whether the claims of this round are true, as a store sees it.
    Claimed(u64, StoreId),
}
