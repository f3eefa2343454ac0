//! The rows: what placement keeps in the system region, under which key, in which form.
//!
//! ```text
//!    cluster                      metapb.Cluster; present once the cluster is bootstrapped
//!    cluster/bootstrapped_at      ms since 1970, 8 bytes big endian, like all numbers below
//!    cluster/version              text: the lowest version of all live stores, never lowered
//!    id                           the largest id ever given out
//!    tso                          every timestamp given out has a physical part below this one
//!    external_timestamp           a timestamp
//!    store/<id>                   metapb.Store
//!    region/<id>                  metapb.Region: the first region, as it was bootstrapped
//!    gc/state/<keyspace>          transaction safe point, then GC safe point
//!    gc/barrier/<keyspace>/<id>   barrier timestamp, then when it expires (ms since 1970)
//!    gc/global_barrier/<id>       the same
//!    keyspace/<id>                keyspacepb.KeyspaceMeta without its `config`
//!    keyspace_config/<id>/<name>  text
//!    config/<path>                revision, 0 = put or 1 = deleted, payload
//!    etcd/event/<revision><sub>   mvccpb.Event: what the sub-th change of a revision did to a key
//!    etcd/compacted               revision up to which history was given up
//!    etcd/lease/<id>              time to live as granted, then what a new leader gives (seconds)
//! ```
//!
//! Store, region and lease ids and revisions take 8 bytes, keyspace ids and what stands behind a
//! revision 4, so that rows sort by id. A row that is not in
//! this table was written by a newer version, and loading refuses it.

use base::{RegionId, StoreId};
use bytes::{Buf, Bytes};

use crate::PlacementError;
use crate::etcd::Revision;

/// Puts and deletes of rows. They are applied to the system region in one proposal, all or none,
/// and then [committed](crate::Placement::commit) to memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowChanges {
    changes: Vec<(Bytes, Option<Bytes>)>,
}

impl RowChanges {
    pub(crate) fn put(&mut self, key: &RowKey, value: impl Into<Bytes>) {
        self.changes.push((checked(key), Some(value.into())));
    }

    pub(crate) fn put_u64(&mut self, key: &RowKey, value: u64) {
        self.put(key, Bytes::copy_from_slice(&value.to_be_bytes()));
    }

    pub(crate) fn delete(&mut self, key: &RowKey) {
        self.changes.push((checked(key), None));
    }

    /// Whether there is nothing to propose: the reply may leave at once.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in order: key and new value, or `None` for a row that goes away.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.changes.iter().map(|(key, value)| (key, value.as_ref()))
    }
}

/// What a call will have done once its rows are applied and committed. The reply is void until
/// then.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Change<R> {
    /// Rows to propose to the system region.
    pub rows: RowChanges,
    /// The answer, to be given after [`commit`](crate::Placement::commit).
    pub reply: R,
}

/// Which row. The text form is in the module's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowKey {
    Cluster,
    BootstrappedAt,
    ClusterVersion,
    LastId,
    TsoBound,
    ExternalTimestamp,
    Store(StoreId),
    Region(RegionId),
    GcState(u32),
    GcBarrier(u32, String),
    GlobalGcBarrier(String),
    Keyspace(u32),
    KeyspaceConfig(u32, String),
    Config(String),
    EtcdEvent(Revision),
    EtcdCompacted,
    EtcdLease(i64),
}

