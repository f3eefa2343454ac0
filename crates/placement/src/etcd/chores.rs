//! What the leader does by itself: it ends leases, gives up history that is too long, and sweeps
//! the rows of what was given up.
//!
//! ```text
//!   history too long ──> compacted := R ──> sweep: some rows at a time, from the oldest on
//!   a client's Compact ──────^
//! ```
//!
//! An event can be swept if a newer one of its key is not above `compacted`: no read and no watch
//! that is still served can ask for it. A deletion is swept when the key was gone before that. The
//! sweep goes from old to new, so a put never outlives the deletion that came after it.

use std::time::Duration;

use base::Instant;

use super::draft::Draft;
use super::store::{EtcdStore, Event, Revision};
use super::{EVENT_BYTES, HISTORY_BYTES_MAX, HISTORY_EVENTS_MAX, WRITE_BYTES_MAX};
use crate::rows::RowKey;
use crate::{Change, Placement};

/// Leases are looked at this often.
const LEASE_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// One step of the sweep looks at so many events ...
const SWEEP_EVENTS: usize = 16_384;
/// ... and deletes so many rows.
const SWEEP_ROWS: usize = 4_096;

/// What a round of chores did beside its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EtcdChores {
    /// Where the sweep goes on, if it did a step.
    swept: Option<Option<Revision>>,
}

impl Placement {
    /// When to do chores next; `None` if there are none before the next write.
    pub fn etcd_chores_wait(&self) -> Option<Duration> {
        if self.etcd.sweep.is_some() || self.etcd.is_history_long() {
            return Some(Duration::ZERO);
        }
        (!self.etcd.leases.is_empty()).then_some(LEASE_LOOK_INTERVAL)
    }

    /// Plans a round of chores. No requests may be planned before it is committed and
    /// [settled](Self::etcd_chores_done).
    pub fn plan_etcd_chores(&self, now: Instant) -> Change<EtcdChores> {
        let store = &self.etcd;
        let mut draft = Draft::new(store);
        end_leases(&mut draft, now);
        for (id, lease) in &store.leases {
            if let Some(terms) = lease.checkpoint(now) {
                draft.put_lease(*id, terms);
            }
        }
        if let Some(from) = store.sweep {
            let (garbage, next) = store.sweep_step(from);
            let mut rows = draft.into_rows();
            garbage.into_iter().for_each(|revision| rows.delete(&RowKey::EtcdEvent(revision)));
            return Change { rows, reply: EtcdChores { swept: Some(next) } };
        }
        if let Some(revision) = store.revision_to_compact() {
            draft.compact(revision);
        }
        Change { rows: draft.into_rows(), reply: EtcdChores::default() }
    }

    /// To be called once a round of chores is committed.
    pub fn etcd_chores_done(&mut self, chores: &EtcdChores, now: Instant) {
        if let Some(next) = chores.swept {
            self.etcd.sweep = next;
        }
        self.etcd.start_leases(now);
    }
}

/// Takes away the leases that have run out, with their keys; each in a write of its own. What does
/// not fit waits for the next round, also the keys of a lease that has very many.
fn end_leases(draft: &mut Draft<'_>, now: Instant) {
    let leases = draft.store.leases.iter().filter(|(_, lease)| lease.has_ended(now));
    for (id, _) in leases {
        let keys = draft.keys_of(*id);
        for key in &keys {
            if draft.bytes() + key.len() + EVENT_BYTES > WRITE_BYTES_MAX {
                draft.end_write();
                return;
            }
            draft.delete(key);
        }
        draft.delete_lease(*id);
        draft.end_write();
    }
}

impl EtcdStore {
    fn is_history_long(&self) -> bool {
        let size = self.size();
        size.history_events() > HISTORY_EVENTS_MAX || size.history_bytes() > HISTORY_BYTES_MAX
    }

    /// If history is too long, the revision at which half of it can be swept.
    fn revision_to_compact(&self) -> Option<i64> {
        if !self.is_history_long() {
            return None;
        }
        let size = self.size();
        let (half_events, half_bytes) = (size.history_events() / 2, size.history_bytes() / 2);
        let (mut events, mut bytes) = (0, 0);
        for (revision, event) in self.events.range(Revision::first(self.compacted + 1)..) {
            let before = self.before(*revision, event);
            let freed = before.into_iter().chain(event.deleted.then_some(event));
            for event in freed {
                (events, bytes) = (events + 1, bytes + event.bytes());
            }
            if events >= half_events && bytes >= half_bytes {
                return Some(revision.main);
            }
        }
        (self.revision > self.compacted).then_some(self.revision)
    }

    /// The event of the same key before this one.
    fn before(&self, revision: Revision, event: &Event) -> Option<&Event> {
        let history = self.keys.get(&event.kv.key)?;
        let place = history.partition_point(|other| *other < revision);
        self.events.get(history.get(place.checked_sub(1)?)?)
    }

    /// Rows to be deleted, and where to go on.
    fn sweep_step(&self, from: Revision) -> (Vec<Revision>, Option<Revision>) {
        let given_up = from..Revision::first(self.compacted);
        if given_up.is_empty() {
            return (Vec::new(), None);
        }
        let mut garbage = Vec::new();
        for (looked_at, (revision, event)) in self.events.range(given_up).enumerate() {
            if looked_at == SWEEP_EVENTS || garbage.len() == SWEEP_ROWS {
                return (garbage, Some(*revision));
            }
            if event.deleted || self.is_superseded(*revision, event) {
                garbage.push(*revision);
            }
        }
        (garbage, None)
    }

    fn is_superseded(&self, revision: Revision, event: &Event) -> bool {
        let history = self.keys.get(&event.kv.key).expect("each event is in its key's history");
        let place = history.partition_point(|other| *other <= revision);
        assert!(history[place - 1] == revision, "each event is in its key's history");
        history.get(place).is_some_and(|next| next.main <= self.compacted)
    }
}
