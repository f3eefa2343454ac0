//! The keys of the engine: which bytes stand for what. The numbers are TiKV's, so that people and
//! tools recognise them.
//!
//! ```text
//!   01 01                            store ident                         ┐
//!   01 02                            prepare-bootstrap region            │
//!   01 02 region_id 01 index         raft log entry                      │
//!   01 02 region_id 02               raft local state                    │ family `raft`
//!   01 02 region_id 03               raft apply state                    │
//!   01 02 region_id 04               raft state that a snapshot brings   │
//!   01 03 region_id 01               region local state                  │
//!   01 20                            ranges destroyed on this store      ┘
//!   's'   key                        a key of the system region          ┐ families `default`,
//!   'z'   key                        a key of any other region           ┘ `lock`, `write`
//! ```
//!
//! Region ids and indexes are eight bytes, big endian, so that the keys of one region lie together,
//! regions are in the order of their ids and entries in that of their indexes.
//!
//! The raft log lies in files of its own (module `log`), which know regions by number; the keys for
//! its entries and its local state are here because tools and the protocol's debug calls name them.
//!
//! Every region covers the keys from empty to unbounded in its own mind. The prefix keeps the
//! system region's rows and everybody's data apart: [`data_range`] turns "unbounded" into the end
//! of the prefix.

use base::{Index, KeyRange, RegionId};

/// First byte of every key that is the store's own.
pub const LOCAL_PREFIX: u8 = 0x01;
/// First key behind those.
pub const LOCAL_MAX: [u8; 1] = [LOCAL_PREFIX + 1];

/// First byte of the data of regions.
pub const DATA_PREFIX: u8 = b'z';
/// First byte of the data of [`RegionId::SYSTEM`].
pub const SYSTEM_DATA_PREFIX: u8 = b's';

/// Cluster id and store id: the first record ever written.
pub const STORE_IDENT: [u8; 2] = [LOCAL_PREFIX, 0x01];
/// The region that a founder has prepared and the placement driver has not yet confirmed. Gone
/// afterwards.
pub const PREPARE_BOOTSTRAP: [u8; 2] = [LOCAL_PREFIX, 0x02];

/// Ranges whose data were removed from this store alone, without their regions knowing. Ours: TiKV
/// does not remember them.
pub const DESTROYED_RANGES: [u8; 2] = [LOCAL_PREFIX, 0x20];
/// Safe points below which versions may be gone from this store. Ours as well: TiKV serves reads
/// below them and finds nothing.
pub const COLLECTED_BELOW: [u8; 2] = [LOCAL_PREFIX, 0x21];

const REGION_RAFT_PREFIX: u8 = 0x02;
const REGION_META_PREFIX: u8 = 0x03;

const RAFT_LOG_SUFFIX: u8 = 0x01;
const RAFT_STATE_SUFFIX: u8 = 0x02;
const APPLY_STATE_SUFFIX: u8 = 0x03;
const SNAPSHOT_RAFT_STATE_SUFFIX: u8 = 0x04;
const REGION_STATE_SUFFIX: u8 = 0x01;

/// First key of the region local states.
pub const REGION_STATES_START: [u8; 2] = [LOCAL_PREFIX, REGION_META_PREFIX];
/// First key behind them.
pub const REGION_STATES_END: [u8; 2] = [LOCAL_PREFIX, REGION_META_PREFIX + 1];

/// Length of the keys that name a region and a kind of record.
const REGION_KEY_LEN: usize = 11;
/// Length of the key of a raft log entry.
const RAFT_LOG_KEY_LEN: usize = 19;

/// The key of the entry at `index` of the log of `region`.
pub fn raft_log_key(region: RegionId, index: Index) -> [u8; RAFT_LOG_KEY_LEN] {
    let mut key = [0; RAFT_LOG_KEY_LEN];
    let prefix = region_key(REGION_RAFT_PREFIX, region, RAFT_LOG_SUFFIX);
    key[..REGION_KEY_LEN].copy_from_slice(&prefix);
    key[REGION_KEY_LEN..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The key of a region's `RaftLocalState`: hard state and last index.
pub fn raft_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_RAFT_PREFIX, region, RAFT_STATE_SUFFIX)
}

/// The key of a region's `RaftApplyState`: applied and truncated index.
pub fn apply_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_RAFT_PREFIX, region, APPLY_STATE_SUFFIX)
}

/// The key of the `RaftLocalState` that a snapshot brings, until the snapshot is installed.
pub fn snapshot_raft_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_RAFT_PREFIX, region, SNAPSHOT_RAFT_STATE_SUFFIX)
}

