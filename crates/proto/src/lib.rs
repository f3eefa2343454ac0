//! The wire protocol: every message and service that clients of TiKV and PD speak.
//!
//! One module for each protobuf package, one file in `proto/` for each module. The files are our
//! own; names, numbers and types are those of the public protocol, so that unmodified clients
//! understand every byte. Nothing here decides anything. These types are for what crosses the
//! wire or lasts on disk. What all crates share (regions, epochs, replicas) becomes ours and back
//! here, in `nouns`; all else in one place of the crate that uses it.
//!
//! ```text
//!   clients ──▶ tikvpb ── kvrpcpb  coprocessor ─┐
//!           ──▶ pdpb  keyspacepb  etcdserverpb ─┼── metapb  errorpb
//!   stores  ──▶ tikvpb ── raft_serverpb ────────┤      nouns and region errors
//!               raft_cmdpb  deadlock            │
//!   tools   ──▶ debugpb  import_sstpb  cdcpb  backup ...
//!
//!   proto/*.proto ── protox ──▶ descriptors ──┬─ prost ──▶ structs     (build.rs)
//!                                             └─ tonic ──▶ x_server, x_client
//! ```
//!
//! How the generated code looks:
//!
//! 1. A `bytes` field is [`bytes::Bytes`]. Decoding from a `Bytes` shares its memory, so a key or
//!    a value is not copied on the way in.
//! 2. An enum field is an `i32`; the getter of the same name gives the enum, or its first value
//!    for a number from the future. Keep the `i32` where such a number must survive.
//! 3. A message field is an `Option`. A oneof is an `Option` of an enum, in a module with the name
//!    of its message: `tikvpb::batch_commands_request::request::Cmd`.
//! 4. For each service there are `x_server` (a trait and the server for it) and `x_client`. A call
//!    that an implementation leaves out answers UNIMPLEMENTED, which clients expect of calls that
//!    a server does not know.
//! 5. Decoding ignores unknown fields and takes packed and unpacked repeated numbers: old and new
//!    clients differ in both.
//! 6. The gRPC layer limits a message to 4 MiB unless told otherwise, on both sides. That is too
//!    small for this protocol: whoever builds a server or a client raises it.
//!
//! Invariant: the descriptors equal the table `tests/wire.tsv`, message by message and call by
//! call. A change of a `.proto` file that changes the wire fails the test.
//!
//! Where to start: `proto/kvrpcpb.proto` for data, `proto/pdpb.proto` for placement.

#[allow(missing_docs, deprecated, clippy::all, clippy::large_futures, clippy::unwrap_used)]
mod generated;
mod nouns;

pub use generated::{
    apipb, authpb, backup, cdcpb, coprocessor, deadlock, debugpb, diagnosticspb, disaggregated,
    disk_usage, encryptionpb, eraftpb, errorpb, etcdserverpb, gcpb, import_sstpb, keyspacepb,
    kvrpcpb, logbackup, meta_storagepb, metapb, mpp, mvccpb, pdpb, raft_cmdpb, raft_serverpb,
    recover_data, replication_modepb, resource_manager, routerpb, schedulingpb, tikvpb, tracepb,
    tsopb,
};
pub use nouns::{
    epoch_from_proto, epoch_to_proto, peer_from_proto, peer_to_proto, region_from_proto,
    region_to_proto,
};

/// All packages as an encoded `google.protobuf.FileDescriptorSet`, without comments.
///
/// For tests, and for tools that print messages which they do not know.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
