//! `BatchCommands`.

use std::collections::BTreeMap;

use base::{KeyRange, Prng};
use proto::tikvpb::batch_commands_request::{Request, request::Cmd as Command};
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use super::*;

/// A client's end of a stream.
struct Stream {
    requests: Option<mpsc::UnboundedSender<BatchCommandsRequest>>,
    responses: Streaming<BatchCommandsResponse>,
}

impl Stream {
    async fn open(node: &Node) -> Self {
        let (requests, outbound) = mpsc::unbounded_channel();
        let outbound = UnboundedReceiverStream::new(outbound);
        let responses = node.client().await.batch_commands(outbound).await.expect("opened");
        Self { requests: Some(requests), responses: responses.into_inner() }
    }

    fn send(&self, commands: impl IntoIterator<Item = (u64, Option<Command>)>) {
        let mut message = BatchCommandsRequest::default();
        for (id, cmd) in commands {
            message.request_ids.push(id);
            message.requests.push(Request { cmd });
        }
        self.requests.as_ref().expect("open").send(message).expect("the stream is open");
    }

    /// The next message, taken apart.
    async fn receive(&mut self) -> Result<Vec<(u64, Option<Answer>)>, Status> {
        let Some(message) = self.responses.message().await? else { return Ok(Vec::new()) };
        assert_eq!(message.responses.len(), message.request_ids.len());
        assert!((1..=128).contains(&message.responses.len()));
        let answers = message.responses.into_iter().map(|response| response.cmd);
        Ok(message.request_ids.into_iter().zip(answers).collect())
    }

    /// So many answers, by id.
    async fn collect(&mut self, count: usize) -> BTreeMap<u64, Option<Answer>> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            for (id, answer) in self.receive().await.expect("no error") {
                assert!(all.insert(id, answer).is_none(), "id {id} was answered twice");
            }
        }
        all
    }
}

fn empty(test_id: u64, delay_time: u64) -> Option<Command> {
    Some(Command::Empty(BatchCommandsEmptyRequest { test_id, delay_time }))
}

/// Whether an answer is of the right kind.
type IsRight = fn(&Option<Answer>) -> bool;

/// A command of a kind that is drawn, and what its answer must be.
fn draw(prng: &mut Prng, node: &Node) -> (Option<Command>, IsRight) {
    let name = format!("k{}", prng.below(50));
    let (context, key) = (node.context(), node.key(&name));
    let cf = String::new();
    let for_cas = prng.one_in(4);
    match prng.below(13) {
        0 => (None, |a| a.is_none()),
        1 => (empty(1, prng.below(3)), |a| matches!(a, Some(Answer::Empty(_)))),
        2 => {
            let keys = vec![key];
            let request = kvrpcpb::RawBatchGetRequest { context, keys, cf };
            (Some(Command::RawBatchGet(request)), |a| matches!(a, Some(Answer::RawBatchGet(_))))
        }
        3 => {
            let pair = kvrpcpb::KvPair { key, value: "v".into(), ..Default::default() };
            let pairs = vec![pair];
            let request =
                kvrpcpb::RawBatchPutRequest { context, pairs, for_cas, ..Default::default() };
            (Some(Command::RawBatchPut(request)), |a| matches!(a, Some(Answer::RawBatchPut(_))))
        }
        4 => {
            let request = kvrpcpb::RawDeleteRequest { context, key, cf, for_cas };
            (Some(Command::RawDelete(request)), |a| matches!(a, Some(Answer::RawDelete(_))))
        }
        5 => {
            let keys = vec![key];
            let request = kvrpcpb::RawBatchDeleteRequest { context, keys, cf, for_cas };
            let is = |a: &Option<Answer>| matches!(a, Some(Answer::RawBatchDelete(_)));
            (Some(Command::RawBatchDelete(request)), is)
        }
        6 => (Some(Command::RawScan(node.scan("k", "l", 9))), |a| {
            matches!(a, Some(Answer::RawScan(_)))
        }),
        7 => {
            let request = kvrpcpb::RawDeleteRangeRequest {
                context,
                end_key: key.clone(),
                start_key: key,
                cf,
            };
            let is = |a: &Option<Answer>| matches!(a, Some(Answer::RawDeleteRange(_)));
            (Some(Command::RawDeleteRange(request)), is)
        }
        8 => {
            let request = kvrpcpb::RawBatchScanRequest { context, ..Default::default() };
            (Some(Command::RawBatchScan(request)), |a| matches!(a, Some(Answer::RawBatchScan(_))))
        }
        9 => {
            let request = kvrpcpb::GetHealthFeedbackRequest::default();
            let is = |a: &Option<Answer>| matches!(a, Some(Answer::GetHealthFeedback(_)));
            (Some(Command::GetHealthFeedback(request)), is)
        }
        10 | 11 => {
            let put = kvrpcpb::RawPutRequest { for_cas, ..node.put(&name, "v") };
            (Some(Command::RawPut(put)), |a| matches!(a, Some(Answer::RawPut(_))))
        }
        _ => (Some(Command::RawGet(node.get(&name))), |a| matches!(a, Some(Answer::RawGet(_)))),
    }
}

