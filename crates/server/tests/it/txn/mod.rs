//! Transactional commands through gRPC, on real nodes.

mod bench;
mod deadlocks;
mod errors;
mod flashback;
mod gc;
mod lock_waits;
mod one_phase;
mod pessimistic;
mod two_phase;
