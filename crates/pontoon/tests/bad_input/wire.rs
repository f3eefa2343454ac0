//! Requests that are wrong, each with the answer that its client understands, and none that ends or
//! confuses the server.

use bytes::{Buf, BufMut, Bytes};
use proto::{kvrpcpb, metapb, pdpb};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::server::{Server, Store};

/// A server whose folder goes with it.
struct Fresh {
    server: Server,
    store: Store,
    _folder: tempfile::TempDir,
}

async fn fresh(flags: &[&str]) -> Fresh {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), flags);
    let store = server.connect().await;
    Fresh { server, store, _folder: folder }
}

/// The server serves as if nothing had been.
async fn goes_on(store: &mut Store) {
    store.must_put(b"after", b"all").await;
    assert_eq!(store.must_get(b"after").await, b"all");
}

#[tokio::test]
async fn keys_and_values_over_their_limits() {
    let Fresh { mut store, server: _server, _folder } = fresh(&[]).await;
    let answer = store.put(&vec![b'k'; (8 << 10) + 1], b"v").await;
    assert!(answer.error.contains("key") && answer.region_error.is_none(), "{answer:?}");
    store.must_put(&vec![b'k'; 8 << 10], b"v").await;
    let answer = store.put(b"k", &vec![0; (8 << 20) + 1]).await;
    let error = answer.region_error.expect("the entry is too large");
    let too_large = error.raft_entry_too_large.expect("that is why");
    assert_eq!(too_large.region_id, store.region.id);
    assert!(too_large.entry_size > 8 << 20, "{too_large:?}");
    store.must_put(b"k", &vec![0; 8_000_000]).await;
    goes_on(&mut store).await;
}

/// Clients refuse an empty key themselves; a server that gets one takes it for a key.
#[tokio::test]
async fn an_empty_key_is_a_key() {
    let Fresh { mut store, server: _server, _folder } = fresh(&[]).await;
    store.must_put(b"", b"v").await;
    assert_eq!(store.must_get(b"").await, b"v");
    store.must_put(b"", b"").await;
    assert_eq!(store.must_get(b"").await, b"");
    goes_on(&mut store).await;
}

#[tokio::test]
async fn an_unknown_column_family() {
    let Fresh { mut store, server: _server, _folder } = fresh(&[]).await;
    for cf in ["nope", "raft", "DEFAULT", "default "] {
        let request = kvrpcpb::RawPutRequest {
            context: Some(store.context()),
            key: b"k".to_vec().into(),
            cf: cf.to_owned(),
            ..Default::default()
        };
        let answer = store.client.raw_put(request).await.expect("it answers").into_inner();
        assert!(answer.error.contains("column family"), "{cf}: {answer:?}");
    }
    goes_on(&mut store).await;
}

#[tokio::test]
async fn a_wrong_cluster() {
    let Fresh { mut store, server, _folder } = fresh(&[]).await;
    let mut context = store.context();
    context.cluster_id = store.cluster_id + 1;
    let request = kvrpcpb::RawGetRequest { context: Some(context), ..Default::default() };
    let status = store.client.raw_get(request).await.expect_err("another cluster's request");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");

    let mut placement = proto::pdpb::pd_client::PdClient::new(server.channel().await);
    let header = pdpb::RequestHeader { cluster_id: store.cluster_id + 1, ..Default::default() };
    let request = pdpb::GetRegionRequest { header: Some(header), ..Default::default() };
    let status = placement.get_region(request).await.expect_err("another cluster's request");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("mismatch cluster id"), "{status}");
    goes_on(&mut store).await;
}

async fn region_error(store: &mut Store, context: kvrpcpb::Context) -> proto::errorpb::Error {
    let request = kvrpcpb::RawPutRequest {
        context: Some(context.clone()),
        key: b"k".to_vec().into(),
        value: b"v".to_vec().into(),
        ..Default::default()
    };
    let put = store.client.raw_put(request).await.expect("it answers").into_inner();
    let request = kvrpcpb::RawGetRequest {
        context: Some(context),
        key: b"k".to_vec().into(),
        ..Default::default()
    };
    let get = store.client.raw_get(request).await.expect("it answers").into_inner();
    let (put, get) = (put.region_error.expect("refused"), get.region_error.expect("refused"));
    assert_eq!(put, get, "reads and writes are refused alike");
    put
}

