//! All data of a region in one order of user keys.
//!
//! ```text
//!   family    key in the engine                     user key as regions know it
//!   lock      z  encoded(k)                         encoded(k)
//!   default   z  encoded(k) ~start timestamp        encoded(k)
//!   write     z  encoded(k) ~commit timestamp       encoded(k)
//!   default   z  k                                  k                (raw keys, not encoded)
//! ```
//!
//! What is an encoded key with eight bytes behind it belongs to the encoded key. A raw key may look
//! like that by chance; it is then counted with its neighbours, which does no harm.

use base::{KeyRange, Region, codec};
use storage::engine::{Cf, Cursor, EngineError, IterOptions, Snapshot};
use storage::keys;

/// Bytes of a timestamp behind an encoded key.
const TIMESTAMP_LEN: usize = 8;

/// Bytes that a scan over a region reads ahead.
const READAHEAD_BYTES: usize = 256 << 10;

/// The user key of `key`, in the form in which regions are split: without the timestamp, if there
/// is one. Regions may be cut there.
pub fn user_key(key: &[u8]) -> &[u8] {
    match encoded_len(key) {
        Some(len) if key.len() == len + TIMESTAMP_LEN => &key[..len],
        _ => key,
    }
}

/// Length of the encoded key that `key` begins with.
fn encoded_len(key: &[u8]) -> Option<usize> {
    const GROUP: usize = 8;
    for (i, group) in key.chunks_exact(GROUP + 1).enumerate() {
        let padding = usize::from(u8::MAX - group[GROUP]);
        if padding == 0 {
            continue;
        }
        let kept = GROUP.checked_sub(padding)?;
        let is_padded = group[kept..GROUP].iter().all(|&byte| byte == 0);
        assert!(!is_padded || codec::encoded_len(i * GROUP + kept) == (i + 1) * (GROUP + 1));
        return is_padded.then_some((i + 1) * (GROUP + 1));
    }
    None
}

/// Walks over the entries of a region, all families in one order of keys.
pub(super) struct Rows<'a> {
    cursors: Vec<Box<dyn Cursor + 'a>>,
}

impl<'a> Rows<'a> {
    /// From the first entry of `range` on, which lies in `region`.
    pub(super) fn open(
        snapshot: &'a dyn Snapshot,
        region: &Region,
        range: &KeyRange,
    ) -> Result<Self, EngineError> {
        let (start, end) = keys::data_range(region.id, range);
        let range = KeyRange::new(start, end);
        let mut cursors = Vec::with_capacity(Cf::DATA.len());
        for cf in Cf::DATA {
            let options = IterOptions {
                fill_cache: false,
                readahead_bytes: READAHEAD_BYTES,
                ..IterOptions::within(range.clone())
            };
            let mut cursor = snapshot.iter(cf, options)?;
            if cursor.seek_to_first()? {
                cursors.push(cursor);
            }
        }
        Ok(Self { cursors })
    }

    /// Goes to the first entry at or behind the engine's key `key`.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<(), EngineError> {
        for cursor in &mut self.cursors {
            cursor.seek(key)?;
        }
        Ok(())
    }

    /// Calls `visit` with the key, as regions know it, and the size of each entry until it says
    /// `false` or there are no more.
    pub(super) fn each(
        &mut self,
        mut visit: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<(), EngineError> {
        loop {
            let first = self.cursors.iter_mut().filter(|cursor| cursor.valid());
            let Some(cursor) = first.min_by(|a, b| a.key().cmp(b.key())) else { return Ok(()) };
            let key = keys::origin_key(cursor.key()).expect("the range has the prefix");
            let size = (key.len() + cursor.value().len()) as u64;
            if !visit(user_key(key), size) {
                return Ok(());
            }
            cursor.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_behind_an_encoded_key_is_cut_off() {
        for user in [&b""[..], b"k", b"12345678", b"123456789abcdef01", &[0xff; 20]] {
            let encoded = codec::encode_bytes(user);
            let with_timestamp = [&encoded[..], &[0xff; TIMESTAMP_LEN]].concat();
            assert_eq!(user_key(&with_timestamp), encoded);
            assert_eq!(user_key(&encoded), encoded);
            let other = [&encoded[..], &[0xff; TIMESTAMP_LEN - 1]].concat();
            assert_eq!(user_key(&other), other);
        }
        for raw in
            [&b""[..], b"k", b"12345678", b"12345678\xf1aaaaaaaa", b"1234567\x01\xfeaaaaaaaa"]
        {
            assert_eq!(user_key(raw), raw);
        }
    }
}
