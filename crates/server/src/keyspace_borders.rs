//! In API V2 no region reaches over the border of a keyspace: clients clip what they learn of a
//! region to their keyspace, and some go on from a region's end until they reach their own.
//!
//! The borders of keyspace `n` are the keys `r n`, `r n+1`, `x n` and `x n+1` (three bytes each for
//! the number), in the form in which regions are split.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{RegionId, codec};
use bytes::Bytes;
use store::RegionView;

use crate::placement_link::{LinkError, PlacementLink};
use crate::splitter::split_region;

/// First bytes of the keys of raw and of transactional data.
const MODES: [u8; 2] = [b'r', b'x'];

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
        let parts = split_region(link, &view.region, view.peer, keys).await?;
        new.extend(parts.iter().map(|part| part.id).filter(|id| *id != view.region.id));
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
