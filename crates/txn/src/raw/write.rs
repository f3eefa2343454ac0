//! Writes: from the pieces of a request to mutations. Whether the keys lie in the region is checked
//! when the mutations are proposed, by whoever owns the region.

use bytes::Bytes;
use storage::engine::Cf;

use crate::{ApiVersion, Mutation, RequestError};

/// What a write must know besides its request.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// The store's mode.
    pub api: ApiVersion,
    /// Seconds since 1970.
    pub now_s: u64,
}

impl Writer {
    /// `key` gets `value`, for `ttl_s` seconds if that is not 0.
    pub fn put(
        self,
        cf: Cf,
        key: &Bytes,
        value: Bytes,
        ttl_s: u64,
    ) -> Result<Mutation, RequestError> {
        self.check_key(key)?;
        let expiry_s = self.expiry_s(ttl_s)?;
        let key = self.api.region_key(key);
        Ok(Mutation::Put { cf, key, value: self.api.encode_raw_value(value, expiry_s) })
    }

    /// As [`Self::put`] for each pair. `ttls_s` holds none (for no expiry), one for all, or one for
    /// each pair.
    pub fn batch_put(
        self,
        cf: Cf,
        pairs: impl ExactSizeIterator<Item = (Bytes, Bytes)>,
        ttls_s: &[u64],
    ) -> Result<Vec<Mutation>, RequestError> {
        let count = pairs.len();
        if ttls_s.len() > 1 && ttls_s.len() != count {
            return Err(RequestError::TtlCount { ttls: ttls_s.len(), pairs: count });
        }
        let ttl_of = |i: usize| match ttls_s {
            [] => 0,
            [all] => *all,
            each => each[i],
        };
        let put = |(i, (key, value))| self.put(cf, &key, value, ttl_of(i));
        pairs.enumerate().map(put).collect()
    }

    /// `key` goes away.
    pub fn delete(self, cf: Cf, key: &Bytes) -> Result<Mutation, RequestError> {
        self.check_key(key)?;
        Ok(Mutation::Delete { cf, key: self.api.region_key(key) })
    }

    /// `keys` go away.
    pub fn batch_delete(self, cf: Cf, keys: &[Bytes]) -> Result<Vec<Mutation>, RequestError> {
        keys.iter().map(|key| self.delete(cf, key)).collect()
    }

    /// The keys of `[start, end)` go away; an empty `end` is unbounded. `None` if the range can
    /// hold no key.
    pub fn delete_range(
        self,
        cf: Cf,
        start: &Bytes,
        end: &Bytes,
    ) -> Result<Option<Mutation>, RequestError> {
        self.api.check_raw_range(start, end)?;
        self.api.check_key_size(start)?;
        self.api.check_key_size(end)?;
        if !end.is_empty() && start >= end {
            return Ok(None);
        }
        let (start, end) = (self.api.region_bound(start), self.api.region_bound(end));
        Ok(Some(Mutation::DeleteRange { cf, start, end }))
    }

    fn check_key(self, key: &Bytes) -> Result<(), RequestError> {
        self.api.check_raw_key(key)?;
        self.api.check_key_size(key)
    }

    /// When something put now for `ttl_s` seconds expires; 0 for never.
    fn expiry_s(self, ttl_s: u64) -> Result<u64, RequestError> {
        match ttl_s {
            0 => Ok(0),
            _ if !self.api.has_ttl() => Err(RequestError::TtlNotEnabled),
            _ => Ok(self.now_s.saturating_add(ttl_s)),
        }
    }
}
