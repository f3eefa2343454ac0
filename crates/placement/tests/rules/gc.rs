//! Safe points and barriers, by the old API and the new.

use std::collections::BTreeMap;

use base::Prng;
use pontoon_placement::PlacementError;
use proto::pdpb::ErrorType;
use proto::pdpb::{self, keyspace_scope};

use crate::host::{Host, header, kind};

const NULL: u32 = u32::MAX;

fn scope(id: u32) -> Option<pdpb::KeyspaceScope> {
    Some(pdpb::KeyspaceScope { keyspace: Some(keyspace_scope::Keyspace::KeyspaceId(id)) })
}

/// (txn safe point, GC safe point, barriers) of the null keyspace.
fn state(host: &Host) -> (u64, u64, Vec<(String, u64, i64)>) {
    let state = full_state(host, None).unwrap();
    assert!(!state.is_keyspace_level_gc);
    let barriers = state.gc_barriers.into_iter();
    let barriers = barriers.map(|b| (b.barrier_id, b.barrier_ts, b.ttl_seconds)).collect();
    (state.txn_safe_point, state.gc_safe_point, barriers)
}

fn full_state(host: &Host, keyspace: Option<u32>) -> Result<pdpb::GcState, PlacementError> {
    let request = pdpb::GetGcStateRequest {
        header: header(),
        keyspace_scope: keyspace.and_then(scope),
        ..Default::default()
    };
    Ok(host.placement.get_gc_state(&request, host.wall_ms)?.gc_state.unwrap())
}

fn update(host: &mut Host, safe_point: u64) -> u64 {
    let request = pdpb::UpdateGcSafePointRequest { header: header(), safe_point };
    let wall_ms = host.wall_ms;
    host.write(|p| p.update_gc_safe_point(&request, wall_ms)).unwrap().new_safe_point
}

/// (who holds the minimum, its TTL, the minimum).
fn service(
    host: &mut Host,
    id: &str,
    ttl: i64,
    safe_point: u64,
) -> Result<(String, i64, u64), PlacementError> {
    let request = pdpb::UpdateServiceGcSafePointRequest {
        header: header(),
        service_id: id.to_owned().into(),
        ttl,
        safe_point,
    };
    let wall_ms = host.wall_ms;
    let response = host.write(|p| p.update_service_gc_safe_point(&request, wall_ms))?;
    let id = String::from_utf8(response.service_id.to_vec()).unwrap();
    Ok((id, response.ttl, response.min_safe_point))
}

fn advance_txn(
    host: &mut Host,
    keyspace: u32,
    target: u64,
) -> Result<pdpb::AdvanceTxnSafePointResponse, PlacementError> {
    let request = pdpb::AdvanceTxnSafePointRequest {
        header: header(),
        keyspace_scope: scope(keyspace),
        target,
    };
    let wall_ms = host.wall_ms;
    host.write(|p| p.advance_txn_safe_point(&request, wall_ms))
}

fn advance_gc(host: &mut Host, target: u64) -> Result<(u64, u64), PlacementError> {
    let request =
        pdpb::AdvanceGcSafePointRequest { header: header(), keyspace_scope: scope(NULL), target };
    let response = host.write(|p| p.advance_gc_safe_point(&request))?;
    Ok((response.old_gc_safe_point, response.new_gc_safe_point))
}

fn barrier(
    host: &mut Host,
    keyspace: u32,
    id: &str,
    ts: u64,
    ttl: i64,
) -> Result<i64, PlacementError> {
    let request = pdpb::SetGcBarrierRequest {
        header: header(),
        keyspace_scope: scope(keyspace),
        barrier_id: id.to_owned(),
        barrier_ts: ts,
        ttl_seconds: ttl,
    };
    let wall_ms = host.wall_ms;
    let response = host.write(|p| p.set_gc_barrier(&request, wall_ms))?;
    let info = response.new_barrier_info.unwrap();
    assert_eq!((info.barrier_id.as_str(), info.barrier_ts), (id, ts));
    Ok(info.ttl_seconds)
}

