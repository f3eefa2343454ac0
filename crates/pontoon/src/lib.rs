//! The public library and the binary's commands.
//!
//! ```text
//!   main ── commands ── start ──▶ server        a node in this process
//!              ├─ dev ────▶ several processes of `start`
//!              ├─ shell ─┐
//!              ├─ bench ─┴─▶ client ── gRPC ──▶ any node, this one or TiKV
//!              └─ version
//! ```
//!
//! Every command ends in success or in one line that says what is wrong. Start with [`commands`].

pub mod client;
pub mod commands;
