//! Scans in both directions.

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn forward_is_from_start_up_to_but_without_end() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&NAMES);
        let scan = |start, end, limit| store.scan(start, end, limit, false).expect("legal");
        assert_eq!(scan("b", "d", 10), ["b", "c"]);
        assert_eq!(scan("b", "d\0", 10), ["b", "c", "d"]);
        assert_eq!(scan("bb", "z", 2), ["c", "d"]);
        assert_eq!(scan("", "z", 10), NAMES);
        assert_eq!(scan("d", "b", 10), [""; 0]);
        assert_eq!(scan("b", "b", 10), [""; 0]);
    }
}

#[test]
fn reverse_is_from_below_start_down_to_and_with_end() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&NAMES);
        let scan = |start, end, limit| store.scan(start, end, limit, true).expect("legal");
        assert_eq!(scan("d", "b", 10), ["c", "b"]);
        assert_eq!(scan("d\0", "b", 10), ["d", "c", "b"]);
        assert_eq!(scan("z", "", 2), ["e", "d"]);
        assert_eq!(scan("z", "", 10), ["e", "d", "c", "b", "a"]);
        assert_eq!(scan("b", "d", 10), [""; 0]);
    }
}

#[test]
fn empty_bounds_are_unbounded_in_v1() {
    for api in [ApiVersion::V1, ApiVersion::V1Ttl] {
        let store = Store::new(api);
        store.fill(&NAMES);
        assert_eq!(store.scan("", "", 10, false).expect("legal"), NAMES);
        assert_eq!(store.scan("d", "", 10, false).expect("legal"), ["d", "e"]);
        assert_eq!(store.scan("", "d", 10, true).expect("legal"), ["e", "d"]);
    }
}

#[test]
fn v2_ranges_are_bounded_on_both_sides_within_the_raw_keys() {
    let store = Store::new(ApiVersion::V2);
    store.fill(&NAMES);
    let scan = |start: &'static str, end: &'static str, reverse| {
        let (start, end) = (start.into(), end.into());
        let scan = Scan { cf: Cf::Default, start, end, limit: 10, key_only: true, reverse };
        store.read(|view| view.scan(&scan))
    };
    assert_eq!(store.names(scan("r", "s", false).expect("legal")), NAMES);
    assert_eq!(scan("s", "r", true).expect("legal").len(), 5);
    for (start, end, reverse) in
        [("r", "", false), ("", "s", false), ("x", "y", false), ("r", "", true)]
    {
        assert!(refused_text(scan(start, end, reverse)).contains("not a raw key"));
    }
}

#[test]
fn the_limit_is_exact_and_zero_gives_none() {
    for api in MODES {
        let mut store = Store::new(api);
        store.fill(&NAMES);
        if api.has_ttl() {
            // Expired keys between the others do not count.
            for name in ["a1", "b1", "c1", "d1"] {
                store.put(name, "", 1);
            }
            store.now_s += 1;
        }
        for limit in 0..7 {
            let expected = &NAMES[..limit.min(5)];
            assert_eq!(store.scan("", "z", limit, false).expect("legal"), expected);
            let mut reversed = NAMES;
            reversed.reverse();
            let expected = &reversed[..limit.min(5)];
            assert_eq!(store.scan("z", "", limit, true).expect("legal"), expected);
        }
    }
}

#[test]
fn the_near_bound_must_lie_in_the_region_or_be_its_end() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&NAMES);
        let store = store.within("b", "d");
        let region_form = |name| api.region_key(&store.key(name));
        assert_eq!(refused_key(store.scan("a", "z", 10, false)), region_form("a"));
        assert_eq!(refused_key(store.scan("d\0", "z", 10, false)), region_form("d\0"));
        assert_eq!(store.scan("d", "z", 10, false).expect("the end counts"), [""; 0]);
        assert_eq!(refused_key(store.scan("e", "b", 10, true)), region_form("e"));
        assert_eq!(refused_key(store.scan("a", "", 10, true)), region_form("a"));
        assert_eq!(store.scan("d", "b", 10, true).expect("the end counts"), ["c", "b"]);
        assert_eq!(store.scan("b", "", 10, true).expect("the start counts"), [""; 0]);
        // Even where nothing is to be returned.
        assert_eq!(refused_key(store.scan("a", "z", 0, false)), region_form("a"));
    }
}

#[test]
fn the_far_bound_is_cut_to_the_region() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&NAMES);
        let store = store.within("b", "d");
        assert_eq!(store.scan("b", "z", 10, false).expect("legal"), ["b", "c"]);
        assert_eq!(store.scan("d", "", 10, true).expect("legal"), ["c", "b"]);
        assert_eq!(store.scan("c", "", 10, true).expect("legal"), ["b"]);
    }
}