fn delete_barrier(host: &mut Host, id: &str) -> Option<u64> {
    let request = pdpb::DeleteGcBarrierRequest {
        header: header(),
        keyspace_scope: scope(NULL),
        barrier_id: id.to_owned(),
    };
    let wall_ms = host.wall_ms;
    let response = host.write(|p| p.delete_gc_barrier(&request, wall_ms)).unwrap();
    response.deleted_barrier_info.map(|info| info.barrier_ts)
}

fn global_barrier(host: &mut Host, id: &str, ts: u64) -> Result<(), PlacementError> {
    let request = pdpb::SetGlobalGcBarrierRequest {
        header: header(),
        barrier_id: id.to_owned(),
        barrier_ts: ts,
        ttl_seconds: i64::MAX,
    };
    let wall_ms = host.wall_ms;
    host.write(|p| p.set_global_gc_barrier(&request, wall_ms)).map(drop)
}

#[test]
fn the_gc_safe_point_goes_up_and_takes_the_txn_safe_point_along() {
    let mut host = Host::bootstrapped();
    assert_eq!(update(&mut host, 100), 100);
    assert_eq!(update(&mut host, 90), 100, "a lower one is answered with the present one");
    assert_eq!(state(&host), (100, 100, vec![]));
    let now = host.timestamps(1).0;
    assert_eq!(update(&mut host, now), now, "now is accepted");
    host.restart();
    let request = pdpb::GetGcSafePointRequest { header: header() };
    assert_eq!(host.placement.get_gc_safe_point(&request).unwrap().safe_point, now);
}

#[test]
fn a_service_holds_safe_points_back_until_it_expires() {
    let mut host = Host::bootstrapped();
    assert_eq!(service(&mut host, "br", 10, 50), Ok(("gc_worker".into(), i64::MAX, 0)));
    assert_eq!(update(&mut host, 100), 50);
    assert_eq!(service(&mut host, "gc_worker", i64::MAX, 100), Ok(("br".into(), 10, 50)));
    host.wall_ms += 9_001;
    assert_eq!(service(&mut host, "gc_worker", i64::MAX, 100), Ok(("br".into(), 1, 50)));
    host.restart();
    host.wall_ms += 999;
    let reached = service(&mut host, "gc_worker", i64::MAX, 100);
    assert_eq!(reached, Ok(("gc_worker".into(), i64::MAX, 100)));
    assert_eq!(state(&host), (100, 50, vec![]));
}

#[test]
fn a_service_that_comes_too_late_is_told_the_minimum_and_not_recorded() {
    let mut host = Host::bootstrapped();
    service(&mut host, "gc_worker", i64::MAX, 100).unwrap();
    assert_eq!(service(&mut host, "br", 600, 99), Ok(("gc_worker".into(), i64::MAX, 100)));
    assert_eq!(state(&host).2, []);
    assert_eq!(service(&mut host, "br", 600, 100), Ok(("gc_worker".into(), i64::MAX, 100)));
    assert_eq!(state(&host).2, [("br".into(), 100, 600)]);
}

#[test]
fn a_ttl_of_nothing_removes_the_service() {
    let mut host = Host::bootstrapped();
    service(&mut host, "br", 600, 50).unwrap();
    service(&mut host, "cdc", i64::MAX, 60).unwrap();
    service(&mut host, "gc_worker", i64::MAX, 100).unwrap();
    for ttl in [0, -1] {
        assert_eq!(service(&mut host, "br", ttl, 0).unwrap().2, 50);
    }
    let reached = service(&mut host, "gc_worker", i64::MAX, 100);
    assert_eq!(reached, Ok(("cdc".into(), i64::MAX, 60)));
}

#[test]
fn gc_worker_neither_expires_nor_leaves() {
    let mut host = Host::bootstrapped();
    for ttl in [600, 0, -1] {
        let error = service(&mut host, "gc_worker", ttl, 100).unwrap_err();
        assert!(matches!(error, PlacementError::Invalid { .. }));
    }
    service(&mut host, "gc_worker", i64::MAX, 100).unwrap();
    assert_eq!(service(&mut host, "gc_worker", i64::MAX, 90).unwrap().2, 100);
    let request = pdpb::UpdateServiceGcSafePointRequest {
        header: header(),
        service_id: bytes::Bytes::from_static(b"\xff"),
        ttl: 1,
        safe_point: 1,
    };
    assert!(host.placement.update_service_gc_safe_point(&request, host.wall_ms).is_err());
}

