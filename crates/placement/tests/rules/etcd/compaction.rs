//! Compaction: what is given up, what stays, and that history does not grow without end.

use pontoon_placement::etcd::{EtcdError, HISTORY_BYTES_MAX, HISTORY_EVENTS_MAX};
use proto::etcdserverpb::RangeRequest;

use super::{put, range};
use crate::host::Host;

impl Host {
    /// Chores until none is left.
    pub(super) fn sweep(&mut self) {
        let mut rounds = 0;
        while self.placement.etcd_chores_wait().is_some() {
            self.chores();
            rounds += 1;
            assert!(rounds < 10_000, "the sweep does not end");
        }
    }

    /// How many event rows there are.
    fn event_rows(&self) -> usize {
        self.rows.keys().filter(|key| key.starts_with(b"etcd/event/")).count()
    }
}

#[test]
fn what_is_given_up_is_refused_and_what_is_live_stays() {
    let mut host = Host::new();
    host.put("live", "1");
    host.put("a", "1");
    host.put("a", "2");
    host.put("gone", "1");
    host.delete("gone", "");
    host.put("a", "3");
    host.put("a", "4");
    assert_eq!(host.compact(9), Err(EtcdError::FutureRevision));
    host.compact(7).unwrap();
    assert_eq!(host.compact(7), Err(EtcdError::Compacted));
    for round in 0..3 {
        assert_eq!(host.get_at("a", 6), Err(EtcdError::Compacted), "round {round}");
        assert_eq!(host.get_at("a", 7).unwrap().unwrap().value, "3");
        assert_eq!(host.get("a").unwrap().value, "4");
        assert_eq!(host.get("live").unwrap().create_revision, 2);
        assert_eq!(host.get("gone"), None);
        match round {
            0 => host.sweep(),
            _ => host.restart(),
        }
    }
    assert_eq!(host.event_rows(), 3, "live, a at 7 and a at 8");
    assert_eq!(host.put("gone", "2"), 9);
    assert_eq!(host.get("gone").unwrap().version, 1);
}

#[test]
fn the_revision_does_not_go_back_when_the_last_event_is_swept() {
    let mut host = Host::new();
    host.put("a", "1");
    host.delete("a", "");
    host.put("b", "1");
    host.delete("b", "");
    host.compact(5).unwrap();
    host.sweep();
    host.restart();
    host.sweep();
    assert_eq!(host.placement.etcd_revision(), 5);
    assert_eq!(host.put("a", "1"), 6);
}

#[test]
fn a_sweep_that_was_cut_short_goes_on() {
    let mut host = Host::new();
    let writes: Vec<_> = (0..500).map(|i| put("a", &i.to_string())).collect();
    for _ in 0..20 {
        host.batch(&writes);
    }
    host.compact(10_001).unwrap();
    host.chores();
    let left = host.event_rows();
    assert!(left > 1 && left < 10_000, "{left}");
    host.restart();
    host.sweep();
    assert_eq!(host.event_rows(), 1);
    assert_eq!(host.placement.etcd_size().history_events(), 0);
    assert_eq!(host.get("a").unwrap().version, 10_000);
}

#[test]
fn history_that_is_too_long_is_cut_by_itself() {
    let mut host = Host::new();
    for i in 0..200 {
        host.put(&format!("live{i}"), "");
    }
    // Also when each key changes only once: what is old is old then, too.
    let batch =
        |round: usize| (0..500).map(move |i| put(&format!("k{}", (round * 500 + i) % 20_000), ""));
    for round in 0..200 {
        let writes: Vec<_> = batch(round).collect();
        host.batch(&writes);
        host.sweep();
        let size = host.placement.etcd_size();
        assert!(size.history_events() <= HISTORY_EVENTS_MAX, "{size:?}");
        assert_eq!(size.events, host.event_rows());
    }
    let size = host.placement.etcd_size();
    assert_eq!(size.keys, 20_200);
    assert!(size.history_events() > HISTORY_EVENTS_MAX / 3, "half of it stays: {size:?}");
    let compacted = host.placement.etcd_compacted();
    assert!(compacted > 40_000, "{compacted}");
    let old = RangeRequest { revision: compacted - 1, ..range("k", "l") };
    assert_eq!(host.range(&old), Err(EtcdError::Compacted));
    assert_eq!(host.get("live0").unwrap().mod_revision, 2);
}

#[test]
fn large_values_count_by_their_bytes() {
    let mut host = Host::new();
    let value = "x".repeat(1 << 20);
    for _ in 0..100 {
        host.put("a", &value);
        host.sweep();
        assert!(host.placement.etcd_size().history_bytes() <= HISTORY_BYTES_MAX);
    }
    assert!(host.event_rows() > 10, "half of it stays");
}
