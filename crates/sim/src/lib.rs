//! Seeded simulations: one seed, one history, and a check of every promise after every step.
//!
//! [`cluster`] runs whole clusters: the actors of production on a simulated clock, network and
//! disk. [`raft`] runs groups of the raft core alone, for what needs very many steps. Start with
//! docs/simulation.md. [`check`] judges histories of transactions.

pub mod check;
pub mod cluster;
pub mod raft;
mod verdict;

pub use verdict::Broken;