#[test]
fn the_txn_safe_point_stops_at_barriers_and_says_at_which() {
    let mut host = Host::bootstrapped();
    assert_eq!(barrier(&mut host, NULL, "backup", 80, 60), Ok(60));
    assert_eq!(barrier(&mut host, NULL, "later", 90, i64::MAX), Ok(i64::MAX));
    let response = advance_txn(&mut host, NULL, 100).unwrap();
    assert_eq!((response.old_txn_safe_point, response.new_txn_safe_point), (0, 80));
    assert!(response.blocker_description.contains("backup"), "{response:?}");
    let response = advance_txn(&mut host, NULL, 80).unwrap();
    assert_eq!((response.new_txn_safe_point, response.blocker_description.as_str()), (80, ""));
    assert_eq!(kind(&advance_txn(&mut host, NULL, 79).unwrap_err()), ErrorType::Unknown);
    assert_eq!(delete_barrier(&mut host, "backup"), Some(80));
    assert_eq!(delete_barrier(&mut host, "backup"), None);
    host.restart();
    assert_eq!(advance_txn(&mut host, NULL, 100).unwrap().new_txn_safe_point, 90);
}

#[test]
fn the_gc_safe_point_follows_the_txn_safe_point() {
    let mut host = Host::bootstrapped();
    advance_txn(&mut host, NULL, 100).unwrap();
    assert_eq!(advance_gc(&mut host, 60), Ok((0, 60)));
    assert_eq!(advance_gc(&mut host, 60), Ok((60, 60)));
    assert_eq!(kind(&advance_gc(&mut host, 59).unwrap_err()), ErrorType::Unknown);
    assert_eq!(kind(&advance_gc(&mut host, 101).unwrap_err()), ErrorType::Unknown);
    assert_eq!(advance_gc(&mut host, 100), Ok((60, 100)));
}

#[test]
fn barriers_that_make_no_sense_are_refused() {
    let mut host = Host::bootstrapped();
    advance_txn(&mut host, NULL, 100).unwrap();
    for (id, ts, ttl) in [
        ("", 200, 1),
        ("gc_worker", 200, 1),
        ("a", 0, 1),
        ("a", 200, 0),
        ("a", 200, -5),
        ("a", 99, 1),
    ] {
        let error = barrier(&mut host, NULL, id, ts, ttl).unwrap_err();
        assert_eq!(kind(&error), ErrorType::Unknown, "{id} {ts} {ttl}");
        assert!(ttl <= 0 || global_barrier(&mut host, id, ts).is_err());
    }
    barrier(&mut host, NULL, "a", 100, 1).unwrap();
    barrier(&mut host, NULL, "a", 300, 2).unwrap();
    assert_eq!(state(&host).2, [("a".into(), 300, 2)], "set again, it is replaced");
}

#[test]
fn keyspaces_share_one_state_unless_they_ask_for_their_own() {
    let mut host = Host::bootstrapped();
    let wall_ms = host.wall_ms;
    let own = BTreeMap::from([("gc_management_type".to_owned(), "keyspace_level".to_owned())]);
    host.write(|p| p.create_keyspace("shared", &BTreeMap::new(), wall_ms)).unwrap();
    host.write(|p| p.create_keyspace("own", &own, wall_ms)).unwrap();
    barrier(&mut host, 1, "shared's", 70, i64::MAX).unwrap();
    barrier(&mut host, 2, "own's", 30, i64::MAX).unwrap();
    assert_eq!(state(&host).2, [("shared's".into(), 70, i64::MAX)]);
    assert_eq!(advance_txn(&mut host, NULL, 100).unwrap().new_txn_safe_point, 70);
    assert_eq!(advance_txn(&mut host, 2, 100).unwrap().new_txn_safe_point, 30);
    assert_eq!(kind(&advance_txn(&mut host, 1, 100).unwrap_err()), ErrorType::Unknown);
    assert_eq!(kind(&advance_txn(&mut host, 9, 100).unwrap_err()), ErrorType::EntryNotFound);
    assert_eq!(kind(&full_state(&host, Some(9)).unwrap_err()), ErrorType::EntryNotFound);
    host.restart();
    assert_eq!(full_state(&host, Some(1)).unwrap().txn_safe_point, 70);
    let state = full_state(&host, Some(2)).unwrap();
    assert_eq!((state.txn_safe_point, state.is_keyspace_level_gc), (30, true));
    assert_eq!(state.keyspace_scope, scope(2));
}

