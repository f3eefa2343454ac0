//! Change of members, one at a time or several through a joint configuration.
//!
//! A change is an entry like any other: proposed by the leader, committed by the members before it.
//! It takes effect when a node applies it.
//!
//! *One member*: configurations that follow each other share a majority, as long as they differ by
//! one voter; so a leader takes no change while an earlier one may be unapplied, and nobody
//! campaigns before it has applied the changes that it knows to be committed (Raft dissertation,
//! section 4.1).
//!
//! *Several members*: a first entry enters a joint configuration, in which a decision needs a
//! majority of the old voters and one of the new; a second entry leaves it (section 4.3). The
//! leader proposes the second by itself, if the first says so: an entry of kind `ConfChangeV2`
//! without data.
//!
//! ```text
//!              Enter {changes}                       Leave
//!   {1 2 3}  ──────────────────>  {1 2 4} + {1 2 3} ───────>  {1 2 4}
//!              applied                                applied
//! ```
//!
//! From three voters on the others can always go on without the one that leaves. From two to one
//! they cannot: as long as the one that stays does not know that the change is committed it needs
//! the vote of the one that leaves. So do not take that one down before the other has applied the
//! change.
//!
//! What the entry holds is the driver's business. It tells the core what it decoded.

use base::PeerId;

use crate::quorum::{ConfState, Joint};

/// What becomes of one member. From two voters to one: take the one that leaves down only after the
/// other has applied the change, which may need its vote until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new voter, or a learner that is promoted. Nothing if it votes already.
    AddVoter(PeerId),
    /// A new learner, or a voter that is demoted. Nothing if it is a learner already.
    AddLearner(PeerId),
    /// A member that leaves. Nothing if it is none.
    Remove(PeerId),
}

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfChange {
    /// Of one member, at once.
    One(MemberChange),
    /// Of several members: enters the joint configuration. Later changes of the same member win.
    Enter {
        /// What becomes of whom.
        changes: Vec<MemberChange>,
        /// Who ends it.
        leave: Leave,
    },
    /// Ends the joint configuration. It is also what an entry of kind `ConfChangeV2` without data
    /// means.
    Leave,
}

/// How a joint configuration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The leader proposes its end as soon as it has applied its begin.
    Automatic,
    /// Somebody must propose [`ConfChange::Leave`].
    OnRequest,
}

/// Why members cannot be changed like this. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfChangeError {
    /// Ask again when it is applied.
    #[error("an earlier change of members may be unapplied")]
    Pending,
    /// The joint configuration must be left first.
    #[error("a joint change of members is in progress")]
    Joint,
    /// There is nothing to leave.
    #[error("no joint change of members is in progress")]
    NotJoint,
    /// Hand leadership over first, or change through a joint configuration. A leader that leaves at
    /// once takes with it what only it has.
    #[error("the leader cannot leave")]
    Leader,
    /// Another voter must come first.
    #[error("the last voter cannot leave")]
    LastVoter,
    /// A snapshot that was taken over since the entry was handed out covers it. Drop it and all
    /// that was handed out behind it, and do not count them as applied: what they do is in the
    /// snapshot, and if a crash comes before that is installed they are handed out again.
    #[error("a snapshot covers the change")]
    Superseded,
}

impl ConfState {
    /// The members after `change`.
    pub fn after(&self, change: &ConfChange) -> Result<ConfState, ConfChangeError> {
        let mut next = self.clone();
        match change {
            ConfChange::Leave => {
                let joint = next.joint.take().ok_or(ConfChangeError::NotJoint)?;
                next.learners.extend(joint.learners_next);
            }
            _ if self.is_joint() => return Err(ConfChangeError::Joint),
            ConfChange::One(change) => next.change_member(*change),
            ConfChange::Enter { changes, leave } => {
                let voters_outgoing = self.voters.clone();
                let joint = Joint { voters_outgoing, learners_next: Vec::new(), leave: *leave };
                next.joint = Some(Box::new(joint));
                changes.iter().for_each(|change| next.change_member(*change));
            }
        }
        if next.voters.is_empty() {
            return Err(ConfChangeError::LastVoter);
        }
        next.normalise();
        let apart = self.voters.iter().filter(|id| !next.voters.contains(id)).count();
        assert!(apart <= 1 || next.is_joint() || self.is_joint(), "two voters leave at once");
        Ok(next)
    }

