//! Connections that say nothing, or something else, or stop in the middle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use proto::kvrpcpb;
use proto::tikvpb::batch_commands_request::{Request, request::Cmd};
use proto::tikvpb::{BatchCommandsRequest, tikv_client::TikvClient};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio_stream::wrappers::ReceiverStream;

use crate::server::{Server, Store};

const CONNECTIONS: usize = 10_000;

/// What the connections of [`CONNECTIONS`] may cost: 16 KiB each and what a server takes anyway.
const MEMORY_MIB_MAX: u64 = 320;

/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn goes_on(store: &mut Store) {
    store.must_put(b"after", b"all").await;
    assert_eq!(store.must_get(b"after").await, b"all");
}

#[tokio::test]
async fn ten_thousand_connections_opened_and_left() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit nobody needs a right");
    if limit.maximum.is_some_and(|most| most < CONNECTIONS as u64 + 1_000) {
        println!("skipped: only {:?} files may be open here", limit.maximum);
        return;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), &[]);
    let mut store = server.connect().await;
    let address = server.address().to_owned();
    // Elsewhere, so that the client can answer the server's pings meanwhile.
    let opened = tokio::task::spawn_blocking(move || {
        let open = |i: usize| {
            let mut connection = TcpStream::connect(&address).expect("it serves");
            match i % 3 {
                0 => {}
                1 => connection.write_all(PREFACE).expect("it reads"),
                _ => connection.write_all(b"GET /status HTT").expect("it reads"),
            }
            connection
        };
        (0..CONNECTIONS).map(open).collect::<Vec<_>>()
    });
    let left = opened.await.expect("all are open");
    goes_on(&mut store).await;
    goes_on(&mut server.connect().await).await;
    let open = server.memory_mib();
    assert!(open <= MEMORY_MIB_MAX, "{open} MiB with {CONNECTIONS} connections");
    drop(left);
    goes_on(&mut store).await;
    // Each was taken once; when this is answered few are left, or it never ends and so fails.
    while connections(&server) > 100 {}
    goes_on(&mut store).await;
    println!("{CONNECTIONS} connections: {open} MiB, and {} MiB after them", server.memory_mib());
}

/// How many connections the server says are open.
fn connections(server: &Server) -> u64 {
    let mut stream = TcpStream::connect(server.address()).expect("it serves");
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", server.address());
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    let line = page.lines().find_map(|line| line.strip_prefix("pontoon_connections "));
    line.expect("the page has it").parse().expect("a number")
}

#[tokio::test]
async fn something_that_is_no_protocol() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), &[]);
    let mut store = server.connect().await;
    let noise: Vec<u8> =
        (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tls = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let frame = [PREFACE, b"\xff\xff\xff\x09\xff\xff\xff\xff\xff", &noise].concat();
    for bytes in [&noise[..], tls, &frame, b"\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n"] {
        let mut connection = TcpStream::connect(server.address()).expect("it serves");
        connection.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout is set");
        // It may hang up in the middle, which is an answer.
        let _ = connection.write_all(bytes);
        let _ = connection.read_to_end(&mut Vec::new());
        goes_on(&mut store).await;
    }
}

/// Connections end in every place of a stream of puts, by bytes and by requests.
#[tokio::test]
async fn a_stream_cut_in_the_middle() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), &[]);
    let mut store = server.connect().await;
    for round in 0..20 {
        let puts = (0..50).map(|i| put(&store, round, i)).collect();
        let request = BatchCommandsRequest {
            request_ids: (0..50).collect(),
            requests: puts,
            ..Default::default()
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut client = TikvClient::new(server.channel().await);
        let call =
            tokio::spawn(async move { client.batch_commands(ReceiverStream::new(receiver)).await });
        sender.send(request).await.expect("the call takes it");
        // The connection goes with the call, at a point that differs from round to round.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        call.abort();
        drop(sender);
        goes_on(&mut store).await;
    }
    while connections(&server) > 10 {}
    let whole = complete_call(&server);
    for cut in (1..whole.len()).step_by(7) {
        let mut connection = TcpStream::connect(server.address()).expect("it serves");
        connection.write_all(&whole[..cut]).expect("it reads");
    }
    goes_on(&mut store).await;
    while connections(&server) > 10 {}
}

fn put(store: &Store, round: usize, i: usize) -> Request {
    let put = kvrpcpb::RawPutRequest {
        context: Some(store.context()),
        key: format!("{round}/{i}").into_bytes().into(),
        value: vec![b'v'; 1000].into(),
        ..Default::default()
    };
    Request { cmd: Some(Cmd::RawPut(put)) }
}

/// The bytes of one call of `BatchCommands`, headers and a first message, as a client sends them.
fn complete_call(server: &Server) -> Vec<u8> {
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/tikvpb.Tikv/BatchCommands"),
        (":authority", server.address()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0x00);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("short"));
            headers.extend(text.as_bytes());
        }
    }
    let body = [&[0, 0, 0, 1, 0][..], &[7; 256]].concat();
    [PREFACE, &frame(1, 4, &headers), &frame(0, 0, &body)].concat()
}

/// A frame of HTTP/2 on the first stream.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}