#[tokio::test]
async fn each_id_gets_one_answer_of_its_kind() {
    for api in MODES {
        let node = Node::start(api).await;
        let mut stream = Stream::open(&node).await;
        let mut prng = Prng::new(5);
        let mut kinds = BTreeMap::new();
        for _ in 0..40 {
            let mut message = Vec::new();
            for _ in 0..prng.below(60) {
                let id = prng.next_u64();
                let (command, kind) = draw(&mut prng, &node);
                kinds.insert(id, kind);
                message.push((id, command));
            }
            stream.send(message);
        }
        // Half-closed: everything is answered, then the stream ends well.
        stream.requests = None;
        let answers = stream.collect(kinds.len()).await;
        for (id, is_right) in &kinds {
            assert!(is_right(&answers[id]), "{:?}", answers[id]);
        }
        assert_eq!(stream.receive().await.expect("a good end"), []);
    }
}

#[tokio::test]
async fn large_messages_are_answered_in_pieces() {
    let node = Node::start(ApiVersion::V1).await;
    let mut stream = Stream::open(&node).await;
    stream.send((0..1_000).map(|id| (id, Some(Command::RawGet(node.get("k"))))));
    let answers = stream.collect(1_000).await;
    assert!(answers.keys().copied().eq(0..1_000));
}

#[tokio::test]
async fn a_slow_command_holds_nobody_back() {
    let node = Node::start(ApiVersion::V1).await;
    let mut stream = Stream::open(&node).await;
    let held = node.store.latch([&b"slow"[..]]).await;
    let slow = kvrpcpb::RawPutRequest { for_cas: true, ..node.put("slow", "v") };
    stream.send([(1, Some(Command::RawPut(slow))), (2, Some(Command::RawGet(node.get("k"))))]);
    stream.send([(3, Some(Command::RawPut(node.put("k", "v")))), (4, empty(40, 1))]);
    let answers = stream.collect(3).await;
    assert!(answers.keys().copied().eq([2, 3, 4]));
    let Some(Answer::Empty(echo)) = &answers[&4] else { panic!("{:?}", answers[&4]) };
    assert_eq!(echo.test_id, 40);
    drop(held);
    assert!(stream.collect(1).await.contains_key(&1));
}