/// The key of a region's `RegionLocalState`: descriptor and state of the replica.
pub fn region_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_META_PREFIX, region, REGION_STATE_SUFFIX)
}

/// All region local states, to be scanned at start.
pub fn region_state_range() -> KeyRange {
    KeyRange::new(&REGION_STATES_START[..], &REGION_STATES_END[..])
}

/// The keys under 01 02 of one region: entries, raft and apply state.
pub fn region_raft_range(region: RegionId) -> KeyRange {
    let start = region_key(REGION_RAFT_PREFIX, region, 0);
    let end = region_key(REGION_RAFT_PREFIX, region, 0xff);
    KeyRange::new(start[..REGION_KEY_LEN - 1].to_vec(), end.to_vec())
}

/// The region whose local state lies under `key`; `None` if it is not such a key.
pub fn decode_region_state_key(key: &[u8]) -> Option<RegionId> {
    match decode_region_key(REGION_META_PREFIX, key)? {
        (region, [REGION_STATE_SUFFIX]) => Some(region),
        _ => None,
    }
}

/// The region whose apply state lies under `key`; `None` if it is not such a key.
pub fn decode_apply_state_key(key: &[u8]) -> Option<RegionId> {
    match decode_region_key(REGION_RAFT_PREFIX, key)? {
        (region, [APPLY_STATE_SUFFIX]) => Some(region),
        _ => None,
    }
}

/// The region whose raft state lies under `key`; `None` if it is not such a key.
pub fn decode_raft_state_key(key: &[u8]) -> Option<RegionId> {
    match decode_region_key(REGION_RAFT_PREFIX, key)? {
        (region, [RAFT_STATE_SUFFIX]) => Some(region),
        _ => None,
    }
}

/// Region and index of the entry under `key`; `None` if it is not the key of an entry.
pub fn decode_raft_log_key(key: &[u8]) -> Option<(RegionId, Index)> {
    match decode_region_key(REGION_RAFT_PREFIX, key)? {
        (region, [RAFT_LOG_SUFFIX, index @ ..]) => {
            Some((region, u64::from_be_bytes(index.try_into().ok()?)))
        }
        _ => None,
    }
}

/// First byte of the data of `region`.
pub fn data_prefix(region: RegionId) -> u8 {
    if region.is_system() { SYSTEM_DATA_PREFIX } else { DATA_PREFIX }
}

/// Where a user's key lies in the engine.
pub fn data_key(key: &[u8]) -> Vec<u8> {
    prefixed(DATA_PREFIX, key)
}

/// Where a key of `region` lies in the engine.
pub fn region_data_key(region: RegionId, key: &[u8]) -> Vec<u8> {
    prefixed(data_prefix(region), key)
}

/// The key whose place in the engine is `data_key`, be it of the system region or of another;
/// `None` for keys of the store's own.
pub fn origin_key(data_key: &[u8]) -> Option<&[u8]> {
    match data_key {
        [DATA_PREFIX | SYSTEM_DATA_PREFIX, key @ ..] => Some(key),
        _ => None,
    }
}

/// Where the keys `[start, end)` of a region lie in the engine: like [`data_range`], for borrowed
/// bounds.
pub fn data_bounds(region: RegionId, start: &[u8], end: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let prefix = data_prefix(region);
    let end = if end.is_empty() { vec![prefix + 1] } else { prefixed(prefix, end) };
    (prefixed(prefix, start), end)
}

/// Where the keys of `range` of `region` lie in the engine: from the first key to the first one
/// behind. The end is never empty; that of an unbounded range is the end of the region's prefix.
pub fn data_range(region: RegionId, range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    data_bounds(region, &range.start, &range.end)
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut data_key = Vec::with_capacity(1 + key.len());
    data_key.push(prefix);
    data_key.extend_from_slice(key);
    data_key
}

fn region_key(prefix: u8, region: RegionId, suffix: u8) -> [u8; REGION_KEY_LEN] {
    let mut key = [0; REGION_KEY_LEN];
    key[0] = LOCAL_PREFIX;
    key[1] = prefix;
    key[2..REGION_KEY_LEN - 1].copy_from_slice(&region.0.to_be_bytes());
    key[REGION_KEY_LEN - 1] = suffix;
    key
}

/// Region and what follows it, of a key that begins with 01 and `prefix`.
fn decode_region_key(prefix: u8, key: &[u8]) -> Option<(RegionId, &[u8])> {
    let rest = key.strip_prefix(&[LOCAL_PREFIX, prefix])?;
    let (id, rest) = rest.split_first_chunk()?;
    Some((RegionId(u64::from_be_bytes(*id)), rest))
}

