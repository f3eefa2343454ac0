//! Any bytes, a node, and no panic: `./x fuzz`.

#![no_main]

#[path = "../../crates/raft/tests/fuzz_step/run/mod.rs"]
mod run;

use std::sync::LazyLock;

/// Whether to print what happens: set by `./x fuzz FILE`.
static SHOW: LazyLock<bool> = LazyLock::new(|| std::env::var_os("PONTOON_FUZZ_SHOW").is_some());

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| run::run(bytes, *SHOW));
