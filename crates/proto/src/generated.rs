//! What the build script made of `proto/*.proto`. All modules are siblings, because the generated
//! code reaches from one package into another by `super`.

/// How a keyspace is named where namespaces exist.
pub mod apipb {
    tonic::include_proto!("apipb");
}

/// Users and roles of etcd; only here because `etcdserverpb` names them.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Backups: the calls, and the files that describe one.
pub mod backup {
    tonic::include_proto!("backup");
}

/// Change data capture.
pub mod cdcpb {
    tonic::include_proto!("cdcpb");
}

/// Computing next to the data.
pub mod coprocessor {
    tonic::include_proto!("coprocessor");
}

/// Who waits for whom: stores report to one detector.
pub mod deadlock {
    tonic::include_proto!("deadlock");
}

/// Looking into a store.
pub mod debugpb {
    tonic::include_proto!("debugpb");
}

/// Logs and facts about machines.
pub mod diagnosticspb {
    tonic::include_proto!("diagnosticspb");
}

/// Columnar stores over an object store; only here because `tikvpb` names it.
pub mod disaggregated {
    tonic::include_proto!("disaggregated");
}

/// How full a disk is.
pub mod disk_usage {
    tonic::include_proto!("disk_usage");
}

/// Keys and methods of data at rest.
pub mod encryptionpb {
    tonic::include_proto!("encryptionpb");
}

/// Raft messages, entries and hard state.
pub mod eraftpb {
    tonic::include_proto!("eraftpb");
}

/// Region errors: why a store did not look at a request.
pub mod errorpb {
    tonic::include_proto!("errorpb");
}

/// etcd v3, which clients expect on the port of the placement driver.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Safe points for keyspaces, an early form.
pub mod gcpb {
    tonic::include_proto!("gcpb");
}

/// Bulk loading of sorted files.
pub mod import_sstpb {
    tonic::include_proto!("import_sstpb");
}

/// Keyspaces and namespaces.
pub mod keyspacepb {
    tonic::include_proto!("keyspacepb");
}

/// Transactional and raw requests, their context, and errors about keys.
pub mod kvrpcpb {
    tonic::include_proto!("kvrpcpb");
}

/// Progress of continuous backup.
pub mod logbackup {
    tonic::include_proto!("logbackup");
}

/// A small key-value store inside the placement driver.
pub mod meta_storagepb {
    tonic::include_proto!("meta_storagepb");
}

/// Stores, regions, peers.
pub mod metapb {
    tonic::include_proto!("metapb");
}

/// Query plans over several columnar stores; only here because `tikvpb` names it.
pub mod mpp {
    tonic::include_proto!("mpp");
}

/// Keys with revisions, as etcd has them.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// The placement driver.
pub mod pdpb {
    tonic::include_proto!("pdpb");
}

/// Commands in the log of a region.
pub mod raft_cmdpb {
    tonic::include_proto!("raft_cmdpb");
}

/// From store to store, and what stores keep about regions.
pub mod raft_serverpb {
    tonic::include_proto!("raft_serverpb");
}

/// Restoring a cluster from snapshots of disks.
pub mod recover_data {
    tonic::include_proto!("recover_data");
}

/// Whether a write must reach more than one place.
pub mod replication_modepb {
    tonic::include_proto!("replication_modepb");
}

/// Resource groups and their tokens.
pub mod resource_manager {
    tonic::include_proto!("resource_manager");
}

/// Look-ups of regions in a process of its own.
pub mod routerpb {
    tonic::include_proto!("routerpb");
}

/// Scheduling in a process of its own.
pub mod schedulingpb {
    tonic::include_proto!("schedulingpb");
}

/// The services of a store, and the stream of many commands.
pub mod tikvpb {
    tonic::include_proto!("tikvpb");
}

/// Tracing of single requests.
pub mod tracepb {
    tonic::include_proto!("tracepb");
}

/// Timestamps from processes of their own.
pub mod tsopb {
    tonic::include_proto!("tsopb");
}
