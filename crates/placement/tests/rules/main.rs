//! The rules of the placement driver, each once, through the public interface.
//!
//! A fake host stands where the server does: it applies the rows of a plan to a map, commits them,
//! and can lose its memory and load it again from the rows.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod bootstrap;
mod config;
mod etcd;
mod gc;
mod goals;
mod host;
mod keyspaces;
mod lookups;
mod members;
mod region_map;
mod region_model;
mod replicas;
mod splits;
mod store_removal;
mod stores;
mod timestamps;
