//! One suite for every engine.
//!
//! The scripts in `testscripts/` run on both engines and must print the same; `mirror` runs random
//! operations on both and on a plain map; `crash` cuts and damages what is on disk. Scripts are
//! regenerated with `UPDATE_GOLDENFILES=1`.
//!
//! Verbs of the scripts. A place is a key of family `default`, or `family/key`.
//!
//! ```text
//!   write a=1 lock/b=2 c- d..f     one batch: puts, deletions, deletions of ranges, in their order
//!   get [at=snapshot] place...     the value of each
//!   scan [at=] [cf=] [from=] [to=] [reverse=true]
//!   walk [at=] [cf=] [from=] [to=] first last next prev seek=k before=k ...
//!   snapshot name | release name
//!   table file [cf=] k=v... | ingest file... [cf=]
//!   checkpoint name | switch name | sync | flush | restart
//!   drop-files from to [cf=] | size [cf=] [from=] [to=] | compact [cf=] [from=] [to=]
//! ```
//!
//! Garbage in family `write` are values that begin with `old`; those that begin with `hides` would
//! be if nothing were below them.

mod crash;
mod mirror;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::KeyRange;
use goldenscript::{Argument, ArgumentConsumer, Command, Context};
use tempfile::TempDir;

use super::*;

pub(super) use crash::copy_folder;

/// The two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rocks,
    Memory,
}

/// An engine and the folder it lives in.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) engine: Box<dyn Engine>,
    kind: Kind,
    memory: MemoryEngine,
    place: PathBuf,
}

impl Bench {
    pub(super) fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("engine");
        let memory = MemoryEngine::new().with_garbage(Arc::new(OldGoes));
        let engine: Box<dyn Engine> = match kind {
            Kind::Rocks => Box::new(rocks(&place)),
            Kind::Memory => Box::new(memory.clone()),
        };
        Self { dir, engine, kind, memory, place }
    }

    /// Stops the engine in order and opens it again. No snapshot may be open.
    pub(super) fn restart(&mut self) {
        match self.kind {
            Kind::Rocks => {
                self.engine = Box::new(MemoryEngine::new());
                self.engine = Box::new(rocks(&self.place));
            }
            Kind::Memory => {
                self.memory.kill();
                self.engine = Box::new(self.memory.clone());
            }
        }
    }

    /// Goes on with the checkpoint in `dir`.
    pub(super) fn switch(&mut self, dir: &Path) {
        self.place = dir.to_path_buf();
        match self.kind {
            Kind::Rocks => self.engine = Box::new(rocks(dir)),
            Kind::Memory => {
                let memory = MemoryEngine::open_checkpoint(dir).expect("a checkpoint");
                self.memory = memory.with_garbage(Arc::new(OldGoes));
                self.engine = Box::new(self.memory.clone());
            }
        }
    }
}

/// The rule of these tests.
#[derive(Debug)]
struct OldGoes;

impl GarbageRule for OldGoes {
    fn compaction(&self) -> Option<Box<dyn GarbageWalk>> {
        Some(Box::new(OldGoes))
    }

    fn horizon(&self) -> Bytes {
        Bytes::new()
    }

    fn beyond(&self, _: &[u8], _: &KeyRange) -> Option<Box<dyn GarbageWalk>> {
        self.compaction()
    }
}

impl GarbageWalk for OldGoes {
    fn next(&mut self, _: &[u8], value: &[u8]) -> Fate {
        let hides_older = value.starts_with(b"hides");
        match hides_older || value.starts_with(b"old") {
            true => Fate::Goes(Gone { hides_older, value: None }),
            false => Fate::Stays,
        }
    }
}

/// Small enough for tests that open many.
pub(super) fn rocks(dir: &Path) -> RocksEngine {
    let options = RocksOptions {
        write_buffer_bytes: 1 << 20,
        garbage: Arc::new(OldGoes),
        ..RocksOptions::default()
    };
    RocksEngine::open(dir, &options).expect("the folder can be opened")
}

struct Script {
    bench: Bench,
    snapshots: BTreeMap<String, Arc<dyn Snapshot>>,
}

