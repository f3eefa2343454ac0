//! What to do about a region error.

use proto::{errorpb, metapb};

/// The client's answer to a region error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Remedy {
    /// Another peer leads: go there.
    FollowLeader(metapb::Peer),
    /// The region is not what it was: ask the placement driver.
    AskAgain,
    /// It passes: wait and send again.
    Wait,
    /// Sending again cannot help.
    GiveUp,
    /// A write may or may not have taken effect.
    Undetermined,
}

/// The remedy for `error`. An error of an unknown kind is waited out.
pub(crate) fn remedy(error: &errorpb::Error) -> Remedy {
    if let Some(not_leader) = &error.not_leader {
        return match &not_leader.leader {
            Some(leader) if leader.id != 0 => Remedy::FollowLeader(*leader),
            _ => Remedy::AskAgain,
        };
    }
    let region_moved = error.epoch_not_match.is_some()
        || error.region_not_found.is_some()
        || error.key_not_in_region.is_some()
        || error.store_not_match.is_some()
        || error.mismatch_peer_id.is_some();
    let hopeless = error.raft_entry_too_large.is_some()
        || error.disk_full.is_some()
        || error.flashback_in_progress.is_some()
        || error.flashback_not_prepared.is_some();
    match () {
        () if region_moved => Remedy::AskAgain,
        () if hopeless => Remedy::GiveUp,
        () if error.undetermined_result.is_some() => Remedy::Undetermined,
        () => Remedy::Wait,
    }
}

/// The error in words, whether or not the server sent any.
pub(crate) fn describe(error: &errorpb::Error) -> String {
    if error.message.is_empty() { format!("{:?}", remedy(error)) } else { error.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_remedy() {
        let peer = metapb::Peer { id: 3, store_id: 2, ..Default::default() };
        let led_by = |leader| errorpb::Error {
            not_leader: Some(errorpb::NotLeader { region_id: 2, leader }),
            ..Default::default()
        };
        assert_eq!(remedy(&led_by(Some(peer))), Remedy::FollowLeader(peer));
        assert_eq!(remedy(&led_by(None)), Remedy::AskAgain);
        let moved = errorpb::Error {
            epoch_not_match: Some(errorpb::EpochNotMatch::default()),
            ..Default::default()
        };
        assert_eq!(remedy(&moved), Remedy::AskAgain);
        let large = errorpb::Error {
            raft_entry_too_large: Some(errorpb::RaftEntryTooLarge::default()),
            ..Default::default()
        };
        assert_eq!(remedy(&large), Remedy::GiveUp);
        let words = errorpb::Error { message: "applying a snapshot".into(), ..Default::default() };
        assert_eq!((remedy(&words), describe(&words)), (Remedy::Wait, words.message));
    }
}
