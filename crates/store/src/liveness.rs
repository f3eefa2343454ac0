//! Which other stores live, for groups that sleep: they do not notice it themselves.
//!
//! A store that holds groups asleep together with another one (led here and followed there, or the
//! other way round) tells it from time to time that it lives, one small message for all of them.
//! Whoever is told and holds nothing asleep with the sender says so.
//!
//! | what is heard of a store | the groups asleep with it |
//! | --- | --- |
//! | it lives | sleep on |
//! | nothing for an election timeout | wake |
//! | it lives, but it was started anew | wake |
//! | it holds nothing asleep with us | wake: it does not know that they sleep |
//!
//! To wake one that could have slept on costs a round of heartbeats; one that should wake and does
//! not has no leader for ever.

use std::collections::{BTreeMap, BTreeSet};

use base::rule::{Rule, keep};
use base::{RegionId, StoreId};

use crate::input::StoreAlive;

/// What is known of a store with which groups sleep.
#[derive(Debug)]
struct Pair {
    asleep: BTreeSet<RegionId>,
    /// When it was last heard.
    heard: u64,
    /// When it is told again that this store lives.
    tell_at: u64,
}

/// The other stores. Time is in ticks of the shard.
#[derive(Debug)]
pub(crate) struct Liveness {
    store_id: StoreId,
    incarnation: u64,
    /// A sign of life is given so often ...
    interval: u64,
    /// ... and who gave none for so long is dead.
    patience: u64,
    pairs: BTreeMap<StoreId, Pair>,
    /// As last heard.
    incarnations: BTreeMap<StoreId, u64>,
}

impl Liveness {
    /// No group sleeps. `incarnation` differs from one start of the store to the next.
    pub(crate) fn new(store_id: StoreId, incarnation: u64, election_ticks: u32) -> Self {
        let patience = u64::from(election_ticks);
        Self {
            store_id,
            incarnation,
            interval: (patience / 3).max(1),
            patience,
            pairs: BTreeMap::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// A group begins to sleep at tick `now`, together with `stores`.
    pub(crate) fn sleeps(
        &mut self,
        region: RegionId,
        stores: impl Iterator<Item = StoreId>,
        now: u64,
    ) {
        for store in stores {
            assert_ne!(store, self.store_id, "a store does not watch itself");
            let pair = self.pairs.entry(store).or_insert_with(|| Pair {
                asleep: BTreeSet::new(),
                heard: now,
                tell_at: now,
            });
            pair.asleep.insert(region);
        }
    }

    /// A group sleeps no more, or is gone.
    pub(crate) fn wakes(&mut self, region: RegionId) {
        self.pairs.retain(|_, pair| {
            pair.asleep.remove(&region);
            !pair.asleep.is_empty()
        });
    }

    /// A sign of life came at tick `now`. Returns which groups shall wake, and the answer.
    pub(crate) fn hear(
        &mut self,
        alive: StoreAlive,
        now: u64,
    ) -> (Vec<RegionId>, Option<StoreAlive>) {
        let before = self.incarnations.insert(alive.from, alive.incarnation);
        let Some(pair) = self.pairs.get_mut(&alive.from) else {
            return (Vec::new(), alive.asks.then(|| self.say(alive.from, false)));
        };
        let anew = before.is_some_and(|before| before != alive.incarnation);
        if anew || !alive.asks {
            return (pair.asleep.iter().copied().collect(), None);
        }
        pair.heard = pair.heard.max(now);
        (Vec::new(), None)
    }

    /// A tick passed. Returns which groups shall wake, since the store with which they sleep is
    /// silent.
    pub(crate) fn tick(&mut self, now: u64, out: &mut Vec<StoreAlive>) -> BTreeSet<RegionId> {
        let mut wake = BTreeSet::new();
        let (from, incarnation) = (self.store_id, self.incarnation);
        for (to, pair) in &mut self.pairs {
            let is_silent = now.saturating_sub(pair.heard) >= self.patience;
            if is_silent && keep(Rule::SilenceWakes) {
                wake.extend(pair.asleep.iter().copied());
            }
            if now >= pair.tell_at {
                pair.tell_at = now + self.interval;
                out.push(StoreAlive { from, to: *to, incarnation, asks: true });
            }
        }
        wake
    }

    fn say(&self, to: StoreId, asks: bool) -> StoreAlive {
        StoreAlive { from: self.store_id, to, incarnation: self.incarnation, asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: StoreId = StoreId(1);
    const OTHER: StoreId = StoreId(2);
    const REGION: RegionId = RegionId(7);

    fn sign(incarnation: u64, asks: bool) -> StoreAlive {
        StoreAlive { from: OTHER, to: US, incarnation, asks }
    }

    fn asleep() -> Liveness {
        let mut liveness = Liveness::new(US, 5, 10);
        liveness.sleeps(REGION, [OTHER].into_iter(), 100);
        assert_eq!(liveness.hear(sign(1, true), 103), (vec![], None));
        liveness
    }

    #[test]
    fn a_silent_store_wakes_what_sleeps_with_it() {
        let (mut liveness, mut out) = (asleep(), Vec::new());
        assert!(liveness.tick(112, &mut out).is_empty());
        assert_eq!(out, [StoreAlive { from: US, to: OTHER, incarnation: 5, asks: true }]);
        assert_eq!(liveness.tick(113, &mut out), BTreeSet::from([REGION]));
        liveness.wakes(REGION);
        assert!(liveness.tick(130, &mut out).is_empty(), "nothing sleeps any more");
    }

    #[test]
    fn a_store_that_was_started_anew_or_knows_of_nothing_wakes_it_too() {
        assert_eq!(asleep().hear(sign(2, true), 104), (vec![REGION], None));
        assert_eq!(asleep().hear(sign(1, false), 104), (vec![REGION], None));
    }

    #[test]
    fn who_holds_nothing_asleep_with_the_sender_says_so() {
        let mut liveness = Liveness::new(US, 5, 10);
        let answer = StoreAlive { from: US, to: OTHER, incarnation: 5, asks: false };
        assert_eq!(liveness.hear(sign(1, true), 3), (vec![], Some(answer)));
        assert_eq!(liveness.hear(sign(1, false), 4), (vec![], None), "no answer to an answer");
    }
}
