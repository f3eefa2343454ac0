//! A draft: what the keys and leases will be when the writes planned so far are applied.
//!
//! A view of the store with changes laid over it. Reads see all writes of the draft before them,
//! those of their own transaction too. An empty draft reads the store as it is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use proto::mvccpb::KeyValue;

use super::lease::Terms;
use super::span::Span;
use super::store::{EtcdStore, Event, Revision};
use super::{EVENT_BYTES, EtcdError, SPACE_BYTES_MAX};
use crate::RowChanges;
use crate::rows::RowKey;

pub(super) struct Draft<'a> {
    pub(super) store: &'a EtcdStore,
    /// Of the last write that is complete.
    revision: i64,
    compacted: i64,
    /// How many changes the write under way has made.
    sub: u32,
    /// The events of each key, the oldest first.
    events: BTreeMap<Bytes, Vec<(Revision, Event)>>,
    /// Leases that were granted (or written anew), and those that were taken away.
    leases: BTreeMap<i64, Option<Terms>>,
    pub(super) last_lease: i64,
    rows: RowChanges,
    /// What the rows take.
    bytes: usize,
}

impl<'a> Draft<'a> {
    pub(super) fn new(store: &'a EtcdStore) -> Self {
        Self {
            store,
            revision: store.revision,
            compacted: store.compacted,
            sub: 0,
            events: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: store.last_lease,
            rows: RowChanges::default(),
            bytes: 0,
        }
    }

    /// The revision that a read sees: with the changes of the write under way.
    pub(super) fn revision(&self) -> i64 {
        if self.sub > 0 { self.revision + 1 } else { self.revision }
    }

    /// What the rows take so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_rows(self) -> RowChanges {
        assert!(self.sub == 0, "a write is under way");
        self.rows
    }

    /// A revision that a request names: 0 or less is now.
    pub(super) fn checked_revision(&self, revision: i64) -> Result<i64, EtcdError> {
        match revision {
            i64::MIN..=0 => Ok(self.revision()),
            revision if revision > self.revision() => Err(EtcdError::FutureRevision),
            revision if revision < self.compacted => Err(EtcdError::Compacted),
            revision => Ok(revision),
        }
    }

    /// The key as of the end of a revision.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        match self.events.get(key).and_then(|events| newest(events, revision)) {
            Some(event) => event.live(),
            None => self.store.at(key, revision),
        }
    }

    /// The key as it is now.
    pub(super) fn now(&self, key: &[u8]) -> Option<&KeyValue> {
        self.at(key, self.revision())
    }

    /// The keys of a span as of the end of a revision, in their order.
    pub(super) fn in_span(&self, span: &Span, revision: i64) -> Vec<&KeyValue> {
        let mut changed = self.events.range::<[u8], _>(span.bounds()).peekable();
        if changed.peek().is_none() {
            return self.store.in_span(span, revision).collect();
        }
        let mut found: BTreeMap<&Bytes, &KeyValue> = BTreeMap::new();
        found.extend(self.store.in_span(span, revision).map(|kv| (&kv.key, kv)));
        for (key, events) in changed {
            match newest(events, revision).map(Event::live) {
                Some(Some(kv)) => drop(found.insert(key, kv)),
                Some(None) => drop(found.remove(key)),
                None => {}
            }
        }
        found.into_values().collect()
    }

    /// Puts a key. The lease must be there.
    pub(super) fn put(&mut self, key: &Bytes, value: &Bytes, lease: i64) {
        assert!(lease == 0 || self.lease(lease).is_some(), "a key is attached to no lease");
        let before = self.now(key).map(|kv| (kv.create_revision, kv.version));
        let revision = self.revision + 1;
        let (create_revision, version) = before.unwrap_or((revision, 0));
        self.push(Event {
            deleted: false,
            kv: KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision,
                mod_revision: revision,
                version: version + 1,
                lease,
            },
        });
    }

    /// Deletes a key that is there.
    pub(super) fn delete(&mut self, key: &Bytes) {
        assert!(self.now(key).is_some(), "a deletion of nothing");
        let mod_revision = self.revision + 1;
        let kv = KeyValue { key: key.clone(), mod_revision, ..Default::default() };
        self.push(Event { deleted: true, kv });
    }

    fn push(&mut self, event: Event) {
        let revision = Revision { main: self.revision + 1, sub: self.sub };
        self.sub += 1;
        self.bytes += event.bytes();
        self.rows.put(&RowKey::EtcdEvent(revision), event.to_wire().encode_to_vec());
        self.events.entry(event.kv.key.clone()).or_default().push((revision, event));
    }

    /// The write under way is complete. Returns the revision as of now.
    pub(super) fn end_write(&mut self) -> i64 {
        self.revision = self.revision();
        self.sub = 0;
        self.revision
    }

    /// Whether a write that takes so much more has room.
    pub(super) fn check_room(&self, more: usize) -> Result<(), EtcdError> {
        let leases = self.store.leases.len() * EVENT_BYTES;
        let all = self.store.size().bytes + leases + self.bytes + more;
        if all <= SPACE_BYTES_MAX { Ok(()) } else { Err(EtcdError::NoSpace) }
    }

    /// Gives up history before a revision; the caller has checked it.
    pub(super) fn compact(&mut self, revision: i64) {
        assert!(self.compacted < revision && revision <= self.revision, "to {revision}");
        self.compacted = revision;
        self.rows.put_u64(&RowKey::EtcdCompacted, revision.unsigned_abs());
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(super) fn lease(&self, id: i64) -> Option<Terms> {
        match self.leases.get(&id) {
            Some(lease) => *lease,
            None => self.store.leases.get(&id).map(|lease| lease.terms),
        }
    }

    /// Writes the terms of a lease, new or not.
    pub(super) fn put_lease(&mut self, id: i64, terms: Terms) {
        assert!(id != 0, "the lease of keys that have none");
        self.bytes += EVENT_BYTES;
        self.rows.put(&RowKey::EtcdLease(id), terms.row());
        self.leases.insert(id, Some(terms));
    }

    /// Takes a lease away that has no keys any more.
    pub(super) fn delete_lease(&mut self, id: i64) {
        self.bytes += EVENT_BYTES;
        self.rows.delete(&RowKey::EtcdLease(id));
        self.leases.insert(id, None);
    }

    /// The keys attached to a lease, in their order.
    pub(super) fn keys_of(&self, lease: i64) -> BTreeSet<Bytes> {
        let mut keys: BTreeSet<Bytes> = self.store.keys_of(lease).cloned().collect();
        for (key, events) in &self.events {
            match newest(events, i64::MAX).and_then(Event::live) {
                Some(kv) if kv.lease == lease => drop(keys.insert(key.clone())),
                _ => drop(keys.remove(key)),
            }
        }
        keys
    }
}

fn newest(events: &[(Revision, Event)], revision: i64) -> Option<&Event> {
    let (_, event) = events.iter().rev().find(|(at, _)| at.main <= revision)?;
    Some(event)
}
