//! The raw calls as one kind of thing: a request that takes a context, and an answer that may hold
//! errors.

use proto::tikvpb::tikv_client::TikvClient;
use proto::{errorpb, kvrpcpb};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// The answers' errors: the region's, then the request's.
pub(crate) struct Errors {
    pub(crate) region: Option<errorpb::Error>,
    pub(crate) request: String,
}

/// A raw call.
pub(crate) trait RawCall: Sized {
    /// Its answer.
    type Reply;

    /// Its name in messages.
    const NAME: &'static str;

    /// Whether sending it twice does the same as sending it once.
    const REPEATABLE: bool = true;

    /// Sends it with `context` in it.
    async fn send(
        self,
        context: kvrpcpb::Context,
        store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status>;

    /// Takes the errors out of an answer.
    fn errors(reply: &mut Self::Reply) -> Errors;
}

impl RawCall for kvrpcpb::RawGetRequest {
    type Reply = kvrpcpb::RawGetResponse;
    const NAME: &'static str = "RawGet";

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_get(self).await
    }

    fn errors(reply: &mut Self::Reply) -> Errors {
        Errors { region: reply.region_error.take(), request: std::mem::take(&mut reply.error) }
    }
}

impl RawCall for kvrpcpb::RawPutRequest {
    type Reply = kvrpcpb::RawPutResponse;
    const NAME: &'static str = "RawPut";

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_put(self).await
    }

    fn errors(reply: &mut Self::Reply) -> Errors {
        Errors { region: reply.region_error.take(), request: std::mem::take(&mut reply.error) }
    }
}

impl RawCall for kvrpcpb::RawDeleteRequest {
    type Reply = kvrpcpb::RawDeleteResponse;
    const NAME: &'static str = "RawDelete";

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_delete(self).await
    }

    fn errors(reply: &mut Self::Reply) -> Errors {
        Errors { region: reply.region_error.take(), request: std::mem::take(&mut reply.error) }
    }
}

impl RawCall for kvrpcpb::RawDeleteRangeRequest {
    type Reply = kvrpcpb::RawDeleteRangeResponse;
    const NAME: &'static str = "RawDeleteRange";

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_delete_range(self).await
    }

    fn errors(reply: &mut Self::Reply) -> Errors {
        Errors { region: reply.region_error.take(), request: std::mem::take(&mut reply.error) }
    }
}

impl RawCall for kvrpcpb::RawScanRequest {
    type Reply = kvrpcpb::RawScanResponse;
    const NAME: &'static str = "RawScan";

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_scan(self).await
    }

    /// A scan has no error of its own; servers put one into the first pair.
    fn errors(reply: &mut Self::Reply) -> Errors {
        let in_pair = reply.kvs.first().and_then(|pair| pair.error.as_ref());
        let request = in_pair.map_or_else(String::new, |error| error.abort.clone());
        Errors { region: reply.region_error.take(), request }
    }
}

impl RawCall for kvrpcpb::RawGetKeyTtlRequest {
    type Reply = kvrpcpb::RawGetKeyTtlResponse;
    const NAME: &'static str = "RawGetKeyTTL";

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_get_key_ttl(self).await
    }

    fn errors(reply: &mut Self::Reply) -> Errors {
        Errors { region: reply.region_error.take(), request: std::mem::take(&mut reply.error) }
    }
}

impl RawCall for kvrpcpb::RawCasRequest {
    type Reply = kvrpcpb::RawCasResponse;
    const NAME: &'static str = "RawCompareAndSwap";
    const REPEATABLE: bool = false;

    async fn send(
        mut self,
        context: kvrpcpb::Context,
        mut store: TikvClient<Channel>,
    ) -> Result<Response<Self::Reply>, Status> {
        self.context = Some(context);
        store.raw_compare_and_swap(self).await
    }

    fn errors(reply: &mut Self::Reply) -> Errors {
        Errors { region: reply.region_error.take(), request: std::mem::take(&mut reply.error) }
    }
}
