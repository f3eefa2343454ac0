//! What the tests of the log share: a model of it, and how to compare the two.

mod basics;
mod crash;
mod damage;
mod measure;
mod space;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Entry, EntryKind, Index, Prng, RegionId, Term};
use bytes::Bytes;

use super::{LogBatch, LogError, LogOptions, LogReader, RaftLog};
use crate::disk::{Disk, MemoryDisk};

const R1: RegionId = RegionId(1);
const R2: RegionId = RegionId(2);

fn dir() -> &'static Path {
    Path::new("/store/raft-log")
}

fn small() -> LogOptions {
    LogOptions { segment_bytes: 4096, rewrite_bytes_max: 4096, salt: 77, ..LogOptions::default() }
}

fn open(disk: &MemoryDisk, options: LogOptions) -> Result<RaftLog, LogError> {
    RaftLog::open(Arc::new(disk.clone()), dir(), options)
}

fn files(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.list(dir()).unwrap().into_iter().map(|name| dir().join(name)).collect()
}

fn entry(index: Index, term: Term, len: usize) -> Entry {
    let byte = (index * 7 + term) as u8;
    Entry { index, term, kind: EntryKind::Normal, data: Bytes::from(vec![byte; len]) }
}

fn entries(first: Index, last: Index, term: Term, len: usize) -> Vec<Entry> {
    (first..=last).map(|index| entry(index, term, len)).collect()
}

/// What a change does, in the words of the model.
#[derive(Clone, Debug)]
enum Change {
    Append(RegionId, Vec<Entry>),
    State(RegionId, Bytes),
    Truncate(RegionId, Index, Term),
    Remove(RegionId),
}

fn batch(changes: &[Change]) -> LogBatch {
    let mut batch = LogBatch::new();
    for change in changes {
        match change {
            Change::Append(region, entries) => batch.append(*region, entries),
            Change::State(region, value) => batch.put_state(*region, value.clone()),
            Change::Truncate(region, index, term) => batch.truncate(*region, *index, *term),
            Change::Remove(region) => batch.remove(*region),
        }
    }
    batch
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelRegion {
    truncated: (Index, Term),
    entries: BTreeMap<Index, Entry>,
    state: Option<Bytes>,
}

impl ModelRegion {
    fn last(&self) -> Index {
        self.entries.last_key_value().map_or(self.truncated.0, |(index, _)| *index)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    regions: BTreeMap<RegionId, ModelRegion>,
}

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Append(region, entries) => {
                    let log = self.regions.entry(*region).or_default();
                    log.entries.split_off(&entries[0].index);
                    log.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                }
                Change::State(region, value) => {
                    self.regions.entry(*region).or_default().state = Some(value.clone());
                }
                Change::Truncate(region, index, term) => {
                    let log = self.regions.entry(*region).or_default();
                    if *index < log.truncated.0 {
                        continue;
                    }
                    let other = log.entries.get(index).is_some_and(|entry| entry.term != *term);
                    log.truncated = (*index, *term);
                    log.entries = log.entries.split_off(&(index + 1));
                    if other {
                        log.entries.clear();
                    }
                }
                Change::Remove(region) => {
                    self.regions.remove(region);
                }
            }
        }
    }

    /// What a reader says of the log.
    fn of(reader: &LogReader) -> Model {
        let region = |id: RegionId| {
            let (first, last) = (reader.first_index(id), reader.last_index(id));
            let entries = reader.entries(id, first, last + 1, u64::MAX).unwrap();
            assert_eq!(entries.len() as u64, last + 1 - first);
            for entry in &entries {
                assert_eq!(reader.term(id, entry.index).unwrap(), entry.term);
            }
            let truncated = reader.truncated(id);
            assert_eq!(first, truncated.0 + 1);
            let entries = entries.into_iter().map(|entry| (entry.index, entry)).collect();
            ModelRegion { truncated, entries, state: reader.state(id) }
        };
        Model { regions: reader.regions().into_iter().map(|id| (id, region(id))).collect() }
    }

    /// Changes that make sense now.
    fn random_changes(&self, prng: &mut Prng) -> Vec<Change> {
        let mut model = self.clone();
        let mut changes = Vec::new();
        for _ in 0..=prng.below(3) {
            let region = RegionId(1 + prng.below(4));
            let change = model.random_change(region, prng);
            model.apply(std::slice::from_ref(&change));
            changes.push(change);
        }
        changes
    }

    fn random_change(&self, region: RegionId, prng: &mut Prng) -> Change {
        let none = ModelRegion::default();
        let log = self.regions.get(&region).unwrap_or(&none);
        let last_term = log.entries.values().last().map_or(log.truncated.1, |entry| entry.term);
        match prng.below(20) {
            0..=9 => {
                let back = if prng.one_in(4) { prng.below(4) } else { 0 };
                let first = (log.last() + 1).saturating_sub(back).max(log.truncated.0 + 1);
                let term = last_term + u64::from(back > 0 || prng.one_in(5));
                let new = (0..=prng.below(4)).map(|i| {
                    let len = [0, 1, 20, 100, 300, 1500][prng.below(6) as usize];
                    entry(first + i, term.max(1), len + prng.below(9) as usize)
                });
                Change::Append(region, new.collect())
            }
            10..=14 => {
                let len = prng.below(50) as usize;
                Change::State(region, Bytes::from(vec![prng.next_u64() as u8; len]))
            }
            15..=17 => {
                let index = log.truncated.0 + prng.below(log.last() - log.truncated.0 + 1);
                let term = log.entries.get(&index).map_or(log.truncated.1, |entry| entry.term);
                Change::Truncate(region, index, term)
            }
            18 => Change::Truncate(region, log.last() + 1 + prng.below(5), last_term + 1),
            _ => match log.entries.last_key_value().filter(|_| prng.one_in(2)) {
                Some((index, entry)) => Change::Truncate(region, *index, entry.term + 1),
                None => Change::Remove(region),
            },
        }
    }
}