#[test]
fn an_unbounded_reverse_scan_belongs_to_the_last_region() {
    let first = Store::new(ApiVersion::V1).within("", "c");
    assert_eq!(refused_key(first.scan("", "", 10, true)), "");
    let last = Store::new(ApiVersion::V1);
    last.fill(&NAMES);
    let last = last.within("c", "");
    assert_eq!(last.scan("", "", 10, true).expect("legal"), ["e", "d", "c"]);
    assert_eq!(refused_key(last.scan("", "", 10, false)), "");
}

#[test]
fn values_come_unless_only_keys_are_asked_for() {
    for api in MODES {
        let store = Store::new(api);
        store.put("a", "value", 0);
        store.put("b", "", 0);
        for key_only in [false, true] {
            let scan = Scan {
                cf: Cf::Default,
                start: store.key(""),
                end: store.key("z"),
                limit: 9,
                key_only,
                reverse: false,
            };
            let pairs = store.read(|view| view.scan(&scan)).expect("legal");
            let value = if key_only { "" } else { "value" };
            let pair = |name, value: &str| Pair {
                key: store.key(name),
                value: Bytes::copy_from_slice(value.as_bytes()),
            };
            assert_eq!(pairs, [pair("a", value), pair("b", "")]);
        }
    }
}

#[test]
fn a_batch_scan_joins_its_ranges_in_order() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&NAMES);
        let scan = |(start, end): (&str, &str)| Scan {
            cf: Cf::Default,
            start: store.key(start),
            end: store.key(end),
            limit: 2,
            key_only: true,
            reverse: false,
        };
        let ranges = [("d", "z"), ("a", "z"), ("c", "c"), ("b", "c")];
        let pairs = store.read(|view| view.batch_scan(ranges.map(scan))).expect("legal");
        assert_eq!(store.names(pairs), ["d", "e", "a", "b", "b"]);
        let reversed = [("z", "d"), ("c", "a")].map(|range| Scan { reverse: true, ..scan(range) });
        let pairs = store.read(|view| view.batch_scan(reversed)).expect("legal");
        assert_eq!(store.names(pairs), ["e", "d", "b", "a"]);
    }
}

#[test]
fn an_open_snapshot_does_not_see_later_writes() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&NAMES);
        let snapshot = store.engine.snapshot();
        store.delete("b");
        store.put("a", "other", 0);
        let scan = Scan {
            cf: Cf::Default,
            start: store.key(""),
            end: store.key("z"),
            limit: 9,
            key_only: false,
            reverse: false,
        };
        let before = store.read_at(&snapshot, |view| view.scan(&scan)).expect("legal");
        assert_eq!(before[0].value, "a");
        assert_eq!(store.names(before), NAMES);
        assert_eq!(store.scan("", "z", 9, false).expect("legal"), ["a", "c", "d", "e"]);
    }
}

#[test]
fn a_scan_gives_up_when_asked_to() {
    let store = Store::new(ApiVersion::V1);
    for i in 0..1_000 {
        store.put(&format!("{i:04}"), "v", 0);
    }
    let snapshot = store.engine.snapshot();
    let questions = std::cell::Cell::new(0);
    let view = View {
        snapshot: &*snapshot,
        region: &store.region,
        api: store.api,
        now_s: store.now_s,
        interrupted: &|| {
            questions.set(questions.get() + 1);
            questions.get() == 3
        },
    };
    let scan = |limit| {
        let (start, end) = (Bytes::new(), Bytes::new());
        view.scan(&Scan { cf: Cf::Default, start, end, limit, key_only: false, reverse: false })
    };
    assert_eq!(scan(10).expect("one question, answered with no").len(), 10);
    assert!(matches!(scan(1_000), Err(RawError::Interrupted)));
    let summed = view.checksum(Cf::Default, [(Bytes::new(), Bytes::new())]).expect("legal");
    assert_eq!(summed.total_kvs, 1_000);
}

#[test]
fn neighbours_in_the_engine_are_not_the_regions() {
    // Keys of the system region and of the store itself lie beside those of users.
    let store = Store::new(ApiVersion::V1);
    let mut batch = WriteBatch::new();
    for key in [&b"sa"[..], b"y", b"{", b"\x01\x02"] {
        batch.put(Cf::Default, key, b"not a user's");
    }
    store.engine.write(&batch).expect("memory takes every batch");
    store.fill(&["k"]);
    assert_eq!(store.scan("", "", 10, false).expect("legal"), ["k"]);
    assert_eq!(store.scan("", "", 10, true).expect("legal"), ["k"]);
}
