//! A log in memory, for tests of this crate and of those that use it.

use std::sync::{Arc, Mutex, MutexGuard};

use base::{Entry, Index, PeerId, Term};

use crate::message::LogPos;
use crate::quorum::ConfState;
use crate::ready::{HardState, Persist};
use crate::snapshot::Snapshot;
use crate::storage::{InitialState, Storage, StorageError};

/// A handle to a log in memory; clones share it, so that a test keeps one and gives the node
/// another. What was written is there at once and outlives the node: to test a crash, write late.
#[derive(Clone, Debug)]
pub struct MemoryStorage {
    shared: Arc<Mutex<Stored>>,
}

#[derive(Debug)]
struct Stored {
    hard_state: HardState,
    conf: ConfState,
    /// The last compacted entry.
    truncated: LogPos,
    entries: Vec<Entry>,
}

impl MemoryStorage {
    /// An empty log of a group of `voters` that begins after index 0.
    pub fn new(voters: impl IntoIterator<Item = PeerId>) -> Self {
        Self::starting_at(LogPos::default(), voters)
    }

    /// A log that begins after `truncated`, where everything is committed: as that of a region
    /// which was just born.
    pub fn starting_at(truncated: LogPos, voters: impl IntoIterator<Item = PeerId>) -> Self {
        let hard_state =
            HardState { term: truncated.term, vote: PeerId::NONE, commit: truncated.index };
        let conf = ConfState::of_voters(voters);
        let stored = Stored { hard_state, conf, truncated, entries: Vec::new() };
        Self { shared: Arc::new(Mutex::new(stored)) }
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.shared.lock().expect("nothing panics while it holds the lock")
    }

    /// Does the write. The state machine in a snapshot is the caller's business.
    pub fn write(&self, persist: &Persist) {
        if let Some(snapshot) = &persist.snapshot {
            self.install(snapshot);
        }
        if let Some(state) = persist.hard_state {
            self.set_hard_state(state);
        }
        self.append(&persist.entries);
    }

    /// Replaces the hard state.
    pub fn set_hard_state(&self, state: HardState) {
        self.lock().hard_state = state;
    }

    /// Replaces the members, who must be those as of the applied index.
    pub fn set_conf(&self, conf: ConfState) {
        self.lock().conf = conf;
    }

    /// The members.
    pub fn conf(&self) -> ConfState {
        self.lock().conf.clone()
    }

    /// The hard state.
    pub fn hard_state(&self) -> HardState {
        self.lock().hard_state
    }

    /// Appends consecutive entries, the first of which may replace what was there. Panics if they
    /// leave a gap.
    pub fn append(&self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let mut stored = self.lock();
        let kept = first.index.checked_sub(stored.truncated.index + 1).expect("not compacted");
        assert!(kept as usize <= stored.entries.len(), "a gap before entry {}", first.index);
        stored.entries.truncate(kept as usize);
        stored.entries.extend_from_slice(entries);
    }

    /// The log begins anew after a snapshot.
    pub fn install(&self, snapshot: &Snapshot) {
        let mut stored = self.lock();
        assert!(snapshot.pos.index >= stored.truncated.index, "the log goes back");
        stored.truncated = snapshot.pos;
        stored.entries.clear();
        stored.conf = snapshot.conf.clone();
    }

    /// Drops the entries up to and with `index`, which must be there.
    pub fn compact(&self, index: Index) {
        let mut stored = self.lock();
        let count = (index - stored.truncated.index) as usize;
        let entry = stored.entries.drain(..count).next_back().expect("compacts something");
        stored.truncated = LogPos { index, term: entry.term };
    }

    /// All entries.
    pub fn all_entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }
}

impl Stored {
    fn last_index(&self) -> Index {
        self.truncated.index + self.entries.len() as Index
    }
}

impl Storage for MemoryStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let stored = self.lock();
        Ok(InitialState { hard_state: stored.hard_state, conf: stored.conf.clone() })
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.lock().truncated.index + 1)
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.lock().last_index())
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        let stored = self.lock();
        match index.checked_sub(stored.truncated.index) {
            None => Err(StorageError::Compacted),
            Some(0) => Ok(stored.truncated.term),
            Some(n) => stored
                .entries
                .get(n as usize - 1)
                .map(|entry| entry.term)
                .ok_or(StorageError::Unavailable),
        }
    }

    fn entries(
        &self,
        low: Index,
        high: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let stored = self.lock();
        let from = low.checked_sub(stored.truncated.index + 1).ok_or(StorageError::Compacted)?;
        if high > stored.last_index() + 1 || low > high {
            return Err(StorageError::Unavailable);
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in &stored.entries[from as usize..(from + high - low) as usize] {
            bytes += entry.data.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}
