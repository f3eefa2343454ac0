//! Timestamps: strictly growing over everything that can happen to a leader and its clock.

use base::{Prng, TimeStamp};
use pontoon_placement::{BATCH_MAX, TsoWait, WINDOW_MS, header};
use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::host::{Host, header as our_header, kind};

#[test]
fn every_batch_lies_above_all_before_it() {
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let mut host = Host::new();
        let mut last = TimeStamp(0);
        for _ in 0..2_000 {
            match prng.below(20) {
                0 => host.wall_ms += prng.below(10_000),
                1 => host.wall_ms -= prng.below(10_000),
                2 if prng.one_in(20) => host.wall_ms += prng.below(86_400_000),
                3 if prng.one_in(20) => host.wall_ms -= prng.below(86_400_000),
                4 => host.restart(),
                5..10 => host.wall_ms += 1,
                _ => {}
            }
            let count = match prng.below(10) {
                0 => 300_000,
                1 => u32::try_from(1 + prng.below(300_000)).unwrap(),
                2 => BATCH_MAX,
                _ => u32::try_from(1 + prng.below(100)).unwrap(),
            };
            if count > BATCH_MAX {
                // Waits until the clock has caught up, which the host's loop does by walking.
                host.wall_ms = host.wall_ms.max(last.physical_ms());
            }
            let largest = host.timestamps(count);
            let first = TimeStamp(largest.0 + 1 - u64::from(count));
            assert!(first > last, "seed {seed}: {first} after {last}");
            if count <= BATCH_MAX {
                assert_eq!(first.physical_ms(), largest.physical_ms(), "seed {seed}");
            }
            last = largest;
        }
    }
}

#[test]
fn the_physical_part_is_the_clocks() {
    let mut host = Host::new();
    for _ in 0..100 {
        host.wall_ms += 7;
        let ts = host.timestamps(10);
        assert_eq!((ts.physical_ms(), ts.logical()), (host.wall_ms, 9));
        let ts = host.timestamps(5);
        assert_eq!((ts.physical_ms(), ts.logical()), (host.wall_ms, 14));
    }
}

#[test]
fn a_full_millisecond_waits_for_the_next() {
    let mut host = Host::new();
    let wall_ms = host.wall_ms;
    host.timestamps(1);
    assert_eq!(host.placement.timestamps(wall_ms, BATCH_MAX), Err(TsoWait::NextMillisecond));
    // What still fits is given out.
    let ts = host.placement.timestamps(wall_ms, BATCH_MAX - 1).unwrap();
    assert_eq!((ts.physical_ms(), ts.logical()), (wall_ms, TimeStamp::LOGICAL_MAX));
    assert_eq!(host.placement.timestamps(wall_ms, 1), Err(TsoWait::NextMillisecond));
    let ts = host.placement.timestamps(wall_ms + 1, 1).unwrap();
    assert_eq!((ts.physical_ms(), ts.logical()), (wall_ms + 1, 0));
}

#[test]
fn a_clock_set_back_an_hour_does_not_stop_the_service() {
    let mut host = Host::new();
    let before = host.timestamps(1);
    host.wall_ms -= 3_600_000;
    let set_back_to = host.wall_ms;
    let mut last = before;
    for _ in 0..100 {
        let ts = host.timestamps(BATCH_MAX);
        assert!(ts > last);
        last = ts;
    }
    // At the pace of the clock: a millisecond's supply a millisecond, none ahead.
    assert!(host.wall_ms - set_back_to <= 100);
    assert!(last.physical_ms() - before.physical_ms() <= 101);
}

#[test]
fn the_bound_is_saved_before_use_and_a_new_leader_starts_there() {
    let mut host = Host::new();
    assert_eq!(host.placement.timestamps(host.wall_ms, 1), Err(TsoWait::Window));
    let ts = host.timestamps(1);
    let bound = |host: &Host| u64::from_be_bytes(host.rows[&b"tso"[..]][..].try_into().unwrap());
    assert_eq!(bound(&host), ts.physical_ms() + WINDOW_MS);
    // Within the window nothing is written.
    let rows = host.rows.clone();
    for _ in 0..WINDOW_MS - 1 {
        host.wall_ms += 1;
        host.timestamps(1);
    }
    assert_eq!(host.rows, rows);
    host.wall_ms += 1;
    assert!(host.timestamps(1).physical_ms() < bound(&host));
    assert_ne!(host.rows, rows);

    let (old, wall_ms) = (bound(&host), host.wall_ms);
    host.restart();
    let ts = host.timestamps(1);
    assert_eq!(ts.physical_ms(), old, "above all the old leader may have given out");
    assert!(ts.physical_ms() <= wall_ms + WINDOW_MS);
}

#[test]
fn many_who_wait_for_the_window_raise_it_once() {
    let mut host = Host::new();
    host.timestamps(1);
    host.wall_ms += 2 * WINDOW_MS;
    assert_eq!(host.placement.timestamps(host.wall_ms, 1), Err(TsoWait::Window));
    let wall_ms = host.wall_ms;
    host.write(|placement| Ok(placement.plan_tso_window(wall_ms, 1))).unwrap();
    assert!(host.placement.plan_tso_window(wall_ms, 1).rows.is_empty());
}

#[test]
fn the_largest_count_there_is_gets_its_batch() {
    let mut host = Host::new();
    let before = host.timestamps(1);
    host.wall_ms += 1;
    let largest = host.timestamps(u32::MAX);
    assert!(largest.0 - u64::from(u32::MAX) >= before.0);
    assert!(host.timestamps(1) > largest);
}

#[test]
fn on_the_wire_a_timestamp_has_two_parts() {
    let wire = header::timestamp(TimeStamp::compose(1_700_000_000_000, 77));
    assert_eq!((wire.physical, wire.logical, wire.suffix_bits), (1_700_000_000_000, 77, 0));
}

#[test]
fn the_external_timestamp_goes_forward_and_not_beyond_the_present() {
    let mut host = Host::new();
    let present = host.timestamps(1);
    let mut set = |timestamp: u64| {
        let request = pdpb::SetExternalTimestampRequest { header: our_header(), timestamp };
        host.write(|placement| placement.set_external_timestamp(&request, present))
    };
    set(present.0).unwrap();
    set(present.0).unwrap();
    for wrong in [present.0 + 1, present.0 - 1] {
        assert_eq!(kind(&set(wrong).unwrap_err()), ErrorType::InvalidValue);
    }
    host.restart();
    let request = pdpb::GetExternalTimestampRequest { header: our_header() };
    let response = host.placement.get_external_timestamp(&request).unwrap();
    assert_eq!(response.timestamp, present.0);
}
