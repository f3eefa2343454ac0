//! `etcdserverpb.Maintenance`: what `etcdctl endpoint` asks a member.
//!
//! There are no alarms to be set or cleared: a store that is full says so to each write and takes
//! writes again as soon as there is room. Nor is there anything to defragment.

use base::{KeyRange, RegionId};
use placement::Placement;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::maintenance_server::Maintenance;
use proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest,
    HashKvResponse, HashRequest, HashResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::status::{no_leader, of_host, refused};
use super::{COMPATIBLE_ETCD, Etcd};
use crate::placement_host::rows;

/// The rows of etcd's keys and leases: from the first on, up to the second.
const ROWS: (&[u8], &[u8]) = (b"etcd/", b"etcd0");

impl Etcd {
    async fn hash(&self, revision: i64) -> Result<HashKvResponse, Status> {
        let read = |placement: &Placement| {
            let hash = placement.etcd_hash(revision)?;
            Ok((hash, placement.etcd_compacted(), placement.etcd_revision()))
        };
        let read = self.desk.read(read).await.map_err(|error| of_host(&error))?;
        let (hash, compact_revision, revision) = read.map_err(refused)?;
        let mut header = self.header();
        header.get_or_insert_default().revision = revision;
        Ok(HashKvResponse { header, hash, compact_revision })
    }

    /// What the rows of this node's replica take.
    fn row_bytes(&self) -> i64 {
        let range = KeyRange::new(ROWS.0, ROWS.1);
        let rows = rows(&**self.desk.host().store().engine(), &range).unwrap_or_default();
        let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }
}

#[tonic::async_trait]
impl Maintenance for Etcd {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let members = self.members.now().await;
        let leader = members.and_then(|members| members.leader).map_or(0, |leader| leader.0);
        let view = self.desk.host().store().views().get(RegionId::SYSTEM);
        let applied = view.map_or(0, |view| view.applied);
        let mut header = self.header();
        // Where the placement driver does not run, the revision is not known.
        let revision = self.desk.host().read(Placement::etcd_revision);
        header.get_or_insert_default().revision = revision.unwrap_or_default();
        let errors = if leader == 0 { vec![no_leader().message().to_owned()] } else { vec![] };
        let bytes = self.row_bytes();
        Ok(Response::new(StatusResponse {
            header,
            version: COMPATIBLE_ETCD.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader,
            raft_index: applied,
            raft_applied_index: applied,
            raft_term: self.term(),
            errors,
            is_learner: self.learns(self.desk.host().store().store_id()),
        }))
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        if request.into_inner().action() == AlarmAction::Activate {
            return Err(Status::unimplemented("alarms cannot be raised by hand"));
        }
        Ok(Response::new(AlarmResponse { header: self.header(), alarms: Vec::new() }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse { header: self.header() }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let HashKvResponse { header, hash, .. } = self.hash(0).await?;
        Ok(Response::new(HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        Ok(Response::new(self.hash(request.into_inner().revision).await?))
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<BoxStream<SnapshotResponse>>, Status> {
        Err(Status::unimplemented("there is no snapshot of etcd's keys alone"))
    }
}
