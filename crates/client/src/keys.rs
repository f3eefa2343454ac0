//! How keys look in each version of the API.
//!
//! | | data key (to a store) | placement key (to the placement driver) |
//! | --- | --- | --- |
//! | V1, V1 with TTL, raw | as it is | as it is |
//! | V1, transactions | as it is | the memcomparable encoding of the data key |
//! | V2 | `r` or `x`, three bytes of keyspace, key | the memcomparable encoding of the data key |

use base::{KeyRange, codec};
use bytes::{BufMut, Bytes, BytesMut};
use proto::kvrpcpb;

/// Mode bytes of V2.
const RAW_MODE: u8 = b'r';
const TXN_MODE: u8 = b'x';

/// The memcomparable encoding: groups of so many bytes, and the mark of a group that another
/// follows.
const GROUP_LEN: usize = 8;
const GROUP_FULL: u8 = 0xff;

/// Mode byte and keyspace.
const V2_PREFIX_LEN: usize = 4;

/// The version of the API that a server was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiVersion {
    /// Keys as they are.
    #[default]
    V1,
    /// Keys as they are, raw values that may expire, no transactions.
    V1Ttl,
    /// Keys in a keyspace, raw values that may expire; raw and transactional keys lie apart.
    V2,
}

impl ApiVersion {
    /// What a request's context says. V1 with TTL is a mode of the server: requests to it say V1.
    pub(crate) fn on_the_wire(self) -> i32 {
        let version = match self {
            ApiVersion::V1 | ApiVersion::V1Ttl => kvrpcpb::ApiVersion::V1,
            ApiVersion::V2 => kvrpcpb::ApiVersion::V2,
        };
        version.into()
    }
}

/// The key forms of one API version, in the keyspace `DEFAULT` (id 0), of raw keys or of those of
/// transactions.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    prefix: Option<[u8; V2_PREFIX_LEN]>,
    is_encoded: bool,
}

impl Keys {
    /// The forms of raw keys.
    pub fn raw(version: ApiVersion) -> Keys {
        let is_v2 = version == ApiVersion::V2;
        Keys { prefix: is_v2.then_some([RAW_MODE, 0, 0, 0]), is_encoded: is_v2 }
    }

    /// The forms of transactions' keys.
    pub fn of_transactions(version: ApiVersion) -> Keys {
        let is_v2 = version == ApiVersion::V2;
        Keys { prefix: is_v2.then_some([TXN_MODE, 0, 0, 0]), is_encoded: true }
    }

    /// The key that a store is asked for.
    pub fn data_key(&self, key: &[u8]) -> Bytes {
        let Some(prefix) = self.prefix else { return Bytes::copy_from_slice(key) };
        let mut data = BytesMut::with_capacity(V2_PREFIX_LEN + key.len());
        data.put_slice(&prefix);
        data.put_slice(key);
        data.freeze()
    }

    /// The data keys of `[start, end)`, an empty end being the end of the keyspace.
    pub fn data_range(&self, start: &[u8], end: &[u8]) -> KeyRange {
        let end = match self.prefix {
            Some([mode, ..]) if end.is_empty() => Bytes::copy_from_slice(&[mode, 0, 0, 1]),
            _ if end.is_empty() => Bytes::new(),
            _ => self.data_key(end),
        };
        KeyRange::new(self.data_key(start), end)
    }

    /// The user's key within a data key; a foreign one as it is.
    pub fn user_key(&self, data: &Bytes) -> Bytes {
        match self.prefix {
            Some(prefix) if data.starts_with(&prefix) => data.slice(V2_PREFIX_LEN..),
            _ => data.clone(),
        }
    }

    /// What the placement driver calls a data key. The empty key of a bound, "unbounded", stays
    /// empty.
    pub fn placement_key(&self, data: &[u8]) -> Bytes {
        match self.is_encoded && !data.is_empty() {
            true => codec::encode_bytes(data).into(),
            false => Bytes::copy_from_slice(data),
        }
    }