type Output = Result<String, Box<dyn Error>>;

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Output {
        let args = &mut command.consume_args();
        let engine = &self.bench.engine;
        match command.name.as_str() {
            "write" => return self.write(args),
            "get" => return self.get(args),
            "scan" => return self.scan(args),
            "walk" => return self.walk(args),
            "snapshot" => {
                self.snapshots.insert(positional(args)?, engine.snapshot());
            }
            "release" => drop(self.snapshots.remove(&positional(args)?)),
            "table" => return self.table(args),
            "ingest" => {
                let cf = family(args)?;
                let files: Vec<_> = std::iter::from_fn(|| args.next_pos())
                    .map(|name| self.bench.dir.path().join(name))
                    .collect();
                engine.ingest(cf, &files).map_err(|error| format!("{:?}", error.kind))?;
            }
            "sync" => engine.sync()?,
            "flush" => engine.flush()?,
            "restart" => {
                self.snapshots.clear();
                self.bench.restart();
            }
            "checkpoint" => {
                let dir = self.bench.dir.path().join(positional(args)?);
                engine.checkpoint(&dir).map_err(|error| format!("{:?}", error.kind))?;
            }
            "switch" => {
                self.snapshots.clear();
                let dir = self.bench.dir.path().join(positional(args)?);
                self.bench.switch(&dir);
            }
            "drop-files" => {
                let (start, end) = (positional(args)?, positional(args)?);
                engine.delete_files_in_range(family(args)?, &KeyRange::new(start, end))?;
            }
            "compact" => engine.compact_range(family(args)?, &range(args))?,
            "size" => {
                let size = engine.approximate_size(family(args)?, &range(args))?;
                return Ok(if size == 0 { "nothing" } else { "something" }.to_string());
            }
            name => return Err(format!("no command {name}").into()),
        }
        args.reject_next()?;
        Ok(String::new())
    }
}

impl Script {
    fn write(&mut self, args: &mut ArgumentConsumer<'_>) -> Output {
        let mut batch = WriteBatch::new();
        for arg in args {
            match arg {
                Argument::KeyValue(name, value) => {
                    let (cf, key) = place(name)?;
                    batch.put(cf, key.as_bytes(), value.as_bytes());
                }
                Argument::Positional(name) if name.ends_with('-') => {
                    let (cf, key) = place(name.trim_end_matches('-'))?;
                    batch.delete(cf, key.as_bytes());
                }
                Argument::Positional(name) => {
                    let (cf, keys) = place(name)?;
                    let (start, end) = keys.split_once("..").ok_or("not a range")?;
                    batch.delete_range(cf, start.as_bytes(), end.as_bytes());
                }
                _ => return Err("no such argument".into()),
            }
        }
        self.bench.engine.write(&batch)?;
        Ok(String::new())
    }

    fn get(&mut self, args: &mut ArgumentConsumer<'_>) -> Output {
        let snapshot = args.take_key("at").map(|name| &self.snapshots[name]);
        let mut out = String::new();
        while let Some(name) = args.next_pos() {
            let (cf, key) = place(name)?;
            let key = key.as_bytes();
            let (one, many) = match snapshot {
                Some(snapshot) => (snapshot.get(cf, key)?, snapshot.multi_get(cf, &[key])?),
                None => {
                    let engine = &self.bench.engine;
                    (engine.get(cf, key)?, engine.multi_get(cf, &[key])?)
                }
            };
            assert_eq!(many, std::slice::from_ref(&one));
            writeln!(out, "{name} = {}", one.map_or("none".into(), |value| text(&value)))?;
        }
        Ok(out)
    }

    fn scan(&mut self, args: &mut ArgumentConsumer<'_>) -> Output {
        let snapshot = self.snapshot_of(args);
        let (cf, options) = (family(args)?, IterOptions::within(range(args)));
        let reverse = args.take_key("reverse") == Some("true");
        let mut cursor = snapshot.iter(cf, options)?;
        let mut pairs = Vec::new();
        let mut valid = if reverse { cursor.seek_to_last()? } else { cursor.seek_to_first()? };
        while valid {
            pairs.push(format!("{}={}", text(cursor.key()), text(cursor.value())));
            valid = if reverse { cursor.prev()? } else { cursor.next()? };
        }
        Ok(if pairs.is_empty() { "nothing".to_string() } else { pairs.join(" ") })
    }

    fn walk(&mut self, args: &mut ArgumentConsumer<'_>) -> Output {
        let snapshot = self.snapshot_of(args);
        let (cf, options) = (family(args)?, IterOptions::within(range(args)));
        let mut cursor = snapshot.iter(cf, options)?;
        assert!(!cursor.valid(), "a new cursor stands nowhere");
        let mut out = String::new();
        for step in args {
            let valid = match step {
                Argument::KeyValue(name, key) if name == "seek" => cursor.seek(key.as_bytes())?,
                Argument::KeyValue(name, key) if name == "before" => {
                    cursor.seek_for_prev(key.as_bytes())?
                }
                Argument::Positional(name) if name == "first" => cursor.seek_to_first()?,
                Argument::Positional(name) if name == "last" => cursor.seek_to_last()?,
                Argument::Positional(name) if name == "next" => cursor.next()?,
                Argument::Positional(name) if name == "prev" => cursor.prev()?,
                _ => return Err(format!("no step {step}").into()),
            };
            assert_eq!(cursor.valid(), valid);
            let at = match valid {
                true => format!("{}={}", text(cursor.key()), text(cursor.value())),
                false => "nowhere".to_string(),
            };
            writeln!(out, "{step} -> {at}")?;
        }
        Ok(out)
    }

