//! The placement driver: who is in the cluster, which region holds which keys, ids, timestamps.
//!
//! Whoever leads the system region *is* the placement driver. [`Placement`] is what that node holds
//! in memory: a state machine over rows, and the rows are key/value pairs of the system region's
//! data. It never reads a clock, a disk or a socket. The host (crate `server`) loads it when its
//! node becomes the leader, drops it when leadership is lost, and runs writes one at a time:
//!
//! ```text
//!    request ── plan(&Placement) ──> Change { rows, reply }        nothing has happened yet
//!                                      │
//!                    propose rows to the system region, wait until applied
//!                                      │               leadership lost? drop it: "not leader"
//!               commit(&rows) <────────┘
//!               reply leaves
//!
//!    reads, heartbeats, timestamps ──> answered from memory, on the spot
//! ```
//!
//! Invariants:
//! 1. Rows are the truth. Memory is what [`Placement::load`] makes of them, plus what nodes report
//!    anyway again (heartbeats). [`Placement::commit`] and `load` share the code that reads a row.
//! 2. A plan sees committed memory, because plans run one at a time and each is committed before
//!    the next begins. So two requests never get the same id.
//! 3. An id or timestamp leaves only after the row that rules out its reuse is applied.
//! 4. No two regions of the map overlap, and a region's epoch never goes back.
//!
//! The messages are those of PD's protocol, since they are what comes in and goes out; each call
//! here checks, in this order, the cluster id, that the cluster is bootstrapped, and its own rules.
//!
//! Where to start: [`Placement`], then `bootstrap` for the life of a cluster, `region_map` for the
//! map, `tso` for timestamps, `replicas` and `operators` for what keeps regions on enough stores.
//! The tests in `tests/rules` state every rule once.

mod bootstrap;
mod checkers;
mod cluster;
mod error;
pub mod etcd;
mod external_timestamp;
mod gc_barrier;
mod gc_safe_point;
mod gc_state;
mod global_config;
mod goals;
pub mod header;
mod heartbeat;
mod ids;
mod keyspace;
mod lookup;
mod manual;
mod members;
mod operators;
mod order;
mod placement;
mod region_map;
mod replicas;
mod rows;
mod scan;
mod scatter;
mod split;
mod store_admission;
mod store_removal;
mod tso;

pub use checkers::Checker;
pub use cluster::{Liveness, StoreInfo};
pub use error::PlacementError;
pub use goals::Goal;
pub use keyspace::{DEFAULT_KEYSPACE_ID, DEFAULT_KEYSPACE_NAME, KEYSPACE_ID_MAX};
pub use manual::{Record, RecordStatus};
pub use members::{Member, Members, cluster_info};
pub use operators::Settings;
pub use order::{Order, Step};
pub use placement::Placement;
pub use region_map::{Flow, RegionInfo, RegionMap, StoreLoad};
pub use rows::{Change, RowChanges, STORE_ROWS, known_stores};
pub use split::Borders;
pub use store_admission::{API_VERSION_LABEL, api_version};
pub use tso::{BATCH_MAX, TsoWait, WINDOW_MS};
