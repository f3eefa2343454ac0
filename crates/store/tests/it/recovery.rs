//! What a start finds on the disk, and what an engine that fails leaves behind.

use pontoon_store as store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Machine, REGION, Slot, region_on};
use base::{Instant, KeyRange, RegionId};
use bytes::Bytes;
use prost::Message;
use storage::disk::Disk;
use storage::engine::{
    Cached, Cf, Engine, EngineError, EngineErrorKind, EngineProperties, GarbageRule, MemoryEngine,
    Snapshot, SstWriter, WriteBatch,
};
use storage::keys;
use store::{
    Applier, ApplyInput, ApplyOutbox, RecoverError, ShardConfig, ShardInput, SplitRequest,
};

fn founded() -> Machine {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    machine
}

fn record(machine: &Machine) -> proto::raft_serverpb::RegionLocalState {
    let data = machine.engine.get(Cf::Raft, &keys::region_state_key(REGION));
    proto::raft_serverpb::RegionLocalState::decode(data.expect("readable").expect("there"))
        .expect("sound")
}

/// Known to the protocol and not to this program, or known to nobody.
#[test]
fn a_record_of_an_unknown_state_is_refused_and_nothing_changes() {
    for unknown in [proto::raft_serverpb::PeerState::Unavailable as i32, 99] {
        let machine = founded();
        let mut state = record(&machine);
        state.state = unknown;
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raft, &keys::region_state_key(REGION), &state.encode_to_vec());
        machine.engine.write(&batch).expect("it works");
        let before = machine.engine.progress();
        let log = machine.open_log();
        let error = store::recover(&machine.engine, &log.reader(), machine.store_id);
        let error = error.expect_err("nobody knows what to do with it");
        assert!(matches!(error, RecoverError::State(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("state of region 2") && text.contains("unknown"), "{text}");
        assert_eq!(machine.engine.progress(), before);
        assert_eq!(record(&machine), state);
    }
}

/// Once the log is open all its entries may be unreadable: a start does not look at them.
#[test]
fn a_start_reads_states_and_no_entries() {
    let machine = founded();
    let mut node = machine.start(ShardConfig::default());
    node.settle(Instant(1));
    for i in 0..100u8 {
        node.put(&[i], &[i; 1000]);
        node.settle(Instant(2 + u64::from(i)));
    }
    drop(node);
    machine.kill();
    let log = machine.open_log();
    let reader = log.reader();
    for file in machine.disk.list(Path::new("log")).expect("a folder") {
        let path = Path::new("log").join(file);
        let size = machine.disk.contents(&path).expect("there").len() as u64;
        machine.disk.erase(&path, 0, size);
    }
    let last = reader.last_index(REGION);
    assert!(reader.entries(REGION, 7, last + 1, u64::MAX).is_err(), "nothing is left of them");
    let found = store::recover(&machine.engine, &reader, machine.store_id).expect("it starts");
    let [birth] = &found.births[..] else { panic!("{found:?}") };
    assert_eq!((birth.region.id, birth.apply.applied), (REGION, last));
}

/// An engine that takes no writes while it is told so.
struct Failing {
    engine: MemoryEngine,
    fails: AtomicBool,
}

impl Engine for Failing {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(cf, key)
    }

    fn get_if_cached(&self, cf: Cf, key: &[u8]) -> Result<Cached, EngineError> {
        self.engine.get_if_cached(cf, key)
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.engine.multi_get(cf, keys)
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.engine.snapshot()
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(EngineError {
                operation: "write",
                kind: EngineErrorKind::Full,
                path: PathBuf::from("engine"),
                cause: "no space left".to_owned(),
            }),
            false => self.engine.write(batch),
        }
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.engine.sync()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.engine.flush()
    }

    fn delete_files_in_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        self.engine.delete_files_in_range(cf, range)
    }

    fn compact_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        self.engine.compact_range(cf, range)
    }

    fn ingest(&self, cf: Cf, files: &[PathBuf]) -> Result<(), EngineError> {
        self.engine.ingest(cf, files)
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        self.engine.checkpoint(dir)
    }

    fn sst_writer(&self, cf: Cf, path: &Path) -> Result<Box<dyn SstWriter>, EngineError> {
        self.engine.sst_writer(cf, path)
    }

    fn garbage(&self) -> Arc<dyn GarbageRule> {
        self.engine.garbage()
    }

    fn approximate_size(&self, cf: Cf, range: &KeyRange) -> Result<u64, EngineError> {
        self.engine.approximate_size(cf, range)
    }

    fn properties(&self) -> EngineProperties {
        self.engine.properties()
    }
}

/// The disk is full when a split is applied: nobody is told of it or answered, the region on the
/// disk is what it was, the store says why it stops; with room, and started anew, it splits.
#[test]
fn a_split_that_cannot_be_written_has_not_happened() {
    let machine = founded();
    let mut node = machine.start(ShardConfig::default());
    node.settle(Instant(1));
    let view = node.view();
    let slot = Slot::default();
    let cuts = vec![crate::common::cut(&view.region, b"j", 20)];
    let request = SplitRequest { header: node.header(), cuts, reply: slot.reply() };
    node.inbox.push(ShardInput::Split(request));
    node.turn_shard(Instant(2));
    node.turn_log();
    node.turn_shard(Instant(3));
    assert_eq!(node.apply_inbox.len(), 1, "it is committed");

    let engine = MemoryEngine::clone(&machine.engine);
    let failing = Arc::new(Failing { engine, fails: AtomicBool::new(false) });
    let mut applier = Applier::new(failing.clone());
    let (region, peer) = (view.region.clone(), view.peer.id);
    let state = store::ApplyState {
        applied: view.applied,
        commit: (view.applied, view.term),
        truncated: (5, 5),
    };
    let (merge, absorbed) = (None, Arc::default());
    let create = ApplyInput::Create { region, state, term: view.term, peer, merge, absorbed };
    let mut out = ApplyOutbox::default();
    applier.turn(&mut vec![create], &mut out);
    failing.fails.store(true, Ordering::Relaxed);
    let before = record(&machine);
    applier.turn(&mut node.apply_inbox, &mut out);
    let fatal = out.fatal.expect("it cannot go on").to_string();
    assert!(fatal.contains("no space left"), "{fatal}");
    assert!(out.applied.is_empty() && out.replies.is_empty(), "nobody is told");
    drop((applier, out.replies));
    assert_eq!(record(&machine), before);

    drop(node);
    machine.kill();
    assert!(!slot.is_ok());
    let mut node = machine.start(ShardConfig::default());
    node.settle(Instant(1));
    assert_eq!(node.view().region.range, KeyRange::new("j", ""));
    let part = node.views.get(RegionId(20)).expect("the split is applied again");
    assert_eq!(part.region.range, KeyRange::new("", "j"));
}