    fn table(&mut self, args: &mut ArgumentConsumer<'_>) -> Output {
        let (cf, name) = (family(args)?, positional(args)?);
        let path = self.bench.dir.path().join(name);
        let kind = |error: EngineError| format!("{:?}", error.kind);
        let mut table = self.bench.engine.sst_writer(cf, &path).map_err(kind)?;
        while let Some((key, value)) = args.next_key() {
            table.put(key.as_bytes(), value.as_bytes()).map_err(kind)?;
        }
        let size = table.finish().map_err(kind)?;
        assert_eq!(size, std::fs::metadata(path)?.len(), "the size that was told");
        Ok(String::new())
    }

    fn snapshot_of(&self, args: &mut ArgumentConsumer<'_>) -> Arc<dyn Snapshot> {
        match args.take_key("at") {
            Some(name) => self.snapshots[name].clone(),
            None => self.bench.engine.snapshot(),
        }
    }
}

fn positional(args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
    Ok(args.next_pos().ok_or("an argument is missing")?.to_string())
}

fn family(args: &mut ArgumentConsumer<'_>) -> Result<Cf, Box<dyn Error>> {
    let name = args.take_key("cf").unwrap_or("default");
    Ok(Cf::from_name(name).ok_or("no such family")?)
}

fn range(args: &mut ArgumentConsumer<'_>) -> KeyRange {
    let mut bound = |name| args.take_key(name).unwrap_or_default().to_string();
    KeyRange::new(bound("from"), bound("to"))
}

fn place(name: &str) -> Result<(Cf, &str), Box<dyn Error>> {
    match name.split_once('/') {
        Some((cf, key)) => Ok((Cf::from_name(cf).ok_or("no such family")?, key)),
        None => Ok((Cf::Default, name)),
    }
}

fn text(bytes: &[u8]) -> String {
    if bytes.is_empty() { "''".to_string() } else { bytes.escape_ascii().to_string() }
}

fn run_scripts(kind: Kind) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/testscripts");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the scripts") {
        let mut script = Script { bench: Bench::new(kind), snapshots: BTreeMap::new() };
        let path = entry.expect("an entry").path();
        goldenscript::run(&mut script, &path)
            .unwrap_or_else(|error| panic!("{kind:?} {}: {error}", path.display()));
        count += 1;
    }
    assert!(count >= 5, "only {count} scripts were found");
}

#[test]
fn scripts_on_rocksdb() {
    run_scripts(Kind::Rocks);
}

#[test]
fn scripts_in_memory() {
    run_scripts(Kind::Memory);
}

#[test]
fn families_have_their_names_and_numbers() {
    let names = Cf::ALL.map(Cf::name);
    assert_eq!(names, ["default", "lock", "write", "raft"]);
    for (id, cf) in Cf::ALL.into_iter().enumerate() {
        assert_eq!((cf.id(), Cf::from_id(cf.id())), (id as u32, Some(cf)));
        assert_eq!(Cf::from_name(cf.name()), Some(cf));
    }
    assert_eq!((Cf::from_name(""), Cf::from_name("Lock"), Cf::from_id(4)), (None, None, None));
}

#[test]
fn properties_follow_what_is_written() {
    for kind in [Kind::Rocks, Kind::Memory] {
        let bench = Bench::new(kind);
        let before = bench.engine.properties();
        let mut batch = WriteBatch::new();
        for number in 0..1000u32 {
            batch.put(Cf::Write, &number.to_be_bytes(), &[1; 100]);
        }
        bench.engine.write(&batch).expect("write");
        let snapshot = bench.engine.snapshot();
        let after = bench.engine.properties();
        assert!(after.memtable_bytes >= before.memtable_bytes + 100_000, "{kind:?} {after:?}");
        assert_eq!((after.keys, after.snapshots), (1000, 1), "{kind:?}");
        bench.engine.flush().expect("flush");
        drop(snapshot);
        let flushed = bench.engine.properties();
        assert_eq!(flushed.snapshots, 0);
        if kind == Kind::Rocks {
            assert_eq!((flushed.files, flushed.level0_files), (1, 1));
            assert!(flushed.file_bytes > 10_000 && !flushed.write_stopped);
        }
    }
}

#[test]
fn a_read_of_the_cache_alone_never_guesses() {
    let mut bench = Bench::new(Kind::Rocks);
    let mut batch = WriteBatch::new();
    for number in 0..1000u32 {
        batch.put(Cf::Default, &number.to_be_bytes(), &[2; 1000]);
    }
    bench.engine.write(&batch).expect("write");
    let key = 500u32.to_be_bytes();
    let value = Some(Bytes::from(vec![2; 1000]));
    let cached = |bench: &Bench| bench.engine.get_if_cached(Cf::Default, &key).expect("get");
    assert_eq!(cached(&bench), Cached::Known(value.clone()));
    bench.engine.flush().expect("flush");
    bench.restart();
    assert_eq!(cached(&bench), Cached::Unknown);
    assert_eq!(bench.engine.get(Cf::Default, &key).expect("get"), value);
    assert_eq!(cached(&bench), Cached::Known(value));
}
