//! Moves the timestamps on up to which followers answer reads of the past.
//!
//! ```text
//!   placement ── timestamp ──> claims of all regions led here ── CheckLeader ──> their stores
//!                                   │                                               │
//!   what a quorum agrees to is safe <──────────── "I agree to these" ───────────────┘
//!                                     and is told with the next round's claims
//! ```
//!
//! Why that is enough is on the page of `store::SafeTimes`. A store that does not answer costs its
//! regions a round, not their safety.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Epoch, PeerId, Region, RegionId, StoreId, TimeStamp};
use futures_util::future::join_all;
use proto::kvrpcpb;
use proto::tikvpb::tikv_client::TikvClient;
use storage::engine::EngineError;
use store::{LeaderClaim, OpenClaim, RegionViews, SafePoint};
use tonic::Request;
use tonic::transport::Channel;
use txn::mvcc::oldest_locks;

use crate::placement_link::PlacementLink;
use crate::services::txn::TxnService;
use crate::store_handle::StoreHandle;
use crate::transport::{Resolver, connect_to, sign};

/// One try to get a timestamp.
const TIMESTAMP_BUDGET: Duration = Duration::from_secs(1);

/// A store must answer within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What moves them on.
pub(crate) struct SafeTs {
    link: PlacementLink,
    txn: TxnService,
    resolver: Resolver,
    interval: Duration,
    clients: BTreeMap<StoreId, TikvClient<Channel>>,
}

/// What the stores are asked, and the regions to which they agree.
type Asked = BTreeMap<StoreId, Vec<kvrpcpb::LeaderInfo>>;
type Agreed = BTreeMap<StoreId, BTreeSet<u64>>;

impl SafeTs {
    pub(crate) fn new(
        link: PlacementLink,
        txn: TxnService,
        resolver: Resolver,
        interval: Duration,
    ) -> Self {
        Self { link, txn, resolver, interval, clients: BTreeMap::new() }
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(self.interval).await;
            match self.link.min_ts(TIMESTAMP_BUDGET).await {
                Ok(ts) => self.advance(ts).await,
                Err(error) => tracing::debug!(%error, "no timestamp for reads of the past"),
            }
        }
    }

    async fn advance(&mut self, ts: TimeStamp) {
        let (store, txn) = (self.link.host().store().clone(), self.txn.clone());
        let claimed = tokio::task::spawn_blocking(move || claim(&store, &txn, ts)).await;
        let claims = match claimed {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                return tracing::warn!(%error, "nothing is safe for reads of the past");
            }
            Err(_) => return,
        };
        let mut asked = Asked::new();
        for (OpenClaim { claim, stores, .. }, _) in &claims {
            for store in stores {
                asked.entry(*store).or_default().push(claim_to_proto(claim));
            }
        }
        let agreed = self.ask(asked, ts).await;
        let views = self.link.host().store().views();
        for (claim, ts) in &claims {
            let agrees = |store: &&StoreId| {
                agreed.get(*store).is_some_and(|ids| ids.contains(&claim.claim.region_id.0))
            };
            let by = claim.stores.iter().filter(agrees).copied().collect();
            views.confirm_claim(claim, *ts, &by);
        }
    }

    /// Asks all stores at once.
    async fn ask(&mut self, asked: Asked, ts: TimeStamp) -> Agreed {
        let cluster = self.link.cluster_id();
        let asking = asked.into_iter().map(|(store, regions)| {
            let (known, resolver) = (self.clients.remove(&store), self.resolver.clone());
            async move {
                let answer = async {
                    let mut client = match known {
                        Some(client) => client,
                        None => connect_to(&resolver, store).await.ok()?,
                    };
                    let request = kvrpcpb::CheckLeaderRequest { regions, ts: ts.0 };
                    let request = sign(Request::new(request), cluster);
                    let response = client.check_leader(request).await.ok()?;
                    Some((client, response.into_inner()))
                };
                (store, tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok().flatten())
            }
        });
        let answers = join_all(asking.collect::<Vec<_>>()).await;
        let mut agreed = Agreed::new();
        for (store, answer) in answers {
            if let Some((client, response)) = answer {
                self.clients.insert(store, client);
                agreed.insert(store, response.regions.into_iter().collect());
            }
        }
        agreed
    }
}

/// What the regions led here claim, and how far `ts` is lowered in each of them for its locks. A
/// region in which nothing is safe does not claim.
fn claim(
    store: &StoreHandle,
    txn: &TxnService,
    ts: TimeStamp,
) -> Result<Vec<(OpenClaim, TimeStamp)>, EngineError> {
    // In this order: what is not shown in memory any more is in the snapshot. All of it
    // after the timestamp was taken: that is what makes it safe.
    let Some(ts) = txn.close_up_to(ts) else { return Ok(Vec::new()) };
    let snapshot = store.engine().snapshot();
    let claims = store.views().claims(&*snapshot)?;
    let regions: Vec<&Region> = claims.iter().map(|open| &**open.region()).collect();
    let locks = oldest_locks(&*snapshot, &regions)?;
    let below = |oldest: TimeStamp| TimeStamp(oldest.0.saturating_sub(1));
    let lowered = locks.into_iter().map(|oldest| below(oldest).min(ts)).collect::<Vec<_>>();
    let claims = claims.into_iter().zip(lowered);
    Ok(claims.filter(|(_, ts)| ts.0 > 0).collect())
}

/// The answer to another store's claims.
pub(crate) fn check_leaders(
    views: &RegionViews,
    request: &kvrpcpb::CheckLeaderRequest,
) -> kvrpcpb::CheckLeaderResponse {
    let claims = request.regions.iter().map(claim_from_proto);
    let agreed = claims.filter(|claim| views.check_claim(claim));
    let regions = agreed.map(|claim| claim.region_id.0).collect();
    kvrpcpb::CheckLeaderResponse { regions, ts: request.ts }
}

fn claim_to_proto(claim: &LeaderClaim) -> kvrpcpb::LeaderInfo {
    let SafePoint { ts, applied } = claim.safe;
    kvrpcpb::LeaderInfo {
        region_id: claim.region_id.0,
        peer_id: claim.peer.0,
        term: claim.term,
        region_epoch: Some(proto::epoch_to_proto(claim.epoch)),
        read_state: Some(kvrpcpb::ReadState { applied_index: applied, safe_ts: ts.0 }),
    }
}

/// One that names no epoch agrees with nothing.
fn claim_from_proto(info: &kvrpcpb::LeaderInfo) -> LeaderClaim {
    let epoch = info.region_epoch.as_ref().map_or_else(Epoch::default, proto::epoch_from_proto);
    let read = info.read_state.unwrap_or_default();
    LeaderClaim {
        region_id: RegionId(info.region_id),
        peer: PeerId(info.peer_id),
        term: info.term,
        epoch,
        safe: SafePoint { ts: TimeStamp(read.safe_ts), applied: read.applied_index },
    }
}
