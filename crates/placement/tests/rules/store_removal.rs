//! Stores that leave: emptied first, then buried, and what may come in their place.

use base::StoreId;
use proto::metapb;

use crate::host::store;
use crate::replicas::Fake;

fn four() -> Fake {
    let mut fake = Fake::new();
    [4, 5, 6].into_iter().for_each(|id| fake.join(id));
    fake.settle();
    fake
}

fn bury(fake: &mut Fake) -> Vec<StoreId> {
    let now = fake.host.now;
    fake.host.write(|placement| Ok(placement.bury_stores(now))).unwrap()
}

fn states(fake: &Fake, id: u64) -> (metapb::StoreState, metapb::NodeState) {
    let meta = fake.host.store(id).unwrap();
    (meta.state(), meta.node_state())
}

#[test]
fn a_store_is_emptied_and_then_buried() {
    let mut fake = four();
    let victim = 4;
    assert!(fake.host.placement.copies_on(StoreId(victim)) > 0, "or this shows nothing");
    fake.host.write(|p| p.remove_store(StoreId(victim), false)).unwrap();
    assert_eq!(states(&fake, victim), (metapb::StoreState::Offline, metapb::NodeState::Removing));
    assert_eq!(bury(&mut fake), [], "it holds copies");
    fake.settle();
    assert_eq!(fake.host.placement.copies_on(StoreId(victim)), 0);
    // A placement driver that has just begun knows of no copies, which proves nothing.
    fake.host.restart();
    assert_eq!(bury(&mut fake), []);
    fake.round();
    assert_eq!(bury(&mut fake), [StoreId(victim)]);
    assert_eq!(states(&fake, victim), (metapb::StoreState::Tombstone, metapb::NodeState::Removed));
    assert_eq!(bury(&mut fake), [], "once");

    let error = fake.host.put_store(store(victim)).unwrap_err();
    assert!(error.to_string().contains("tombstone"), "{error}");
    let same_place = metapb::Store { id: 77, ..store(victim) };
    fake.host.put_store(same_place).unwrap();
}

#[test]
fn a_store_that_is_needed_stays() {
    let mut fake = Fake::new();
    [4, 5].into_iter().for_each(|id| fake.join(id));
    fake.settle();
    let error = fake.host.write(|p| p.remove_store(StoreId(4), false)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("can not remove store 4 since the number of up stores would be 2"),
        "{text}"
    );
    let error = fake.host.write(|p| p.remove_store(StoreId(44), false)).unwrap_err();
    assert!(error.to_string().contains("store ID 44"), "{error}");
}

#[test]
fn a_removal_can_be_taken_back() {
    let mut fake = four();
    fake.host.write(|p| p.remove_store(StoreId(4), false)).unwrap();
    fake.host.write(|p| p.restore_store(StoreId(4))).unwrap();
    assert_eq!(states(&fake, 4), (metapb::StoreState::Up, metapb::NodeState::Serving));
    fake.host.write(|p| p.remove_store(StoreId(4), true)).unwrap();
    let error = fake.host.write(|p| p.restore_store(StoreId(4))).unwrap_err();
    assert!(error.to_string().contains("physically destroyed"), "{error}");
}

#[test]
fn a_wiped_machine_comes_back_as_another_store() {
    let mut fake = Fake::new();
    [4, 5].into_iter().for_each(|id| fake.join(id));
    fake.settle();
    let wiped = metapb::Store { id: 77, ..store(4) };
    let error = fake.host.put_store(wiped.clone()).unwrap_err();
    assert!(error.to_string().contains("duplicated store address"), "{error}");
    fake.host.write(|p| p.remove_store(StoreId(4), true)).unwrap();
    fake.host.put_store(wiped).unwrap();
    fake.join(77);
    fake.settle();
    assert_eq!(fake.host.placement.copies_on(StoreId(4)), 0, "its copies are elsewhere");
    assert_eq!(bury(&mut fake), [StoreId(4)]);
}
