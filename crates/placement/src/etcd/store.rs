//! What the rows of etcd's keys are in memory: every event by its revision, and for each key where
//! its events are.

use std::collections::{BTreeMap, BTreeSet};

use base::Instant;
use bytes::Bytes;
use proto::mvccpb::{self, KeyValue, event::EventType};

use super::EVENT_BYTES;
use super::lease::Lease;
use super::span::Span;
use crate::PlacementError;
use crate::rows::{self, RowKey};

/// Which change: the write's revision, and the number within the write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    pub(crate) main: i64,
    pub(crate) sub: u32,
}

impl Revision {
    /// The first change of a write.
    pub(super) fn first(main: i64) -> Self {
        Self { main, sub: 0 }
    }

    pub(crate) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (main, sub) = bytes.split_at_checked(8)?;
        let main = i64::from_be_bytes(main.try_into().ok()?);
        let sub = u32::from_be_bytes(sub.try_into().ok()?);
        (main > 0).then_some(Self { main, sub })
    }
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) deleted: bool,
    /// As it is since. Of a deletion: key and revision.
    pub(super) kv: KeyValue,
}

impl Event {
    /// The key as it is since, if it is there.
    pub(super) fn live(&self) -> Option<&KeyValue> {
        (!self.deleted).then_some(&self.kv)
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        self.kv.key.len() + self.kv.value.len() + EVENT_BYTES
    }

