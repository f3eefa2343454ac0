//! Nodes of a cluster in this process, asked through their sockets. One program, as linking a node
//! takes long.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod cluster;
mod etcd;
mod http;
mod patience;
mod pd;
mod reads;
mod splits;
mod txn;
