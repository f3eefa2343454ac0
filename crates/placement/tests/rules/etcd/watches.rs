//! Watches: every event once, from any revision that is not given up, and what else a stream says.

use std::time::Duration;

use pontoon_placement::etcd::{EtcdWrite, PROGRESS_INTERVAL, Watches};
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use proto::mvccpb::event::EventType;

use super::transactions::op;
use super::{bytes, delete_request, put, put_request, text};
use crate::host::Host;

/// A stream and its host.
struct Stream {
    host: Host,
    watches: Watches,
}

impl Stream {
    fn new() -> Self {
        Self { host: Host::new(), watches: Watches::default() }
    }

    fn send(&mut self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.watches.take(&self.host.placement, request, self.host.now);
    }

    /// Creates a watch and returns its id.
    fn create(&mut self, request: WatchCreateRequest) -> i64 {
        self.send(RequestUnion::CreateRequest(request));
        let answer = self.next().unwrap();
        assert!(answer.created && !answer.canceled, "{answer:?}");
        answer.watch_id
    }

    fn next(&mut self) -> Option<WatchResponse> {
        self.watches.next(&self.host.placement, self.host.now)
    }

    /// What is told until there is nothing more: `revision:key`, deletions with a minus.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(answer) = self.next() {
            assert!(!answer.events.is_empty(), "{answer:?}");
            told.extend(answer.events.iter().map(|event| {
                let kv = event.kv.as_ref().unwrap();
                let minus = if event.r#type() == EventType::Delete { "-" } else { "" };
                format!("{minus}{}:{}", kv.mod_revision, text(&kv.key))
            }));
        }
        told
    }
}

fn watch(key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

fn from(start_revision: i64, key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..watch(key, range_end) }
}

#[test]
fn a_watch_is_told_of_what_comes_and_of_the_past_if_it_asks() {
    let mut stream = Stream::new();
    stream.host.put("a", "1");
    stream.host.put("b", "1");
    stream.create(watch("a", ""));
    assert!(stream.told().is_empty());
    stream.host.put("a", "2");
    stream.host.put("b", "2");
    stream.host.delete("a", "");
    assert_eq!(stream.told(), ["4:a", "-6:a"]);
    assert!(stream.told().is_empty());
    stream.create(from(1, "a", "z"));
    assert_eq!(stream.told(), ["2:a", "3:b", "4:a", "5:b", "-6:a"]);
    // The future has no events yet.
    stream.create(from(9, "a", "z"));
    stream.host.put("x", "7");
    stream.host.put("x", "8");
    assert_eq!(stream.told(), ["7:x", "8:x"], "of the second watch");
    stream.host.put("x", "9");
    assert_eq!(stream.told(), ["9:x", "9:x"]);
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let mut stream = Stream::new();
    stream.create(watch("", "\0"));
    stream.host.put("a", "1");
    assert_eq!(stream.told(), ["2:a"]);
    stream.host.put("b", "1");
    stream.host.restart();
    stream.host.put("c", "1");
    assert_eq!(stream.told(), ["3:b", "4:c"]);
}

#[test]
fn the_events_of_a_transaction_come_in_one_answer() {
    use proto::etcdserverpb::request_op::Request;
    let mut stream = Stream::new();
    stream.create(watch("a", "z"));
    stream.host.put("c", "1");
    let success = vec![
        op(Request::RequestPut(put_request("b", "1"))),
        op(Request::RequestDeleteRange(delete_request("c", ""))),
        op(Request::RequestPut(put_request("a", "1"))),
    ];
    let txn = TxnRequest { success, ..Default::default() };
    stream.host.etcd(EtcdWrite::Txn(txn)).unwrap();
    let answer = stream.next().unwrap();
    assert_eq!(answer.events.len(), 4);
    assert_eq!(answer.header.unwrap().revision, 3);
    let keys: String =
        answer.events.iter().map(|event| text(&event.kv.as_ref().unwrap().key)).collect();
    assert_eq!(keys, "cbca", "in the order in which it was done");
}

