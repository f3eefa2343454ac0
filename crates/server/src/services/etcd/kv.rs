//! `etcdserverpb.KV`: reads and writes.

use placement::Placement;
use placement::etcd::{EtcdError, EtcdReply, EtcdWrite, REQUEST_BYTES_MAX, only_reads};
use prost::Message;
use proto::etcdserverpb::kv_server::Kv;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::Etcd;
use super::status::{of_desk, of_host, refused};

impl Etcd {
    /// Writes. The answer is of the kind of the request.
    pub(super) async fn write(&self, write: EtcdWrite) -> Result<EtcdReply, Status> {
        self.desk.write(write).await.map_err(of_desk)
    }

    async fn read<R>(
        &self,
        serializable: bool,
        read: impl FnOnce(&Placement) -> Result<R, EtcdError>,
    ) -> Result<R, Status> {
        let result = match serializable {
            true => self.desk.read_soon(read),
            false => self.desk.read(read).await,
        };
        result.map_err(|error| of_host(&error))?.map_err(refused)
    }
}

#[tonic::async_trait]
impl Kv for Etcd {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        let read = |placement: &Placement| placement.etcd_range(&request);
        let mut response = self.read(request.serializable, read).await?;
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check_size(&request)?;
        let EtcdReply::Put(mut response) = self.write(EtcdWrite::Put(request)).await? else {
            return Err(another_kind());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let write = EtcdWrite::DeleteRange(request.into_inner());
        let EtcdReply::DeleteRange(mut response) = self.write(write).await? else {
            return Err(another_kind());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check_size(&request)?;
        let mut response = if only_reads(&request) {
            self.read(false, |placement| placement.etcd_read_txn(&request)).await?
        } else {
            let EtcdReply::Txn(response) = self.write(EtcdWrite::Txn(request)).await? else {
                return Err(another_kind());
            };
            response
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let write = EtcdWrite::Compact(request.into_inner());
        let EtcdReply::Compact(mut response) = self.write(write).await? else {
            return Err(another_kind());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }
}

fn check_size(request: &impl Message) -> Result<(), Status> {
    if request.encoded_len() <= REQUEST_BYTES_MAX {
        Ok(())
    } else {
        Err(refused(EtcdError::TooLarge))
    }
}

/// The planner answers each request in kind, so nobody sees this.
pub(super) fn another_kind() -> Status {
    Status::internal("an answer to another kind of request")
}
