//! Messages as bytes, written down by hand from the rules of the wire format.
//!
//! A field is a tag, `number << 3 | kind`, and a value: kind 0 is a varint, kind 2 a length and
//! so many bytes. Varints have seven bits a byte, the lowest first. Zero values are left out,
//! except in a oneof.

use bytes::Bytes;
use pontoon_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use pontoon_proto::{eraftpb, errorpb, kvrpcpb, metapb, pdpb, raft_serverpb, tikvpb};
use prost::Message;

/// Checks both directions: the message gives these bytes, and they give the message.
fn assert_wire<M: Message + Default + PartialEq + std::fmt::Debug>(message: M, parts: &[&[u8]]) {
    let bytes = parts.concat();
    assert_eq!(hex(&message.encode_to_vec()), hex(&bytes));
    assert_eq!(M::decode(bytes.as_slice()).expect("it was just encoded"), message);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn epoch(conf_ver: u64, version: u64) -> Option<metapb::RegionEpoch> {
    Some(metapb::RegionEpoch { conf_ver, version })
}

#[test]
fn a_region() {
    let voter = metapb::Peer { id: 3, store_id: 1, ..Default::default() };
    let learner = metapb::Peer {
        id: 4,
        store_id: 2,
        role: metapb::PeerRole::Learner.into(),
        is_witness: false,
    };
    let region = metapb::Region {
        id: 300,
        start_key: Bytes::from_static(b"a"),
        region_epoch: epoch(1, 2),
        peers: vec![voter, learner],
        ..Default::default()
    };
    assert_wire(
        region,
        &[
            &[0x08, 0xac, 0x02],                               // 1: 300
            &[0x12, 0x01, b'a'], // 2: "a"; the empty end key is left out
            &[0x22, 0x04, 0x08, 0x01, 0x10, 0x02], // 4: epoch
            &[0x2a, 0x04, 0x08, 0x03, 0x10, 0x01], // 5: a voter, whose role 0 is left out
            &[0x2a, 0x06, 0x08, 0x04, 0x10, 0x02, 0x18, 0x01], // 5: a learner
        ],
    );
}

#[test]
fn a_batch_of_commands_with_a_raw_put() {
    use kvrpcpb::context::Keyspace;
    use tikvpb::batch_commands_request::{Request, request::Cmd};

    let context = kvrpcpb::Context {
        region_id: 2,
        region_epoch: epoch(1, 5),
        peer: Some(metapb::Peer { id: 3, store_id: 1, ..Default::default() }),
        api_version: kvrpcpb::ApiVersion::V2.into(),
        keyspace: Some(Keyspace::KeyspaceId(0)),
        ..Default::default()
    };
    let put = kvrpcpb::RawPutRequest {
        context: Some(context),
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        ..Default::default()
    };
    let batch = BatchCommandsRequest {
        requests: vec![Request { cmd: Some(Cmd::RawPut(put)) }],
        request_ids: vec![7],
        ..Default::default()
    };
    assert_wire(
        batch,
        &[
            &[0x0a, 0x1e],                         // 1: a request of 30 bytes
            &[0x7a, 0x1c],                         // 15 of the oneof: RawPut, 28 bytes
            &[0x0a, 0x14],                         // 1: context, 20 bytes
            &[0x08, 0x02],                         // 1: region id
            &[0x12, 0x04, 0x08, 0x01, 0x10, 0x05], // 2: epoch
            &[0x1a, 0x04, 0x08, 0x03, 0x10, 0x01], // 3: peer
            &[0xa8, 0x01, 0x02],                   // 21: V2
            &[0x80, 0x02, 0x00],                   // 32: keyspace 0, there because of the oneof
            &[0x12, 0x01, b'k'],                   // 2: key
            &[0x1a, 0x01, b'v'],                   // 3: value
            &[0x12, 0x01, 0x07],                   // 2: ids, packed
        ],
    );
}

#[test]
fn a_batch_of_answers() {
    use tikvpb::batch_commands_response::{Response, response::Cmd};

    let empty = tikvpb::BatchCommandsEmptyResponse { test_id: 9 };
    let batch = BatchCommandsResponse {
        responses: vec![
            Response { cmd: Some(Cmd::RawPut(kvrpcpb::RawPutResponse::default())) },
            Response { cmd: Some(Cmd::Empty(empty)) },
        ],
        request_ids: vec![7, 300],
        health_feedback: Some(kvrpcpb::HealthFeedback {
            store_id: 1,
            feedback_seq_no: 2,
            slow_score: 1,
        }),
        ..Default::default()
    };
    assert_wire(
        batch,
        &[
            &[0x0a, 0x02, 0x7a, 0x00], // 1: 15 of the oneof, an empty success
            &[0x0a, 0x05, 0xfa, 0x0f, 0x02, 0x08, 0x09], // 1: 255 of the oneof
            &[0x12, 0x03, 0x07, 0xac, 0x02], // 2: ids, packed
            &[0x22, 0x06, 0x08, 0x01, 0x10, 0x02, 0x18, 0x01], // 4: health
        ],
    );
}

#[test]
fn region_errors() {
    let not_leader = errorpb::Error {
        message: "no".to_owned(),
        not_leader: Some(errorpb::NotLeader { region_id: 2, leader: None }),
        ..Default::default()
    };
    assert_wire(not_leader, &[&[0x0a, 0x02, b'n', b'o'], &[0x12, 0x02, 0x08, 0x02]]);

    let flashback = errorpb::Error {
        flashback_in_progress: Some(errorpb::FlashbackInProgress {
            region_id: 2,
            flashback_start_ts: 3,
        }),
        ..Default::default()
    };
    assert_wire(flashback, &[&[0x8a, 0x01, 0x04, 0x08, 0x02, 0x10, 0x03]]); // 17
}

#[test]
fn a_timestamp() {
    let response = pdpb::TsoResponse {
        header: Some(pdpb::ResponseHeader { cluster_id: 300, error: None }),
        count: 1,
        timestamp: Some(pdpb::Timestamp { physical: 128, logical: 1, suffix_bits: 0 }),
    };
    assert_wire(
        response,
        &[
            &[0x0a, 0x03, 0x08, 0xac, 0x02],
            &[0x10, 0x01],
            &[0x1a, 0x05, 0x08, 0x80, 0x01, 0x10, 0x01],
        ],
    );
}

#[test]
fn a_negative_number_has_ten_bytes() {
    let request = kvrpcpb::PessimisticLockRequest { wait_timeout: -1, ..Default::default() };
    assert_wire(request, &[&[0x40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]]);
}

#[test]
fn a_local_state_of_raft() {
    let state = raft_serverpb::RaftLocalState {
        hard_state: Some(eraftpb::HardState { term: 6, vote: 3, commit: 5 }),
        last_index: 7,
    };
    assert_wire(state, &[&[0x0a, 0x06, 0x08, 0x06, 0x10, 0x03, 0x18, 0x05], &[0x10, 0x07]]);
}

#[test]
fn maps_are_repeated_pairs() {
    use std::collections::HashMap;

    let region = pdpb::RegionResponse {
        region: Some(metapb::Region { id: 2, ..Default::default() }),
        ..Default::default()
    };
    let response = pdpb::QueryRegionResponse {
        key_id_map: vec![2, 0],
        regions_by_id: HashMap::from([(2, region)]),
        ..Default::default()
    };
    assert_wire(
        response,
        &[
            &[0x12, 0x02, 0x02, 0x00],             // 2: packed, zeros kept
            &[0x22, 0x08, 0x08, 0x02],             // 4: key 2 ...
            &[0x12, 0x04, 0x0a, 0x02, 0x08, 0x02], // ... value
        ],
    );
}

#[test]
fn repeated_numbers_are_taken_packed_and_unpacked() {
    let packed: &[u8] = &[0x12, 0x03, 0x07, 0xac, 0x02];
    let unpacked: &[u8] = &[0x10, 0x07, 0x10, 0xac, 0x02];
    let mixed: &[u8] = &[0x10, 0x07, 0x12, 0x02, 0xac, 0x02];
    for bytes in [packed, unpacked, mixed] {
        let batch = BatchCommandsRequest::decode(bytes).expect("each form is legal");
        assert_eq!(batch.request_ids, [7, 300], "{}", hex(bytes));
    }
}

#[test]
fn old_clients_send_bools_where_the_actions_of_a_prewrite_are() {
    use kvrpcpb::prewrite_request::PessimisticAction;

    let packed: &[u8] = &[0x3a, 0x02, 0x00, 0x01];
    let unpacked: &[u8] = &[0x38, 0x00, 0x38, 0x01];
    for bytes in [packed, unpacked] {
        let request = kvrpcpb::PrewriteRequest::decode(bytes).expect("each form is legal");
        let actions: Vec<_> = request.pessimistic_actions().collect();
        let expected =
            [PessimisticAction::SkipPessimisticCheck, PessimisticAction::DoPessimisticCheck];
        assert_eq!(actions, expected, "{}", hex(bytes));
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let parts: &[&[u8]] = &[
        &[0x08, 0x02],             // 1: region id
        &[0xd2, 0x01, 0x01, b'x'], // 26: a string of old clients
        &[0xc0, 0x3e, 0x05],       // 1000: a number from the future
        &[0xa8, 0x01, 0x02],       // 21: V2
    ];
    let context = kvrpcpb::Context::decode(parts.concat().as_slice()).expect("it is legal");
    assert_eq!(context.region_id, 2);
    assert_eq!(context.api_version(), kvrpcpb::ApiVersion::V2);
}

#[test]
fn an_enum_of_the_future_is_kept_as_a_number() {
    let context = kvrpcpb::Context::decode(&[0xa8, 0x01, 0x63][..]).expect("it is legal");
    assert_eq!(context.api_version, 99);
    assert_eq!(context.api_version(), kvrpcpb::ApiVersion::V1);
}

#[test]
fn cut_and_broken_messages_are_errors() {
    let whole = metapb::Region { id: 300, region_epoch: epoch(1, 2), ..Default::default() };
    let bytes = whole.encode_to_vec();
    for cut in [1, 2, 4, bytes.len() - 1] {
        assert!(metapb::Region::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let not_utf8: &[u8] = &[0x0a, 0x01, 0xff]; // errorpb.Error.message is a string
    assert!(errorpb::Error::decode(not_utf8).is_err());
}

#[test]
fn bytes_share_the_memory_of_the_buffer() {
    let put = kvrpcpb::RawPutRequest {
        key: Bytes::from_static(b"key"),
        value: Bytes::from(vec![7; 1000]),
        ..Default::default()
    };
    let buffer = Bytes::from(put.encode_to_vec());
    let decoded = kvrpcpb::RawPutRequest::decode(buffer.clone()).expect("it was just encoded");
    assert_eq!(decoded, put);
    assert!(buffer.as_ptr_range().contains(&decoded.value.as_ptr()));
}