#[test]
fn filters_and_former_values() {
    let mut stream = Stream::new();
    let filtered = |filter: FilterType| WatchCreateRequest {
        filters: vec![filter.into()],
        prev_kv: true,
        ..watch("a", "z")
    };
    let puts = stream.create(filtered(FilterType::Nodelete));
    let deletions = stream.create(filtered(FilterType::Noput));
    stream.host.put("a", "1");
    stream.host.put("a", "2");
    stream.host.delete("a", "");
    let mut seen = Vec::new();
    while let Some(answer) = stream.next() {
        for event in answer.events {
            let prev = event.prev_kv.as_ref().map(|kv| text(&kv.value)).unwrap_or_default();
            seen.push((answer.watch_id, event.r#type(), prev));
        }
    }
    // Whose turn is first does not matter.
    seen.sort_by_key(|(id, ..)| *id);
    let expected = [
        (puts, EventType::Put, ""),
        (puts, EventType::Put, "1"),
        (deletions, EventType::Delete, "2"),
    ];
    assert_eq!(seen, expected.map(|(id, kind, prev)| (id, kind, prev.to_owned())));
}

#[test]
fn ids_are_made_up_or_chosen_and_not_taken_twice() {
    let mut stream = Stream::new();
    assert_eq!(stream.create(watch("a", "")), 0);
    assert_eq!(stream.create(WatchCreateRequest { watch_id: 1, ..watch("a", "") }), 1);
    assert_eq!(stream.create(watch("a", "")), 2);
    let again = WatchCreateRequest { watch_id: 1, ..watch("a", "") };
    for (request, reason) in [
        (again, "mvcc: duplicate watch ID provided on the WatchStream"),
        (watch("b", "a"), "mvcc: watcher range is empty"),
    ] {
        stream.send(RequestUnion::CreateRequest(request));
        let answer = stream.next().unwrap();
        assert!(answer.created && answer.canceled);
        assert_eq!((answer.watch_id, answer.cancel_reason.as_str()), (-1, reason));
    }
    stream.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 1 }));
    let answer = stream.next().unwrap();
    assert!(answer.canceled && !answer.created && answer.watch_id == 1);
    stream.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 1 }));
    assert!(stream.next().is_none(), "it is gone");
    stream.host.put("a", "1");
    assert_eq!(stream.told(), ["2:a", "2:a"], "of the two that are left");
}

#[test]
fn a_watch_of_what_was_given_up_is_told_how_far() {
    let mut stream = Stream::new();
    for value in ["1", "2", "3"] {
        stream.host.put("a", value);
    }
    stream.host.delete("a", "");
    stream.create(from(3, "a", ""));
    stream.host.compact(5).unwrap();
    let answer = stream.next().unwrap();
    assert!(answer.canceled && !answer.created && answer.events.is_empty());
    assert_eq!(answer.compact_revision, 5);
    stream.host.put("b", "1");
    assert!(stream.next().is_none(), "it is gone");
    // From the revision itself on all is there, swept or not.
    stream.host.sweep();
    stream.create(from(5, "a", ""));
    assert_eq!(stream.told(), ["-5:a"]);
}

#[test]
fn progress_is_told_when_all_is_told_before() {
    let mut stream = Stream::new();
    let id = stream.create(WatchCreateRequest { progress_notify: true, ..watch("a", "") });
    stream.create(watch("b", ""));
    stream.host.put("a", "1");
    stream.host.put("x", "1");
    stream.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    assert_eq!(stream.next().unwrap().events.len(), 1);
    let answer = stream.next().unwrap();
    assert_eq!((answer.watch_id, answer.header.unwrap().revision), (-1, 3));
    assert!(answer.events.is_empty() && stream.next().is_none());

    stream.host.pass(PROGRESS_INTERVAL - Duration::from_secs(1));
    assert!(stream.next().is_none());
    stream.host.pass(Duration::from_secs(1));
    let answer = stream.next().unwrap();
    assert_eq!((answer.watch_id, answer.header.unwrap().revision), (id, 3));
    assert!(answer.events.is_empty() && stream.next().is_none());
}

#[test]
fn long_histories_come_in_whole_revisions() {
    let mut stream = Stream::new();
    for round in 0..100 {
        let writes: Vec<_> =
            (0..500).map(|i| put(if i % 7 == 0 { "mine" } else { "other" }, "")).collect();
        assert_eq!(stream.host.batch(&writes).len(), 500, "round {round}");
    }
    let value = "x".repeat(700_000);
    for _ in 0..4 {
        stream.host.put("mine", &value);
    }
    stream.create(from(1, "mine", ""));
    let (mut next, mut count) = (2, 0);
    while let Some(answer) = stream.next() {
        assert!(answer.events.len() < 16_384);
        for event in &answer.events {
            let revision = event.kv.as_ref().unwrap().mod_revision;
            assert!(revision >= next, "{revision} after {next}");
            next = revision + 1;
            count += 1;
        }
        let told = answer.header.unwrap().revision;
        assert!(told >= next - 1);
        assert!(told == stream.host.placement.etcd_revision() || told < 50_006);
    }
    assert_eq!(count, 100 * 72 + 4);
}

#[test]
fn what_is_large_comes_in_pieces_if_the_client_takes_them() {
    use proto::etcdserverpb::request_op::Request;
    for fragment in [false, true] {
        let mut stream = Stream::new();
        stream.create(WatchCreateRequest { fragment, prev_kv: true, ..watch("a", "z") });
        let value = "x".repeat(400_000);
        for key in ["a", "b", "c", "d", "e"] {
            stream.host.put(key, &value);
        }
        while stream.next().is_some() {}
        let success = vec![op(Request::RequestDeleteRange(delete_request("a", "z")))];
        let txn = TxnRequest { success, ..Default::default() };
        stream.host.etcd(EtcdWrite::Txn(txn)).unwrap();
        let mut pieces = Vec::new();
        while let Some(answer) = stream.next() {
            pieces.push((answer.events.len(), answer.fragment));
        }
        let expected: &[_] =
            if fragment { &[(2, true), (2, true), (1, false)] } else { &[(5, false)] };
        assert_eq!(pieces, expected);
    }
}
