//! Commands that change a region itself, not its data.

use base::{Cut, Entry, Epoch, Index, PeerId, Region, RegionId, Term, TimeStamp};
use bytes::Bytes;
use prost::Message;
use proto::raft_cmdpb;

use super::{Command, CommandError, header};
use crate::consistency::RegionHash;
use crate::wire;

/// What an entry says of the region itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    /// The log may forget what lies at or before this position.
    CompactLog {
        /// Last index that may leave.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// The region is cut into several, if it still has the epoch.
    Split(Vec<Cut>),
    /// The region stops taking writes and waits to become a part of its neighbour.
    PrepareMerge {
        /// Every member has the log up to here.
        min_index: Index,
        /// The neighbour, as it must still be when it takes the region over.
        target: Region,
    },
    /// The region takes its neighbour over.
    CommitMerge(Merge),
    /// The merge that began at this entry will not be: the region lives on.
    RollbackMerge {
        /// Index of its [`Admin::PrepareMerge`].
        commit: Index,
    },
    /// Every replica makes a hash of what this entry finds.
    ComputeHash {
        /// Up to where stores may have collected garbage, as far as the leader knew.
        horizon: Bytes,
    },
    /// What the leader's replica came to.
    VerifyHash(RegionHash),
    /// The region lets nothing in but a flashback that begins at this timestamp; or everything
    /// again.
    Flashback(Option<TimeStamp>),
}

/// What the region that survives must know of the one that it takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The one that vanishes, as the entry that began the merge left it.
    pub source: Region,
    /// The last entries of its log, the one that began the merge being the last: some replica may
    /// lack them.
    pub entries: Vec<Entry>,
}

impl Merge {
    /// Whether the source, as its last entry says, merges into `target` as it is.
    pub(crate) fn is_into(&self, target: &Region) -> bool {
        let named = self.entries.last().and_then(|entry| match super::decode(&entry.data) {
            Ok(Command::Admin { admin: Admin::PrepareMerge { target, .. }, .. }) => Some(target),
            _ => None,
        });
        named.is_some_and(|named| named.id == target.id && named.epoch == target.epoch)
    }

    /// Where the source's log ends: the entry that began the merge.
    pub fn commit(&self) -> (Index, Term) {
        self.entries.last().map_or((0, 0), |entry| (entry.index, entry.term))
    }
}

