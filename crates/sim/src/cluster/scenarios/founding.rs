//! A cluster is founded, and its founder stops after each effect of its first start in turn. When
//! it starts again there is one cluster, with one first region.

use std::collections::BTreeSet;

use crate::Broken;
use crate::cluster::Options;
use crate::cluster::heal::HEAL_LIMIT;
use crate::cluster::world::{World, ms};

use super::{Scenario, What};

/// More effects than a founding has.
const EFFECTS_MAX: u32 = 400;

/// Effects after the founding after which nothing new is met.
const EFFECTS_ENOUGH: u32 = 150;

pub(super) fn all() -> Vec<Scenario> {
    let scenario =
        |name: &str, power| Scenario { name: name.to_owned(), what: What::Founding { power } };
    vec![
        scenario("founder_stops_after_each_effect_a03_a07", false),
        scenario("founder_loses_power_after_each_effect_a03_a07", true),
    ]
}

/// Once for each effect.
pub(super) fn run(power: bool) -> Result<(), Broken> {
    for effects in 0..EFFECTS_ENOUGH.min(EFFECTS_MAX) {
        crate::verdict::caught(u64::from(effects), || found(effects, power))?;
    }
    Ok(())
}

fn found(effects: u32, power: bool) {
    let options = Options {
        nodes: Some(3),
        clients: Some(0),
        faults: BTreeSet::new(),
        admin: BTreeSet::new(),
        transactions: Some(false),
        ..Options::default()
    };
    let mut world = World::new(u64::from(effects), &options);
    world.nodes[0].doomed = Some((effects, power));
    world.begin();
    let end = world.now() + ms(2_000);
    world.run_until(end);
    let limit = world.now() + HEAL_LIMIT;
    world.until_well(limit);
    let led = world.led().expect("it is well");
    assert_eq!(led.len(), 2, "one first region: {led:?}");
    world.heal();
}
