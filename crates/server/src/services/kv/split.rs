//! `SplitRegion`: a client wants a region cut at keys of its choice.
//!
//! Keys are the user's own. They may come in any order and more than once; those at which the
//! region begins already are left out. What follows from the request is as in TiKV: an empty key,
//! or none that is left, is refused with a text, a key outside as `KeyNotInRegion`.

use std::sync::Arc;

use base::codec;
use bytes::Bytes;
use proto::{errorpb, kvrpcpb, region_to_proto};
use store::{RegionError, RegionView};
use tonic::Status;

use crate::errors::{Refusable, Refusal, settle};
use crate::placement_link::{LinkError, PlacementLink};
use crate::services::raw::RawService;
use crate::splitter::split_region;

impl Refusable for kvrpcpb::SplitRegionResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        let text = || errorpb::Error { message: error, ..Default::default() };
        Self { region_error: Some(region_error.unwrap_or_else(text)), ..Self::default() }
    }
}

/// Cuts, and answers with all parts from left to right.
pub(super) async fn split(
    raw: &RawService,
    link: &PlacementLink,
    request: kvrpcpb::SplitRegionRequest,
) -> Result<kvrpcpb::SplitRegionResponse, Status> {
    settle(try_split(raw, link, request).await)
}

async fn try_split(
    raw: &RawService,
    link: &PlacementLink,
    request: kvrpcpb::SplitRegionRequest,
) -> Result<kvrpcpb::SplitRegionResponse, Refusal> {
    let header = raw.address(request.context.as_ref())?;
    raw.store().settled(header.region_id).await;
    let view = raw.store().views().route(&header)?;
    let keys = wanted_keys(raw, &view, request)?;
    let parts = split_region(link, &view.region, view.peer, keys).await.map_err(refusal)?;
    let regions: Vec<_> = parts.iter().map(|part| region_to_proto(part)).collect();
    let mut response = kvrpcpb::SplitRegionResponse { regions, ..Default::default() };
    if let [left, right] = &response.regions[..] {
        let (left, right) = (Some(left.clone()), Some(right.clone()));
        set_pair(&mut response, left, right);
    }
    Ok(response)
}

#[expect(deprecated, reason = "older clients look for the two halves")]
fn set_pair(
    response: &mut kvrpcpb::SplitRegionResponse,
    left: Option<proto::metapb::Region>,
    right: Option<proto::metapb::Region>,
) {
    (response.left, response.right) = (left, right);
}

/// The keys in the form in which regions are split: inside, ascending, each once.
#[expect(deprecated, reason = "older clients send the single key")]
fn wanted_keys(
    raw: &RawService,
    view: &Arc<RegionView>,
    request: kvrpcpb::SplitRegionRequest,
) -> Result<Vec<Bytes>, Refusal> {
    let given = match request.split_keys.is_empty() {
        true => vec![request.split_key],
        false => request.split_keys,
    };
    if given.iter().any(Bytes::is_empty) {
        return Err(Refusal::Text("a split key is empty".to_owned()));
    }
    let encode = |key: &Bytes| match request.is_raw_kv {
        true => raw.store().api_version().region_key(key),
        false => codec::encode_bytes(key).into(),
    };
    let mut keys: Vec<Bytes> = given.iter().map(encode).collect();
    keys.iter().try_for_each(|key| view.check_key(key))?;
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| *key != view.region.range.start);
    if keys.is_empty() {
        return Err(Refusal::Text("no valid key found for split".to_owned()));
    }
    Ok(keys)
}

fn refusal(error: LinkError) -> Refusal {
    match error {
        LinkError::Region(error) => RegionError::into(error),
        other => Refusal::Text(other.to_string()),
    }
}
