//! The store against a model so simple that it is right: a list of all states there ever were.
//!
//! Seeded requests of all kinds go to both; replies, all states since the last compaction and the
//! watches must agree. Between requests the host is restarted, time passes, chores are done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::Prng;
use bytes::Bytes;
use pontoon_placement::etcd::{EtcdError, EtcdReply, EtcdWrite, Watches};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchRequest,
};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;

use super::transactions::op;
use super::{bytes, delete_request, put_request, range};
use crate::host::Host;

type State = BTreeMap<Bytes, KeyValue>;

/// What a change did: revision, key, and whether it was a deletion.
type Told = (i64, Bytes, bool);

/// All there ever was.
struct Model {
    /// By revision; the first two are of a store to which nothing was written.
    states: Vec<State>,
    events: Vec<Told>,
    leases: BTreeSet<i64>,
    compacted: i64,
}

impl Model {
    fn new() -> Self {
        let states = vec![State::new(); 2];
        Self { states, events: Vec::new(), leases: BTreeSet::new(), compacted: 0 }
    }

    fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    /// Does a list of writes as one step; `None` deletes.
    fn step(&mut self, writes: &[(Bytes, Option<(Bytes, i64)>)]) {
        let (revision, mut state) = (self.revision() + 1, self.states.last().unwrap().clone());
        let before = self.events.len();
        for (key, write) in writes {
            let Some((value, lease)) = write else {
                if state.remove(key).is_some() {
                    self.events.push((revision, key.clone(), true));
                }
                continue;
            };
            let old = state.get(key);
            let kv = KeyValue {
                key: key.clone(),
                create_revision: old.map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: old.map_or(0, |kv| kv.version) + 1,
                value: value.clone(),
                lease: *lease,
            };
            state.insert(key.clone(), kv);
            self.events.push((revision, key.clone(), false));
        }
        if self.events.len() > before {
            self.states.push(state);
        }
    }

    fn keys_between(&self, key: &Bytes, end: &Bytes) -> Vec<Bytes> {
        let state = self.states.last().unwrap();
        let is_in = |other: &&Bytes| match &end[..] {
            [] => *other == key,
            [0] => *other >= key,
            _ => *other >= key && *other < end,
        };
        state.keys().filter(is_in).cloned().collect()
    }

    fn writes_of(&self, ops: &[RequestOp]) -> Vec<(Bytes, Option<(Bytes, i64)>)> {
        let mut writes = Vec::new();
        for op in ops {
            match op.request.as_ref().unwrap() {
                Request::RequestPut(put) => {
                    writes.push((put.key.clone(), Some((put.value.clone(), put.lease))));
                }
                Request::RequestDeleteRange(delete) => {
                    let keys = self.keys_between(&delete.key, &delete.range_end);
                    writes.extend(keys.into_iter().map(|key| (key, None)));
                }
                _ => {}
            }
        }
        writes
    }

    fn holds(&self, compare: &Compare) -> bool {
        let version = self.states.last().unwrap().get(&compare.key).map_or(0, |kv| kv.version);
        matches!(compare.target_union, Some(TargetUnion::Version(with)) if with == version)
    }

