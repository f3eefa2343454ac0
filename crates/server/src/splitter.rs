//! Cuts regions that are led here: with ids from the placement driver, whoever wants it.
//!
//! ```text
//!   Report::WantsSplit ── run ──┐
//!   Tikv.SplitRegion ───────────┤                     ids              ShardInput::Split
//!   order of placement ─────────┼─> split_region ──> AskBatchSplit ──> the store ──> parts
//!   keyspace borders ───────────┘
//! ```
//!
//! The region keeps the right-most part under its id; the others are new. Many keys are cut at in
//! several steps, from left to right.

use std::sync::Arc;
use std::time::Duration;

use base::{Cut, Peer, PeerId, Region, RegionId};
use bytes::Bytes;
use proto::pdpb;
use store::split_check::{self, SplitWanted};
use store::{RegionError, RequestHeader, ShardInput, SplitRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::placement_link::{LinkError, PlacementLink};
use crate::store_handle::reply_into;

/// How long the placement driver may take to answer.
const CALL_BUDGET: Duration = Duration::from_secs(10);

/// Keys of one step. Each makes a region with its states in one batch of the engine.
const STEP_KEYS_MAX: usize = 1_024;

/// Splits that nobody asked for and that are under way at once.
const SPLITS_MAX: usize = 16;

/// Such splits that wait. Beyond that they are dropped: the region is looked at again.
const WAITING_MAX: usize = 1_024;

/// How long, and how often, somebody who had a region split looks for its parts.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(1);
const KNOWN_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Where the store's wishes go.
#[derive(Clone)]
pub(crate) struct Splitter(mpsc::Sender<SplitWanted>);

impl Splitter {
    /// Starts the task that fulfils them.
    pub(crate) fn start(link: PlacementLink, tasks: &mut JoinSet<()>) -> Self {
        let (sender, wanted) = mpsc::channel(WAITING_MAX);
        tasks.spawn(run(link, wanted));
        Self(sender)
    }

    /// A region should be cut.
    pub(crate) fn want(&self, wanted: SplitWanted) {
        if let Err(error) = self.0.try_send(wanted) {
            tracing::debug!(%error, "a split is put off");
        }
    }
}

async fn run(link: PlacementLink, mut wanted: mpsc::Receiver<SplitWanted>) {
    let mut running = JoinSet::new();
    while let Some(SplitWanted { region, peer, keys, reason }) = wanted.recv().await {
        if running.len() >= SPLITS_MAX {
            let _ = running.join_next().await;
        }
        let link = link.clone();
        running.spawn(async move {
            let (id, parts) = (region.id, keys.len() + 1);
            match split_region(&link, &region, peer, keys).await {
                Ok(_) => tracing::info!(region = %id, parts, ?reason, "split"),
                Err(error) => tracing::debug!(region = %id, %error, "not split"),
            }
        });
    }
}

/// Cuts a region whose replica `peer` leads here at `keys`, which lie inside and ascend. Returns
/// all parts from left to right, the last of which is the region itself. After an error some of the
/// keys may have been cut at.
pub(crate) async fn split_region(
    link: &PlacementLink,
    region: &Arc<Region>,
    peer: Peer,
    keys: Vec<Bytes>,
) -> Result<Vec<Arc<Region>>, LinkError> {
    let (mut region, mut parts) = (region.clone(), Vec::with_capacity(keys.len() + 1));
    for keys in keys.chunks(STEP_KEYS_MAX) {
        let cuts = ids(link, &region, keys).await?;
        let stale = || RegionError::EpochNotMatch { current: vec![region.clone()] };
        let (rest, births) = region.split(&cuts).ok_or_else(stale)?;
        let header = RequestHeader::new(region.id, peer, region.epoch);
        let (send, receive) = oneshot::channel();
        let request = SplitRequest { header, cuts, reply: reply_into(send) };
        link.host().store().request(ShardInput::Split(request));
        receive.await.unwrap_or(Err(RegionError::Undetermined))?;
        known_here(link, rest.epoch.version, &births).await;
        parts.extend(births.into_iter().map(Arc::new));
        region = Arc::new(rest);
    }
    parts.push(region);
    Ok(parts)
}

/// Waits until the store knows the parts that the applier made, as it does in a moment: whoever is
/// told of them may ask for them at once.
async fn known_here(link: &PlacementLink, version: u64, births: &[Region]) {
    let views = link.host().store().views();
    let is_known = |birth: &Region| views.is_newborn(birth.id) || views.get(birth.id).is_some();
    let all_known = async {
        while !births.iter().all(is_known) {
            tokio::time::sleep(KNOWN_LOOK_INTERVAL).await;
        }
    };
    if tokio::time::timeout(KNOWN_TIMEOUT, all_known).await.is_err() {
        tracing::debug!(version, "parts of a split have left already");
    }
}

/// Cuts a region that is led here into two of about the same size. Returns both, or the one if it
/// cannot be cut.
pub(crate) async fn halve_region(
    link: &PlacementLink,
    region: &Arc<Region>,
    peer: Peer,
) -> Result<Vec<Arc<Region>>, LinkError> {
    let (engine, of) = (link.host().store().engine().clone(), region.clone());
    let found = tokio::task::spawn_blocking(move || split_check::half(&*engine, &of)).await;
    let key = found.map_err(|_| RegionError::Undetermined)??;
    split_region(link, region, peer, key.into_iter().collect()).await
}

/// Asks placement for the ids of the new regions and their peers.
async fn ids(link: &PlacementLink, region: &Region, keys: &[Bytes]) -> Result<Vec<Cut>, LinkError> {
    let request = pdpb::AskBatchSplitRequest {
        header: link.header(),
        region: Some(proto::region_to_proto(region)),
        split_count: u32::try_from(keys.len()).expect("keys of one step are few"),
        ..Default::default()
    };
    let ids = link.ask_batch_split(&request, CALL_BUDGET).await?;
    assert_eq!(ids.len(), keys.len(), "placement gives one id for each new region");
    let cut = |(key, id): (&Bytes, pdpb::SplitId)| {
        let peer_ids = id.new_peer_ids.into_iter().map(PeerId).collect();
        Cut { key: key.clone(), region_id: RegionId(id.new_region_id), peer_ids }
    };
    Ok(keys.iter().zip(ids).map(cut).collect())
}
