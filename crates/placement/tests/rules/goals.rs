//! What somebody wants done by hand, and checkers that somebody pauses.

use std::time::Duration;

use base::{RegionId, StoreId};
use pontoon_placement::{Checker, Goal, RecordStatus};

use crate::replicas::{Fake, members};

/// Three stores, 1, 4 and 5, with a voter of each region on each.
fn three() -> Fake {
    let mut fake = Fake::new();
    fake.join(4);
    fake.join(5);
    fake.settle();
    fake
}

/// Sets a goal for region 2 and lets things happen. Returns how it ended, why, and what was done.
fn reach(fake: &mut Fake, goal: Goal) -> (RecordStatus, String, String) {
    let now = fake.host.now;
    fake.host.placement.set_goal(RegionId(2), goal, now).unwrap();
    for _ in 0..20 {
        fake.round();
        fake.groups.values_mut().for_each(|group| group.pending.clear());
    }
    let record = fake.host.placement.goal(RegionId(2)).unwrap();
    (record.status, record.detail, fake.settle())
}

fn refusal(fake: &mut Fake, goal: Goal) -> String {
    let now = fake.host.now;
    fake.host.placement.set_goal(RegionId(2), goal, now).unwrap_err().to_string()
}

fn done(trace: &str) -> (RecordStatus, String, String) {
    (RecordStatus::Success, String::new(), trace.to_owned())
}

#[test]
fn a_leader_goes_where_it_is_told() {
    let mut fake = three();
    let reached = reach(&mut fake, Goal::TransferLeader(StoreId(5)));
    assert_eq!(reached, done("2 transfer-leader: 1v 4v 5v -> 5v 1v 4v\n"));
    assert_eq!(reach(&mut fake, Goal::TransferLeader(StoreId(5))), done(""), "it leads already");
    fake.join(6);
    fake.settle();
    let text = refusal(&mut fake, Goal::TransferLeader(StoreId(6)));
    assert!(text.contains("it has no peer on store 6"), "{text}");
}

#[test]
fn a_peer_is_added_and_the_checker_takes_back_what_is_too_much() {
    let mut fake = three();
    fake.join(6);
    fake.settle();
    let now = fake.host.now;
    fake.host.placement.pause_checker(Checker::Replica, Duration::from_secs(60), now);
    let added = "2 add-learner: 1v 4v 5v -> 1v 4v 5v 6l\n\
                 2 promote-learner: 1v 4v 5v 6l -> 1v 4v 5v 6v\n";
    assert_eq!(reach(&mut fake, Goal::AddPeer(StoreId(6))), done(added));
    assert!(fake.host.placement.is_checker_paused(Checker::Replica, fake.host.now));
    fake.host.pass(Duration::from_secs(60));
    assert!(!fake.host.placement.is_checker_paused(Checker::Replica, fake.host.now));
    let trace = fake.settle();
    assert!(trace.starts_with("2 remove-peer: 1v 4v 5v 6v -> "), "{trace}");
}

#[test]
fn a_peer_is_removed_even_if_it_leads_or_is_one_of_two() {
    let mut fake = three();
    let now = fake.host.now;
    fake.host.placement.pause_checker(Checker::Rule, Duration::from_secs(1_000), now);
    let removed = "2 transfer-leader: 1v 4v 5v -> 4v 1v 5v\n\
                   2 remove-peer: 4v 1v 5v -> 4v 5v\n";
    assert_eq!(reach(&mut fake, Goal::RemovePeer(StoreId(1))), done(removed));
    let removed = "2 add-learner: 4v 5v -> 4v 5l\n2 remove-peer: 4v 5l -> 4v\n";
    assert_eq!(reach(&mut fake, Goal::RemovePeer(StoreId(5))), done(removed));
    let text = refusal(&mut fake, Goal::RemovePeer(StoreId(4)));
    assert!(text.contains("is its only voter"), "{text}");
}

