//! How keys look in each version of the API.
//!
//! | | data key (to a store) | placement key (to the placement driver) |
//! | --- | --- | --- |
//! | V1, V1 with TTL | as it is | as it is |
//! | V2 | `r`, three bytes of keyspace, key | the memcomparable encoding of the data key |

use base::{KeyRange, codec};
use bytes::{BufMut, Bytes, BytesMut};
use proto::kvrpcpb;

/// Mode byte of raw keys in V2.
const RAW_MODE: u8 = b'r';

/// Mode byte and keyspace.
const V2_PREFIX_LEN: usize = 4;

/// The version of the API that a server was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ApiVersion {
    /// Keys as they are.
    #[default]
    #[value(name = "1")]
    V1,
    /// Keys as they are, values that may expire.
    #[value(name = "1ttl")]
    V1Ttl,
    /// Keys in a keyspace, values that may expire.
    #[value(name = "2")]
    V2,
}

/// The key forms of one API version, in the keyspace `DEFAULT` (id 0).
#[derive(Clone, Copy, Debug)]
pub struct Api {
    version: ApiVersion,
}

impl Api {
    /// The forms of `version`.
    pub fn new(version: ApiVersion) -> Api {
        Api { version }
    }

    /// What a request's context says. V1 with TTL is a mode of the server: requests to it say V1.
    pub fn wire_version(&self) -> i32 {
        let version = match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => kvrpcpb::ApiVersion::V1,
            ApiVersion::V2 => kvrpcpb::ApiVersion::V2,
        };
        version.into()
    }

    fn prefix(&self) -> Option<[u8; V2_PREFIX_LEN]> {
        (self.version == ApiVersion::V2).then_some([RAW_MODE, 0, 0, 0])
    }

    /// The key that a store is asked for.
    pub fn data_key(&self, key: &[u8]) -> Bytes {
        let Some(prefix) = self.prefix() else { return Bytes::copy_from_slice(key) };
        let mut data = BytesMut::with_capacity(V2_PREFIX_LEN + key.len());
        data.put_slice(&prefix);
        data.put_slice(key);
        data.freeze()
    }

    /// The data keys of `[start, end)`, an empty end being the end of the keyspace.
    pub fn data_range(&self, start: &[u8], end: &[u8]) -> KeyRange {
        let end = match self.prefix() {
            Some(_) if end.is_empty() => Bytes::from_static(&[RAW_MODE, 0, 0, 1]),
            _ if end.is_empty() => Bytes::new(),
            _ => self.data_key(end),
        };
        KeyRange::new(self.data_key(start), end)
    }

    /// The user's key within a data key; a foreign one as it is.
    pub fn user_key(&self, data: &Bytes) -> Bytes {
        match self.prefix() {
            Some(prefix) if data.starts_with(&prefix) => data.slice(V2_PREFIX_LEN..),
            _ => data.clone(),
        }
    }

    /// What the placement driver calls a data key. The empty key, "unbounded", stays empty.
    pub fn placement_key(&self, data: &[u8]) -> Bytes {
        match self.version {
            ApiVersion::V2 if !data.is_empty() => codec::encode_bytes(data).into(),
            _ => Bytes::copy_from_slice(data),
        }
    }

    /// The data key at a region's bound, or none if the bound is not a whole encoded key.
    pub fn data_bound(&self, placement: &Bytes) -> Option<Bytes> {
        match self.version {
            ApiVersion::V2 if !placement.is_empty() => {
                let (data, taken) = codec::decode_bytes(placement)?;
                (taken == placement.len()).then(|| data.into())
            }
            _ => Some(placement.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_keys_are_as_they_are() {
        let api = Api::new(ApiVersion::V1Ttl);
        assert_eq!(api.data_key(b"a"), "a");
        assert_eq!(api.placement_key(b"a"), "a");
        assert_eq!(api.data_range(b"", b""), KeyRange::all());
        assert_eq!(api.data_bound(&"a".into()), Some("a".into()));
        assert_eq!(api.wire_version(), 0);
    }

    #[test]
    fn v2_keys_lie_in_their_keyspace() {
        let api = Api::new(ApiVersion::V2);
        let data = api.data_key(b"a");
        assert_eq!(data, b"r\0\0\0a"[..]);
        assert_eq!(api.user_key(&data), "a");
        let placement = api.placement_key(&data);
        assert_eq!(placement, b"r\0\0\0a\0\0\0\xfc"[..]);
        assert_eq!(api.data_bound(&placement), Some(data));
        assert_eq!(api.data_bound(&placement.slice(1..)), None);
        assert_eq!(api.data_bound(&Bytes::new()), Some(Bytes::new()));
        let all = api.data_range(b"", b"");
        assert_eq!((all.start, all.end), (b"r\0\0\0"[..].into(), b"r\0\0\x01"[..].into()));
        assert_eq!(api.wire_version(), 2);
    }
}