    /// What a request should come to: whether it is refused, and the revision after it.
    fn apply(&mut self, write: &EtcdWrite) -> Result<i64, EtcdError> {
        let known = |lease: i64, model: &Self| lease == 0 || model.leases.contains(&lease);
        let ops = match write {
            EtcdWrite::Put(put) => vec![op(Request::RequestPut(put.clone()))],
            EtcdWrite::DeleteRange(delete) => {
                vec![op(Request::RequestDeleteRange(delete.clone()))]
            }
            EtcdWrite::Txn(txn) => {
                let holds = txn.compare.iter().all(|compare| self.holds(compare));
                if holds { txn.success.clone() } else { txn.failure.clone() }
            }
            EtcdWrite::Compact(compact) => {
                if compact.revision <= self.compacted {
                    return Err(EtcdError::Compacted);
                }
                if compact.revision > self.revision() {
                    return Err(EtcdError::FutureRevision);
                }
                self.compacted = compact.revision;
                return Ok(self.revision());
            }
            EtcdWrite::Grant(grant) => {
                let new = self.leases.insert(grant.id);
                return if new { Ok(self.revision()) } else { Err(EtcdError::LeaseExists) };
            }
            EtcdWrite::Revoke(revoke) => return self.revoke(revoke.id),
            EtcdWrite::KeepAlive(_) => return Ok(self.revision()),
        };
        let lease = |op: &RequestOp| match op.request.as_ref().unwrap() {
            Request::RequestPut(put) => put.lease,
            _ => 0,
        };
        if ops.iter().any(|op| !known(lease(op), self)) {
            return Err(EtcdError::LeaseNotFound);
        }
        let writes = self.writes_of(&ops);
        self.step(&writes);
        Ok(self.revision())
    }

    fn revoke(&mut self, id: i64) -> Result<i64, EtcdError> {
        if !self.leases.remove(&id) {
            return Err(EtcdError::LeaseNotFound);
        }
        let state = self.states.last().unwrap();
        let keys = state.values().filter(|kv| kv.lease == id).map(|kv| (kv.key.clone(), None));
        let writes: Vec<_> = keys.collect();
        self.step(&writes);
        Ok(self.revision())
    }
}

fn key(prng: &mut Prng) -> String {
    format!("k{}", prng.below(12))
}

fn random_put(prng: &mut Prng) -> proto::etcdserverpb::PutRequest {
    let mut request = put_request(&key(prng), &prng.below(1_000).to_string());
    request.lease = if prng.one_in(3) { 1 + prng.below(4) as i64 } else { 0 };
    request
}

fn random_delete(prng: &mut Prng) -> proto::etcdserverpb::DeleteRangeRequest {
    let end = match prng.below(4) {
        0 => "\0".to_owned(),
        1 => key(prng),
        _ => String::new(),
    };
    delete_request(&key(prng), &end)
}

/// Up to four operations on keys of their own.
fn random_ops(prng: &mut Prng) -> Vec<RequestOp> {
    let mut ops = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..prng.below(5) {
        let put = random_put(prng);
        if !seen.insert(put.key.clone()) {
            continue;
        }
        ops.push(op(match prng.below(3) {
            0 => Request::RequestDeleteRange(delete_request(
                std::str::from_utf8(&put.key).unwrap(),
                "",
            )),
            1 => Request::RequestRange(range("k", "l")),
            _ => Request::RequestPut(put),
        }));
    }
    ops
}

fn random_write(prng: &mut Prng, revision: i64) -> EtcdWrite {
    match prng.below(20) {
        0 => EtcdWrite::Compact(proto::etcdserverpb::CompactionRequest {
            revision: revision - prng.below(20) as i64 + 1,
            physical: false,
        }),
        1..=2 => EtcdWrite::Grant(LeaseGrantRequest { id: 1 + prng.below(4) as i64, ttl: 1_000 }),
        3 => EtcdWrite::Revoke(LeaseRevokeRequest { id: 1 + prng.below(4) as i64 }),
        4..=6 => EtcdWrite::DeleteRange(random_delete(prng)),
        7..=11 => EtcdWrite::Txn(TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key: bytes(&key(prng)),
                target_union: Some(TargetUnion::Version(prng.below(3) as i64)),
                range_end: Bytes::new(),
            }],
            success: random_ops(prng),
            failure: random_ops(prng),
        }),
        _ => EtcdWrite::Put(random_put(prng)),
    }
}

fn revision_of(reply: EtcdReply) -> i64 {
    let header = match reply {
        EtcdReply::Put(response) => response.header,
        EtcdReply::DeleteRange(response) => response.header,
        EtcdReply::Txn(response) => response.header,
        EtcdReply::Compact(response) => response.header,
        EtcdReply::Grant(response) => response.header,
        EtcdReply::Revoke(response) => response.header,
        EtcdReply::KeepAlive(response) => response.header,
    };
    header.unwrap().revision
}