#[tokio::test]
async fn a_wrong_store_region_peer_or_epoch() {
    let Fresh { mut store, server: _server, _folder } = fresh(&[]).await;
    let right = store.context();
    let peer = store.leader;

    let wrong = metapb::Peer { store_id: peer.store_id + 7, ..peer };
    let context = kvrpcpb::Context { peer: Some(wrong), ..right.clone() };
    let error = region_error(&mut store, context).await.store_not_match.expect("another store's");
    assert_eq!((error.request_store_id, error.actual_store_id), (wrong.store_id, peer.store_id));

    let context = kvrpcpb::Context { region_id: right.region_id + 999, ..right.clone() };
    let error = region_error(&mut store, context).await.region_not_found.expect("no such region");
    assert_eq!(error.region_id, right.region_id + 999);

    let wrong = metapb::Peer { id: peer.id + 999, ..peer };
    let context = kvrpcpb::Context { peer: Some(wrong), ..right.clone() };
    region_error(&mut store, context).await.mismatch_peer_id.expect("no such peer");

    // Data is where the version says; who holds it, which the other number counts, is no matter.
    let epoch = right.region_epoch.expect("set");
    for version in [epoch.version - 1, epoch.version + 99] {
        let wrong = metapb::RegionEpoch { version, ..epoch };
        let context = kvrpcpb::Context { region_epoch: Some(wrong), ..right.clone() };
        let error = region_error(&mut store, context).await;
        let current = error.epoch_not_match.expect("another version").current_regions;
        assert_eq!(current, [store.region.clone()], "version {version}");
    }
    goes_on(&mut store).await;
}

/// A store of keyspaces holds no key without a keyspace's prefix, and a region none of another one.
#[tokio::test]
async fn a_key_outside_every_keyspace_and_one_outside_the_region() {
    let Fresh { mut store, server, _folder } = fresh(&["--api-version", "2"]).await;
    let mut context = store.context();
    context.api_version = kvrpcpb::ApiVersion::V2 as i32;
    for key in [&b"k"[..], b"", b"z\0\0\0k"] {
        let request = kvrpcpb::RawPutRequest {
            context: Some(context.clone()),
            key: key.to_vec().into(),
            value: b"v".to_vec().into(),
            ..Default::default()
        };
        let answer = store.client.raw_put(request).await.expect("it answers").into_inner();
        assert!(!answer.error.is_empty() || answer.region_error.is_some(), "{key:?} was taken");
    }
    let key = b"r\0\0\0k";
    let put = |context: kvrpcpb::Context| kvrpcpb::RawPutRequest {
        context: Some(context),
        key: key.to_vec().into(),
        value: b"v".to_vec().into(),
        ..Default::default()
    };
    let answer = store.client.raw_put(put(context)).await.expect("it answers").into_inner();
    let error = answer.region_error.and_then(|error| error.key_not_in_region);
    let error = error.expect("the key lies right of the first region");
    assert_eq!(error.region_id, store.region.id);
    assert_eq!(error.end_key, store.region.end_key);

    let mut store = server.connect_to(&base::codec::encode_bytes(key)).await;
    let api_version = kvrpcpb::ApiVersion::V2 as i32;
    let context = kvrpcpb::Context { api_version, ..store.context() };
    let answer = store.client.raw_put(put(context)).await.expect("it answers").into_inner();
    assert_eq!(answer, kvrpcpb::RawPutResponse::default());
}

#[tokio::test]
async fn a_client_of_another_api_version() {
    let Fresh { mut store, server: _server, _folder } = fresh(&[]).await;
    let mut context = store.context();
    context.api_version = kvrpcpb::ApiVersion::V2 as i32;
    let request = kvrpcpb::RawPutRequest {
        context: Some(context),
        key: b"r\0\0\0k".to_vec().into(),
        value: b"v".to_vec().into(),
        ..Default::default()
    };
    let answer = store.client.raw_put(request).await.expect("it answers").into_inner();
    assert!(answer.error.to_lowercase().contains("version"), "{answer:?}");
    goes_on(&mut store).await;
}

#[tokio::test]
async fn no_context_at_all() {
    let Fresh { mut store, server: _server, _folder } = fresh(&[]).await;
    let request = kvrpcpb::RawGetRequest { key: b"k".to_vec().into(), ..Default::default() };
    let answer = store.client.raw_get(request).await.expect("it answers").into_inner();
    assert!(answer.region_error.is_some(), "{answer:?}");
    goes_on(&mut store).await;
}

#[tokio::test]
async fn a_message_that_is_none() {
    let Fresh { mut store, server, _folder } = fresh(&[]).await;
    for path in ["/tikvpb.Tikv/RawPut", "/tikvpb.Tikv/RawGet", "/pdpb.PD/GetRegion"] {
        for body in [&b"\xff\xff\xff\xff"[..], b"\x0a\xff\xff\xff\xff\x0f", b"\x08"] {
            let status = send_bytes(&server, path, body).await.expect_err("that is no message");
            let codes = [Code::Internal, Code::InvalidArgument];
            assert!(codes.contains(&status.code()), "{path} {body:?}: {status}");
        }
    }
    let status = send_bytes(&server, "/tikvpb.Tikv/NoSuchCall", b"").await.expect_err("no call");
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    goes_on(&mut store).await;
}

/// Sends bytes as if they were a message.
async fn send_bytes(server: &Server, path: &str, body: &[u8]) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.expect("it serves");
    let path = path.parse().expect("a path");
    let request = Request::new(Bytes::copy_from_slice(body));
    grpc.unary(request, path, AsTheyAre).await.map(tonic::Response::into_inner)
}

/// Bytes for messages.
#[derive(Clone, Copy, Default)]
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
