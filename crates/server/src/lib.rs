//! A node: threads, sockets, services, configuration. It assembles what the other crates decide and
//! decides nothing about data itself.
//!
//! ```text
//!   clients ── one port ──> listener ── gRPC ──> services ──> StoreHandle ──> runtime: the threads
//!                               │                    └──────> PlacementHost ──> Placement
//!                               │          placement_link: the same, wherever it runs
//!                               └────── HTTP ──> http: status, metrics, config, the paths of PD
//!   other stores ── the same port ──> services/raft ──> runtime ──> transport ──> other stores
//! ```
//!
//! Where to start: [`Node::open`], which is the page of start-up; then `runtime` for the threads
//! and `store_handle` for the way of a read and a write.

mod backoff;
mod clock;
pub mod config;
mod data_folder;
mod disk_watch;
mod errors;
mod founding;
mod gc;
mod http;
mod keyspace_borders;
mod latch_table;
mod listener;
mod metrics;
mod node;
mod placement_host;
mod placement_link;
mod reporter;
mod runtime;
mod safe_ts;
mod services;
mod splitter;
mod store_handle;
mod transport;

pub use config::{ApiVersionName, Config, ConfigError, Interval};
pub use data_folder::FolderError;
pub use node::{COMPATIBLE_VERSION, Node, StartError};
pub use placement_link::{JoinError, LinkError};
pub use services::Calls;
