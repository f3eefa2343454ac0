//! Change of members: what is proposed, what an entry of it holds, and what it should do.

use base::{Entry, EntryKind, Index, PeerId};
use bytes::Bytes;
use raft::{ConfChange, ConfChangeError, ConfState, Joint, Leave, MemberChange};

use super::cluster::Cluster;
use super::totals::Event;
use super::trace::Members;

/// Changes in one joint change.
const CHANGES_MAX: u64 = 4;

/// What an entry holds: a letter for its kind, and for each member a letter and its number.
pub(crate) fn encode(change: &ConfChange) -> (EntryKind, Bytes) {
    let pair = |change: &MemberChange| match change {
        MemberChange::AddVoter(id) => [b'v', id.0 as u8],
        MemberChange::AddLearner(id) => [b'l', id.0 as u8],
        MemberChange::Remove(id) => [b'r', id.0 as u8],
    };
    let (letter, changes) = match change {
        ConfChange::One(change) => {
            return (EntryKind::ConfChange, Bytes::copy_from_slice(&pair(change)));
        }
        ConfChange::Enter { changes, leave: Leave::Automatic } => (b'a', &changes[..]),
        ConfChange::Enter { changes, leave: Leave::OnRequest } => (b'o', &changes[..]),
        ConfChange::Leave => (b'x', &[][..]),
    };
    let mut data = vec![letter];
    data.extend(changes.iter().flat_map(pair));
    (EntryKind::ConfChangeV2, Bytes::from(data))
}

/// What `encode` made, or the core itself: the end of a joint change is an entry without data.
pub(crate) fn decode(kind: EntryKind, data: &[u8]) -> ConfChange {
    let member = |pair: &[u8]| {
        let id = PeerId(u64::from(pair[1]));
        match pair[0] {
            b'v' => MemberChange::AddVoter(id),
            b'l' => MemberChange::AddLearner(id),
            b'r' => MemberChange::Remove(id),
            other => panic!("members: no change of one begins with {other}"),
        }
    };
    match (kind, data.first()) {
        (EntryKind::ConfChange, _) => ConfChange::One(member(data)),
        (_, None | Some(b'x')) => ConfChange::Leave,
        (_, Some(letter)) => ConfChange::Enter {
            changes: data[1..].chunks(2).map(member).collect(),
            leave: if *letter == b'a' { Leave::Automatic } else { Leave::OnRequest },
        },
    }
}

/// The members after a change, told in another way than the core does: by what each host is to be.
/// `None` if the change is refused.
pub(crate) fn expected(before: &ConfState, change: &ConfChange) -> Option<ConfState> {
    let (changes, leave) = match change {
        ConfChange::Leave => return before.joint.as_ref().map(|joint| left(before, joint)),
        _ if before.joint.is_some() => return None,
        ConfChange::One(one) => (std::slice::from_ref(one), None),
        ConfChange::Enter { changes, leave } => (&changes[..], Some(*leave)),
    };
    let wish = |id: &PeerId| changes.iter().rev().find(|change| subject(change) == *id);
    let votes = |id: &PeerId| match wish(id) {
        None => before.voters.contains(id),
        Some(wish) => matches!(wish, MemberChange::AddVoter(_)),
    };
    let learns = |id: &PeerId| match wish(id) {
        None => before.learners.contains(id),
        Some(wish) => matches!(wish, MemberChange::AddLearner(_)),
    };
    // Whoever votes in the configuration that is being left learns only after it.
    let waits = |id: &PeerId| leave.is_some() && before.voters.contains(id);
    let mut all = before.members();
    all.extend(changes.iter().map(subject));
    all.sort_unstable();
    all.dedup();
    let those = |part: &dyn Fn(&PeerId) -> bool| -> Vec<PeerId> {
        all.iter().copied().filter(|id| part(id)).collect()
    };
    let joint = leave.map(|leave| Joint {
        voters_outgoing: before.voters.clone(),
        learners_next: those(&|id| learns(id) && waits(id)),
        leave,
    });
    let after = ConfState {
        voters: those(&votes),
        learners: those(&|id| learns(id) && !waits(id)),
        joint: joint.map(Box::new),
    };
    (!after.voters.is_empty()).then_some(after)
}

/// The members after a joint change is left.
fn left(before: &ConfState, joint: &Joint) -> ConfState {
    let mut learners = [&before.learners[..], &joint.learners_next].concat();
    learners.sort_unstable();
    ConfState { voters: before.voters.clone(), learners, joint: None }
}

fn subject(change: &MemberChange) -> PeerId {
    let (MemberChange::AddVoter(id) | MemberChange::AddLearner(id) | MemberChange::Remove(id)) =
        change;
    *id
}

