//! The API version of a store: which requests it serves and how it spells keys.
//!
//! A store has one mode for life, chosen at its first start:
//!
//! | mode | serves | key in the region | value in the engine |
//! | --- | --- | --- | --- |
//! | [`V1`](ApiVersion::V1) | requests of version 1 | the user's key | the user's value |
//! | [`V1Ttl`](ApiVersion::V1Ttl) | raw requests of version 1 | the user's key | value, expiry |
//! | [`V2`](ApiVersion::V2) | requests of version 2 | memcomparable(key) | value, expiry?, flags |
//!
//! In V2 raw keys begin with `r`, and all keys are encoded because transactions share the key
//! space; so region bounds are encoded keys too. How values are laid out is in [`crate::raw`].

use std::borrow::Cow;

use base::{codec, limits};
use bytes::Bytes;
use storage::engine::Cf;
use thiserror::Error;

/// First byte of every raw key of version 2.
const RAW_PREFIX: u8 = b'r';

/// The mode of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiVersion {
    /// Plain keys and values, no expiry.
    #[default]
    V1,
    /// As V1, and each raw value has an expiry time. Raw requests only.
    V1Ttl,
    /// Keyspaces, encoded keys, expiry.
    V2,
}

/// Why a request is refused whatever the data are. The text goes to the client; it must change its
/// request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The request was made for a store in another mode.
    #[error("API version mismatch: this store runs {}, the request has {requested}", store.name())]
    ApiVersion {
        /// The store's mode.
        store: ApiVersion,
        /// The name or number of what was asked for.
        requested: String,
    },
    /// A V2 key or range that does not lie among the raw keys.
    #[error("key mode mismatch: in API V2 the key {} is not a raw key", hex(key))]
    KeyMode {
        /// User form.
        key: Bytes,
    },
    /// A key or range of a transaction that does not lie where the request's version has them.
    #[error("key mode mismatch: in API V2 the key {} is not a transactional key", hex(key))]
    TxnKeyMode {
        /// User form.
        key: Bytes,
    },
    /// No such column family in this mode.
    #[error("invalid column family `{name}` for raw data")]
    ColumnFamily {
        /// As asked for.
        name: String,
    },
    /// A key to be written is too long.
    #[error("key too large: {size} bytes, the limit is {} bytes", limits::KEY_SIZE_MAX)]
    KeyTooLarge {
        /// Length of the user's key in bytes.
        size: usize,
    },
    /// A time to live for a store that keeps none.
    #[error("ttl is not enabled in this store, but the request has one")]
    TtlNotEnabled,
    /// A batch with neither no, nor one, nor as many times to live as pairs.
    #[error("the request has {ttls} ttls for {pairs} pairs: give none, one for all, or one each")]
    TtlCount {
        /// Times to live.
        ttls: usize,
        /// Pairs.
        pairs: usize,
    },
    /// A checksum by rules that we do not know.
    #[error("unknown checksum algorithm {number}")]
    ChecksumAlgorithm {
        /// As asked for.
        number: i32,
    },
}

impl ApiVersion {
    /// The mode's number in `kvrpcpb.APIVersion`, and in the store's own record.
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 0,
            Self::V1Ttl => 1,
            Self::V2 => 2,
        }
    }

    /// The mode with this number; `None` if there is no such mode.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::V1),
            1 => Some(Self::V1Ttl),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "V1",
            Self::V1Ttl => "V1TTL",
            Self::V2 => "V2",
        }
    }

    /// Whether raw values of this mode can expire.
    pub fn has_ttl(self) -> bool {
        self != Self::V1
    }

    /// Checks the `api_version` of a raw request's context, a number of `kvrpcpb.APIVersion`. A
    /// request never says V1TTL: to clients that is V1 in a store that happens to keep expiry
    /// times.
    pub fn check_raw_request(self, requested: i32) -> Result<(), RequestError> {
        let served = match self {
            Self::V1 | Self::V1Ttl => 0,
            Self::V2 => 2,
        };
        if requested == served {
            return Ok(());
        }
        let name = u8::try_from(requested).ok().and_then(Self::from_number).map(Self::name);
        let requested = name.map_or_else(|| requested.to_string(), str::to_owned);
        Err(RequestError::ApiVersion { store: self, requested })
    }

    /// The column family that a raw request means.
    pub fn raw_cf(self, name: &str) -> Result<Cf, RequestError> {
        match (self, name) {
            (_, "") | (Self::V1 | Self::V1Ttl, "default") => Ok(Cf::Default),
            (Self::V1 | Self::V1Ttl, "lock") => Ok(Cf::Lock),
            (Self::V1 | Self::V1Ttl, "write") => Ok(Cf::Write),
            _ => Err(RequestError::ColumnFamily { name: name.to_owned() }),
        }
    }

    /// Checks that `key` may be a raw key. In V1 every key may, the empty one too.
    pub fn check_raw_key(self, key: &Bytes) -> Result<(), RequestError> {
        if self == Self::V2 && key.first() != Some(&RAW_PREFIX) {
            return Err(RequestError::KeyMode { key: key.clone() });
        }
        Ok(())
    }

    /// Checks that `[lower, upper)` holds raw keys only. In V2 both bounds must be given, and the
    /// upper one may be the first key behind all raw keys.
    pub fn check_raw_range(self, lower: &Bytes, upper: &Bytes) -> Result<(), RequestError> {
        if self != Self::V2 {
            return Ok(());
        }
        self.check_raw_key(lower)?;
        if upper[..] == [RAW_PREFIX + 1] { Ok(()) } else { self.check_raw_key(upper) }
    }

    /// Checks the length of a key that is to be written.
    pub fn check_key_size(self, key: &[u8]) -> Result<(), RequestError> {
        if key.len() > limits::KEY_SIZE_MAX {
            return Err(RequestError::KeyTooLarge { size: key.len() });
        }
        Ok(())
    }

    /// The region form of a user's key.
    pub fn region_key(self, key: &Bytes) -> Bytes {
        match self {
            Self::V1 | Self::V1Ttl => key.clone(),
            Self::V2 => codec::encode_bytes(key).into(),
        }
    }

    /// The region form of a bound of a range: as of a key, but the empty bound stays empty, it
    /// means "unbounded".
    pub fn region_bound(self, bound: &Bytes) -> Bytes {
        if bound.is_empty() { Bytes::new() } else { self.region_key(bound) }
    }

    /// The user's key of a region key; `None` if it is not one (in V2: not exactly one encoding).
    pub fn user_key(self, region_key: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::V1 | Self::V1Ttl => Some(Cow::Borrowed(region_key)),
            Self::V2 => {
                let (key, taken) = codec::decode_bytes(region_key)?;
                (taken == region_key.len()).then_some(Cow::Owned(key))
            }
        }
    }
}