#[cfg(test)]
mod tests {
    use base::Prng;

    use super::*;

    const REGION: RegionId = RegionId(0x0102_0304_0506_0708);

    #[test]
    fn golden_bytes() {
        assert_eq!(STORE_IDENT, [1, 1]);
        assert_eq!(PREPARE_BOOTSTRAP, [1, 2]);
        assert_eq!(raft_state_key(REGION), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 2]);
        assert_eq!(apply_state_key(REGION), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3]);
        assert_eq!(snapshot_raft_state_key(REGION), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 4]);
        assert_eq!(region_state_key(REGION), [1, 3, 1, 2, 3, 4, 5, 6, 7, 8, 1]);
        assert_eq!(
            raft_log_key(REGION, 0x1112),
            [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0, 0, 0, 0, 0x11, 0x12]
        );
        assert_eq!(region_state_range(), KeyRange::new(&[1, 3][..], &[1, 4][..]));
        assert_eq!(data_key(b"k"), b"zk");
        assert_eq!(region_data_key(RegionId(2), b"k"), b"zk");
        assert_eq!(region_data_key(RegionId::SYSTEM, b"k"), b"sk");
    }

    #[test]
    fn keys_decode_to_what_made_them() {
        assert_eq!(decode_region_state_key(&region_state_key(REGION)), Some(REGION));
        assert_eq!(decode_apply_state_key(&apply_state_key(REGION)), Some(REGION));
        assert_eq!(decode_raft_state_key(&raft_state_key(REGION)), Some(REGION));
        assert_eq!(decode_raft_log_key(&raft_log_key(REGION, 9)), Some((REGION, 9)));
        assert_eq!(origin_key(b"zabc"), Some(&b"abc"[..]));
        assert_eq!(origin_key(b"s"), Some(&b""[..]));
    }

    #[test]
    fn foreign_keys_do_not_decode() {
        let keys: [&[u8]; 8] = [
            b"",
            &STORE_IDENT,
            &PREPARE_BOOTSTRAP,
            &raft_state_key(REGION)[..10],
            &snapshot_raft_state_key(REGION),
            &raft_log_key(REGION, 1)[..18],
            &[1, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2],
            b"zkey-of-a-user",
        ];
        for key in keys {
            assert_eq!(decode_region_state_key(key), None, "{key:?}");
            assert_eq!(decode_apply_state_key(key), None, "{key:?}");
            assert_eq!(decode_raft_log_key(key), None, "{key:?}");
        }
        assert_eq!(decode_raft_state_key(&apply_state_key(REGION)), None);
        assert_eq!(origin_key(&STORE_IDENT), None);
        assert_eq!(origin_key(b""), None);
    }

    #[test]
    fn ranges_end_with_their_prefix() {
        let all = KeyRange::all();
        assert_eq!(data_range(RegionId(1), &all), (b"z".to_vec(), b"{".to_vec()));
        assert_eq!(data_range(RegionId::SYSTEM, &all), (b"s".to_vec(), b"t".to_vec()));
        let range = KeyRange::new("a", "b");
        assert_eq!(data_range(RegionId(1), &range), (b"za".to_vec(), b"zb".to_vec()));
    }

    #[test]
    fn keys_are_in_the_order_of_what_they_name() {
        let mut prng = Prng::new(10);
        let mut number = || prng.next_u64() >> prng.below(64);
        for _ in 0..20_000 {
            let (a, b) = (RegionId(number()), RegionId(number()));
            let (i, j) = (number(), number());
            // Regions by id, entries by index within.
            assert_eq!(raft_log_key(a, i).cmp(&raft_log_key(b, j)), (a, i).cmp(&(b, j)));
            assert_eq!(region_state_key(a).cmp(&region_state_key(b)), a.cmp(&b));
            // The keys of one region lie together: entries, raft state, apply state, nobody else's.
            let (log, raft) = (raft_log_key(a, i).to_vec(), raft_state_key(a).to_vec());
            let (apply, snapshot) = (apply_state_key(a), snapshot_raft_state_key(a));
            assert!(log < raft && raft[..] < apply[..] && apply < snapshot);
            for key in [&log[..], &raft, &apply, &snapshot] {
                assert!(region_raft_range(a).contains(key));
                assert_eq!(region_raft_range(b).contains(key), a == b);
                assert!(!region_state_range().contains(key) && key < &LOCAL_MAX[..]);
            }
            assert!(region_state_range().contains(&region_state_key(a)));
        }
    }
}
