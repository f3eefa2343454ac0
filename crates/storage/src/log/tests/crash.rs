//! Random work, then the power goes or the process dies: what comes back is the log as it was after
//! one of its writes, and not before the last sync.

use std::io;

use super::*;

/// The log, what it must hold after each write since it was opened, and how many of those are
/// durable.
struct Run {
    prng: Prng,
    disk: MemoryDisk,
    options: LogOptions,
    log: RaftLog,
    history: Vec<Model>,
    durable: usize,
    /// What the log holds if one of the writes that failed since the last good one is there all
    /// the same.
    perhaps: Vec<Model>,
    seed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let options = LogOptions {
            segment_bytes: 4096 << prng.below(3),
            spare_segments_max: prng.below(3) as usize,
            rewrite_bytes_max: 1 + prng.below(4000),
            salt: seed,
        };
        let disk = MemoryDisk::new();
        let log = open(&disk, options).unwrap();
        let history = vec![Model::default()];
        Run { prng, disk, options, log, history, durable: 0, perhaps: Vec::new(), seed }
    }

    fn now(&self) -> &Model {
        self.history.last().unwrap()
    }

    fn write(&mut self) {
        let mut model = self.now().clone();
        let changes = model.random_changes(&mut self.prng);
        model.apply(&changes);
        match self.log.write(&batch(&changes)) {
            Ok(()) => {
                self.history.push(model);
                self.perhaps.clear();
            }
            Err(LogError::Full { .. }) => self.perhaps.push(model),
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn step(&mut self) {
        match self.prng.below(40) {
            0..=24 => self.write(),
            25..=31 => {
                self.log.sync().unwrap();
                self.durable = self.history.len() - 1;
            }
            32 | 33 => match self.log.purge() {
                Ok(_) | Err(LogError::Full { .. }) => {}
                Err(error) => panic!("seed {}: {error}", self.seed),
            },
            34 => match self.log.vouch() {
                Ok(()) | Err(LogError::Full { .. }) => {}
                Err(error) => panic!("seed {}: {error}", self.seed),
            },
            35 => match self.log.preparer().prepare() {
                Ok(()) | Err(LogError::Full { .. }) => {}
                Err(error) => panic!("seed {}: {error}", self.seed),
            },
            36 => self.disk.fail_next_write(self.prng.below(2000), io::ErrorKind::StorageFull),
            37 => {
                let room = self.prng.below(9000);
                self.disk.set_capacity(Some(self.disk.used() + room));
            }
            38 => self.disk.set_capacity(None),
            _ => assert_eq!(Model::of(&self.log.reader()), *self.now(), "seed {}", self.seed),
        }
    }

    fn crash(&mut self) {
        self.disk.set_capacity(None);
        match self.prng.below(3) {
            0 => {
                self.disk.kill();
                self.durable = self.history.len() - 1;
            }
            _ => self.disk.power_loss(&mut self.prng),
        }
        self.disk.fail_next_write(u64::MAX, io::ErrorKind::StorageFull);
        // The injected failure may hit recovery itself; then it is tried again, as an operator
        // would.
        let opened = open(&self.disk, self.options).or_else(|error| match error {
            LogError::Full { .. } => open(&self.disk, self.options),
            error => Err(error),
        });
        self.log = opened.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        let found = Model::of(&self.log.reader());
        let allowed = self.history[self.durable..].iter().chain(&self.perhaps);
        assert!(
            allowed.into_iter().any(|model| *model == found),
            "seed {}: {} of {} writes were durable; found {:?}",
            self.seed,
            self.durable,
            self.history.len() - 1,
            self.history.iter().position(|model| *model == found),
        );
        self.history = vec![found];
        self.durable = 0;
        self.perhaps.clear();
    }
}

#[test]
fn what_comes_back_is_a_prefix_with_all_that_was_synced() {
    for seed in 0..1_500 {
        let mut run = Run::new(seed);
        for _ in 0..4 {
            for _ in 0..run.prng.below(120) {
                run.step();
            }
            run.crash();
        }
    }
}

/// A second crash while the first one is being recovered from, and again.
#[test]
fn crashes_in_a_row_lose_nothing_more() {
    for seed in 0..300 {
        let mut run = Run::new(10_000 + seed);
        for _ in 0..60 {
            run.step();
        }
        run.crash();
        let found = run.now().clone();
        for _ in 0..3 {
            run.disk.power_loss(&mut run.prng);
            run.log = open(&run.disk, run.options).unwrap();
            assert_eq!(Model::of(&run.log.reader()), found, "seed {seed}");
        }
    }
}
