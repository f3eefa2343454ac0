//! etcd's keys, leases and watches. What is expected here is what etcd itself does.

mod compaction;
mod keys;
mod leases;
mod model;
mod transactions;
mod watches;

use pontoon_placement::etcd::{EtcdError, EtcdReply, EtcdWrite};
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    RangeResponse,
};
use proto::mvccpb::KeyValue;

use crate::host::Host;

impl Host {
    /// Writes several requests as one batch.
    fn batch(&mut self, writes: &[EtcdWrite]) -> Vec<Result<EtcdReply, EtcdError>> {
        let (now, wall_ms) = (self.now, self.wall_ms);
        let batch = self.write(|placement| Ok(placement.plan_etcd(writes, now, wall_ms))).unwrap();
        self.placement.etcd_settle(&batch, now);
        batch.replies
    }

    fn etcd(&mut self, write: EtcdWrite) -> Result<EtcdReply, EtcdError> {
        self.batch(&[write]).remove(0)
    }

    /// Puts a key, and returns the revision.
    fn put(&mut self, key: &str, value: &str) -> i64 {
        match self.etcd(put(key, value)).unwrap() {
            EtcdReply::Put(response) => response.header.unwrap().revision,
            other => panic!("{other:?}"),
        }
    }

    /// Deletes a key or a range, and returns how many there were.
    fn delete(&mut self, key: &str, range_end: &str) -> i64 {
        match self.etcd(delete(key, range_end)).unwrap() {
            EtcdReply::DeleteRange(response) => response.deleted,
            other => panic!("{other:?}"),
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, EtcdError> {
        self.placement.etcd_range(request)
    }

    /// A key as it was.
    fn get_at(&self, key: &str, revision: i64) -> Result<Option<KeyValue>, EtcdError> {
        let request = RangeRequest { revision, ..range(key, "") };
        Ok(self.range(&request)?.kvs.pop())
    }

    fn get(&self, key: &str) -> Option<KeyValue> {
        self.get_at(key, 0).unwrap()
    }

    /// All keys, as text.
    fn all(&self) -> Vec<String> {
        let kvs = self.range(&range("\0", "\0")).unwrap().kvs;
        kvs.iter().map(|kv| text(&kv.key)).collect()
    }

    fn compact(&mut self, revision: i64) -> Result<(), EtcdError> {
        let request = CompactionRequest { revision, physical: false };
        self.etcd(EtcdWrite::Compact(request)).map(drop)
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, EtcdError> {
        match self.etcd(EtcdWrite::Grant(LeaseGrantRequest { ttl, id }))? {
            EtcdReply::Grant(response) => Ok(response.id),
            other => panic!("{other:?}"),
        }
    }

    /// One round of chores.
    fn chores(&mut self) {
        let now = self.now;
        let chores = self.write(|placement| Ok(placement.plan_etcd_chores(now))).unwrap();
        self.placement.etcd_chores_done(&chores, now);
    }
}

fn put(key: &str, value: &str) -> EtcdWrite {
    EtcdWrite::Put(put_request(key, value))
}

fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn delete(key: &str, range_end: &str) -> EtcdWrite {
    EtcdWrite::DeleteRange(delete_request(key, range_end))
}

fn delete_request(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
