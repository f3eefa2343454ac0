//! What a scheduler does around an action, in the shortest form: latches, the concurrency manager,
//! a snapshot, the action, and later its writes. An engine in memory is the region's data.

use std::sync::Arc;

use base::{KeyRange, Region, RegionId, TimeStamp};
use pontoon_txn as txn;
use storage::engine::{Engine, MemoryEngine, Snapshot, WriteBatch};
use storage::keys;
use txn::actions::{Changes, Outcome};
use txn::concurrency::{Concurrency, PessimisticLocks};
use txn::latches::{Acquired, CommandId, Latches};
use txn::mvcc::{Key, Reader};
use txn::{Mutation, TxnError};

/// One region on its leader.
pub struct Node {
    pub engine: MemoryEngine,
    pub region: Region,
    pub concurrency: Concurrency,
    /// Pessimistic locks in memory; used if `in_memory`.
    pub memory: PessimisticLocks,
    pub in_memory: bool,
    latches: Latches,
    next: CommandId,
}

/// An action that ran and whose writes are on their way.
pub struct Pending {
    id: CommandId,
    pub changes: Changes,
}

/// The term and the version that everything runs under.
const TERM: u64 = 6;

impl Default for Node {
    fn default() -> Self {
        let mut memory = PessimisticLocks::new(1 << 20);
        memory.open(TERM, 1);
        let mut concurrency = Concurrency::new();
        let region = region(KeyRange::all());
        let ticket = concurrency.begin_sync(region.id);
        assert!(concurrency.finish_sync(region.id, ticket, TimeStamp(0)));
        Self {
            engine: MemoryEngine::new(),
            region,
            concurrency,
            memory,
            in_memory: false,
            latches: Latches::new(),
            next: 0,
        }
    }
}

pub fn region(range: KeyRange) -> Region {
    let (epoch, peers) = (base::INIT_EPOCH, Vec::new());
    Region { id: RegionId(2), range, epoch, peers, flashback: None }
}

/// Why an action did not run.
#[derive(Debug)]
pub enum NotRun {
    /// One of its keys is latched by an action that is not applied yet.
    Latched,
    /// It read at a timestamp that nobody can have.
    MaxTs(String),
    /// It ran and failed.
    Failed(TxnError),
}

impl Node {
    /// A snapshot as of now.
    pub fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.engine.snapshot()
    }

    /// Runs something that only reads, seeing all pessimistic locks in memory.
    pub fn read<R>(&self, read: impl FnOnce(&mut Reader<'_>) -> R) -> R {
        let (snapshot, memory) = (self.snapshot(), self.memory.all());
        read(&mut Reader::new(&*snapshot, &self.region).with_memory_locks(&memory))
    }

    /// Runs an action up to its proposal.
    pub fn run<R>(
        &mut self,
        latch_keys: &[Key],
        reads_at: Option<TimeStamp>,
        action: impl FnOnce(&mut Reader<'_>, &mut Concurrency) -> Result<Outcome<R>, TxnError>,
    ) -> Result<(R, Pending), NotRun> {
        let id = self.next;
        self.next += 1;
        let names = latch_keys.iter().map(Key::region_slice);
        if self.latches.acquire(id, names) == Acquired::Waiting {
            let _ = self.latches.release(id);
            return Err(NotRun::Latched);
        }
        let result = self.run_latched(latch_keys, reads_at, action);
        match result {
            Ok(Outcome { reply, mut changes }) => {
                self.hold_pessimistic(&mut changes);
                check_latched(&changes, latch_keys);
                self.memory.mark(&changes.lock_keys);
                Ok((reply, Pending { id, changes }))
            }
            Err(error) => {
                assert!(self.latches.release(id).is_empty(), "nobody waits in line here");
                Err(error)
            }
        }
    }

    fn run_latched<R>(
        &mut self,
        latch_keys: &[Key],
        reads_at: Option<TimeStamp>,
        action: impl FnOnce(&mut Reader<'_>, &mut Concurrency) -> Result<Outcome<R>, TxnError>,
    ) -> Result<Outcome<R>, NotRun> {
        if let Some(ts) = reads_at {
            let raised = self.concurrency.raise_max_ts(ts);
            raised.map_err(|error| NotRun::MaxTs(error.to_string()))?;
        }
        let memory = self.memory.of_keys(latch_keys);
        let snapshot = self.snapshot();
        let mut reader = Reader::new(&*snapshot, &self.region).with_memory_locks(&memory);
        action(&mut reader, &mut self.concurrency).map_err(NotRun::Failed)
    }

    fn hold_pessimistic(&mut self, changes: &mut Changes) {
        if !self.in_memory || !changes.writes.is_empty() {
            return changes.persist();
        }
        if self.memory.insert(TERM, 1, &changes.pessimistic).is_err() {
            return changes.persist();
        }
        changes.pessimistic.clear();
    }

    /// The writes of an action are applied.
    pub fn apply(&mut self, pending: Pending) -> Changes {
        let Pending { id, changes } = pending;
        self.write(&changes.writes);
        self.memory.remove(&changes.lock_keys);
        self.end(id, &changes);
        changes
    }

    /// The writes of an action will never be applied.
    pub fn abandon(&mut self, pending: Pending) {
        let Pending { id, changes } = pending;
        self.memory.unmark(&changes.lock_keys);
        self.end(id, &changes);
    }

    fn end(&mut self, id: CommandId, changes: &Changes) {
        self.concurrency.withdraw(&changes.published);
        assert!(self.latches.release(id).is_empty(), "nobody waits in line here");
    }

    /// Writes to the engine as the applier does.
    pub fn write(&mut self, writes: &[Mutation]) {
        let mut batch = WriteBatch::new();
        for write in writes {
            assert_eq!(write.key_outside(&self.region.range), None, "outside the region");
            match write {
                Mutation::Put { cf, key, value } => {
                    batch.put(*cf, &keys::region_data_key(self.region.id, key), value);
                }
                Mutation::Delete { cf, key } => {
                    batch.delete(*cf, &keys::region_data_key(self.region.id, key));
                }
                Mutation::DeleteRange { cf, start, end } => {
                    let (start, end) = keys::data_bounds(self.region.id, start, end);
                    batch.delete_range(*cf, &start, &end);
                }
            }
        }
        self.engine.write(&batch).expect("memory does not fail");
    }

    /// The leader crashes and comes back: memory is lost, `max_ts` is synced to `ts`.
    pub fn restart(&mut self, ts: TimeStamp) {
        self.memory.clear();
        self.memory.open(TERM, 1);
        self.latches = Latches::new();
        self.concurrency = Concurrency::new();
        let ticket = self.concurrency.begin_sync(self.region.id);
        assert!(self.concurrency.finish_sync(self.region.id, ticket, ts));
    }
}

/// Every key that is written was latched.
fn check_latched(changes: &Changes, latch_keys: &[Key]) {
    for write in &changes.writes {
        let (Mutation::Put { key, .. } | Mutation::Delete { key, .. }) = write else { continue };
        let latched = |latched: &Key| {
            let name = latched.region_slice();
            key.starts_with(name) && matches!(key.len() - name.len(), 0 | 8)
        };
        assert!(latch_keys.iter().any(latched), "{write:?} without a latch");
    }
}