impl RowKey {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Cluster => Bytes::from_static(b"cluster"),
            Self::BootstrappedAt => Bytes::from_static(b"cluster/bootstrapped_at"),
            Self::ClusterVersion => Bytes::from_static(b"cluster/version"),
            Self::LastId => Bytes::from_static(b"id"),
            Self::TsoBound => Bytes::from_static(b"tso"),
            Self::ExternalTimestamp => Bytes::from_static(b"external_timestamp"),
            Self::Store(id) => joined(b"store/", &id.0.to_be_bytes(), None),
            Self::Region(id) => joined(b"region/", &id.0.to_be_bytes(), None),
            Self::GcState(keyspace) => joined(b"gc/state/", &keyspace.to_be_bytes(), None),
            Self::GcBarrier(keyspace, id) => {
                joined(b"gc/barrier/", &keyspace.to_be_bytes(), Some(id))
            }
            Self::GlobalGcBarrier(id) => joined(b"gc/global_barrier/", id.as_bytes(), None),
            Self::Keyspace(id) => joined(b"keyspace/", &id.to_be_bytes(), None),
            Self::KeyspaceConfig(id, name) => {
                joined(b"keyspace_config/", &id.to_be_bytes(), Some(name))
            }
            Self::Config(path) => joined(b"config/", path.as_bytes(), None),
            Self::EtcdEvent(revision) => joined(b"etcd/event/", &revision.encode(), None),
            Self::EtcdCompacted => Bytes::from_static(b"etcd/compacted"),
            Self::EtcdLease(id) => joined(b"etcd/lease/", &id.to_be_bytes(), None),
        }
    }

    /// The row with this key; `None` if the table has no such row.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        match key {
            b"cluster" => return Some(Self::Cluster),
            b"cluster/bootstrapped_at" => return Some(Self::BootstrappedAt),
            b"cluster/version" => return Some(Self::ClusterVersion),
            b"id" => return Some(Self::LastId),
            b"tso" => return Some(Self::TsoBound),
            b"external_timestamp" => return Some(Self::ExternalTimestamp),
            b"etcd/compacted" => return Some(Self::EtcdCompacted),
            _ => {}
        }
        let after = |prefix: &[u8]| key.strip_prefix(prefix);
        if let Some(id) = after(b"store/") {
            return Some(Self::Store(StoreId(u64::from_be_bytes(id.try_into().ok()?))));
        }
        if let Some(id) = after(b"region/") {
            return Some(Self::Region(RegionId(u64::from_be_bytes(id.try_into().ok()?))));
        }
        if let Some(id) = after(b"gc/state/") {
            return Some(Self::GcState(u32::from_be_bytes(id.try_into().ok()?)));
        }
        if let Some(rest) = after(b"gc/barrier/") {
            let (keyspace, id) = split_id(rest)?;
            return Some(Self::GcBarrier(keyspace, id));
        }
        if let Some(id) = after(b"gc/global_barrier/") {
            return Some(Self::GlobalGcBarrier(text(id)?));
        }
        if let Some(id) = after(b"keyspace/") {
            return Some(Self::Keyspace(u32::from_be_bytes(id.try_into().ok()?)));
        }
        if let Some(rest) = after(b"keyspace_config/") {
            let (id, name) = split_id(rest)?;
            return Some(Self::KeyspaceConfig(id, name));
        }
        if let Some(revision) = after(b"etcd/event/") {
            return Revision::decode(revision).map(Self::EtcdEvent);
        }
        if let Some(id) = after(b"etcd/lease/") {
            return Some(Self::EtcdLease(i64::from_be_bytes(id.try_into().ok()?)));
        }
        after(b"config/").and_then(text).map(Self::Config)
    }

    /// The error for a row whose value cannot be read.
    pub(crate) fn bad(&self, reason: impl Into<String>) -> PlacementError {
        bad_row(&self.encode(), reason)
    }
}

/// The keys of the stores' rows: from the first on, up to the second.
pub const STORE_ROWS: (&[u8], &[u8]) = (b"store/", b"store0");

/// The stores among the rows, for a node that holds a copy of the rows and does not lead: what it
/// may tell and go by while it does not know better. Rows that cannot be read are left out.
pub fn known_stores<'a>(
    rows: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>,
) -> Vec<proto::metapb::Store> {
    let is_store = |key: &Bytes| matches!(RowKey::parse(key), Some(RowKey::Store(_)));
    let stores = rows.into_iter().filter(|(key, _)| is_store(key));
    stores.filter_map(|(_, value)| prost::Message::decode(value.clone()).ok()).collect()
}

/// The error for a row that cannot be read.
pub(crate) fn bad_row(key: &[u8], reason: impl Into<String>) -> PlacementError {
    PlacementError::BadRow { key: key.escape_ascii().to_string(), reason: reason.into() }
}

