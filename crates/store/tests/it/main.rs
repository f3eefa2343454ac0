//! Whole stores in one thread, and several of them with a network in between: everything that a
//! test does it does to them as production would.

mod bootstrap;
mod common;
mod consistency;
mod credits;
mod disorder;
mod flashback;
mod hibernation;
mod leading;
mod lives;
mod log_limits;
mod members;
mod merges;
mod one_store;
mod reads;
mod recovery;
mod snapshots;
mod split_check;
mod splits;
mod three_stores;