    /// The first data key that is not below a region's bound. The two are the same place, unless
    /// the bound was made for keys of another form.
    pub fn data_bound(&self, placement: &Bytes) -> Bytes {
        if !self.is_encoded || placement.is_empty() {
            return placement.clone();
        }
        match codec::decode_bytes(placement) {
            Some((data, taken)) if taken == placement.len() => data.into(),
            // Below all keys that go on from here, and above this one.
            Some((data, _)) => [&data[..], &[0]].concat().into(),
            None => first_encoded_from(placement),
        }
    }

    /// The data keys that lie both in a region of these placement keys and in `range`.
    pub(crate) fn within(&self, region: &KeyRange, range: &KeyRange) -> KeyRange {
        let (start, end) = (self.data_bound(&region.start), self.data_bound(&region.end));
        KeyRange::new(start, end).intersect(range)
    }
}

/// The first key whose encoding is not below `bound`, which begins no encoding of a key: whole
/// groups stand for what is in them, and of what is left trailing zeros add nothing.
fn first_encoded_from(bound: &[u8]) -> Bytes {
    let mut data = Vec::with_capacity(bound.len());
    for group in bound.chunks(GROUP_LEN + 1) {
        data.extend_from_slice(&group[..group.len().min(GROUP_LEN)]);
        if group.get(GROUP_LEN) != Some(&GROUP_FULL) {
            let zeros = data.iter().rev().take(group.len().min(GROUP_LEN));
            let zeros = zeros.take_while(|byte| **byte == 0).count();
            data.truncate(data.len() - zeros);
            break;
        }
    }
    data.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_raw_keys_are_as_they_are() {
        let keys = Keys::raw(ApiVersion::V1Ttl);
        assert_eq!(keys.data_key(b"a"), "a");
        assert_eq!(keys.placement_key(b"a"), "a");
        assert_eq!(keys.data_range(b"", b""), KeyRange::all());
        assert_eq!(keys.data_bound(&"a".into()), "a");
        assert_eq!(ApiVersion::V1Ttl.on_the_wire(), 0);
    }

    #[test]
    fn v1_transactions_have_encoded_regions() {
        let keys = Keys::of_transactions(ApiVersion::V1);
        assert_eq!(keys.data_key(b"a"), "a");
        let placement = keys.placement_key(b"a");
        assert_eq!(placement, b"a\0\0\0\0\0\0\0\xf8"[..]);
        assert_eq!(keys.data_bound(&placement), "a");
        assert_eq!(keys.data_range(b"a", b""), KeyRange::new("a", ""));
    }

    #[test]
    fn v2_keys_lie_in_their_keyspace() {
        let keys = Keys::raw(ApiVersion::V2);
        let data = keys.data_key(b"a");
        assert_eq!(data, b"r\0\0\0a"[..]);
        assert_eq!(keys.user_key(&data), "a");
        let placement = keys.placement_key(&data);
        assert_eq!(placement, b"r\0\0\0a\0\0\0\xfc"[..]);
        assert_eq!(keys.data_bound(&placement), data);
        assert_eq!(keys.data_bound(&Bytes::new()), Bytes::new());
        let all = Keys::of_transactions(ApiVersion::V2).data_range(b"", b"");
        assert_eq!((all.start, all.end), (b"x\0\0\0"[..].into(), b"x\0\0\x01"[..].into()));
        assert_eq!(ApiVersion::V2.on_the_wire(), 2);
    }

    #[test]
    fn a_bound_of_another_form_falls_between_keys() {
        let keys = Keys::of_transactions(ApiVersion::V1);
        let some = ["", "a", "m", "m\0", "m\0\0", "mm", "region:1", "region:12", "z"];
        let bounds = ["m", "m\0", "region:0000000001", "l\0\0", "region:1\0", "~"];
        for bound in bounds.map(|bound| Bytes::from_static(bound.as_bytes())) {
            let first = keys.data_bound(&bound);
            for key in some.iter().skip(1).map(|key| key.as_bytes()) {
                let is_above = keys.placement_key(key) >= bound;
                assert_eq!(is_above, key >= &first[..], "{key:?} at {bound:?}: {first:?}");
            }
        }
    }
}
