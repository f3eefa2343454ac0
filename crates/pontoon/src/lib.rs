//! The public library and the binary's commands.
//!
//! ```text
//!   open, memory ── embedded ──▶ client over LocalLink ──▶ server     all in this process
//!
//!   main ── commands ── start ──▶ server        a node in this process
//!              ├─ dev ────▶ several processes of `start`
//!              ├─ shell ─┐
//!              ├─ bench ─┴─▶ client over remote ── gRPC ──▶ any node, this one or TiKV
//!              └─ version
//! ```
//!
//! As a library: [`open`] a store in a folder, or [`memory`] for tests; both give raw keys and
//! transactions without a server. Every command of the binary ends in success or in one line that
//! says what is wrong; start with [`commands`].

pub mod commands;
mod embedded;
pub mod remote;

pub use client::{
    ApiVersion, CasOutcome, ClientError, Db, Expected, NewValue, Pair, Raw, Snapshot, Txn,
    TxnOptions,
};
pub use embedded::{Embedded, LocalLink, OpenOptions, StartError, blocking, memory, open};
pub use server::Config;
