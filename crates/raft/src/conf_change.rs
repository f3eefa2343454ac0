//! Change of members, one at a time.
//!
//! A change is an entry like any other: proposed by the leader, committed by the members before it.
//! It takes effect when a node applies it. Two members' configurations that follow each other share
//! a majority, as long as they differ by one voter; so a leader takes no change while an earlier
//! one may be unapplied, and nobody campaigns before it has applied the changes that it knows to be
//! committed (Raft dissertation, section 4.1).
//!
//! From three voters on the others can always go on without the one that leaves. From two to one
//! they cannot: as long as the one that stays does not know that the change is committed it needs
//! the vote of the one that leaves. So do not take that one down before the other has applied the
//! change.
//!
//! What the entry holds is the driver's business. It tells the core what it decoded.

use base::PeerId;

use crate::quorum::ConfState;

/// A change of one member. From two voters to one: take the one that leaves down only after the
/// other has applied the change, which may need its vote until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChange {
    /// A new voter, or a learner that is promoted. Nothing if it votes already.
    AddVoter(PeerId),
    /// A new learner, or a voter that is demoted. Nothing if it is a learner already.
    AddLearner(PeerId),
    /// A member that leaves. Nothing if it is none.
    Remove(PeerId),
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
    /// Hand leadership over first. A leader that leaves takes with it what only it has.
    #[error("the leader cannot leave")]
    Leader,
    /// Another voter must come first.
    #[error("the last voter cannot leave")]
    LastVoter,
}

impl ConfState {
    /// The members after `change`.
    pub fn after(&self, change: ConfChange) -> Result<ConfState, ConfChangeError> {
        if !self.voters_outgoing.is_empty() {
            return Err(ConfChangeError::Joint);
        }
        let (ConfChange::AddVoter(id) | ConfChange::AddLearner(id) | ConfChange::Remove(id)) =
            change;
        let mut next = self.clone();
        next.voters.retain(|member| *member != id);
        next.learners.retain(|member| *member != id);
        match change {
            ConfChange::AddVoter(_) => next.voters.push(id),
            ConfChange::AddLearner(_) => next.learners.push(id),
            ConfChange::Remove(_) => {}
        }
        if next.voters.is_empty() {
            return Err(ConfChangeError::LastVoter);
        }
        next.normalise();
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState {
            learners: learners.iter().map(|&id| PeerId(id)).collect(),
            ..ConfState::of_voters(voters.iter().map(|&id| PeerId(id)))
        }
    }

    #[test]
    fn members_come_go_and_change_sides() {
        use ConfChange::*;
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
            assert_eq!(start.after(change), expected, "{change:?}");
        }
        assert_eq!(conf(&[1], &[2]).after(AddVoter(PeerId(2))), Ok(conf(&[1, 2], &[])));
        assert_eq!(conf(&[1], &[2]).after(Remove(PeerId(1))), Err(ConfChangeError::LastVoter));
        let joint = ConfState { voters_outgoing: vec![PeerId(1)], ..start };
        assert_eq!(joint.after(AddVoter(PeerId(3))), Err(ConfChangeError::Joint));
    }
}