/// The entry that moves the log's start: entries up to and with `(index, term)` may leave.
pub(crate) fn encode_compact_log(epoch: Epoch, index: Index, term: Term) -> Bytes {
    let compact_log = raft_cmdpb::CompactLogRequest {
        compact_index: index,
        compact_term: term,
        ..Default::default()
    };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::CompactLog as i32,
        compact_log: Some(compact_log),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry that cuts the region. The region itself keeps the right-most part.
pub(crate) fn encode_split(epoch: Epoch, cuts: &[Cut]) -> Bytes {
    let requests = cuts.iter().map(|cut| raft_cmdpb::SplitRequest {
        split_key: cut.key.clone(),
        new_region_id: cut.region_id.0,
        new_peer_ids: cut.peer_ids.iter().map(|peer| peer.0).collect(),
        ..Default::default()
    });
    let splits = raft_cmdpb::BatchSplitRequest {
        requests: requests.collect(),
        right_derive: true,
        ..Default::default()
    };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::BatchSplit as i32,
        splits: Some(splits),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry that makes the region wait to become a part of `target`.
pub(crate) fn encode_prepare_merge(epoch: Epoch, min_index: Index, target: &Region) -> Bytes {
    let target = Some(proto::region_to_proto(target));
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::PrepareMerge as i32,
        prepare_merge: Some(raft_cmdpb::PrepareMergeRequest { min_index, target }),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry with which the region takes over its neighbour.
pub(crate) fn encode_commit_merge(epoch: Epoch, merge: &Merge) -> Bytes {
    let commit_merge = raft_cmdpb::CommitMergeRequest {
        source: Some(proto::region_to_proto(&merge.source)),
        commit: merge.commit().0,
        entries: merge.entries.iter().cloned().map(wire::entry_to_proto).collect(),
        ..Default::default()
    };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::CommitMerge as i32,
        commit_merge: Some(commit_merge),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry with which the region goes back to what it was before entry `commit`.
pub(crate) fn encode_rollback_merge(epoch: Epoch, commit: Index) -> Bytes {
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::RollbackMerge as i32,
        rollback_merge: Some(raft_cmdpb::RollbackMergeRequest { commit }),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry at which every replica makes its hash.
pub(crate) fn encode_compute_hash(epoch: Epoch, horizon: Bytes) -> Bytes {
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::ComputeHash as i32,
        compute_hash: Some(raft_cmdpb::ComputeHashRequest { context: horizon }),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry that tells the leader's hash.
pub(crate) fn encode_verify_hash(epoch: Epoch, hash: &RegionHash) -> Bytes {
    let verify_hash = raft_cmdpb::VerifyHashRequest {
        index: hash.index,
        hash: Bytes::copy_from_slice(&hash.digest),
        ..Default::default()
    };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::VerifyHash as i32,
        verify_hash: Some(verify_hash),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry with which a flashback begins at `began`, or ends.
pub(crate) fn encode_flashback(epoch: Epoch, began: Option<TimeStamp>) -> Bytes {
    let admin = match began {
        Some(TimeStamp(start_ts)) => raft_cmdpb::AdminRequest {
            cmd_type: raft_cmdpb::AdminCmdType::PrepareFlashback as i32,
            prepare_flashback: Some(raft_cmdpb::PrepareFlashbackRequest { start_ts }),
            ..Default::default()
        },
        None => raft_cmdpb::AdminRequest {
            cmd_type: raft_cmdpb::AdminCmdType::FinishFlashback as i32,
            finish_flashback: Some(raft_cmdpb::FinishFlashbackRequest {}),
            ..Default::default()
        },
    };
    encode_admin(epoch, admin)
}

pub(crate) fn encode_admin(epoch: Epoch, admin: raft_cmdpb::AdminRequest) -> Bytes {
    let command = raft_cmdpb::RaftCmdRequest {
        header: Some(header(epoch, false)),
        admin_request: Some(admin),
        ..Default::default()
    };
    command.encode_to_vec().into()
}

/// Opens an entry that is an admin command; what is said of it begins at byte `offset`.
pub(super) fn decode(data: &[u8], offset: usize) -> Result<Admin, CommandError> {
    use raft_cmdpb::AdminCmdType as Type;
    let broken = |what| CommandError { what, offset };
    let request = raft_cmdpb::RaftCmdRequest::decode(Bytes::copy_from_slice(data));
    let admin = request.map_err(|_| broken("an admin request"))?.admin_request.unwrap_or_default();
    let unknown = || broken("an admin request that this version knows");
    match admin.cmd_type() {
        Type::CompactLog => {
            let compact = admin.compact_log.ok_or_else(unknown)?;
            Ok(Admin::CompactLog { index: compact.compact_index, term: compact.compact_term })
        }
        Type::BatchSplit => {
            let splits = admin.splits.filter(|splits| splits.right_derive);
            let requests = splits.ok_or_else(unknown)?.requests;
            Ok(Admin::Split(requests.into_iter().map(cut).collect()))
        }
        Type::PrepareMerge => {
            let prepare = admin.prepare_merge.ok_or_else(unknown)?;
            let target = prepare.target.ok_or_else(|| broken("the target of a merge"))?;
            let target = proto::region_from_proto(&target);
            Ok(Admin::PrepareMerge { min_index: prepare.min_index, target })
        }
        Type::CommitMerge => {
            let commit = admin.commit_merge.ok_or_else(unknown)?;
            merge(commit).map(Admin::CommitMerge).ok_or_else(|| broken("the source of a merge"))
        }
        Type::RollbackMerge => {
            let rollback = admin.rollback_merge.ok_or_else(unknown)?;
            Ok(Admin::RollbackMerge { commit: rollback.commit })
        }
        Type::ComputeHash => {
            let horizon = admin.compute_hash.unwrap_or_default().context;
            Ok(Admin::ComputeHash { horizon })
        }
        Type::VerifyHash => {
            let verify = admin.verify_hash.ok_or_else(unknown)?;
            let digest = verify.hash[..].try_into().map_err(|_| broken("a hash of 20 bytes"))?;
            Ok(Admin::VerifyHash(RegionHash { index: verify.index, digest }))
        }
        Type::PrepareFlashback => {
            let prepare = admin.prepare_flashback.ok_or_else(unknown)?;
            Ok(Admin::Flashback(Some(TimeStamp(prepare.start_ts))))
        }
        Type::FinishFlashback => Ok(Admin::Flashback(None)),
        _ => Err(unknown()),
    }
}

/// `None` if the entries are not the end of one log.
fn merge(commit: raft_cmdpb::CommitMergeRequest) -> Option<Merge> {
    let source = proto::region_from_proto(&commit.source?);
    let entries: Vec<Entry> = commit
        .entries
        .into_iter()
        .map(|entry| wire::entry_from_proto(entry).ok())
        .collect::<Option<_>>()?;
    let follows = |pair: &[Entry]| pair[0].index + 1 == pair[1].index;
    let fits = entries.windows(2).all(follows) && entries.last()?.index == commit.commit;
    fits.then_some(Merge { source, entries })
}

fn cut(request: raft_cmdpb::SplitRequest) -> Cut {
    let peer_ids = request.new_peer_ids.into_iter().map(PeerId).collect();
    Cut { key: request.split_key, region_id: RegionId(request.new_region_id), peer_ids }
}

#[cfg(test)]
mod tests {
    use base::{KeyRange, Peer, StoreId};

    use super::super::{Command, decode};
    use super::*;

    const EPOCH: Epoch = Epoch { conf_ver: 3, version: 300 };

    #[test]
    fn compact_log_comes_back() {
        let data = encode_compact_log(EPOCH, 77, 5);
        assert_eq!(
            decode(&data),
            Ok(Command::Admin { epoch: EPOCH, admin: Admin::CompactLog { index: 77, term: 5 } })
        );
    }

    #[test]
    fn the_three_entries_of_a_merge_come_back() {
        let peers = vec![Peer::voter(PeerId(11), StoreId(1)), Peer::voter(PeerId(12), StoreId(2))];
        let (id, range) = (RegionId(4), KeyRange::new("a", "m"));
        let target = Region { id, range, epoch: EPOCH, peers, flashback: None };
        let source = Region { id: RegionId(5), range: KeyRange::new("m", ""), ..target.clone() };
        let admin = |data: &[u8]| match decode(data) {
            Ok(Command::Admin { epoch: EPOCH, admin }) => admin,
            other => panic!("{other:?}"),
        };
        let data = encode_prepare_merge(EPOCH, 77, &target);
        assert_eq!(admin(&data), Admin::PrepareMerge { min_index: 77, target });
        let entry =
            |index, data: &Bytes| Entry { index, term: 6, data: data.clone(), ..Entry::default() };
        let entries = vec![entry(78, &Bytes::new()), entry(79, &data)];
        let merge = Merge { source, entries };
        assert_eq!(merge.commit(), (79, 6));
        let data = encode_commit_merge(EPOCH, &merge);
        assert_eq!(admin(&data), Admin::CommitMerge(merge.clone()));
        assert_eq!(admin(&encode_rollback_merge(EPOCH, 79)), Admin::RollbackMerge { commit: 79 });
        let gap = Merge { entries: vec![entry(77, &data), entry(79, &data)], ..merge.clone() };
        assert!(decode(&encode_commit_merge(EPOCH, &gap)).is_err(), "an entry is missing");
        let none = Merge { entries: Vec::new(), ..merge };
        assert!(decode(&encode_commit_merge(EPOCH, &none)).is_err(), "no entry began it");
    }

    #[test]
    fn the_two_entries_of_a_check_come_back() {
        let admin = |data: &[u8]| match decode(data) {
            Ok(Command::Admin { epoch: EPOCH, admin }) => admin,
            other => panic!("{other:?}"),
        };
        let horizon = Bytes::from_static(b"horizon");
        let expected = Admin::ComputeHash { horizon: horizon.clone() };
        assert_eq!(admin(&encode_compute_hash(EPOCH, horizon)), expected);
        let hash = RegionHash { index: 77, digest: [7; 20] };
        assert_eq!(admin(&encode_verify_hash(EPOCH, &hash)), Admin::VerifyHash(hash));
    }

    #[test]
    fn the_two_entries_of_a_flashback_come_back() {
        for began in [Some(TimeStamp(77)), None] {
            let data = encode_flashback(EPOCH, began);
            let admin = Admin::Flashback(began);
            assert_eq!(decode(&data), Ok(Command::Admin { epoch: EPOCH, admin }));
        }
    }

    #[test]
    fn a_split_comes_back() {
        let cut = |key: &'static str, id: u64| Cut {
            key: Bytes::from(key),
            region_id: RegionId(id),
            peer_ids: vec![PeerId(id + 1), PeerId(id + 2)],
        };
        let cuts = vec![cut("f", 7), cut("m", 10)];
        let data = encode_split(EPOCH, &cuts);
        assert_eq!(decode(&data), Ok(Command::Admin { epoch: EPOCH, admin: Admin::Split(cuts) }));
    }
}
