//! Keys in their forms: the user's, the region's, the engine's, and with a timestamp.

use std::fmt;

use base::{TimeStamp, codec};
use bytes::Bytes;
use storage::keys;

use super::BadRecord;

/// Bytes of a timestamp at the end of a versioned key.
const TS_LEN: usize = 8;

/// A key of transactional data. Made once a request; every form it is needed in is a slice of what
/// was made then, but for those with a timestamp.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The engine's form: the data prefix, then the region form. First, so that keys are ordered by
    /// it; the order is the same in all forms.
    data: Bytes,
    user: Bytes,
}

impl Key {
    /// The key that a client calls `user`.
    pub fn new(user: impl Into<Bytes>) -> Self {
        let user = user.into();
        let mut data = Vec::with_capacity(1 + codec::encoded_len(user.len()));
        data.push(keys::DATA_PREFIX);
        codec::encode_bytes_to(&user, &mut data);
        Self { data: data.into(), user }
    }

    /// The key with this engine form.
    pub fn from_data(data: &[u8]) -> Result<Self, BadRecord> {
        let region = data.strip_prefix(&[keys::DATA_PREFIX]).ok_or(BadRecord::Key)?;
        let (user, taken) = codec::decode_bytes(region).ok_or(BadRecord::Key)?;
        if taken != region.len() {
            return Err(BadRecord::Key);
        }
        Ok(Self { data: Bytes::copy_from_slice(data), user: user.into() })
    }

    /// As the client says it.
    pub fn user(&self) -> &Bytes {
        &self.user
    }

    /// As region bounds and [`Mutation`](crate::Mutation)s say it: memcomparable. Also what latches
    /// are taken on.
    pub fn region(&self) -> Bytes {
        self.data.slice(1..)
    }

    /// As above, to look at.
    pub fn region_slice(&self) -> &[u8] {
        &self.data[1..]
    }

    /// As the engine has it in family `lock`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Where the version of `ts` lies in the engine, in families `write` and `default`.
    pub fn versioned_data(&self, ts: TimeStamp) -> Vec<u8> {
        versioned(&self.data, ts)
    }

    /// Where the version of `ts` lies in the region.
    pub fn versioned_region(&self, ts: TimeStamp) -> Bytes {
        versioned(&self.data[1..], ts).into()
    }

    /// Whether `versioned`, in engine form, is some version of this key.
    pub fn is_of(&self, versioned: &[u8]) -> bool {
        versioned.len() == self.data.len() + TS_LEN && versioned.starts_with(&self.data)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.user)
    }
}

/// Key and timestamp of a versioned key, in whatever form the key is.
pub fn split_versioned(versioned: &[u8]) -> Result<(&[u8], TimeStamp), BadRecord> {
    let (key, ts) = versioned.split_last_chunk::<TS_LEN>().ok_or(BadRecord::Key)?;
    Ok((key, TimeStamp(!u64::from_be_bytes(*ts))))
}

fn versioned(key: &[u8], ts: TimeStamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + TS_LEN);
    out.extend_from_slice(key);
    out.extend_from_slice(&(!ts.0).to_be_bytes());
    out
}
