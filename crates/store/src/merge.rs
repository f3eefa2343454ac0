//! How a region becomes a part of its neighbour: what is written down of it.
//!
//! ```text
//!   source   PrepareMerge ────────────────────────────────────> Tombstone, merged into the target
//!            Merging: takes nothing but RollbackMerge             ^ one batch
//!   target   ..................... CommitMerge {end of the source's log} ──> has both ranges
//! ```
//!
//! The source's leader proposes that it merge, when all its members have nearly all of its log; the
//! target's leader, on a store where the source waits, takes it over. That entry is valid only if
//! the target's epoch is the one that the source named: once a target's epoch has moved past it
//! without the source among what it [absorbed](Absorbed), it never will be, and the source's leader
//! may propose to go on as before.
//!
//! | | where |
//! | --- | --- |
//! | what the entries do | `apply/merge.rs` |
//! | the source waits, and whoever leads the target takes it over | `replica/merging.rs` |
//! | a store's source lags behind, or is not there; who was left behind goes | `shard/merge.rs` |

use base::rule::{Rule, keep};
use base::{Epoch, Index, Region, RegionId};
use proto::{raft_serverpb, region_from_proto, region_to_proto};

/// Beyond this number the regions absorbed longest ago are forgotten.
const ABSORBED_MAX: usize = 512;

/// A merge from the view of the region that vanishes: while it waits, and, when it is gone, for
/// ever (`raft_serverpb.MergeState`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeState {
    /// Every member has the log up to here.
    pub min_index: Index,
    /// The entry that began it: the last one that has an effect, unless the merge is off.
    pub commit: Index,
    /// Who takes the region over, as it is before that. Of a region that is gone: as it was right
    /// after.
    pub target: Region,
}

impl MergeState {
    pub(crate) fn to_proto(&self) -> raft_serverpb::MergeState {
        raft_serverpb::MergeState {
            min_index: self.min_index,
            target: Some(region_to_proto(&self.target)),
            commit: self.commit,
        }
    }

    /// `None` if it names no target.
    pub(crate) fn from_proto(state: &raft_serverpb::MergeState) -> Option<Self> {
        let target = region_from_proto(state.target.as_ref()?);
        Some(Self { min_index: state.min_index, commit: state.commit, target })
    }
}

/// Which regions became a part of this one: what proves that one did, or that it never will
/// (`raft_serverpb.MergedRecord`). Also those that they had absorbed before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// With the version that this region had right after; the latest are last.
    regions: Vec<(RegionId, u64)>,
    /// Of those of this version and before some may be forgotten.
    forgotten: u64,
}

impl Absorbed {
    /// Whether `region` is among them, so that it is gone for ever.
    pub(crate) fn holds(&self, region: RegionId) -> bool {
        self.regions.iter().any(|(absorbed, _)| *absorbed == region)
    }

    /// Whether a region with this record, which has `epoch` now, did not absorb `source` at
    /// `expected`, and never will.
    pub(crate) fn rules_out(&self, source: RegionId, expected: Epoch, epoch: Epoch) -> bool {
        let passed = expected.is_behind(&epoch);
        if !keep(Rule::ProofBeforeRollback) {
            return expected != epoch;
        }
        passed && !self.holds(source) && expected.version >= self.forgotten
    }

    /// Whether a region with this record absorbed `target`, which had not absorbed `source` and
    /// never will.
    pub(crate) fn rules_out_with(&self, target: RegionId, source: RegionId) -> bool {
        let absorbed = self.regions.iter().find(|(absorbed, _)| *absorbed == target);
        absorbed.is_some_and(|(_, version)| *version > self.forgotten) && !self.holds(source)
    }

    /// The record of a region that becomes `version` by absorbing `source`, which had `others`.
    #[must_use]
    pub(crate) fn with(&self, source: RegionId, others: &Self, version: u64) -> Self {
        let mut next = self.clone();
        let more = others.regions.iter().map(|(region, _)| *region).chain([source]);
        next.regions.extend(more.map(|region| (region, version)));
        if others.forgotten > 0 {
            next.forgotten = version;
        }
        let extra = next.regions.len().saturating_sub(ABSORBED_MAX);
        for (_, version) in next.regions.drain(..extra) {
            next.forgotten = next.forgotten.max(version);
        }
        next
    }

    pub(crate) fn to_proto(&self) -> Vec<raft_serverpb::MergedRecord> {
        let record = |(region, version): (RegionId, u64)| raft_serverpb::MergedRecord {
            source_region_id: region.0,
            target_epoch: Some(proto::epoch_to_proto(Epoch { conf_ver: 0, version })),
            ..Default::default()
        };
        // Nobody is region 0: what is forgotten.
        let forgotten = (self.forgotten > 0).then_some((RegionId(0), self.forgotten));
        forgotten.into_iter().chain(self.regions.iter().copied()).map(record).collect()
    }

    pub(crate) fn from_proto(records: &[raft_serverpb::MergedRecord]) -> Self {
        let mut absorbed = Self::default();
        for record in records {
            let version = record.target_epoch.as_ref().map_or(0, |epoch| epoch.version);
            match record.source_region_id {
                0 => absorbed.forgotten = version,
                region => absorbed.regions.push((RegionId(region), version)),
            }
        }
        absorbed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(conf_ver: u64, version: u64) -> Epoch {
        Epoch { conf_ver, version }
    }

    #[test]
    fn what_was_absorbed_is_proof_both_ways() {
        let (none, source) = (Absorbed::default(), RegionId(7));
        assert!(!none.rules_out(source, epoch(3, 9), epoch(3, 9)), "it still may");
        assert!(!none.rules_out(source, epoch(3, 9), epoch(3, 8)), "this replica lags behind");
        assert!(none.rules_out(source, epoch(3, 9), epoch(4, 9)));
        assert!(none.rules_out(source, epoch(3, 9), epoch(3, 10)));
        let one = none.with(source, &none.with(RegionId(8), &none, 5), 10);
        assert!(one.holds(source) && one.holds(RegionId(8)) && !one.holds(RegionId(9)));
        assert!(!one.rules_out(source, epoch(3, 9), epoch(3, 10)), "it is a part of it");
        assert!(one.rules_out(RegionId(9), epoch(3, 9), epoch(3, 10)));
        assert!(
            one.rules_out_with(source, RegionId(9)) && !one.rules_out_with(source, RegionId(8))
        );
        assert!(!one.rules_out_with(RegionId(9), RegionId(10)), "it may live");
        assert_eq!(Absorbed::from_proto(&one.to_proto()), one);
    }

    #[test]
    fn what_is_forgotten_proves_nothing() {
        let mut absorbed = Absorbed::default();
        for id in 1..=600 {
            absorbed = absorbed.with(RegionId(id), &Absorbed::default(), 100 + id);
        }
        assert_eq!(absorbed.regions.len(), ABSORBED_MAX);
        assert!(!absorbed.holds(RegionId(1)) && absorbed.holds(RegionId(600)));
        assert!(!absorbed.rules_out(RegionId(1), epoch(1, 100), epoch(1, 800)), "it was absorbed");
        assert!(absorbed.rules_out(RegionId(1_000), epoch(1, 700), epoch(1, 800)));
        assert_eq!(Absorbed::from_proto(&absorbed.to_proto()), absorbed);
        let heir = Absorbed::default().with(RegionId(700), &absorbed, 900);
        assert!(!heir.rules_out_with(RegionId(700), RegionId(1)), "it was absorbed");
    }
}
