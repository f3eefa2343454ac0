//! Many regions: cuts the key space of a server into pieces, by `SplitRegions` of its placement
//! driver, as a client would.

use super::super::CommandError;
use crate::remote::Placement;

/// Keys in one call.
const KEYS_A_CALL: usize = 250;

/// Cuts at `count` keys; returns how many regions that made.
pub(super) async fn cut(address: &str, count: usize) -> Result<usize, CommandError> {
    let placement = Placement::connect(address).await?;
    let keys: Vec<bytes::Bytes> =
        (0..count).map(|number| format!("region:{number:010}").into()).collect();
    let mut made = 0;
    for keys in keys.chunks(KEYS_A_CALL) {
        made += placement.split(keys).await?;
    }
    Ok(made)
}
