//! The directed scenarios, all of them in one process. `./x sim --scenario NAME` runs one.

use pontoon_sim::cluster::scenarios;

#[test]
fn every_scenario_ends_well() {
    let mut broken = Vec::new();
    let all = scenarios::all();
    assert!(all.len() > 50, "{}", all.len());
    for scenario in all {
        if let Err(failure) = scenario.run() {
            broken.push(format!("{}: {failure}", scenario.name));
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "again: ./x sim --scenario NAME");
}
