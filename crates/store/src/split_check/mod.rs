//! When and where a region is cut.
//!
//! ```text
//!   applied: it grew ────────┐
//!   reads, writes: it is hot ┼─> Checks ── Job::CheckSplit ──> pool thread: measure, find keys
//!   it is new, it changed ───┘     ^                                │
//!                                  └──── ShardInput::SplitChecked <─┘
//!                                          │ keys
//!   ShardInput::Split <── ids from placement <── Report::WantsSplit
//! ```
//!
//! A leader counts what is written to its region. Once that is a sixteenth of the size at which
//! regions are cut, or if nobody has measured the region yet, it has a job look. The job asks the
//! engine about how much there is, and reads the keys only if the bounds are so low that an
//! estimate says nothing ([`estimate`]), or to find out how large keys are. If there is too much it
//! names the keys at which pieces of the wanted size begin.
//!
//! A region that is read and written much, by the second, is cut where its requests fall into
//! halves ([`load`]), however small it is.
//!
//! Rows of transactions lie in three families, as one encoded user key with a timestamp behind it.
//! All families are read in one order, and a region is never cut between versions of one user key
//! ([`rows`]).
//!
//! Nothing here decides that a region *is* cut: the leader asks, and if the region has changed by
//! then, the request is refused and the next look finds out what is left to do.

mod checks;
pub mod estimate;
pub mod load;
pub mod rows;
mod scan;

use std::sync::Arc;
use std::time::Duration;

use base::{Region, RegionId};
use bytes::Bytes;
use storage::engine::{Engine, EngineError};

pub(crate) use checks::{Checks, Growth};
pub use load::{LoadLimits, Traffic};

/// Below these bounds an estimate says nothing: every key is read, as there are few.
const EXACT_BYTES_MAX: u64 = 8 << 20;
const EXACT_KEYS_MAX: u64 = 100_000;

/// A leader looks again when its region grew by one part in so many of what a piece holds.
const GROWTH_PARTS: u64 = 16;

/// When regions are cut. TiKV's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitConfig {
    /// Time between two looks at the same region. Default 10 s.
    pub interval: Duration,
    /// A region of so many bytes is cut. Default 384 MiB.
    pub max_bytes: u64,
    /// ... into pieces of so many. At most `max_bytes`. Default 256 MiB.
    pub piece_bytes: u64,
    /// A region of so many keys is cut; versions of a key count as one. Default 3,840,000.
    pub max_keys: u64,
    /// ... into pieces of so many. At most `max_keys`. Default 2,560,000.
    pub piece_keys: u64,
    /// Keys at which a region is cut at once, at most. At least 1. Default 10.
    pub batch: usize,
    /// When a region counts as hot. None: never.
    pub load: Option<LoadLimits>,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            max_bytes: 384 << 20,
            piece_bytes: 256 << 20,
            max_keys: 3_840_000,
            piece_keys: 2_560_000,
            batch: 10,
            load: Some(LoadLimits::default()),
        }
    }
}

impl SplitConfig {
    /// Whether so few bytes or keys are too many that they are better counted than estimated.
    fn is_exact(&self) -> bool {
        self.max_bytes <= EXACT_BYTES_MAX || self.max_keys <= EXACT_KEYS_MAX
    }

    /// Whether a region that grew by so much should be looked at.
    fn is_growth(&self, bytes: u64, keys: u64) -> bool {
        bytes >= (self.piece_bytes / GROWTH_PARTS).max(1)
            || keys >= (self.piece_keys / GROWTH_PARTS).max(1)
    }

    fn check(&self) {
        assert!(self.batch > 0, "a split has a key");
        assert!(self.piece_bytes > 0 && self.piece_bytes <= self.max_bytes, "pieces of bytes");
        assert!(self.piece_keys > 0 && self.piece_keys <= self.max_keys, "pieces of keys");
    }
}

/// How much a region holds, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Bytes of keys and values of all families.
    pub bytes: u64,
    /// User keys; versions of one count once.
    pub keys: u64,
}

/// What a look at a region has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How much it holds. If it is to be cut, perhaps only what was looked at.
    pub measure: Measure,
    /// Where to cut it: inside, ascending, between user keys. Empty: it is small enough.
    pub keys: Vec<Bytes>,
}

/// A look at a region: how large it is, and where to cut it if it is too large.
#[derive(Clone, Debug)]
pub struct CheckSplit {
    /// The region.
    pub region: Arc<Region>,
    /// When it is too large.
    pub config: Arc<SplitConfig>,
}

impl CheckSplit {
    /// Looks. May read the region's data from end to end.
    pub fn run(&self, engine: &dyn Engine) -> Result<Found, EngineError> {
        self.config.check();
        let (region, config) = (&*self.region, &*self.config);
        let found = match config.is_exact() {
            true => scan::look(engine, region, config)?,
            false => estimate::look(engine, region, config)?,
        };
        let inside = |key: &Bytes| region.range.contains(key) && *key != region.range.start;
        assert!(found.keys.iter().all(inside), "region {}: a key outside", region.id);
        assert!(found.keys.is_sorted_by(|a, b| a < b), "region {}: keys in order", region.id);
        assert!(found.keys.len() <= config.batch, "region {}: too many keys", region.id);
        Ok(found)
    }
}

/// A region that should be cut. Whoever gets this asks placement for ids and the store for the
/// split, and need not say if it comes to nothing: the region is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitWanted {
    /// The region as it was looked at.
    pub region: Arc<Region>,
    /// The replica here, which leads.
    pub peer: base::Peer,
    /// Where: inside, ascending.
    pub keys: Vec<Bytes>,
    /// Why.
    pub reason: SplitReason,
}

/// Why a region should be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitReason {
    /// It holds too much.
    Size,
    /// It is asked too much.
    Load,
}

/// The answer to a [`CheckSplit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitChecked {
    /// The region.
    pub region_id: RegionId,
    /// The version of the region's epoch that was looked at.
    pub version: u64,
    /// What was found; `None` if the engine could not be read.
    pub found: Option<Found>,
}

/// The user key of `region` with about as much below it as above; none if it holds one at most.
pub fn half(engine: &dyn Engine, region: &Region) -> Result<Option<Bytes>, EngineError> {
    let bytes = estimate::size(engine, region, &region.range)?;
    let whole = SplitConfig { max_keys: u64::MAX, piece_keys: u64::MAX, ..SplitConfig::default() };
    let halves = |bytes: u64| {
        let max_bytes = bytes.max(1);
        let piece_bytes = (max_bytes / 2).max(1);
        SplitConfig { max_bytes, piece_bytes, batch: 1, ..whole.clone() }
    };
    let found = if bytes > EXACT_BYTES_MAX {
        estimate::look(engine, region, &halves(bytes))?
    } else {
        let all =
            scan::look(engine, region, &SplitConfig { max_bytes: u64::MAX, ..whole.clone() })?;
        scan::look(engine, region, &halves(all.measure.bytes))?
    };
    Ok(found.keys.into_iter().next())
}
