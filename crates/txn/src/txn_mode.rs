//! Which transactional requests a store in some mode serves.
//!
//! | store | request says | keys |
//! | --- | --- | --- |
//! | V1 | V1 | any; whoever mixes raw and transactional ones damages both |
//! | V1TTL | - | none: raw requests only |
//! | V2 | V2 | `x...` |
//! | V2 | V1 | `m...` and `t...`: TiDB's own |

use base::{codec, limits};
use bytes::Bytes;

use crate::{ApiVersion, RequestError};

/// First byte of every transactional key of version 2.
const TXN_PREFIX: u8 = b'x';

/// First bytes of the keys that requests of version 1 may use in a store of version 2.
const TIDB_PREFIXES: [u8; 2] = [b'm', b't'];

impl ApiVersion {
    /// Checks the `api_version` of a transactional request's context, a number of
    /// `kvrpcpb.APIVersion`, and that its keys may be transactional ones. Requests that only finish
    /// what others began (ResolveLock, ScanLock, Commit) are asked with no keys.
    pub fn check_txn_request<'a>(
        self,
        requested: i32,
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<(), RequestError> {
        let prefixes = self.txn_prefixes(requested)?;
        let is_wrong = |key: &&Bytes| !has_prefix(key, prefixes);
        match keys.into_iter().find(is_wrong) {
            Some(key) => Err(RequestError::TxnKeyMode { key: key.clone() }),
            None => Ok(()),
        }
    }

    /// The same for a range: both bounds must be given in V2, within one prefix, and the upper one
    /// may be the first key behind it.
    pub fn check_txn_range(
        self,
        requested: i32,
        lower: &Bytes,
        upper: &Bytes,
    ) -> Result<(), RequestError> {
        let prefixes = self.txn_prefixes(requested)?;
        if prefixes.is_empty() {
            return Ok(());
        }
        if !has_prefix(lower, prefixes) {
            return Err(RequestError::TxnKeyMode { key: lower.clone() });
        }
        let prefix = lower[0];
        if upper.first() == Some(&prefix) || upper[..] == [prefix + 1] {
            return Ok(());
        }
        Err(RequestError::TxnKeyMode { key: upper.clone() })
    }

    /// Checks the length of a key that a transaction is to write: that of its encoding.
    pub fn check_txn_key_size(self, key: &Bytes) -> Result<(), RequestError> {
        let size = codec::encoded_len(key.len());
        if size > limits::KEY_SIZE_MAX {
            return Err(RequestError::KeyTooLarge { size });
        }
        Ok(())
    }

    /// What keys of such a request begin with; empty: they may begin with anything.
    fn txn_prefixes(self, requested: i32) -> Result<&'static [u8], RequestError> {
        match (self, requested) {
            (Self::V1, 0) => Ok(&[]),
            (Self::V2, 2) => Ok(&[TXN_PREFIX]),
            (Self::V2, 0) => Ok(&TIDB_PREFIXES),
            _ => {
                let name = u8::try_from(requested).ok().and_then(Self::from_number);
                let name =
                    name.map_or_else(|| requested.to_string(), |mode| mode.name().to_owned());
                Err(RequestError::ApiVersion { store: self, requested: name })
            }
        }
    }
}

fn has_prefix(key: &Bytes, prefixes: &[u8]) -> bool {
    prefixes.is_empty() || key.first().is_some_and(|first| prefixes.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mode: ApiVersion, requested: i32, key: &'static str) -> bool {
        mode.check_txn_request(requested, [&Bytes::from(key)]).is_ok()
    }

    #[test]
    fn each_mode_serves_its_own() {
        use ApiVersion::{V1, V1Ttl, V2};
        assert!(check(V1, 0, "r1") && check(V1, 0, ""));
        assert!(!check(V1, 2, "x1") && !check(V1, 1, "a") && !check(V1, 3, "a"));
        for requested in -1..5 {
            assert!(!check(V1Ttl, requested, "x"), "raw requests only");
        }
        assert!(check(V2, 2, "x1") && !check(V2, 2, "r1") && !check(V2, 2, ""));
        assert!(check(V2, 0, "t1") && check(V2, 0, "m1") && !check(V2, 0, "x1"));
        assert!(!check(V2, 1, "x1") && !check(V2, 3, "x1"));
        assert!(V2.check_txn_request(2, []).is_ok());
    }

    #[test]
    fn ranges_stay_inside_one_prefix() {
        let check = |mode: ApiVersion, requested, lower: &'static str, upper: &'static str| {
            mode.check_txn_range(requested, &lower.into(), &upper.into()).is_ok()
        };
        assert!(check(ApiVersion::V1, 0, "", ""));
        assert!(check(ApiVersion::V2, 2, "x1", "x2") && check(ApiVersion::V2, 2, "x", "y"));
        assert!(!check(ApiVersion::V2, 2, "x", "") && !check(ApiVersion::V2, 2, "", "y"));
        assert!(!check(ApiVersion::V2, 2, "x", "y1") && !check(ApiVersion::V2, 2, "r", "x"));
        assert!(check(ApiVersion::V2, 0, "m", "n") && check(ApiVersion::V2, 0, "t1", "t2"));
        assert!(!check(ApiVersion::V2, 0, "m", "t"));
    }

    #[test]
    fn a_key_is_as_long_as_its_encoding() {
        let longest = limits::KEY_SIZE_MAX / 9 * 8 - 1;
        let check = |len: usize| ApiVersion::V1.check_txn_key_size(&vec![7; len].into());
        assert_eq!(check(longest), Ok(()));
        assert!(check(longest + 1).is_err());
    }
}
