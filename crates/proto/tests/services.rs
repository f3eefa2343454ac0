//! The generated servers: a call that an implementation leaves out is refused politely.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use pontoon_proto::{etcdserverpb, keyspacepb, kvrpcpb, pdpb, tikvpb};
use tonic::{Code, Request, Response, Status};

/// Serves one call of each service that matters, and leaves all others out.
struct Silent;

#[tonic::async_trait]
impl tikvpb::tikv_server::Tikv for Silent {
    async fn raw_get(
        &self,
        request: Request<kvrpcpb::RawGetRequest>,
    ) -> Result<Response<kvrpcpb::RawGetResponse>, Status> {
        let value = request.into_inner().key;
        Ok(Response::new(kvrpcpb::RawGetResponse { value, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl pdpb::pd_server::Pd for Silent {}

#[tonic::async_trait]
impl keyspacepb::keyspace_server::Keyspace for Silent {}

#[tonic::async_trait]
impl etcdserverpb::kv_server::Kv for Silent {}

/// Runs a future that never waits.
fn finish<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for something"),
    }
}

#[test]
fn a_call_that_is_served() {
    use tikvpb::tikv_server::Tikv;

    let request = kvrpcpb::RawGetRequest { key: "k".into(), ..Default::default() };
    let response = finish(Silent.raw_get(Request::new(request))).expect("it is served");
    assert_eq!(response.into_inner().value, "k");
}

#[test]
fn calls_that_are_not_served() {
    use etcdserverpb::kv_server::Kv;
    use keyspacepb::keyspace_server::Keyspace;
    use pdpb::pd_server::Pd;
    use tikvpb::tikv_server::Tikv;

    let code = |status: Option<Status>| status.map(|status| status.code());
    let refused = Some(Code::Unimplemented);
    let kv_gc = finish(Silent.kv_gc(Request::new(Default::default())));
    assert_eq!(code(kv_gc.err()), refused);
    let get_members = finish(Silent.get_members(Request::new(Default::default())));
    assert_eq!(code(get_members.err()), refused);
    let watch_keyspaces = finish(Silent.watch_keyspaces(Request::new(Default::default())));
    assert_eq!(code(watch_keyspaces.err()), refused);
    let range = finish(Silent.range(Request::new(Default::default())));
    assert_eq!(code(range.err()), refused);
}

#[test]
fn paths_keep_the_letters_of_the_protocol() {
    assert_eq!(tikvpb::tikv_server::SERVICE_NAME, "tikvpb.Tikv");
    assert_eq!(pdpb::pd_server::SERVICE_NAME, "pdpb.PD");
    assert_eq!(etcdserverpb::kv_server::SERVICE_NAME, "etcdserverpb.KV");
}
