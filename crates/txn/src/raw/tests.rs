//! The rules of raw commands, each through the public functions on a memory engine.

mod model;
mod reads;
mod scans;
mod writes;

use std::sync::Arc;

use base::{KeyRange, Peer, PeerId, Region, RegionId, StoreId};
use bytes::Bytes;
use storage::engine::{Cf, Engine, MemoryEngine, Snapshot, WriteBatch};
use storage::keys;

use super::*;
use crate::{ApiVersion, Mutation};

const MODES: [ApiVersion; 3] = [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2];

/// One region of one store, whose mutations are applied at once.
struct Store {
    engine: MemoryEngine,
    region: Region,
    api: ApiVersion,
    now_s: u64,
}

impl Store {
    /// A region of all keys; the clock stands at 1,000 s.
    fn new(api: ApiVersion) -> Self {
        let peer = Peer::voter(PeerId(1), StoreId(1));
        let region = Region::first(RegionId(2), peer);
        Self { engine: MemoryEngine::new(), region, api, now_s: 1_000 }
    }

    /// The same with a narrower region. Bounds in user form.
    fn within(mut self, start: &'static str, end: &'static str) -> Self {
        self.region.range = KeyRange::new(
            self.api.region_bound(&self.key(start)),
            self.api.region_bound(&self.key(end)),
        );
        self
    }

    /// A key as a client of this mode spells it; a bound that is empty stays so in V1.
    fn key(&self, key: &str) -> Bytes {
        match self.api {
            ApiVersion::V2 => [b"r\0\0\x01", key.as_bytes()].concat().into(),
            _ => Bytes::copy_from_slice(key.as_bytes()),
        }
    }

    fn writer(&self) -> Writer {
        Writer { api: self.api, now_s: self.now_s }
    }

    /// What the applier does.
    fn apply(&self, mutations: impl IntoIterator<Item = Mutation>) {
        let mut batch = WriteBatch::new();
        for mutation in mutations {
            assert_eq!(mutation.key_outside(&self.region.range), None, "{mutation:?}");
            match mutation {
                Mutation::Put { cf, key, value } => batch.put(cf, &keys::data_key(&key), &value),
                Mutation::Delete { cf, key } => batch.delete(cf, &keys::data_key(&key)),
                Mutation::DeleteRange { cf, start, end } => {
                    let range = KeyRange::new(start, end);
                    let (first, end) = keys::data_range(self.region.id, &range);
                    batch.delete_range(cf, &first, &end);
                }
            }
        }
        self.engine.write(&batch).expect("memory takes every batch");
    }

    /// Puts keys with their own names as values, without expiry.
    fn fill(&self, names: &[&str]) {
        for name in names {
            self.put(name, name, 0);
        }
    }

    fn put(&self, key: &str, value: &str, ttl_s: u64) {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let put = self.writer().put(Cf::Default, &self.key(key), value, ttl_s);
        self.apply([put.expect("a legal put")]);
    }

    fn delete(&self, key: &str) {
        self.apply([self.writer().delete(Cf::Default, &self.key(key)).expect("a legal delete")]);
    }

    fn read<T>(&self, read: impl FnOnce(&View<'_>) -> T) -> T {
        self.read_at(&self.engine.snapshot(), read)
    }

    fn read_at<T>(&self, snapshot: &Arc<dyn Snapshot>, read: impl FnOnce(&View<'_>) -> T) -> T {
        read(&View {
            snapshot: &**snapshot,
            region: &self.region,
            api: self.api,
            now_s: self.now_s,
            interrupted: &|| false,
        })
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        self.read(|view| view.get(Cf::Default, &self.key(key))).expect("a legal get")
    }

    fn ttl(&self, key: &str) -> Option<u64> {
        self.read(|view| view.key_ttl(Cf::Default, &self.key(key))).expect("a legal read")
    }

    /// Scans; bounds in user form. The names of the keys found, without the keyspace.
    fn scan(
        &self,
        start: &str,
        end: &str,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<String>, RawError> {
        let scan = Scan {
            cf: Cf::Default,
            start: self.key(start),
            end: self.key(end),
            limit,
            key_only: false,
            reverse,
        };
        Ok(self.names(self.read(|view| view.scan(&scan))?))
    }

    fn names(&self, pairs: Vec<Pair>) -> Vec<String> {
        let prefix = self.key("").len();
        let name = |pair: Pair| String::from_utf8(pair.key[prefix..].to_vec());
        pairs.into_iter().map(|pair| name(pair).expect("names are text")).collect()
    }
}

/// The key of a refusal because of the region.
fn refused_key<T: std::fmt::Debug>(result: Result<T, RawError>) -> Bytes {
    match result {
        Err(RawError::KeyNotInRegion { key }) => key,
        other => panic!("expected a key outside the region, got {other:?}"),
    }
}

/// The text of a refusal of the request.
fn refused_text<T: std::fmt::Debug>(result: Result<T, RawError>) -> String {
    match result {
        Err(RawError::Request(error)) => error.to_string(),
        other => panic!("expected a refused request, got {other:?}"),
    }
}
