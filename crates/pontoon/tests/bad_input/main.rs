//! What a person or a client can do wrong, end to end: one clear answer, and the data untouched.
//!
//! `start` is about command lines and folders, `wire` about requests, `connections` about those who
//! connect and say nothing, or something else, or stop in the middle; `full_disk` needs the right
//! to mount.

mod connections;
mod full_disk;
#[path = "../metrics/mod.rs"]
mod metrics;
#[path = "../../../server/tests/it/patience.rs"]
mod patience;
mod server;
mod start;
mod wire;
