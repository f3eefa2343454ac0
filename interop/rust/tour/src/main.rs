//! The Rust program of the README. `build.rs` takes it from there.

include!(concat!(env!("OUT_DIR"), "/tour.rs"));