#[test]
fn global_barriers_hold_every_keyspace() {
    let mut host = Host::bootstrapped();
    let wall_ms = host.wall_ms;
    let own = BTreeMap::from([("gc_management_type".to_owned(), "keyspace_level".to_owned())]);
    host.write(|p| p.create_keyspace("own", &own, wall_ms)).unwrap();
    global_barrier(&mut host, "all", 40).unwrap();
    host.restart();
    assert_eq!(advance_txn(&mut host, NULL, 100).unwrap().new_txn_safe_point, 40);
    assert_eq!(advance_txn(&mut host, 1, 35).unwrap().new_txn_safe_point, 35);
    assert_eq!(kind(&global_barrier(&mut host, "low", 39).unwrap_err()), ErrorType::Unknown);

    let request = pdpb::GetAllKeyspacesGcStatesRequest { header: header(), ..Default::default() };
    let all = host.placement.get_all_keyspaces_gc_states(&request, wall_ms).unwrap();
    let states: Vec<_> =
        all.gc_states.iter().map(|s| (s.keyspace_scope, s.txn_safe_point)).collect();
    assert_eq!(states, [(scope(1), 35), (scope(NULL), 40)]);
    assert_eq!(all.global_gc_barriers[0].barrier_id, "all");
    let request = pdpb::GetGcStateRequest {
        header: header(),
        include_global_gc_barriers: true,
        ..Default::default()
    };
    let response = host.placement.get_gc_state(&request, wall_ms).unwrap();
    assert_eq!(response.global_gc_barriers.unwrap().barriers.len(), 1);

    let request = pdpb::DeleteGlobalGcBarrierRequest { header: header(), barrier_id: "all".into() };
    let deleted = host.write(|p| p.delete_global_gc_barrier(&request, wall_ms)).unwrap();
    assert_eq!(deleted.deleted_barrier_info.unwrap().barrier_ts, 40);
    assert_eq!(advance_txn(&mut host, NULL, 100).unwrap().new_txn_safe_point, 100);
}

#[test]
fn whatever_is_called_safe_points_only_grow_and_barriers_hold() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut host = Host::bootstrapped();
        let mut before = (0, 0);
        for _ in 0..80 {
            let (ts, ttl) = (prng.below(200), prng.below(20) as i64 - 2);
            let id = ["a", "b", "c"][prng.below(3) as usize];
            match prng.below(8) {
                0 => drop(update(&mut host, ts)),
                1 => drop(service(&mut host, id, ttl, ts)),
                2 => drop(service(&mut host, "gc_worker", i64::MAX, ts)),
                3 => drop(advance_txn(&mut host, NULL, ts)),
                4 => drop(advance_gc(&mut host, ts)),
                5 => drop(barrier(&mut host, NULL, id, ts, ttl)),
                6 => drop(delete_barrier(&mut host, id)),
                _ => host.wall_ms += prng.below(8_000),
            }
            if prng.one_in(20) {
                host.restart();
            }
            let (txn, gc, barriers) = state(&host);
            assert!(txn >= before.0 && gc >= before.1 && gc <= txn, "seed {seed}");
            assert!(barriers.iter().all(|(_, ts, _)| *ts >= txn), "seed {seed} {barriers:?}");
            before = (txn, gc);
        }
    }
}