    fn change_member(&mut self, change: MemberChange) {
        let (MemberChange::AddVoter(id) | MemberChange::AddLearner(id) | MemberChange::Remove(id)) =
            change;
        self.voters.retain(|member| *member != id);
        self.learners.retain(|member| *member != id);
        if let Some(joint) = &mut self.joint {
            joint.learners_next.retain(|member| *member != id);
        }
        match (change, &mut self.joint) {
            (MemberChange::AddVoter(_), _) => self.voters.push(id),
            // It goes on voting in the old configuration, so it cannot be a learner before that is
            // left.
            (MemberChange::AddLearner(_), Some(joint)) if joint.voters_outgoing.contains(&id) => {
                joint.learners_next.push(id);
            }
            (MemberChange::AddLearner(_), _) => self.learners.push(id),
            (MemberChange::Remove(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<PeerId> {
        ids.iter().map(|&id| PeerId(id)).collect()
    }

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState { learners: ids(learners), ..ConfState::of_voters(ids(voters)) }
    }

    #[test]
    fn members_come_go_and_change_sides() {
        use MemberChange::*;
        let start = conf(&[1, 2], &[]);
        let cases = [
            (AddVoter(PeerId(3)), Ok(conf(&[1, 2, 3], &[]))),
            (AddVoter(PeerId(2)), Ok(start.clone())),
            (AddLearner(PeerId(3)), Ok(conf(&[1, 2], &[3]))),
            (AddLearner(PeerId(2)), Ok(conf(&[1], &[2]))),
            (Remove(PeerId(1)), Ok(conf(&[2], &[]))),
            (Remove(PeerId(9)), Ok(start.clone())),
        ];
        for (change, expected) in cases {
            assert_eq!(start.after(&ConfChange::One(change)), expected, "{change:?}");
        }
        let alone = conf(&[1], &[2]);
        let after = |change| alone.after(&ConfChange::One(change));
        assert_eq!(after(AddVoter(PeerId(2))), Ok(conf(&[1, 2], &[])));
        assert_eq!(after(Remove(PeerId(1))), Err(ConfChangeError::LastVoter));
    }

    #[test]
    fn a_joint_change_is_entered_and_left() {
        use MemberChange::*;
        let start = conf(&[1, 2, 3], &[4]);
        let changes = vec![AddVoter(PeerId(4)), AddLearner(PeerId(3)), Remove(PeerId(2))];
        let enter = ConfChange::Enter { changes, leave: Leave::Automatic };
        let joint = start.after(&enter).expect("three voters stay");
        let expected = ConfState {
            voters: ids(&[1, 4]),
            learners: Vec::new(),
            joint: Some(Box::new(Joint {
                voters_outgoing: ids(&[1, 2, 3]),
                learners_next: ids(&[3]),
                leave: Leave::Automatic,
            })),
        };
        assert_eq!(joint, expected);
        assert_eq!(joint.members(), ids(&[1, 2, 3, 4]));
        assert_eq!(joint.after(&enter), Err(ConfChangeError::Joint));
        let one = ConfChange::One(AddVoter(PeerId(9)));
        assert_eq!(joint.after(&one), Err(ConfChangeError::Joint));
        assert_eq!(joint.after(&ConfChange::Leave), Ok(conf(&[1, 4], &[3])));
        assert_eq!(start.after(&ConfChange::Leave), Err(ConfChangeError::NotJoint));
        let nobody = ConfChange::Enter {
            changes: [1, 2, 3].map(|id| Remove(PeerId(id))).to_vec(),
            leave: Leave::OnRequest,
        };
        assert_eq!(start.after(&nobody), Err(ConfChangeError::LastVoter));
    }
}
