//! The sweep: collects on one replica what compactions leave, or have no reason to come by.
//!
//! A step reads some records from a fresh snapshot and says what to delete, in one write that goes
//! to the engine of this replica alone. While a step is read and written, no region's data may be
//! replaced or removed on the store: see `gc`.

use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;
use storage::engine::{Cf, EngineError, Fate, Gone, IterOptions, Snapshot, WriteBatch};

use super::{SafePoints, Walk};

/// Bytes of deletions after which a step ends.
const STEP_BYTES: usize = 256 << 10;

/// So many records in a row that go alone go as a range: a deletion of each would cost readers as
/// much as the record did.
const RUN_MIN: usize = 64;

/// A walk over a range of one replica. Its steps may lie far apart.
#[derive(Debug)]
pub struct Sweep {
    walk: Walk,
    /// What is left, engine form.
    rest: KeyRange,
    /// How often a deletion stayed because its key did not fit into a step.
    left: u64,
}

/// What a step found.
#[derive(Debug, Default)]
pub struct SweepStep {
    /// To be written to this replica's engine.
    pub batch: WriteBatch,
    /// Records looked at.
    pub records: u64,
    /// Records that go with the batch.
    pub gone: u64,
    /// Records at or above the safe point: a later one may make garbage of them. Without any, only
    /// what is written later can.
    pub young: u64,
}

impl Sweep {
    /// Begins at the start of `range` (engine form, end not empty).
    pub fn new(range: KeyRange, points: Arc<SafePoints>) -> Self {
        Self { walk: Walk::new(points), rest: range, left: 0 }
    }

    /// Whether it has seen everything.
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Deletions that it had to leave for the next sweep.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next `records_max` records, or fewer if many of them go.
    pub fn step(
        &mut self,
        snapshot: &dyn Snapshot,
        records_max: u64,
    ) -> Result<SweepStep, EngineError> {
        let options = IterOptions { fill_cache: false, ..IterOptions::within(self.rest.clone()) };
        let mut cursor = snapshot.iter(Cf::Write, options)?;
        let mut step = SweepStep::default();
        let mut pending = Pending::default();
        let mut valid = cursor.seek_to_first()?;
        // Records of the key that the last step ended in are not all seen in this snapshot.
        let mut whole = !(valid && self.walk.is_at(cursor.key()));
        while valid {
            let key = cursor.key();
            if !self.walk.is_at(key) {
                pending.end_key(&mut step, whole, &mut self.left);
                whole = true;
            }
            if step.records >= records_max || step.batch.byte_size() >= STEP_BYTES {
                pending.end_run(&mut step);
                self.left += u64::from(pending.hiding.take().is_some());
                self.rest.start = Bytes::copy_from_slice(key);
                return Ok(step);
            }
            step.records += 1;
            match self.walk.fate(key, cursor.value()) {
                Fate::Stays => {
                    pending.end_run(&mut step);
                    step.young += u64::from(self.walk.is_young(key));
                }
                Fate::Goes(gone) => pending.take(&mut step, key, gone),
            }
            valid = cursor.next()?;
        }
        pending.end_key(&mut step, whole, &mut self.left);
        self.rest.start = self.rest.end.clone();
        Ok(step)
    }
}

/// What a step has yet to decide about.
#[derive(Default)]
struct Pending {
    /// Records in a row that go alone.
    run: Vec<Vec<u8>>,
    /// The record of the current key that hides those below, and its value.
    hiding: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Pending {
    fn take(&mut self, step: &mut SweepStep, key: &[u8], gone: Gone) {
        match gone {
            Gone { hides_older: true, value } => {
                self.end_run(step);
                assert!(self.hiding.is_none(), "a key has one newest change");
                self.hiding = Some((key.to_vec(), value));
            }
            Gone { value: Some(value), .. } => {
                self.end_run(step);
                step.delete(key, Some(&value));
            }
            Gone { value: None, .. } => self.run.push(key.to_vec()),
        }
    }

    fn end_run(&mut self, step: &mut SweepStep) {
        if let ([first, .., last], true) = (&self.run[..], self.run.len() >= RUN_MIN) {
            let mut behind = last.clone();
            behind.push(0);
            step.batch.delete_range(Cf::Write, first, &behind);
            step.gone += self.run.len() as u64;
        } else {
            self.run.iter().for_each(|key| step.delete(key, None));
        }
        self.run.clear();
    }

    /// All records of the key were seen, in this snapshot if `whole`.
    fn end_key(&mut self, step: &mut SweepStep, whole: bool, left: &mut u64) {
        self.end_run(step);
        match self.hiding.take() {
            Some((key, value)) if whole => step.delete(&key, value.as_deref()),
            Some(_) => *left += 1,
            None => {}
        }
    }
}

impl SweepStep {
    fn delete(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.batch.delete(Cf::Write, key);
        if let Some(value) = value {
            self.batch.delete(Cf::Default, value);
        }
        self.gone += 1;
    }
}
