//! Point reads, column families, expiry, checksums.

use super::*;

#[test]
fn get_finds_what_was_put_and_nothing_else() {
    for api in MODES {
        let store = Store::new(api);
        assert_eq!(store.get("k"), None);
        store.put("k", "v", 0);
        store.put("empty", "", 0);
        assert_eq!(store.get("k"), Some("v".into()));
        assert_eq!(store.get("empty"), Some("".into()));
        assert_eq!(store.get("k\0"), None);
        store.put("k", "w", 0);
        assert_eq!(store.get("k"), Some("w".into()));
        store.delete("k");
        assert_eq!(store.get("k"), None);
        store.delete("k");
    }
}

#[test]
fn the_empty_key_is_a_key_in_v1() {
    for api in [ApiVersion::V1, ApiVersion::V1Ttl] {
        let store = Store::new(api);
        store.put("", "v", 0);
        assert_eq!(store.get(""), Some("v".into()));
        assert_eq!(store.scan("", "", 10, false).expect("legal"), [""]);
        assert_eq!(store.scan("", "", 10, true).expect("legal"), [""]);
    }
    let v2 = Store::new(ApiVersion::V2);
    let got = v2.read(|view| view.get(Cf::Default, &Bytes::new()));
    assert!(refused_text(got).contains("not a raw key"));
}

#[test]
fn families_are_separate() {
    let store = Store::new(ApiVersion::V1);
    let key = Bytes::from("k");
    for cf in Cf::DATA {
        let put = store.writer().put(cf, &key, Bytes::from(cf.name()), 0);
        store.apply([put.expect("a legal put")]);
    }
    for cf in Cf::DATA {
        assert_eq!(
            store.read(|view| view.get(cf, &key)).expect("a legal get"),
            Some(Bytes::from(cf.name()))
        );
    }
    store.apply([store.writer().delete(Cf::Lock, &key).expect("a legal delete")]);
    assert_eq!(store.read(|view| view.get(Cf::Lock, &key)).expect("a legal get"), None);
    assert_eq!(store.get("k"), Some("default".into()));
}

#[test]
fn batch_get_keeps_the_order_and_leaves_missing_keys_out() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&["a", "b", "c"]);
        let keys = ["c", "x", "a", "c"].map(|key| store.key(key)).to_vec();
        let pairs = store.read(|view| view.batch_get(Cf::Default, keys)).expect("legal");
        assert_eq!(store.names(pairs), ["c", "a", "c"]);
        let none = store.read(|view| view.batch_get(Cf::Default, Vec::new())).expect("legal");
        assert_eq!(none, []);
    }
}

#[test]
fn reads_outside_the_region_name_the_key_in_region_form() {
    for api in MODES {
        let store = Store::new(api).within("b", "d");
        let get = |key| store.read(|view| view.get(Cf::Default, &store.key(key)));
        assert_eq!(refused_key(get("a")), api.region_key(&store.key("a")));
        assert_eq!(refused_key(get("d")), api.region_key(&store.key("d")));
        assert!(get("b").is_ok() && get("c\u{7f}").is_ok());
        let keys = vec![store.key("b"), store.key("e")];
        let batch = store.read(|view| view.batch_get(Cf::Default, keys));
        assert_eq!(refused_key(batch), api.region_key(&store.key("e")));
        let ttl = store.read(|view| view.key_ttl(Cf::Default, &store.key("a")));
        assert_eq!(refused_key(ttl), api.region_key(&store.key("a")));
    }
}

#[test]
fn an_expired_value_is_absent_everywhere() {
    for api in [ApiVersion::V1Ttl, ApiVersion::V2] {
        let mut store = Store::new(api);
        store.put("forever", "v", 0);
        store.put("short", "v", 10);
        assert_eq!(store.ttl("forever"), Some(0));
        assert_eq!(store.ttl("short"), Some(10));
        assert_eq!(store.ttl("none"), None);
        store.now_s = 1_009;
        assert_eq!(store.ttl("short"), Some(1));
        assert_eq!(store.get("short"), Some("v".into()));
        store.now_s = 1_010;
        assert_eq!(store.ttl("short"), None);
        assert_eq!(store.get("short"), None);
        let keys = ["forever", "short"].map(|key| store.key(key)).to_vec();
        let pairs = store.read(|view| view.batch_get(Cf::Default, keys)).expect("legal");
        assert_eq!(store.names(pairs), ["forever"]);
        assert_eq!(store.scan("", "z", 10, false).expect("legal"), ["forever"]);
        // A put without expiry brings it back for good.
        store.put("short", "w", 0);
        assert_eq!(store.ttl("short"), Some(0));
    }
}

#[test]
fn the_longest_ttl_does_not_overflow() {
    for api in [ApiVersion::V1Ttl, ApiVersion::V2] {
        let store = Store::new(api);
        store.put("k", "v", u64::MAX);
        assert_eq!(store.get("k"), Some("v".into()));
        assert_eq!(store.ttl("k"), Some(u64::MAX - 1_000));
    }
}

#[test]
fn a_store_without_expiry_says_that_keys_live_forever() {
    let store = Store::new(ApiVersion::V1);
    store.put("k", "v", 0);
    assert_eq!(store.ttl("k"), Some(0));
    assert_eq!(store.ttl("none"), None);
}

#[test]
fn damage_is_reported_with_its_key() {
    let store = Store::new(ApiVersion::V1Ttl);
    let mut batch = WriteBatch::new();
    batch.put(Cf::Default, b"zk", b"short");
    store.engine.write(&batch).expect("memory takes every batch");
    let is_damaged = |error: RawError| matches!(error, RawError::Damaged { key } if key == "k");
    let key = store.key("k");
    assert!(is_damaged(store.read(|view| view.get(Cf::Default, &key)).expect_err("damaged")));
    assert!(is_damaged(store.read(|view| view.key_ttl(Cf::Default, &key)).expect_err("damaged")));
    assert!(is_damaged(store.scan("", "", 1, false).expect_err("damaged")));
    let batch = store.read(|view| view.batch_get(Cf::Default, vec![key.clone()]));
    assert!(is_damaged(batch.expect_err("damaged")));
}

#[test]
fn a_checksum_is_the_xor_over_live_pairs() {
    for api in MODES {
        let mut store = Store::new(api);
        store.fill(&["a", "bb", "c"]);
        if api.has_ttl() {
            store.put("b", "gone", 5);
            store.now_s += 5;
        }
        let sum = |name: &str| {
            let key = store.key(name);
            Crc64::new().update(&key).update(name.as_bytes()).finish()
        };
        let checksum = |ranges: &[(&str, &str)]| {
            let bounds = ranges.iter().map(|(start, end)| (store.key(start), store.key(end)));
            store.read(|view| view.checksum(Cf::Default, bounds)).expect("legal")
        };
        let prefix = store.key("").len() as u64;
        let all = Checksum {
            checksum: sum("a") ^ sum("bb") ^ sum("c"),
            total_kvs: 3,
            total_bytes: 3 * prefix + 2 * (1 + 2 + 1),
        };
        assert_eq!(checksum(&[("", "z")]), all);
        assert_eq!(checksum(&[("", "b"), ("b", "z")]), all);
        assert_eq!(checksum(&[("c", "z")]).checksum, sum("c"));
        assert_eq!(checksum(&[("x", "z"), ("c", "a")]), Checksum::default());
        assert_eq!(checksum(&[]), Checksum::default());
    }
}
