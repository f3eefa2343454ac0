//! Seeded simulations: one seed, one history, and a check of every promise after every step.
//!
//! [`raft`] runs groups of the raft core alone, on a network, disks and clocks that misbehave by
//! seed.

pub mod raft;
