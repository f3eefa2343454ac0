//! Who counts: the members of a group, and what a quorum of them is.
//!
//! Usually the voters' majority decides. While a joint change of members is in progress there are
//! two sets of voters, and a decision needs a majority of each (Raft dissertation, section 4.3).

use base::{Index, PeerId};

use crate::conf_change::Leave;

/// The members of a group. The lists are sorted and without duplicates once a node has taken them
/// over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The voters; during a joint change, those of the configuration that is being entered.
    pub voters: Vec<PeerId>,
    /// Get the log, never vote.
    pub learners: Vec<PeerId>,
    /// The joint change that is in progress, if one is.
    pub joint: Option<Box<Joint>>,
}

/// What a joint configuration has beside the one that is being entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The voters of the configuration that is being left. Never empty.
    pub voters_outgoing: Vec<PeerId>,
    /// Those who will be learners when it is left: until then they vote in it.
    pub learners_next: Vec<PeerId>,
    /// Who ends it.
    pub leave: Leave,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteResult {
    Won,
    Lost,
    Pending,
}

impl ConfState {
    /// A group of voters, without learners.
    pub fn of_voters(voters: impl IntoIterator<Item = PeerId>) -> Self {
        let mut conf = Self { voters: voters.into_iter().collect(), ..Self::default() };
        conf.normalise();
        conf
    }

    /// Sorts the lists and drops duplicates.
    pub(crate) fn normalise(&mut self) {
        normalise(&mut self.voters);
        normalise(&mut self.learners);
        if let Some(joint) = &mut self.joint {
            normalise(&mut joint.voters_outgoing);
            normalise(&mut joint.learners_next);
        }
    }

    /// Whether there is somebody to decide.
    pub(crate) fn is_sound(&self) -> bool {
        let outgoing = self.joint.as_ref().is_none_or(|joint| !joint.voters_outgoing.is_empty());
        outgoing && !self.voters.is_empty()
    }

    /// Whether a joint change is in progress.
    pub fn is_joint(&self) -> bool {
        self.joint.is_some()
    }

    /// The voters of the configuration that is being left; none without a joint change.
    pub fn voters_outgoing(&self) -> &[PeerId] {
        self.joint.as_ref().map_or(&[], |joint| &joint.voters_outgoing)
    }

    /// Whether `id` votes, in either configuration.
    pub fn is_voter(&self, id: PeerId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing().contains(&id)
    }

    /// Whether `id` is a member of any kind.
    pub fn contains(&self, id: PeerId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether `id` decides alone.
    pub fn is_sole_voter(&self, id: PeerId) -> bool {
        self.voters == [id] && (!self.is_joint() || self.voters_outgoing() == [id])
    }

    /// Every member once, in order of ids.
    pub fn members(&self) -> Vec<PeerId> {
        let mut all = [&self.voters[..], &self.learners[..], self.voters_outgoing()].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The highest value that a quorum has reached, where `reached` is monotone per member: with
    /// acknowledged indexes the index that may be committed. Without voters nothing is reached.
    pub(crate) fn quorum_value(&self, reached: impl Fn(PeerId) -> Index) -> Index {
        let incoming = majority_value(&self.voters, &reached);
        match &self.joint {
            None => incoming,
            Some(joint) => incoming.min(majority_value(&joint.voters_outgoing, &reached)),
        }
    }

    /// Whether the members for which `is_in` holds are a quorum.
    pub fn has_quorum(&self, is_in: impl Fn(PeerId) -> bool) -> bool {
        self.quorum_value(|id| u64::from(is_in(id))) == 1
    }

    /// How an election stands, given the votes cast.
    pub(crate) fn vote_result(&self, vote: impl Fn(PeerId) -> Option<bool>) -> VoteResult {
        if self.has_quorum(|id| vote(id) == Some(true)) {
            VoteResult::Won
        } else if self.has_quorum(|id| vote(id) != Some(false)) {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }
}

/// Sorted, each once, without spare memory.
fn normalise(members: &mut Vec<PeerId>) {
    members.sort_unstable();
    members.dedup();
    members.shrink_to_fit();
}

/// The highest value that more than half of `voters` have reached.
pub(crate) fn majority_value(voters: &[PeerId], reached: impl Fn(PeerId) -> Index) -> Index {
    match voters {
        [] => 0,
        [only] => reached(*only),
        [a, b, c] => {
            let (a, b, c) = (reached(*a), reached(*b), reached(*c));
            a.min(b).max(a.max(b).min(c))
        }
        _ => {
            let mut values: Vec<Index> = voters.iter().map(|id| reached(*id)).collect();
            values.sort_unstable();
            values[(voters.len() - 1) / 2]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
        let joint = Joint {
            voters_outgoing: outgoing.iter().map(|&id| PeerId(id)).collect(),
            learners_next: Vec::new(),
            leave: Leave::OnRequest,
        };
        ConfState {
            joint: (!outgoing.is_empty()).then(|| Box::new(joint)),
            ..ConfState::of_voters(voters.iter().map(|&id| PeerId(id)))
        }
    }

    /// The slow reference: the largest value for which more than half have at least that.
    fn slow_majority(voters: &[PeerId], reached: impl Fn(PeerId) -> Index) -> Index {
        (0..=20)
            .rev()
            .find(|&v| voters.iter().filter(|&&id| reached(id) >= v).count() * 2 > voters.len())
            .unwrap_or(0)
    }

    #[test]
    fn majority_agrees_with_the_slow_reference() {
        let mut prng = base::Prng::new(5);
        for _ in 0..20_000 {
            let voters: Vec<PeerId> = (1..=prng.below(8)).map(PeerId).collect();
            let values: Vec<u64> = (0..9).map(|_| prng.below(20)).collect();
            let reached = |id: PeerId| values[id.0 as usize];
            assert_eq!(majority_value(&voters, reached), slow_majority(&voters, reached));
        }
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = conf(&[1, 2, 3], &[3, 4, 5]);
        assert!(joint.has_quorum(|id| [2, 3, 4].contains(&id.0)));
        assert!(!joint.has_quorum(|id| [1, 2, 3].contains(&id.0)));
        assert!(!joint.has_quorum(|id| [3, 4, 5].contains(&id.0)));
        let votes = |yes: &'static [u64], no: &'static [u64]| {
            joint.vote_result(move |id| {
                yes.contains(&id.0).then_some(true).or(no.contains(&id.0).then_some(false))
            })
        };
        assert_eq!(votes(&[2, 3, 4], &[]), VoteResult::Won);
        assert_eq!(votes(&[1, 2, 3], &[]), VoteResult::Pending);
        assert_eq!(votes(&[1, 2, 3], &[4, 5]), VoteResult::Lost);
        assert_eq!(joint.members().len(), 5);
    }

    #[test]
    fn without_voters_nothing_is_decided() {
        assert_eq!(conf(&[], &[]).quorum_value(|_| 7), 0);
        assert_eq!(conf(&[], &[]).vote_result(|_| Some(true)), VoteResult::Lost);
        assert!(conf(&[1], &[]).is_sole_voter(PeerId(1)));
        assert!(!conf(&[1], &[1, 2]).is_sole_voter(PeerId(1)));
    }
}