#[tokio::test]
async fn refused_writes_do_not_spoil_their_neighbours() {
    let narrow = |region| Region { range: KeyRange::new("b", "d"), ..region };
    let node = Node::start_with(ApiVersion::V1, narrow).await;
    let mut stream = Stream::open(&node).await;
    let put = |name: &str, value: Bytes| Some(Command::RawPut(node.put(name, value)));
    let mut stale = node.put("b", "stale");
    stale.context.as_mut().expect("set").region_epoch = None;
    let with_ttl = kvrpcpb::RawPutRequest { ttl: 5, ..node.put("b", "ttl") };
    stream.send([
        (1, put("b", "1".into())),
        (2, put("x", "outside".into())),
        (3, put("c", vec![0; (8 << 20) + 1].into())),
        (4, Some(Command::RawPut(stale))),
        (5, Some(Command::RawPut(with_ttl))),
        (6, put("cc", "6".into())),
    ]);
    let answers = stream.collect(6).await;
    let answer = |id: u64| match &answers[&id] {
        Some(Answer::RawPut(response)) => response.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(1), kvrpcpb::RawPutResponse::default());
    assert!(answer(2).region_error.expect("refused").key_not_in_region.is_some());
    assert!(answer(3).region_error.expect("refused").raft_entry_too_large.is_some());
    assert!(answer(4).region_error.expect("refused").epoch_not_match.is_some());
    assert!(answer(5).error.contains("ttl"));
    assert_eq!(answer(6), kvrpcpb::RawPutResponse::default());
    let gets = ["b", "cc"].map(|name| Some(Command::RawGet(node.get(name))));
    stream.send((7..).zip(gets));
    let found = stream.collect(2).await;
    let value = |id: u64| match &found[&id] {
        Some(Answer::RawGet(response)) => response.value.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((value(7), value(8)), ("1".into(), "6".into()));
}

/// The status with which a stream ends on which `command` was sent.
async fn end_of_stream(node: &Node, message: BatchCommandsRequest) -> Status {
    let mut stream = Stream::open(node).await;
    stream.requests.as_ref().expect("open").send(message).expect("the stream is open");
    stream.receive().await.expect_err("the stream ends")
}

#[tokio::test]
async fn what_cannot_be_answered_ends_the_stream() {
    let node = Node::start(ApiVersion::V1).await;
    let message = |cmd| BatchCommandsRequest {
        requests: vec![Request { cmd: Some(cmd) }],
        request_ids: vec![1],
        ..Default::default()
    };
    let mut foreign = node.get("k");
    foreign.context.as_mut().expect("set").cluster_id = CLUSTER.0 + 1;
    let status = end_of_stream(&node, message(Command::RawGet(foreign))).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut foreign = node.put("k", "v");
    foreign.context.as_mut().expect("set").cluster_id = CLUSTER.0 + 1;
    let status = end_of_stream(&node, message(Command::RawPut(foreign))).await;
    assert_eq!(status.code(), Code::InvalidArgument);

    let unknown = Command::Coprocessor(proto::coprocessor::Request::default());
    let status = end_of_stream(&node, message(unknown)).await;
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("Coprocessor"), "{}", status.message());

    let uneven = BatchCommandsRequest { request_ids: vec![1, 2], ..Default::default() };
    let status = end_of_stream(&node, uneven).await;
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_that_is_cut_leaves_the_store_well() {
    let node = Node::start(ApiVersion::V1).await;
    for _ in 0..20 {
        let stream = Stream::open(&node).await;
        let puts = (0..100).map(|id| (id, Some(Command::RawPut(node.put("k", "v")))));
        stream.send(puts.chain([(100, empty(1, 60_000))]));
        drop(stream);
    }
    let mut stream = Stream::open(&node).await;
    stream.send([(1, Some(Command::RawPut(node.put("after", "v"))))]);
    let answers = stream.collect(1).await;
    let put = Answer::RawPut(kvrpcpb::RawPutResponse::default());
    assert_eq!(answers[&1], Some(put));
}

#[tokio::test]
async fn streams_end_when_the_node_closes() {
    let node = Node::start(ApiVersion::V1).await;
    let mut stream = Stream::open(&node).await;
    stream.send([(1, Some(Command::RawGet(node.get("k")))), (2, empty(7, 20))]);
    assert!(stream.collect(1).await.contains_key(&1));
    node.closing.send_replace(true);
    // What was taken is still answered.
    assert!(stream.collect(1).await.contains_key(&2));
    assert_eq!(stream.receive().await.expect("a good end"), []);
}
