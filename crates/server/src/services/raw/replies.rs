//! The responses of raw commands.

use bytes::Bytes;
use proto::errorpb;
use proto::kvrpcpb::{self, KeyError, KvPair};
use txn::raw::{Checksum, Pair};

use crate::errors::Refusable;

pub(super) fn value(value: Option<Bytes>) -> kvrpcpb::RawGetResponse {
    let not_found = value.is_none();
    kvrpcpb::RawGetResponse { value: value.unwrap_or_default(), not_found, ..Default::default() }
}

pub(super) fn key_ttl(ttl: Option<u64>) -> kvrpcpb::RawGetKeyTtlResponse {
    let (not_found, ttl) = (ttl.is_none(), ttl.unwrap_or_default());
    kvrpcpb::RawGetKeyTtlResponse { ttl, not_found, ..Default::default() }
}

pub(super) fn batch_get(pairs: Vec<Pair>) -> kvrpcpb::RawBatchGetResponse {
    kvrpcpb::RawBatchGetResponse { region_error: None, pairs: kv_pairs(pairs) }
}

pub(super) fn scan(pairs: Vec<Pair>) -> kvrpcpb::RawScanResponse {
    kvrpcpb::RawScanResponse { region_error: None, kvs: kv_pairs(pairs) }
}

pub(super) fn batch_scan(pairs: Vec<Pair>) -> kvrpcpb::RawBatchScanResponse {
    kvrpcpb::RawBatchScanResponse { region_error: None, kvs: kv_pairs(pairs) }
}

pub(super) fn checksum(sum: Checksum) -> kvrpcpb::RawChecksumResponse {
    let Checksum { checksum, total_kvs, total_bytes } = sum;
    kvrpcpb::RawChecksumResponse { checksum, total_kvs, total_bytes, ..Default::default() }
}

pub(super) fn swapped(succeed: bool, previous: Option<Bytes>) -> kvrpcpb::RawCasResponse {
    kvrpcpb::RawCasResponse {
        succeed,
        previous_not_exist: previous.is_none(),
        previous_value: previous.unwrap_or_default(),
        ..Default::default()
    }
}

fn kv_pairs(pairs: Vec<Pair>) -> Vec<KvPair> {
    let kv_pair = |Pair { key, value }| KvPair { key, value, ..Default::default() };
    pairs.into_iter().map(kv_pair).collect()
}

/// Responses of pairs have no field for a text; it goes into the error of a pair that stands alone.
fn error_pair(error: String) -> Vec<KvPair> {
    if error.is_empty() {
        return Vec::new();
    }
    let error = KeyError { abort: error, ..Default::default() };
    vec![KvPair { error: Some(error), ..Default::default() }]
}

impl Refusable for kvrpcpb::RawGetResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error, ..Self::default() }
    }
}

impl Refusable for kvrpcpb::RawBatchGetResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, pairs: error_pair(error) }
    }
}

impl Refusable for kvrpcpb::RawGetKeyTtlResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error, ..Self::default() }
    }
}

impl Refusable for kvrpcpb::RawScanResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, kvs: error_pair(error) }
    }
}

impl Refusable for kvrpcpb::RawBatchScanResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, kvs: error_pair(error) }
    }
}

impl Refusable for kvrpcpb::RawChecksumResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error, ..Self::default() }
    }
}

impl Refusable for kvrpcpb::RawPutResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::RawBatchPutResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::RawDeleteResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::RawBatchDeleteResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::RawDeleteRangeResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::RawCasResponse {
    fn refused(region_error: Option<errorpb::Error>, error: String) -> Self {
        Self { region_error, error, ..Self::default() }
    }
}
