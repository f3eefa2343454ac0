//! Fingerprints and sizes: what shows that two members hold the same.

use super::{EtcdError, EtcdSize};
use crate::Placement;

/// FNV-1a, 64 bits.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Placement {
    /// How much there is.
    pub fn etcd_size(&self) -> EtcdSize {
        self.etcd.size()
    }

    /// The revision below which history is given up; 0 if none is.
    pub fn etcd_compacted(&self) -> i64 {
        self.etcd.compacted
    }

    /// A fingerprint of all keys as of a revision (0 or less: now), the same on every node.
    pub fn etcd_hash(&self, revision: i64) -> Result<u32, EtcdError> {
        let draft = super::draft::Draft::new(&self.etcd);
        let revision = draft.checked_revision(revision)?;
        let mut hash = FNV_START;
        let mut add = |bytes: &[u8]| {
            for byte in
                u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes().iter().chain(bytes)
            {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
            }
        };
        for key in self.etcd.keys.keys() {
            let Some(kv) = self.etcd.at(key, revision) else { continue };
            add(key);
            add(&kv.value);
            for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
                add(&number.to_be_bytes());
            }
        }
        Ok((hash >> 32) as u32 ^ hash as u32)
    }
}
