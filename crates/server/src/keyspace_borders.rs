//! In API V2 no region reaches over the border of a keyspace: clients clip what they learn of a
//! region to their keyspace, and some go on from a region's end until they reach their own.
//!
//! The borders of keyspace `n` are the keys `r n`, `r n+1`, `x n` and `x n+1` (three bytes each for
//! the number), in the form in which regions are split.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Cut, PeerId, Region, RegionId, codec};
use bytes::Bytes;
use proto::pdpb;
use store::{RegionError, RegionView, RequestHeader, ShardInput, SplitRequest};
use tokio::sync::oneshot;

use crate::placement_link::{LinkError, PlacementLink};
use crate::store_handle::reply_into;

/// First bytes of the keys of raw and of transactional data.
const MODES: [u8; 2] = [b'r', b'x'];

/// How long the placement driver may take to answer.
const CALL_BUDGET: Duration = Duration::from_secs(10);

/// Cuts the regions led here at the borders of `keyspace`, where they are not cut there already.
/// Returns the new regions.
pub(crate) async fn split_at_borders(
    link: &PlacementLink,
    keyspace: u32,
) -> Result<Vec<RegionId>, LinkError> {
    let mut cuts: BTreeMap<RegionId, (Arc<RegionView>, Vec<Bytes>)> = BTreeMap::new();
    let views = link.host().store().views().all();
    for border in borders(keyspace) {
        let inside = |view: &&Arc<RegionView>| {
            let range = &view.region.range;
            let ours = !view.region.id.is_system() && view.is_leader();
            ours && range.contains(&border) && range.start != border
        };
        if let Some(view) = views.iter().find(inside) {
            let keys = cuts.entry(view.region.id).or_insert_with(|| (view.clone(), Vec::new()));
            keys.1.push(border);
        }
    }
    let mut new = Vec::new();
    for (view, keys) in cuts.into_values() {
        new.extend(split(link, &view, keys).await?);
    }
    Ok(new)
}

/// In ascending order.
fn borders(keyspace: u32) -> Vec<Bytes> {
    let border = |mode: u8, keyspace: u32| {
        let [_, number @ ..] = keyspace.to_be_bytes();
        let key = [&[mode][..], &number].concat();
        Bytes::from(codec::encode_bytes(&key))
    };
    MODES.iter().flat_map(|&mode| [border(mode, keyspace), border(mode, keyspace + 1)]).collect()
}

async fn split(
    link: &PlacementLink,
    view: &RegionView,
    keys: Vec<Bytes>,
) -> Result<Vec<RegionId>, LinkError> {
    let cuts = ids(link, &view.region, keys).await?;
    let new = cuts.iter().map(|cut| cut.region_id).collect();
    let header = RequestHeader {
        region_id: view.region.id,
        peer: view.peer,
        epoch: Some(view.region.epoch),
        term: 0,
    };
    let (send, receive) = oneshot::channel();
    let request = SplitRequest { header, cuts, reply: reply_into(send) };
    link.host().store().request(ShardInput::Split(request));
    receive.await.unwrap_or(Err(RegionError::Undetermined))?;
    Ok(new)
}

/// Asks placement for the ids of the new regions and their peers.
async fn ids(
    link: &PlacementLink,
    region: &Region,
    keys: Vec<Bytes>,
) -> Result<Vec<Cut>, LinkError> {
    let request = pdpb::AskBatchSplitRequest {
        header: link.header(),
        region: Some(store::region_to_proto(region)),
        split_count: u32::try_from(keys.len()).expect("a few borders"),
        ..Default::default()
    };
    let ids = link.ask_batch_split(&request, CALL_BUDGET).await?;
    assert_eq!(ids.len(), keys.len(), "placement gives one id for each new region");
    let cut = |(key, id): (Bytes, pdpb::SplitId)| {
        let peer_ids = id.new_peer_ids.into_iter().map(PeerId).collect();
        Cut { key, region_id: RegionId(id.new_region_id), peer_ids }
    };
    Ok(keys.into_iter().zip(ids).map(cut).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_ascend_and_enclose_the_keyspace() {
        let borders = borders(0xfffe);
        assert!(borders.is_sorted());
        let encode = |key: &[u8]| Bytes::from(codec::encode_bytes(key));
        assert_eq!(borders[0], encode(b"r\x00\xff\xfe"));
        assert_eq!(borders[1], encode(b"r\x00\xff\xff"));
        assert_eq!(borders[2], encode(b"x\x00\xff\xfe"));
        assert!(encode(b"r\x00\xff\xfe\xff") < borders[1]);
    }
}
