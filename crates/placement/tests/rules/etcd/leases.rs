//! Leases: granted, renewed, revoked, run out; and what a new leader makes of them.

use std::time::Duration;

use pontoon_placement::etcd::{EtcdError, EtcdReply, LEASE_TTL_MAX, LEASE_TTL_MIN};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::{EtcdWrite, put, put_request, text};
use crate::host::Host;

const SECOND: Duration = Duration::from_secs(1);

impl Host {
    fn put_with(&mut self, key: &str, lease: i64) -> Result<(), EtcdError> {
        let mut request = put_request(key, "");
        request.lease = lease;
        self.etcd(EtcdWrite::Put(request)).map(drop)
    }

    /// The time to live that a renewal gives; 0: the lease is not there.
    fn renew(&mut self, id: i64) -> i64 {
        match self.etcd(EtcdWrite::KeepAlive(LeaseKeepAliveRequest { id })).unwrap() {
            EtcdReply::KeepAlive(response) => response.ttl,
            other => panic!("{other:?}"),
        }
    }

    fn revoke(&mut self, id: i64) -> Result<(), EtcdError> {
        self.etcd(EtcdWrite::Revoke(LeaseRevokeRequest { id })).map(drop)
    }

    /// What is left of a lease in seconds, and its keys.
    fn left(&self, id: i64) -> (i64, Vec<String>) {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let answer = self.placement.etcd_lease_time_to_live(&request, self.now);
        (answer.ttl, answer.keys.iter().map(|key| text(key)).collect())
    }

    fn leases(&self) -> Vec<i64> {
        self.placement.etcd_leases().leases.iter().map(|lease| lease.id).collect()
    }
}

#[test]
fn a_lease_takes_its_keys_with_it_in_one_revision() {
    let mut host = Host::new();
    host.grant(7, 10).unwrap();
    host.put_with("a", 7).unwrap();
    host.put_with("b", 7).unwrap();
    host.put("c", "");
    assert_eq!(host.put_with("d", 8), Err(EtcdError::LeaseNotFound));
    assert_eq!(host.left(7), (10, vec!["a".into(), "b".into()]));
    let revision = host.placement.etcd_revision();
    host.pass(SECOND * 9);
    host.chores();
    assert_eq!(host.all(), ["a", "b", "c"]);
    host.pass(SECOND);
    assert_eq!(host.left(7).0, -1, "it has run out");
    assert_eq!(host.all(), ["a", "b", "c"], "but it is there until the leader has written so");
    host.chores();
    assert_eq!(host.all(), ["c"]);
    assert_eq!(host.placement.etcd_revision(), revision + 1);
    assert!(host.leases().is_empty());
    host.restart();
    assert_eq!((host.all(), host.leases()), (vec!["c".to_owned()], vec![]));
}

#[test]
fn a_key_follows_its_newest_put() {
    let mut host = Host::new();
    host.grant(1, 10).unwrap();
    host.grant(2, 20).unwrap();
    host.put_with("a", 1).unwrap();
    host.put_with("b", 1).unwrap();
    host.put_with("c", 1).unwrap();
    host.put_with("a", 2).unwrap();
    host.put("b", "none");
    host.delete("c", "");
    for _ in 0..2 {
        assert_eq!((host.left(1).1.len(), host.left(2).1), (0, vec!["a".to_owned()]));
        host.restart();
    }
    host.chores();
    host.pass(SECOND * 20);
    host.chores();
    assert_eq!(host.all(), ["b"]);
}

#[test]
fn renewals_keep_a_lease_and_write_nothing() {
    let mut host = Host::new();
    host.grant(7, 10).unwrap();
    let rows = host.rows.clone();
    for _ in 0..5 {
        host.pass(SECOND * 9);
        host.chores();
        assert_eq!((host.left(7).0, host.renew(7)), (1, 10));
    }
    assert_eq!(host.rows, rows);
    host.pass(SECOND * 10);
    assert_eq!(host.renew(7), 0, "it has run out, so it is not saved");
    assert_eq!(host.renew(8), 0);
}

