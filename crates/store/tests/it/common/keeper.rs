//! Somebody who keeps things in memory for the regions that are led here, as transactions keep
//! locks: he is told when he may, and proposes what he has before it would be lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Region, RegionId, Term};
use pontoon_store::{LeaderEvent, ShardInput};

/// A region that is led here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Led {
    pub term: Term,
    pub region: Arc<Region>,
    /// He was asked to hand over, and is told when he may keep things again.
    pub closing: Option<u64>,
}

/// Checks that what he is told makes sense.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    pub led: BTreeMap<RegionId, Led>,
    /// He does not answer by himself.
    pub slow: bool,
    pub heard: Vec<LeaderEvent>,
}

impl Keeper {
    /// His answer, if he has nothing to propose first.
    pub(crate) fn hear(&mut self, event: LeaderEvent) -> Option<ShardInput> {
        self.heard.push(event.clone());
        match event {
            LeaderEvent::Leads { region, term } => {
                if let Some(led) = self.led.get(&region.id) {
                    assert_eq!(led.term, term, "{region:?}: the end of a term is told");
                    assert!(!region.epoch.is_behind(&led.region.epoch), "{region:?} after {led:?}");
                }
                self.led.insert(region.id, Led { term, region, closing: None });
                None
            }
            LeaderEvent::HandOver { region_id, term, ticket } => {
                let led = self.led.get_mut(&region_id).expect("only what is led can be lost");
                assert_eq!((led.term, led.closing), (term, None), "{region_id}");
                led.closing = Some(ticket);
                (!self.slow).then_some(ShardInput::HandedOver { region_id, term, ticket })
            }
            LeaderEvent::Lost { region_id, term } => {
                let led = self.led.remove(&region_id).expect("only what is led can be lost");
                assert_eq!(led.term, term, "{region_id}");
                None
            }
        }
    }

    /// What he says when all that he proposed is applied.
    pub(crate) fn answer(&self, region_id: RegionId) -> ShardInput {
        let led = &self.led[&region_id];
        let ticket = led.closing.expect("he was asked");
        ShardInput::HandedOver { region_id, term: led.term, ticket }
    }
}