impl Cluster {
    /// A leader takes a change of members, if it may.
    pub(crate) fn change(&mut self) {
        let Some(at) = self.some_host_with(|host| host.leads()) else { return };
        if self.hosts.iter().any(|host| host.machine.damaged || host.requested) {
            // One that cannot take part must not become one that is needed.
            return;
        }
        let change = self.draw_change(at);
        let (kind, data) = match change {
            ConfChange::Leave if self.prng.one_in(2) => (EntryKind::ConfChangeV2, Bytes::new()),
            _ => encode(&change),
        };
        let node = self.hosts[at].node.as_mut().expect("it leads");
        if let Ok((term, index)) = node.propose_conf_change(kind, data.clone(), &change) {
            self.say(at, format_args!("takes a change of members: {change:?}"));
            self.check_one_at_a_time(at, index);
            self.on_proposed(at, Entry { index, term, kind, data });
        }
        self.settle(at);
    }

    /// A leader takes a change only after it has applied all before it.
    fn check_one_at_a_time(&mut self, at: usize, index: Index) {
        let host = &mut self.hosts[at];
        let applied = host.node.as_ref().expect("it leads").applied_index();
        let written = host.seen.log.change_above(applied);
        let taken = std::mem::replace(&mut host.seen.change_taken, index);
        assert!(
            written.is_none() && taken <= applied,
            "members: a change at {index}, {written:?} or {taken} is not applied"
        );
    }

    fn draw_change(&mut self, at: usize) -> ConfChange {
        let joint = self.hosts[at].conf().is_joint();
        if joint && !self.prng.one_in(8) {
            return ConfChange::Leave;
        }
        if self.prng.one_in(2) {
            return ConfChange::One(self.draw_member_change());
        }
        let count = 1 + self.prng.below(CHANGES_MAX);
        let changes = (0..count).map(|_| self.draw_member_change()).collect();
        let leave = if self.prng.one_in(3) { Leave::OnRequest } else { Leave::Automatic };
        ConfChange::Enter { changes, leave }
    }

    fn draw_member_change(&mut self) -> MemberChange {
        let id = PeerId(1 + self.prng.below(self.hosts.len() as u64));
        match self.prng.below(4) {
            0 | 1 => MemberChange::AddVoter(id),
            2 => MemberChange::AddLearner(id),
            _ => MemberChange::Remove(id),
        }
    }

    /// An entry that changes members is applied. Answers whether it was, or a snapshot covers it.
    pub(crate) fn apply_change(&mut self, at: usize, entry: &Entry) -> bool {
        let change = decode(entry.kind, &entry.data);
        let host = &mut self.hosts[at];
        let node = host.node.as_mut().expect("it applies");
        let conf = match node.apply_conf_change(entry.index, &change) {
            Ok(conf) => Some(conf),
            Err(ConfChangeError::Superseded) => return false,
            Err(_) => None,
        };
        let expected = expected(host.conf(), &change);
        assert_eq!(conf, expected, "members: {change:?} of {:?}", host.conf());
        let Some(conf) = conf else { return true };
        self.history.on_change(entry.index, &conf);
        host.disk.set_conf(conf.clone());
        host.confs.push((entry.index, conf));
        self.count_change(&change, entry);
        let conf = self.hosts[at].conf();
        self.say(at, format_args!("members at {}: {}", entry.index, Members(conf)));
        true
    }

    fn count_change(&mut self, change: &ConfChange, entry: &Entry) {
        let event = match change {
            ConfChange::One(_) => Event::MembersChanged,
            ConfChange::Enter { .. } => Event::JointEntered,
            ConfChange::Leave if entry.data.is_empty() => Event::JointLeftByItself,
            ConfChange::Leave => Event::JointLeftOnRequest,
        };
        self.totals.count(event, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    #[test]
    fn changes_survive_their_encoding_and_do_what_is_expected() {
        let mut prng = Prng::new(3);
        let mut conf = ConfState::of_voters((1..=3).map(PeerId));
        for _ in 0..20_000 {
            let id = PeerId(1 + prng.below(6));
            let mut one = || match prng.below(3) {
                0 => MemberChange::AddVoter(id),
                1 => MemberChange::AddLearner(PeerId(1 + prng.below(6))),
                _ => MemberChange::Remove(id),
            };
            let (a, b) = (one(), one());
            let change = match prng.below(4) {
                0 => ConfChange::One(a),
                1 => ConfChange::Enter { changes: vec![a, b], leave: Leave::Automatic },
                2 => ConfChange::Enter { changes: vec![b], leave: Leave::OnRequest },
                _ => ConfChange::Leave,
            };
            let (kind, data) = encode(&change);
            assert_eq!(decode(kind, &data), change);
            assert_eq!(
                conf.after(&change).ok(),
                expected(&conf, &change),
                "{change:?} of {conf:?}"
            );
            conf = conf.after(&change).unwrap_or(conf);
        }
    }
}