#[test]
fn ids_and_times_to_live() {
    let mut host = Host::new();
    let first = host.grant(0, 10).unwrap();
    let second = host.grant(0, 10).unwrap();
    assert!(first > 0 && second > first);
    host.revoke(second).unwrap();
    let third = host.grant(0, 10).unwrap();
    assert!(third > second, "an id is not given twice");
    assert_eq!(host.grant(first, 10), Err(EtcdError::LeaseExists));
    assert_eq!(host.grant(0, LEASE_TTL_MAX + 1), Err(EtcdError::LeaseTtlTooLarge));
    host.grant(5, LEASE_TTL_MAX).unwrap();
    host.grant(6, -3).unwrap();
    assert_eq!((host.left(5).0, host.left(6).0), (LEASE_TTL_MAX, LEASE_TTL_MIN));
    assert_eq!(host.leases(), [5, 6, first, third]);
}

#[test]
fn a_lease_that_is_revoked_is_gone() {
    let mut host = Host::new();
    assert_eq!(host.revoke(7), Err(EtcdError::LeaseNotFound));
    host.grant(7, 10).unwrap();
    host.put_with("a", 7).unwrap();
    let revision = host.placement.etcd_revision();
    // Keys that were attached earlier in the same batch go with it.
    let mut late = put_request("b", "");
    late.lease = 7;
    let revoke = EtcdWrite::Revoke(LeaseRevokeRequest { id: 7 });
    let keep_alive = EtcdWrite::KeepAlive(LeaseKeepAliveRequest { id: 7 });
    let grant = EtcdWrite::Grant(LeaseGrantRequest { ttl: 10, id: 7 });
    let replies =
        host.batch(&[EtcdWrite::Put(late), revoke.clone(), keep_alive, put("c", ""), grant]);
    assert!(matches!(&replies[2], Ok(EtcdReply::KeepAlive(answer)) if answer.ttl == 0));
    assert_eq!(host.all(), ["c"]);
    assert_eq!(host.placement.etcd_revision(), revision + 3);
    assert_eq!(host.left(7), (10, vec![]), "it was granted anew, without keys");
    let revision = host.placement.etcd_revision();
    host.etcd(revoke).unwrap();
    assert_eq!(host.placement.etcd_revision(), revision, "no key, no revision");
}

#[test]
fn a_new_leader_gives_a_lease_its_time_anew() {
    let mut host = Host::new();
    host.grant(7, 10).unwrap();
    host.put_with("a", 7).unwrap();
    host.pass(SECOND * 8);
    host.restart();
    assert_eq!(host.left(7).0, 10);
    host.chores();
    host.pass(SECOND * 9);
    host.chores();
    assert_eq!((host.left(7).0, host.all()), (1, vec!["a".to_owned()]));
    host.pass(SECOND);
    host.chores();
    assert!(host.all().is_empty());
}

#[test]
fn but_not_much_more_than_was_left_of_a_long_one() {
    let mut host = Host::new();
    host.grant(7, 3_600).unwrap();
    for _ in 0..58 {
        host.pass(SECOND * 60);
        host.chores();
    }
    assert_eq!(host.left(7).0, 120);
    host.restart();
    host.chores();
    let left = host.left(7).0;
    assert!((120..=421).contains(&left), "{left}");
    // A renewal gives it all its time, and so does the leader after the next one.
    assert_eq!(host.renew(7), 3_600);
    assert_eq!(host.left(7).0, 3_600);
    host.restart();
    assert_eq!(host.left(7).0, 3_600);
}

#[test]
fn a_lease_with_very_many_keys_ends_step_by_step() {
    let mut host = Host::new();
    host.grant(7, 10).unwrap();
    let keys = pontoon_placement::etcd::WRITE_BYTES_MAX / 128 + 1;
    for first in (0..keys).step_by(1_000) {
        let put = |i: usize| {
            let mut request = put_request(&format!("{i:06}"), "");
            request.lease = 7;
            EtcdWrite::Put(request)
        };
        let writes: Vec<_> = (first..keys.min(first + 1_000)).map(put).collect();
        host.batch(&writes);
    }
    assert_eq!(host.revoke(7), Err(EtcdError::TooLarge));
    host.pass(SECOND * 10);
    host.chores();
    assert!(!host.all().is_empty());
    assert_eq!(host.leases(), [7]);
    assert_eq!(host.renew(7), 0, "it goes on ending");
    host.chores();
    assert!(host.all().is_empty() && host.leases().is_empty());
}