/// Enough of a key to recognise it.
fn hex(key: &[u8]) -> String {
    const SHOWN: usize = 32;
    let digits: String = key.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if key.len() > SHOWN { format!("{digits}...") } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_serves_one_version() {
        for (mode, served) in [(ApiVersion::V1, 0), (ApiVersion::V1Ttl, 0), (ApiVersion::V2, 2)] {
            for requested in -1..5 {
                let answer = mode.check_raw_request(requested);
                assert_eq!(answer.is_ok(), requested == served, "{mode:?} {requested}");
            }
            assert_eq!(ApiVersion::from_number(mode.number()), Some(mode));
        }
        assert_eq!(ApiVersion::from_number(3), None);
        assert_eq!(
            ApiVersion::V1.check_raw_request(2).expect_err("V2 in a V1 store").to_string(),
            "API version mismatch: this store runs V1, the request has V2"
        );
    }

    #[test]
    fn column_families() {
        for mode in [ApiVersion::V1, ApiVersion::V1Ttl] {
            assert_eq!(mode.raw_cf(""), Ok(Cf::Default));
            assert_eq!(mode.raw_cf("default"), Ok(Cf::Default));
            assert_eq!(mode.raw_cf("lock"), Ok(Cf::Lock));
            assert_eq!(mode.raw_cf("write"), Ok(Cf::Write));
            assert!(mode.raw_cf("raft").is_err());
            assert!(mode.raw_cf("Default").is_err());
        }
        assert_eq!(ApiVersion::V2.raw_cf(""), Ok(Cf::Default));
        assert!(ApiVersion::V2.raw_cf("default").is_err());
    }

    #[test]
    fn raw_keys_of_v2_begin_with_r() {
        let check = |key: &'static str| ApiVersion::V2.check_raw_key(&key.into());
        assert_eq!(check("r"), Ok(()));
        assert_eq!(check("r\0\0\x01k"), Ok(()));
        assert!(check("").is_err());
        assert!(check("x\0\0\x01k").is_err());
        let range =
            |a: &'static str, b: &'static str| ApiVersion::V2.check_raw_range(&a.into(), &b.into());
        assert_eq!(range("r\0\0\x01", "r\0\0\x02"), Ok(()));
        assert_eq!(range("r", "s"), Ok(()));
        assert!(range("r", "s\0").is_err());
        assert!(range("r", "").is_err());
        assert!(range("", "s").is_err());
        assert!(range("r", "x").is_err());
        assert_eq!(ApiVersion::V1.check_raw_range(&Bytes::new(), &Bytes::new()), Ok(()));
    }

    #[test]
    fn keys_come_back() {
        let mut prng = base::Prng::new(11);
        for mode in [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2] {
            for _ in 0..500 {
                let key: Bytes = (0..prng.below(30)).map(|_| prng.next_u64() as u8).collect();
                assert_eq!(mode.user_key(&mode.region_key(&key)).as_deref(), Some(&key[..]));
            }
            assert_eq!(mode.region_bound(&Bytes::new()), Bytes::new());
        }
        let mut longer = codec::encode_bytes(b"rk");
        longer.push(0);
        assert_eq!(ApiVersion::V2.user_key(&longer), None);
        assert_eq!(ApiVersion::V2.user_key(b"rk"), None);
    }

    #[test]
    fn the_longest_key_is_eight_kibibytes() {
        let key = vec![b'r'; limits::KEY_SIZE_MAX + 1];
        assert_eq!(ApiVersion::V2.check_key_size(&key[1..]), Ok(()));
        assert_eq!(
            ApiVersion::V2.check_key_size(&key),
            Err(RequestError::KeyTooLarge { size: 8193 })
        );
    }
}