/// A watch of all keys, by a client that comes back now and then.
struct Watcher {
    watches: Watches,
    next: i64,
    told: Vec<Told>,
}

impl Watcher {
    fn new() -> Self {
        Self { watches: Watches::default(), next: 1, told: Vec::new() }
    }

    /// Another stream, from the revision after the last event.
    fn come_back(&mut self, host: &Host) {
        let request = WatchCreateRequest {
            key: bytes("\0"),
            range_end: bytes("\0"),
            start_revision: self.next,
            ..Default::default()
        };
        self.watches = Watches::default();
        let request_union = Some(RequestUnion::CreateRequest(request));
        self.watches.take(&host.placement, WatchRequest { request_union }, host.now);
    }

    fn listen(&mut self, host: &Host, model: &Model) {
        while let Some(answer) = self.watches.next(&host.placement, host.now) {
            if answer.canceled {
                assert_eq!(answer.compact_revision, model.compacted);
                assert!(self.next < model.compacted, "nothing it needs was given up");
                // As clients do: what was missed is missed, from here on all is told.
                self.told.extend(
                    model
                        .events
                        .iter()
                        .filter(|(at, ..)| (self.next..model.compacted).contains(at))
                        .cloned(),
                );
                self.next = model.compacted;
                self.come_back(host);
                continue;
            }
            for event in answer.events {
                let deleted = event.r#type() == EventType::Delete;
                let kv = event.kv.unwrap();
                self.next = kv.mod_revision + 1;
                self.told.push((kv.mod_revision, kv.key, deleted));
            }
        }
        assert_eq!(self.told, model.events);
    }
}

fn check_states(host: &Host, model: &Model, prng: &mut Prng) {
    let oldest = model.compacted.max(1);
    let count = model.revision() - oldest + 1;
    let revision = oldest + prng.below(count as u64) as i64;
    for revision in [revision, model.revision()] {
        let request = RangeRequest { revision, ..range("\0", "\0") };
        let found = host.range(&request).unwrap();
        let state = &model.states[revision as usize];
        assert_eq!(found.kvs, state.values().cloned().collect::<Vec<_>>(), "at {revision}");
    }
    if oldest > 1 {
        let request = RangeRequest { revision: oldest - 1, ..range("k", "") };
        assert_eq!(host.range(&request), Err(EtcdError::Compacted));
    }
    let leases: Vec<_> = host.placement.etcd_leases().leases.iter().map(|l| l.id).collect();
    assert_eq!(leases, model.leases.iter().copied().collect::<Vec<_>>());
    assert_eq!(host.placement.etcd_size().keys, model.states.last().unwrap().len());
}

fn run(seed: u64, rounds: u32) {
    let (mut prng, mut host, mut model) = (Prng::new(seed), Host::new(), Model::new());
    let mut watcher = Watcher::new();
    watcher.come_back(&host);
    for round in 0..rounds {
        let count = 1 + prng.below(6);
        let writes: Vec<_> =
            (0..count).map(|_| random_write(&mut prng, model.revision())).collect();
        let replies = host.batch(&writes);
        assert_eq!(replies.len(), writes.len());
        for (write, reply) in writes.iter().zip(replies) {
            let expected = model.apply(write);
            assert_eq!(reply.map(revision_of), expected, "seed {seed} round {round}: {write:?}");
        }
        if prng.one_in(4) {
            host.chores();
        }
        if prng.one_in(10) {
            host.restart();
            host.chores();
        }
        if prng.one_in(3) {
            watcher.listen(&host, &model);
        }
        if prng.one_in(10) {
            watcher.come_back(&host);
        }
        host.pass(Duration::from_millis(prng.below(100)));
        check_states(&host, &model, &mut prng);
    }
    watcher.listen(&host, &model);
}

#[test]
fn seeded_requests_do_what_the_model_says() {
    for seed in 0..40 {
        run(seed, 150);
    }
}
