//! What a transaction has written, locked and learnt under its locks, by data key.

use std::collections::BTreeMap;

use base::KeyRange;
use bytes::Bytes;
use proto::kvrpcpb::{self, Op};

/// What is written to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Put(Bytes),
    Delete,
}

/// What a transaction has to do with a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) write: Option<Write>,
    /// The key must have had no value before.
    pub(super) is_insert: bool,
    /// A pessimistic lock is held.
    pub(super) is_locked: bool,
    /// It shall be locked by the commit though nothing is written.
    pub(super) is_guarded: bool,
    /// What was read when it was locked.
    pub(super) seen: Option<Option<Bytes>>,
}

impl Entry {
    /// What the transaction itself reads there; none if it has to ask.
    fn value(&self) -> Option<Option<Bytes>> {
        match &self.write {
            Some(Write::Put(value)) => Some(Some(value.clone())),
            Some(Write::Delete) => Some(None),
            None => self.seen.clone(),
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    entries: BTreeMap<Bytes, Entry>,
}

impl Buffer {
    pub(super) fn entry(&mut self, key: &Bytes) -> &mut Entry {
        self.entries.entry(key.clone()).or_default()
    }

    pub(super) fn value(&self, key: &Bytes) -> Option<Option<Bytes>> {
        self.entries.get(key)?.value()
    }

    pub(super) fn is_locked(&self, key: &Bytes) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.is_locked)
    }

    pub(super) fn locked(&self) -> Vec<Bytes> {
        let locked = self.entries.iter().filter(|(_, entry)| entry.is_locked);
        locked.map(|(key, _)| key.clone()).collect()
    }

    /// A pessimistic lock is given back. What was read under it may change from now on.
    pub(super) fn unlock(&mut self, key: &Bytes) {
        let entry = self.entry(key);
        (entry.is_locked, entry.seen) = (false, None);
    }

    /// What it reads itself within `range`, in key order.
    pub(super) fn values_in(&self, range: &KeyRange) -> Vec<(Bytes, Option<Bytes>)> {
        let entries = self.entries.range(range.start.clone()..);
        let inside = entries.take_while(|(key, _)| range.is_before_end(key));
        inside.filter_map(|(key, entry)| Some((key.clone(), entry.value()?))).collect()
    }

    /// What the commit does, in key order, and which of it is under a lock already.
    pub(super) fn mutations(&self, pessimistic: bool) -> Vec<(kvrpcpb::Mutation, bool)> {
        let mutation = |(key, entry): (&Bytes, &Entry)| {
            let (op, value) = match (&entry.write, entry.is_insert) {
                (Some(Write::Put(value)), true) => (Op::Insert, value.clone()),
                (Some(Write::Put(value)), false) => (Op::Put, value.clone()),
                // Nothing was there when it was locked, and nothing is left.
                (Some(Write::Delete), true) if pessimistic => (Op::Lock, Bytes::new()),
                (Some(Write::Delete), true) => (Op::CheckNotExists, Bytes::new()),
                (Some(Write::Delete), false) => (Op::Del, Bytes::new()),
                (None, _) if entry.is_locked || entry.is_guarded => (Op::Lock, Bytes::new()),
                (None, _) => return None,
            };
            let (key, op) = (key.clone(), op.into());
            let mutation = kvrpcpb::Mutation { op, key, value, ..Default::default() };
            Some((mutation, entry.is_locked))
        };
        self.entries.iter().filter_map(mutation).collect()
    }

    /// Whether anything is left of it after a commit.
    pub(super) fn has_writes(&self) -> bool {
        self.entries.values().any(|entry| entry.write.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(buffer: &Buffer, pessimistic: bool) -> Vec<Op> {
        let mutations = buffer.mutations(pessimistic).into_iter();
        mutations.map(|(mutation, _)| mutation.op()).collect()
    }

    #[test]
    fn entries_become_mutations() {
        let mut buffer = Buffer::default();
        buffer.entry(&"a".into()).write = Some(Write::Put("1".into()));
        let insert = Entry { is_insert: true, ..Entry::default() };
        *buffer.entry(&"b".into()) =
            Entry { write: Some(Write::Put("2".into())), ..insert.clone() };
        *buffer.entry(&"c".into()) = Entry { write: Some(Write::Delete), ..insert };
        buffer.entry(&"d".into()).write = Some(Write::Delete);
        buffer.entry(&"e".into()).seen = Some(None);
        buffer.entry(&"f".into()).is_guarded = true;
        assert_eq!(
            ops(&buffer, false),
            [Op::Put, Op::Insert, Op::CheckNotExists, Op::Del, Op::Lock]
        );
        assert_eq!(ops(&buffer, true)[2], Op::Lock);
    }

    #[test]
    fn a_transaction_reads_its_own_writes_then_what_it_locked() {
        let mut buffer = Buffer::default();
        let key = Bytes::from("k");
        assert_eq!(buffer.value(&key), None);
        let entry = buffer.entry(&key);
        (entry.is_locked, entry.seen) = (true, Some(Some("old".into())));
        assert_eq!(buffer.value(&key), Some(Some("old".into())));
        buffer.entry(&key).write = Some(Write::Delete);
        assert_eq!(buffer.values_in(&KeyRange::new("a", "l")), [(key.clone(), None)]);
        assert_eq!(buffer.values_in(&KeyRange::new("l", "")), []);
        buffer.unlock(&key);
        assert!(!buffer.is_locked(&key) && buffer.has_writes());
    }
}