    pub(super) fn to_wire(&self) -> mvccpb::Event {
        let kind = if self.deleted { EventType::Delete } else { EventType::Put };
        mvccpb::Event { r#type: kind.into(), kv: Some(self.kv.clone()), prev_kv: None }
    }

    fn read(row: &RowKey, value: &Bytes) -> Result<Self, PlacementError> {
        let event: mvccpb::Event = rows::read_message(row, value)?;
        let deleted = event.r#type() == EventType::Delete;
        let kv = event.kv.ok_or_else(|| row.bad("an event of no key"))?;
        Ok(Self { deleted, kv })
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EtcdSize {
    /// Keys that are there.
    pub keys: usize,
    /// What they take.
    pub live_bytes: usize,
    /// All events that are kept.
    pub events: usize,
    /// What they take.
    pub bytes: usize,
}

impl EtcdSize {
    /// Events that are not the newest put of a key.
    pub fn history_events(&self) -> usize {
        self.events - self.keys
    }

    /// What they take.
    pub fn history_bytes(&self) -> usize {
        self.bytes - self.live_bytes
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct EtcdStore {
    pub(super) events: BTreeMap<Revision, Event>,
    /// The events of each key, the oldest first.
    pub(super) keys: BTreeMap<Bytes, Vec<Revision>>,
    /// The keys of each lease. The lease itself may not be read yet.
    pub(super) attached: BTreeMap<i64, BTreeSet<Bytes>>,
    pub(super) leases: BTreeMap<i64, Lease>,
    /// Of the newest write.
    pub(super) revision: i64,
    /// Revisions below this one are given up. 0: none.
    pub(super) compacted: i64,
    /// Where the sweep of what was given up goes on; `None` when there is nothing to sweep.
    pub(super) sweep: Option<Revision>,
    /// The last lease id that was made up here.
    pub(super) last_lease: i64,
    size: EtcdSize,
}

impl Default for EtcdStore {
    /// The revision of a store to which nothing was written is 1, as in etcd.
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            keys: BTreeMap::new(),
            attached: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: 1,
            compacted: 0,
            sweep: None,
            last_lease: 0,
            size: EtcdSize::default(),
        }
    }
}

impl EtcdStore {
    pub(crate) fn apply_put(&mut self, row: &RowKey, value: &Bytes) -> Result<(), PlacementError> {
        match row {
            RowKey::EtcdEvent(revision) => {
                let event = Event::read(row, value)?;
                self.put_event(*revision, event);
            }
            RowKey::EtcdCompacted => {
                let compacted = rows::read_u64(row, value)?;
                let compacted = i64::try_from(compacted).map_err(|_| row.bad("not a revision"))?;
                self.compacted = self.compacted.max(compacted);
                self.revision = self.revision.max(compacted);
                self.sweep = Some(Revision::default());
            }
            RowKey::EtcdLease(id) => {
                let mut lease = Lease::read(row, value)?;
                if let Some(old) = self.leases.get(id) {
                    lease.follow(old);
                }
                self.leases.insert(*id, lease);
            }
            _ => unreachable!("the caller has looked at the kind of row"),
        }
        Ok(())
    }

    pub(crate) fn apply_delete(&mut self, row: &RowKey) {
        match row {
            RowKey::EtcdEvent(revision) => self.remove_event(*revision),
            RowKey::EtcdLease(id) => {
                self.leases.remove(id);
            }
            _ => unreachable!("the caller has looked at the kind of row"),
        }
    }

    /// Events may come in any order: a new leader reads them as it finds them.
    fn put_event(&mut self, revision: Revision, event: Event) {
        let key = event.kv.key.clone();
        self.leave_newest(&key);
        self.size.events += 1;
        self.size.bytes += event.bytes();
        self.events.insert(revision, event);
        let history = self.keys.entry(key.clone()).or_default();
        let place = history.partition_point(|other| *other < revision);
        history.insert(place, revision);
        self.enter_newest(&key);
        self.revision = self.revision.max(revision.main);
    }

    fn remove_event(&mut self, revision: Revision) {
        let Some(key) = self.events.get(&revision).map(|event| event.kv.key.clone()) else {
            return;
        };
        self.leave_newest(&key);
        let event = self.events.remove(&revision).expect("it was found");
        self.size.events -= 1;
        self.size.bytes -= event.bytes();
        let history = self.keys.get_mut(&key).expect("each event is in its key's history");
        history.retain(|other| *other != revision);
        if history.is_empty() {
            self.keys.remove(&key);
        } else {
            self.enter_newest(&key);
        }
        assert!(self.size.keys <= self.size.events, "{:?}", self.size);
    }

    /// Takes the newest put of a key out of what is counted by newest puts.
    fn leave_newest(&mut self, key: &Bytes) {
        let Some((lease, bytes)) = self.newest(key).map(|event| (event.kv.lease, event.bytes()))
        else {
            return;
        };
        self.size.keys -= 1;
        self.size.live_bytes -= bytes;
        if let Some(keys) = self.attached.get_mut(&lease) {
            keys.remove(key);
            if keys.is_empty() {
                self.attached.remove(&lease);
            }
        }
    }

    fn enter_newest(&mut self, key: &Bytes) {
        let Some((lease, bytes)) = self.newest(key).map(|event| (event.kv.lease, event.bytes()))
        else {
            return;
        };
        self.size.keys += 1;
        self.size.live_bytes += bytes;
        if lease != 0 {
            self.attached.entry(lease).or_default().insert(key.clone());
        }
    }

    /// The newest event of a key, if it is a put.
    fn newest(&self, key: &[u8]) -> Option<&Event> {
        let revision = self.keys.get(key)?.last()?;
        self.events.get(revision).filter(|event| !event.deleted)
    }

    /// The key as of the end of a revision.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        self.of_history(self.keys.get(key)?, revision)
    }

    fn of_history(&self, history: &[Revision], revision: i64) -> Option<&KeyValue> {
        let place = history.partition_point(|event| event.main <= revision);
        self.events.get(history.get(place.checked_sub(1)?)?)?.live()
    }

    /// The keys of a span as of the end of a revision, in their order.
    pub(super) fn in_span(&self, span: &Span, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let keys = self.keys.range::<[u8], _>(span.bounds());
        keys.filter_map(move |(_, history)| self.of_history(history, revision))
    }

    /// The keys of a lease.
    pub(super) fn keys_of(&self, lease: i64) -> impl Iterator<Item = &Bytes> {
        self.attached.get(&lease).into_iter().flatten()
    }

    pub(super) fn size(&self) -> EtcdSize {
        self.size
    }

    /// Leases that have just been granted or read begin to run.
    pub(super) fn start_leases(&mut self, now: Instant) {
        self.leases.values_mut().for_each(|lease| lease.start(now));
    }
}
