//! Up to which time followers answer reads of the past: what crate `server` does at intervals.
//!
//! ```text
//!   placement ── timestamp ──> claims of all regions led here ── Claims ──> their stores
//!                                   │                                          │
//!   what a quorum agrees to is safe <───────────── agreed to these ────────────┘
//! ```
//!
//! Anything may come between any two of these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Region, RegionId, StoreId, TimeStamp};
use storage::engine::Engine;
use store::{LeaderClaim, OpenClaim};
use txn::mvcc::oldest_locks;

use crate::cluster::event::{CallId, Caller, Event, Purpose, Reply, Request, Slot, Timer};
use crate::cluster::world::{World, ms};

/// Patience with a store that is asked whether claims are true.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two rounds, about.
const ROUND_MS: u64 = 500;

/// What a store claims, and who agreed.
#[derive(Default)]
pub(crate) struct Round {
    number: u64,
    claims: Vec<(OpenClaim, TimeStamp)>,
    agreed: BTreeMap<RegionId, BTreeSet<StoreId>>,
}

impl World {
    /// Another round will begin.
    pub(crate) fn past_later(&mut self, slot: Slot) {
        if self.plan.txn.is_some() {
            let delay = ms(ROUND_MS / 2 + self.prng.below(ROUND_MS));
            let life = self.nodes[slot].life;
            self.queue.after(delay, Event::Timer(slot, life, Timer::Past));
        }
    }

    /// A round begins: what is given out from now on is later than what it makes safe.
    pub(crate) fn ask_past(&mut self, slot: Slot) {
        self.ask_placement(slot, Request::Timestamps(1), Purpose::PastTs);
        self.past_later(slot);
    }

    /// The regions led here claim that everything up to `ts` is known.
    pub(crate) fn claim_past(&mut self, slot: Slot, ts: TimeStamp) {
        let number = self.next_number();
        let engine = self.nodes[slot].machine.engine.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        // In this order: what is not shown in memory any more is in the snapshot.
        let ts = core.txn.scheduler.close_up_to(ts).expect("timestamps have no limit here");
        let snapshot = engine.snapshot();
        let claims = core.views.claims(&*snapshot).expect("the engine works");
        let regions: Vec<&Region> = claims.iter().map(|claim| &**claim.region()).collect();
        let locks = oldest_locks(&*snapshot, &regions).expect("the engine works");
        let lowered = locks.into_iter().map(|oldest| TimeStamp(oldest.0.saturating_sub(1)).min(ts));
        let claims: Vec<_> = claims.into_iter().zip(lowered).filter(|(_, ts)| ts.0 > 0).collect();
        let mut asked: BTreeMap<StoreId, Vec<LeaderClaim>> = BTreeMap::new();
        for (claim, _) in &claims {
            for store in &claim.stores {
                asked.entry(*store).or_default().push(claim.claim);
            }
        }
        core.txn.round = Round { number, claims, agreed: BTreeMap::new() };
        self.confirm_past(slot);
        let caller = Caller::Node(slot, self.nodes[slot].life);
        for (store, claims) in asked {
            let Some(to) = self.slot_of(store) else { continue };
            let purpose = Purpose::Claimed(number, store);
            self.call(caller, to, Request::Claims(claims), purpose, PATIENCE);
        }
    }

    /// Another store's leaders claim something.
    pub(crate) fn check_claims(
        &mut self,
        slot: Slot,
        (id, caller): (CallId, Caller),
        claims: &[LeaderClaim],
    ) {
        let Some(core) = self.nodes[slot].core() else { return };
        let agreed = claims.iter().filter(|claim| core.views.check_claim(claim));
        let agreed = agreed.map(|claim| claim.region_id).collect();
        self.answer(slot, caller, id, Reply::Agreed(agreed));
    }

    /// A store agrees to some of what is claimed here.
    pub(crate) fn claims_reply(
        &mut self,
        slot: Slot,
        (number, store): (u64, StoreId),
        reply: Option<Reply>,
    ) {
        let Some(core) = self.nodes[slot].core() else { return };
        let round = &mut core.txn.round;
        let Some(Reply::Agreed(regions)) = reply.filter(|_| round.number == number) else { return };
        for region in regions {
            round.agreed.entry(region).or_default().insert(store);
        }
        self.confirm_past(slot);
    }

    fn confirm_past(&mut self, slot: Slot) {
        let Some(core) = self.nodes[slot].core() else { return };
        let (round, nobody) = (&mut core.txn.round, BTreeSet::new());
        let agreed = &round.agreed;
        round.claims.retain(|(claim, ts)| {
            let by = agreed.get(&claim.claim.region_id).unwrap_or(&nobody);
            !core.views.confirm_claim(claim, *ts, by)
        });
    }
}
