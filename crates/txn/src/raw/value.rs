//! How a raw value is stored: see the table on the [module's page](super).

use bytes::Bytes;
use thiserror::Error;

use crate::ApiVersion;

/// Bytes of an expiry time.
const EXPIRY: usize = 8;

/// V2: an expiry time stands before the flags. No other bit has a meaning.
const FLAG_EXPIRY: u8 = 1;

/// A value as it was put, with its expiry time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue {
    /// The user's bytes.
    pub value: Bytes,
    /// Seconds since 1970; 0: never.
    pub expiry_s: u64,
}

/// The stored bytes are not a value of the store's mode.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the stored value is damaged")]
pub struct Damaged;

impl RawValue {
    /// Whether the value is gone at `now_s`.
    pub fn is_expired(&self, now_s: u64) -> bool {
        is_expired(self.expiry_s, now_s)
    }
}

fn is_expired(expiry_s: u64, now_s: u64) -> bool {
    expiry_s != 0 && expiry_s <= now_s
}

impl ApiVersion {
    /// The stored form of `value`. `expiry_s` is in seconds since 1970, 0 for never; a mode without
    /// expiry takes only that.
    pub fn encode_raw_value(self, value: Bytes, expiry_s: u64) -> Bytes {
        assert!(self.has_ttl() || expiry_s == 0, "{} keeps no expiry time", self.name());
        if self == Self::V1 {
            return value;
        }
        let mut stored = Vec::with_capacity(value.len() + EXPIRY + 1);
        stored.extend_from_slice(&value);
        let with_expiry = self == Self::V1Ttl || expiry_s != 0;
        if with_expiry {
            stored.extend_from_slice(&expiry_s.to_be_bytes());
        }
        if self == Self::V2 {
            stored.push(if with_expiry { FLAG_EXPIRY } else { 0 });
        }
        stored.into()
    }

    /// Takes a stored value apart, without copying it.
    pub fn decode_raw_value(self, stored: Bytes) -> Result<RawValue, Damaged> {
        let (len, expiry_s) = self.split_raw_value(&stored).ok_or(Damaged)?;
        Ok(RawValue { value: stored.slice(..len), expiry_s })
    }

    /// What a client sees at `now_s` of what the engine has: nothing if there is nothing or it is
    /// expired.
    pub fn live_raw_value(
        self,
        stored: Option<Bytes>,
        now_s: u64,
    ) -> Result<Option<Bytes>, Damaged> {
        match (self, stored) {
            (_, None) => Ok(None),
            (Self::V1, Some(value)) => Ok(Some(value)),
            (_, Some(stored)) => {
                let found = self.decode_raw_value(stored)?;
                Ok((!found.is_expired(now_s)).then_some(found.value))
            }
        }
    }

    /// As [`Self::live_raw_value`] on borrowed bytes.
    pub(super) fn live_raw_slice(
        self,
        stored: &[u8],
        now_s: u64,
    ) -> Result<Option<&[u8]>, Damaged> {
        let (len, expiry_s) = self.split_raw_value(stored).ok_or(Damaged)?;
        Ok((!is_expired(expiry_s, now_s)).then(|| &stored[..len]))
    }

    /// Length of the user's value and the expiry time; `None` if damaged.
    fn split_raw_value(self, stored: &[u8]) -> Option<(usize, u64)> {
        match self {
            Self::V1 => Some((stored.len(), 0)),
            Self::V1Ttl => split_expiry(stored),
            Self::V2 => match stored.split_last()? {
                (0, value) => Some((value.len(), 0)),
                (&FLAG_EXPIRY, rest) => split_expiry(rest),
                _ => None,
            },
        }
    }
}

/// Length of what stands before the expiry time, and that time.
fn split_expiry(stored: &[u8]) -> Option<(usize, u64)> {
    let (value, expiry) = stored.split_last_chunk::<EXPIRY>()?;
    Some((value.len(), u64::from_be_bytes(*expiry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [ApiVersion; 3] = [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2];

    #[test]
    fn golden_bytes() {
        let value = || Bytes::from("v");
        assert_eq!(ApiVersion::V1.encode_raw_value(value(), 0), "v");
        assert_eq!(ApiVersion::V1Ttl.encode_raw_value(value(), 0), "v\0\0\0\0\0\0\0\0");
        assert_eq!(ApiVersion::V1Ttl.encode_raw_value(value(), 258), "v\0\0\0\0\0\0\x01\x02");
        assert_eq!(ApiVersion::V2.encode_raw_value(value(), 0), "v\0");
        assert_eq!(ApiVersion::V2.encode_raw_value(value(), 258), "v\0\0\0\0\0\0\x01\x02\x01");
    }

    #[test]
    fn values_come_back() {
        for mode in MODES {
            for value in ["", "v", "12345678", "123456789"] {
                for expiry_s in [0, 1, u64::MAX] {
                    if expiry_s != 0 && !mode.has_ttl() {
                        continue;
                    }
                    let stored = mode.encode_raw_value(value.into(), expiry_s);
                    let expected = RawValue { value: value.into(), expiry_s };
                    assert_eq!(mode.decode_raw_value(stored), Ok(expected));
                }
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        assert_eq!(ApiVersion::V1Ttl.decode_raw_value("1234567".into()), Err(Damaged));
        assert_eq!(ApiVersion::V2.decode_raw_value("".into()), Err(Damaged));
        assert_eq!(ApiVersion::V2.decode_raw_value("1234567\x01".into()), Err(Damaged));
        assert_eq!(ApiVersion::V2.decode_raw_value("12345678\x03".into()), Err(Damaged));
    }

    #[test]
    fn a_value_expires_when_its_time_is_not_after_now() {
        for mode in [ApiVersion::V1Ttl, ApiVersion::V2] {
            let stored = mode.encode_raw_value("v".into(), 100);
            let at = |now_s| mode.live_raw_value(Some(stored.clone()), now_s);
            assert_eq!(at(99), Ok(Some("v".into())));
            assert_eq!(at(100), Ok(None));
            assert_eq!(at(101), Ok(None));
            assert_eq!(mode.live_raw_slice(&stored, 99), Ok(Some(&b"v"[..])));
            assert_eq!(mode.live_raw_slice(&stored, 100), Ok(None));
        }
    }
}
