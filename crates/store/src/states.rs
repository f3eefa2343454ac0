//! Between what lasts on disk (protobuf) and what the code works with (plain types). The one place
//! of this crate that knows both.

use base::limits::{RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM};
use base::{ClusterId, Index, PeerId, Region, RegionId, StoreId, Term};
use bytes::Bytes;
use prost::Message;
use proto::{eraftpb, raft_serverpb, region_from_proto, region_to_proto};
use raft::HardState;

use crate::merge::{Absorbed, MergeState};

/// What does not decode, and where it was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is damaged: {cause}")]
pub struct StateError {
    /// Which record.
    pub what: String,
    /// What is wrong with it.
    pub cause: String,
}

/// Who this store is: written once, at bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdent {
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// The store.
    pub store_id: StoreId,
    /// The API version of its raw data, as numbered in `kvrpcpb.APIVersion`.
    pub api_version: i32,
}

/// How far a region's replica has got (`RaftApplyState`). Owned by the applier, written in the same
/// batch as the data it speaks of, so that the two never disagree. It is the point to resume at
/// after a restart, the gate of reads by index, and, through `truncated`, the bound of log
/// collection.
///
/// `truncated.0 <= applied <= commit`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyState {
    /// Index of the last entry applied.
    pub applied: Index,
    /// Highest index known to be committed when this was written, and its term.
    pub commit: (Index, Term),
    /// Index and term of the last entry that left the log.
    pub truncated: (Index, Term),
}

impl ApplyState {
    /// The state of a region that is bootstrapped: nothing applied beyond the log's start.
    pub fn initial() -> Self {
        let start = (RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM);
        Self { applied: RAFT_INIT_LOG_INDEX, commit: start, truncated: start }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (index, term) = self.truncated;
        raft_serverpb::RaftApplyState {
            applied_index: self.applied,
            truncated_state: Some(raft_serverpb::RaftTruncatedState { index, term }),
            commit_index: self.commit.0,
            commit_term: self.commit.1,
            ..Default::default()
        }
        .encode_to_vec()
    }

    pub(crate) fn decode(region: RegionId, data: &[u8]) -> Result<Self, StateError> {
        let what = || format!("apply state of region {region}");
        let state = raft_serverpb::RaftApplyState::decode(data).map_err(|e| damaged(what(), e))?;
        let truncated = state.truncated_state.unwrap_or_default();
        let (applied, commit) = (state.applied_index, state.commit_index);
        if truncated.index > applied || applied > commit {
            let cause = format!("truncated {} applied {applied} commit {commit}", truncated.index);
            return Err(StateError { what: what(), cause });
        }
        let truncated = (truncated.index, truncated.term);
        Ok(Self { applied, commit: (commit, state.commit_term), truncated })
    }
}

/// Whether a region's replica lives here (`PeerState` of its `RegionLocalState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalState {
    /// It takes part.
    Normal,
    /// A snapshot replaces it right now.
    Applying,
    /// It waits to become a part of a neighbour.
    Merging,
    /// It left for ever; the record stays so that it never comes back.
    Tombstone,
}

fn damaged(what: String, cause: impl ToString) -> StateError {
    StateError { what, cause: cause.to_string() }
}

pub(crate) fn encode_store_ident(ident: &StoreIdent) -> Vec<u8> {
    raft_serverpb::StoreIdent {
        cluster_id: ident.cluster_id.0,
        store_id: ident.store_id.0,
        api_version: ident.api_version,
    }
    .encode_to_vec()
}

pub(crate) fn decode_store_ident(data: &[u8]) -> Result<StoreIdent, StateError> {
    let ident = raft_serverpb::StoreIdent::decode(data)
        .map_err(|error| damaged("store ident".to_owned(), error))?;
    Ok(StoreIdent {
        cluster_id: ClusterId(ident.cluster_id),
        store_id: StoreId(ident.store_id),
        api_version: ident.api_version,
    })
}

/// All that is written down of a region's replica (`RegionLocalState`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegionRecord {
    pub(crate) region: Region,
    pub(crate) local: LocalState,
    /// Of a region that is Merging, or that is a Tombstone because it merged.
    pub(crate) merge: Option<MergeState>,
    pub(crate) absorbed: Absorbed,
}

pub(crate) fn encode_region_state(
    region: &Region,
    local: LocalState,
    merge: Option<&MergeState>,
    absorbed: &Absorbed,
) -> Vec<u8> {
    let state = match local {
        LocalState::Normal => raft_serverpb::PeerState::Normal,
        LocalState::Applying => raft_serverpb::PeerState::Applying,
        LocalState::Merging => raft_serverpb::PeerState::Merging,
        LocalState::Tombstone => raft_serverpb::PeerState::Tombstone,
    };
    assert!(local != LocalState::Merging || merge.is_some(), "into what?");
    raft_serverpb::RegionLocalState {
        state: state as i32,
        region: Some(region_to_proto(region)),
        merge_state: merge.map(MergeState::to_proto),
        merged_records: absorbed.to_proto(),
        ..Default::default()
    }
    .encode_to_vec()
}

pub(crate) fn decode_region_state(id: RegionId, data: &[u8]) -> Result<RegionRecord, StateError> {
    let what = || format!("state of region {id}");
    let state = raft_serverpb::RegionLocalState::decode(data).map_err(|e| damaged(what(), e))?;
    let known = raft_serverpb::PeerState::try_from(state.state);
    let local = match known.map_err(|_| damaged(what(), "its state is unknown here"))? {
        raft_serverpb::PeerState::Normal => LocalState::Normal,
        raft_serverpb::PeerState::Applying => LocalState::Applying,
        raft_serverpb::PeerState::Merging => LocalState::Merging,
        raft_serverpb::PeerState::Tombstone => LocalState::Tombstone,
        other => return Err(damaged(what(), format!("{} is unknown here", other.as_str_name()))),
    };
    let region = state.region.ok_or_else(|| damaged(what(), "it has no region"))?;
    if region.id != id.0 {
        return Err(damaged(what(), format!("it describes region {}", region.id)));
    }
    let merge = state.merge_state.as_ref().and_then(MergeState::from_proto);
    if local == LocalState::Merging && merge.is_none() {
        return Err(damaged(what(), "it merges into nothing"));
    }
    let absorbed = Absorbed::from_proto(&state.merged_records);
    Ok(RegionRecord { region: region_from_proto(&region), local, merge, absorbed })
}

pub(crate) fn encode_raft_state(hard_state: &HardState, last_index: Index) -> Bytes {
    let hard_state = eraftpb::HardState {
        term: hard_state.term,
        vote: hard_state.vote.0,
        commit: hard_state.commit,
    };
    raft_serverpb::RaftLocalState { hard_state: Some(hard_state), last_index }
        .encode_to_vec()
        .into()
}

pub(crate) fn decode_raft_state(region: RegionId, data: &[u8]) -> Result<HardState, StateError> {
    let what = || format!("raft state of region {region}");
    let state = raft_serverpb::RaftLocalState::decode(data).map_err(|e| damaged(what(), e))?;
    let hard_state = state.hard_state.ok_or_else(|| damaged(what(), "it has no hard state"))?;
    let vote = PeerId(hard_state.vote);
    Ok(HardState { term: hard_state.term, vote, commit: hard_state.commit })
}
