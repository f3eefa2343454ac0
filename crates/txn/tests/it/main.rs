//! Tests of the transactional actions through the crate's public interface.
//!
//! `golden` plays the scripts in `testscripts/`; `model` lets simulated clients with lossy, slow
//! and repeating lines run random transactions and compares with what snapshot isolation allows.
//! `versions` measures what many versions cost on RocksDB; it is not run by default.

mod golden;
mod model;
#[cfg(feature = "mutations")]
mod mutations;
mod node;
mod versions;
