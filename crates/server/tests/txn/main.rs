//! Transactional commands through gRPC, on real nodes.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod bench;
mod deadlocks;
mod errors;
mod flashback;
mod gc;
mod lock_waits;
mod one_phase;
mod pessimistic;
mod two_phase;