#[test]
fn a_region_moves_to_other_stores() {
    let mut fake = three();
    (6..9).for_each(|id| fake.join(id));
    fake.settle();
    let stores = [6, 7, 8].map(StoreId).to_vec();
    let (status, detail, _) = reach(&mut fake, Goal::TransferRegion(stores));
    assert_eq!((status, &detail[..]), (RecordStatus::Success, ""));
    let mut places: Vec<_> = members(&fake.groups[&2]).split(' ').map(str::to_owned).collect();
    places.sort_unstable();
    assert_eq!(places, ["6v", "7v", "8v"]);
    let (status, _, _) = reach(&mut fake, Goal::TransferPeer(StoreId(6), StoreId(1)));
    assert_eq!(status, RecordStatus::Success);
    assert!(members(&fake.groups[&2]).contains("1v"), "{}", members(&fake.groups[&2]));
}

#[test]
fn regions_are_cut_and_joined_again() {
    let mut fake = three();
    assert_eq!(reach(&mut fake, Goal::Split(vec!["m".into()])), done(""));
    assert_eq!(fake.host.map(), [1_002, 2]);
    let text = refusal(&mut fake, Goal::Split(vec!["a".into()]));
    assert!(text.contains("is not inside of the region"), "{text}");
    let text = refusal(&mut fake, Goal::Merge(RegionId(77)));
    assert!(text.contains("region 77 is not known"), "{text}");
    assert_eq!(reach(&mut fake, Goal::Merge(RegionId(1_002))), {
        (RecordStatus::Success, String::new(), String::new())
    });
    assert_eq!(fake.host.map().len(), 1);
}

/// Two merges at once that concern one region would undo each other again and again.
#[test]
fn a_region_is_in_one_merge_at_a_time() {
    let mut fake = three();
    for key in ["g", "m"] {
        assert_eq!(reach(&mut fake, Goal::Split(vec![key.into()])).0, RecordStatus::Success);
    }
    let [left, middle, right] = fake.host.map()[..] else { panic!("{:?}", fake.host.map()) };
    let now = fake.host.now;
    let mut set = |from: u64, goal| fake.host.placement.set_goal(RegionId(from), goal, now);
    set(left, Goal::Merge(RegionId(middle))).unwrap();
    for (from, goal, why) in [
        (right, Goal::Merge(RegionId(middle)), "is about to become a part of region"),
        (middle, Goal::Merge(RegionId(right)), "is about to become a part of region"),
        (middle, Goal::Split(vec!["h".into()]), "is about to become a part of region"),
        (middle, Goal::Merge(RegionId(left)), "is about to become a part of region"),
        (left, Goal::RemovePeer(StoreId(1)), "has a goal already: merge-region"),
    ] {
        let text = set(from, goal).unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }
    for _ in 0..20 {
        fake.round();
    }
    assert_eq!(fake.host.map(), [middle, right]);
}

#[test]
fn goals_end() {
    let mut fake = three();
    let now = fake.host.now;
    let text = refusal(&mut fake, Goal::AddPeer(StoreId(77)));
    assert!(text.contains("store ID 77"), "{text}");
    fake.join(6);
    fake.host.placement.set_goal(RegionId(2), Goal::AddPeer(StoreId(6)), now).unwrap();
    let text = refusal(&mut fake, Goal::RemovePeer(StoreId(1)));
    assert!(text.contains("has a goal already: add-peer"), "{text}");
    // The learner never catches up.
    for _ in 0..650 {
        fake.round();
    }
    let record = fake.host.placement.goal(RegionId(2)).unwrap();
    assert_eq!(record.status, RecordStatus::Timeout, "{record:?}");
    assert!(record.detail.contains("catching up"), "{record:?}");
    assert!(!fake.host.placement.cancel_goal(RegionId(2)), "nothing stands");
    let now = fake.host.now;
    fake.host.placement.set_goal(RegionId(2), Goal::RemovePeer(StoreId(6)), now).unwrap();
    assert!(fake.host.placement.cancel_goal(RegionId(2)));
    assert_eq!(fake.host.placement.goal(RegionId(2)).unwrap().status, RecordStatus::Cancel);
}
