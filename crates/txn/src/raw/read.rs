//! Reads of single keys.

use bytes::Bytes;
use storage::{engine::Cf, keys};

use super::{Damaged, Pair, RawError, View};

impl View<'_> {
    /// The value of `key`, if it has one.
    pub fn get(&self, cf: Cf, key: &Bytes) -> Result<Option<Bytes>, RawError> {
        let (key, stored) = self.stored(cf, key)?;
        self.api.live_raw_value(stored, self.now_s).map_err(|Damaged| RawError::Damaged { key })
    }

    /// Those of `keys` that have a value, in the order asked for.
    pub fn batch_get(&self, cf: Cf, keys: Vec<Bytes>) -> Result<Vec<Pair>, RawError> {
        let region_keys = keys.iter().map(|key| self.region_key(key));
        let region_keys = region_keys.collect::<Result<Vec<Bytes>, RawError>>()?;
        let data_key = |key: &Bytes| keys::region_data_key(self.region.id, key);
        let data_keys: Vec<Vec<u8>> = region_keys.iter().map(data_key).collect();
        let borrowed: Vec<&[u8]> = data_keys.iter().map(Vec::as_slice).collect();
        let stored = self.snapshot.multi_get(cf, &borrowed)?;
        assert_eq!(stored.len(), keys.len(), "one answer for each key");
        let mut pairs = Vec::with_capacity(keys.len());
        for ((key, region_key), stored) in keys.into_iter().zip(region_keys).zip(stored) {
            let value = self.api.live_raw_value(stored, self.now_s);
            let value = value.map_err(|Damaged| RawError::Damaged { key: region_key })?;
            pairs.extend(value.map(|value| Pair { key, value }));
        }
        Ok(pairs)
    }

    /// How many seconds `key` has left to live, 0 for no end; `None` if it has no value.
    pub fn key_ttl(&self, cf: Cf, key: &Bytes) -> Result<Option<u64>, RawError> {
        let (key, stored) = self.stored(cf, key)?;
        let Some(stored) = stored else { return Ok(None) };
        let found = self.api.decode_raw_value(stored);
        let found = found.map_err(|Damaged| RawError::Damaged { key })?;
        if found.is_expired(self.now_s) {
            return Ok(None);
        }
        Ok(Some(found.expiry_s.saturating_sub(self.now_s)))
    }

    /// The region form of a user's key that is to be read.
    fn region_key(&self, key: &Bytes) -> Result<Bytes, RawError> {
        self.api.check_raw_key(key)?;
        let key = self.api.region_key(key);
        if !self.region.range.contains(&key) {
            return Err(RawError::KeyNotInRegion { key });
        }
        Ok(key)
    }

    /// The region form of `key` and what is stored there.
    fn stored(&self, cf: Cf, key: &Bytes) -> Result<(Bytes, Option<Bytes>), RawError> {
        let key = self.region_key(key)?;
        let stored = self.snapshot.get(cf, &keys::region_data_key(self.region.id, &key))?;
        Ok((key, stored))
    }
}
