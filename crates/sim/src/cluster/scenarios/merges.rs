//! Stories of regions that become one, and of groups that sleep: known bugs of the reference
//! system, step by step. Their weather is in `known_bugs`.

use base::{Instant, Peer, PeerChange, PeerId, PeerRole};

use super::script::{Script, region_on};
use super::{Scenario, What};
use crate::cluster::event::{Actor, Slot};
use crate::cluster::network::Kind;
use crate::cluster::world::ms;

type Story = (&'static str, usize, fn(&mut Script));

const STORIES: [Story; 8] = [
    ("bug_07_a_source_that_knows_last_of_its_merge_8034", 3, known_last_at_home),
    ("bug_14_a_merge_that_was_off_and_one_for_good_6460", 3, off_and_for_good),
    ("bug_15_stops_on_its_way_back_into_a_merge_7027", 3, stops_on_its_way_back),
    ("bug_16_a_learner_that_hears_nothing_of_a_merge_4551", 4, learner_hears_nothing),
    ("bug_17_stops_while_it_learns_the_end_4560", 3, stops_while_it_learns),
    ("bug_18_away_for_a_merge_and_what_came_after_15919", 3, away_for_it_all),
    ("a_target_is_led_where_its_source_lags", 3, led_where_it_lags),
    ("bug_16429_step_by_step_while_asleep", 3, step_by_step_while_asleep),
];

pub(super) fn all() -> Vec<Scenario> {
    let scenario = |(name, nodes, tell): &Story| Scenario {
        name: (*name).to_owned(),
        what: What::Story(*nodes, *tell),
    };
    STORIES.iter().map(scenario).collect()
}

/// Two regions that meet at `m`, each with keys.
fn two_regions(script: &mut Script) {
    for key in ["a", "b", "x", "y"] {
        script.put(key, "v");
    }
    script.split("m");
    script.well();
}

/// One region holds what both held.
fn check_merged(script: &mut Script, pairs: &[(&str, &str)]) {
    let (left, right) = (script.leader("a").1, script.leader("x").1);
    assert_eq!(left.region.id, right.region.id, "they are one");
    for (key, value) in pairs {
        assert_eq!(script.get(key).as_deref(), Some(*value), "key {key}");
    }
}

/// A node with replicas of both regions that leads neither.
fn follower_of_both(script: &mut Script) -> Slot {
    let (led, _) = script.leader("a");
    let (slot, _) = script.follower("a");
    if script.leader("x").0 == slot {
        lead_x_on(script, led);
    }
    slot
}

/// The region of `x`, which is on all nodes, is led on this one.
fn lead_x_on(script: &mut Script, slot: Slot) {
    let (store, view) = (script.store(slot), script.leader("x").1);
    script.transfer("x", view.region.peer_on(store).expect("on all nodes").id);
}

/// The node applies nothing for so long. Returns when that ends.
fn stall_applier(script: &mut Script, slot: Slot, milliseconds: u64) -> Instant {
    let until = script.world.now() + ms(milliseconds);
    script.world.nodes[slot].stalled = Some((Actor::Applier, until));
    until
}

/// Another store writes to what the source was before the store that leads the source knows that
/// it is merged: from the proposal on that one reads nothing.
fn known_last_at_home(script: &mut Script) {
    two_regions(script);
    let (home, view) = script.leader("a");
    let (away, _) = script.follower("a");
    lead_x_on(script, away);
    assert_eq!(script.get_by(1, "a").as_deref(), Some("v"), "a client knows where it was");
    let target = script.leader("x").1.region.clone();
    stall_applier(script, home, 3_000);
    script.world.merge_into(home, &view, (*target).clone());
    script
        .until("the target takes it over", |world| region_on(world, away, "a") == Some(target.id));
    assert_ne!(region_on(&script.world, home, "a"), Some(target.id), "home does not know yet");
    script.put("a", "later");
    assert_eq!(script.get_by(1, "a").as_deref(), Some("later"), "nobody reads what was before");
    script.well();
    check_merged(script, &[("a", "later"), ("x", "v")]);
}

/// The store that leads the target does not get on with the source: the lead moves to one that
/// has all of it.
fn led_where_it_lags(script: &mut Script) {
    two_regions(script);
    let (home, view) = script.leader("a");
    let (away, _) = script.follower("a");
    lead_x_on(script, away);
    let target = script.leader("x").1.region.clone();
    let until = stall_applier(script, away, 20_000);
    script.world.merge_into(home, &view, (*target).clone());
    script
        .until("another one takes it over", |world| region_on(world, home, "a") == Some(target.id));
    assert!(script.world.now() < until, "nobody waits for whoever lags");
    script.put("a", "later");
    script.well();
    check_merged(script, &[("a", "later"), ("x", "v")]);
}

/// A store hears of a merge, not that it is off, and then of another one.
fn off_and_for_good(script: &mut Script) {
    two_regions(script);
    let slow = follower_of_both(script);
    let before = script.leader("x").1.region.clone();
    script.split("t");
    let epoch = script.leader("a").1.region.epoch;
    // The target has changed since: it takes nobody over.
    script.ask_merge("a", &before);
    script.until("the slow one waits for the merge", |world| {
        let views = world.nodes[slow].views();
        let view = views.and_then(|views| views.get(views.region_of(b"a")?));
        view.is_some_and(|view| view.region.epoch.version > epoch.version)
    });
    // From here on it takes everything into its log, and applies nothing.
    stall_applier(script, slow, 8_000);
    script.run(2_000);
    script.put("b", "the merge is off");
    script.merge("a", "n");
    script.put("a", "now it is not");
    script.well();
    assert_eq!(script.leader("a").1.region.id, script.leader("n").1.region.id, "they are one");
    assert_eq!(script.get("a").as_deref(), Some("now it is not"));
    assert_eq!(script.get("b").as_deref(), Some("the merge is off"));
}

/// So many writes that nothing of before is in the logs.
fn write_much(script: &mut Script) {
    for i in 0..40 {
        script.put(&format!("c{i:03}"), "value");
    }
    script.run(3_000);
}

/// A store that missed a merge gets the whole by a snapshot, and stops again and again meanwhile.
fn stops_on_its_way_back(script: &mut Script) {
    two_regions(script);
    let away = follower_of_both(script);
    script.part(&[away]);
    script.merge("a", "x");
    write_much(script);
    script.join();
    for i in 0..10 {
        script.run(15 + 40 * i);
        script.restart(away, i % 2 == 0);
    }
    script.well();
    check_merged(script, &[("a", "v"), ("x", "v"), ("c039", "value")]);
}

/// A store that missed a merge and all that came after has nothing left of the source in the end.
fn away_for_it_all(script: &mut Script) {
    two_regions(script);
    let away = follower_of_both(script);
    let source = script.leader("a").1.region.id;
    script.part(&[away]);
    script.merge("a", "x");
    write_much(script);
    script.join();
    script.well();
    let left = script.world.nodes[away].views().and_then(|views| views.get(source));
    assert!(left.is_none(), "the source is gone: {left:?}");
    check_merged(script, &[("a", "v"), ("x", "v"), ("c039", "value")]);
}

/// Learners of both regions on a store that is cut off then: they lack what is written since.
fn learner_hears_nothing(script: &mut Script) {
    two_regions(script);
    let view = script.leader("a").1;
    let stores: Vec<_> = script.world.stores.iter().map(|(id, slot)| (*id, *slot)).collect();
    let free = stores.into_iter().find(|(store, _)| view.region.peer_on(*store).is_none());
    let (store_id, slot) = free.expect("four nodes, three replicas");
    for (number, key) in [(1, "a"), (2, "x")] {
        let learner = Peer { id: PeerId((1 << 59) + number), store_id, role: PeerRole::Learner };
        script.change(key, &[PeerChange::AddLearner(learner)]);
    }
    script.part(&[slot]);
    for i in 0..5 {
        script.put("b", &format!("v{i}"));
    }
    let target = script.leader("x").1.region.clone();
    script.ask_merge("a", &target);
    script.run(1_000);
    script.join();
    script.well();
    script.merge("a", "x");
    script.well();
    check_merged(script, &[("a", "v"), ("b", "v4"), ("x", "v")]);
}

/// A member that lacks the source's end learns it from the target, and stops meanwhile.
fn stops_while_it_learns(script: &mut Script) {
    two_regions(script);
    for i in 0..6 {
        let slow = follower_of_both(script);
        script.world.network.filter = Some((slow, Kind::Append));
        let value = format!("v{i}");
        script.put("a", &value);
        let target = script.leader("x").1.region.clone();
        script.ask_merge("a", &target);
        script.run(400);
        script.world.network.filter = None;
        script.run(20 + 23 * i);
        script.restart(slow, i % 2 == 0);
        script.well();
        script.merge("a", "x");
        script.put("b", &value);
        check_merged(script, &[("a", &value), ("b", &value), ("x", "v")]);
        script.split("m");
        script.well();
    }
}

/// A group sleeps while its stores lose each other one by one: those that are left find a leader.
fn step_by_step_while_asleep(script: &mut Script) {
    script.put("a", "v");
    script.sleep_after(3);
    for order in 0..3 {
        script.run(4_000);
        let (a, _) = script.leader("a");
        let (b, c) = ((a + 1) % 3, (a + 2) % 3);
        let pairs = [(a, b), (a, c), (b, c)];
        for step in 0..3 {
            let (one, other) = pairs[(order + step) % 3];
            script.world.network.cut.extend([(one, other), (other, one)]);
            script.run(850);
        }
        script.join();
        script.part(&[a]);
        script.put("a", &format!("v{order}"));
        script.join();
        script.well();
        assert_eq!(script.get("a"), Some(format!("v{order}")));
    }
}