/// Reads a value of one number.
pub(crate) fn read_u64(key: &RowKey, value: &[u8]) -> Result<u64, PlacementError> {
    let bytes = value.try_into().map_err(|_| key.bad("not a number of 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Reads a value of two numbers.
pub(crate) fn read_pair(key: &RowKey, mut value: &[u8]) -> Result<(u64, u64), PlacementError> {
    if value.len() != 16 {
        return Err(key.bad("not two numbers of 8 bytes"));
    }
    Ok((value.get_u64(), value.get_u64()))
}

/// A value of two numbers.
pub(crate) fn pair(first: u64, second: u64) -> Bytes {
    [first.to_be_bytes(), second.to_be_bytes()].concat().into()
}

/// Reads a protobuf value.
pub(crate) fn read_message<M: prost::Message + Default>(
    key: &RowKey,
    value: &Bytes,
) -> Result<M, PlacementError> {
    M::decode(value.clone()).map_err(|error| key.bad(error.to_string()))
}

/// Reads a value of text.
pub(crate) fn read_text(key: &RowKey, value: &[u8]) -> Result<String, PlacementError> {
    text(value).ok_or_else(|| key.bad("not UTF-8"))
}

/// A key that the next leader will be able to read.
fn checked(key: &RowKey) -> Bytes {
    let bytes = key.encode();
    assert_eq!(RowKey::parse(&bytes).as_ref(), Some(key), "{}", bytes.escape_ascii());
    bytes
}

fn joined(prefix: &[u8], id: &[u8], name: Option<&str>) -> Bytes {
    assert!(prefix.ends_with(b"/"), "what follows a prefix is set off by a slash");
    assert!(name.is_none() || id.len() == 4, "an id before a name has a fixed length");
    let mut key = [prefix, id].concat();
    if let Some(name) = name {
        key.push(b'/');
        key.extend_from_slice(name.as_bytes());
    }
    key.into()
}

/// Splits `<4 bytes>/<text>`.
fn split_id(rest: &[u8]) -> Option<(u32, String)> {
    let (id, name) = rest.split_at_checked(4)?;
    Some((u32::from_be_bytes(id.try_into().ok()?), text(name.strip_prefix(b"/")?)?))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_back_and_golden_bytes_hold() {
        let name = || "a/b".to_owned();
        let golden: [(RowKey, &[u8]); 17] = [
            (RowKey::Cluster, b"cluster"),
            (RowKey::BootstrappedAt, b"cluster/bootstrapped_at"),
            (RowKey::ClusterVersion, b"cluster/version"),
            (RowKey::LastId, b"id"),
            (RowKey::TsoBound, b"tso"),
            (RowKey::ExternalTimestamp, b"external_timestamp"),
            (RowKey::Store(StoreId(0x2f)), b"store/\0\0\0\0\0\0\0/"),
            (RowKey::Region(RegionId(2)), b"region/\0\0\0\0\0\0\0\x02"),
            (RowKey::GcState(u32::MAX), b"gc/state/\xff\xff\xff\xff"),
            (RowKey::GcBarrier(0x2f2f_2f2f, name()), b"gc/barrier//////a/b"),
            (RowKey::GlobalGcBarrier(name()), b"gc/global_barrier/a/b"),
            (RowKey::Keyspace(1), b"keyspace/\0\0\0\x01"),
            (RowKey::KeyspaceConfig(1, name()), b"keyspace_config/\0\0\0\x01/a/b"),
            (RowKey::Config("/global/config/x".into()), b"config//global/config/x"),
            (
                RowKey::EtcdEvent(Revision { main: 2, sub: 1 }),
                b"etcd/event/\0\0\0\0\0\0\0\x02\0\0\0\x01",
            ),
            (RowKey::EtcdCompacted, b"etcd/compacted"),
            (RowKey::EtcdLease(0x2f), b"etcd/lease/\0\0\0\0\0\0\0/"),
        ];
        for (key, bytes) in golden {
            assert_eq!(key.encode(), bytes);
            assert_eq!(RowKey::parse(bytes), Some(key));
        }
    }

    #[test]
    fn foreign_keys_are_not_ours() {
        for key in [
            &b""[..],
            b"ids",
            b"store/1",
            b"gc/state/",
            b"gc/barrier/\0\0\0\0a",
            b"x/y",
            b"etcd/event/\0",
        ] {
            assert_eq!(RowKey::parse(key), None, "{}", key.escape_ascii());
        }
        assert_eq!(RowKey::parse(b"config/\xff"), None);
    }
}
