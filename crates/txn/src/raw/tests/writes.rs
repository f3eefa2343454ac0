//! Puts, deletes, and compare-and-swap.

use base::limits;

use super::*;
use crate::RequestError;

#[test]
fn a_ttl_needs_a_store_that_keeps_it() {
    let store = Store::new(ApiVersion::V1);
    let put = store.writer().put(Cf::Default, &store.key("k"), "v".into(), 1);
    assert_eq!(put, Err(RequestError::TtlNotEnabled));
    assert!(RequestError::TtlNotEnabled.to_string().contains("ttl is not enabled"));
    let pairs = || [(store.key("k"), Bytes::from("v"))].into_iter();
    let batch = store.writer().batch_put(Cf::Default, pairs(), &[1]);
    assert_eq!(batch, Err(RequestError::TtlNotEnabled));
    assert!(store.writer().batch_put(Cf::Default, pairs(), &[0]).is_ok());
}

#[test]
fn a_batch_has_no_one_or_as_many_ttls() {
    for api in [ApiVersion::V1Ttl, ApiVersion::V2] {
        let store = Store::new(api);
        let ttls_after = |ttls: &[u64]| {
            let pairs = ["a", "b", "c"].map(|key| (store.key(key), Bytes::from("v")));
            let batch = store.writer().batch_put(Cf::Default, pairs.into_iter(), ttls)?;
            store.apply(batch);
            Ok(["a", "b", "c"].map(|key| store.ttl(key).expect("just put")))
        };
        assert_eq!(ttls_after(&[7]), Ok([7, 7, 7]));
        assert_eq!(ttls_after(&[1, 0, 3]), Ok([1, 0, 3]));
        assert_eq!(ttls_after(&[]), Ok([0, 0, 0]));
        assert_eq!(ttls_after(&[1, 2]), Err(RequestError::TtlCount { ttls: 2, pairs: 3 }));
        assert_eq!(ttls_after(&[0; 4]), Err(RequestError::TtlCount { ttls: 4, pairs: 3 }));
        let none = store.writer().batch_put(Cf::Default, std::iter::empty(), &[5]);
        assert_eq!(none, Ok(Vec::new()));
    }
}

#[test]
fn batches_apply_in_order() {
    for api in MODES {
        let store = Store::new(api);
        let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
        let pairs = pairs.map(|(key, value)| (store.key(key), Bytes::from(value)));
        store.apply(store.writer().batch_put(Cf::Default, pairs.into_iter(), &[]).expect("legal"));
        assert_eq!(store.get("a"), Some("3".into()));
        let keys = ["a", "x"].map(|key| store.key(key));
        store.apply(store.writer().batch_delete(Cf::Default, &keys).expect("legal"));
        assert_eq!((store.get("a"), store.get("b")), (None, Some("2".into())));
    }
}

#[test]
fn keys_over_the_limit_are_not_written() {
    for api in MODES {
        let store = Store::new(api);
        let long = Bytes::from(vec![b'r'; limits::KEY_SIZE_MAX + 1]);
        let fits = long.slice(1..);
        let refused = RequestError::KeyTooLarge { size: limits::KEY_SIZE_MAX + 1 };
        let writer = store.writer();
        assert_eq!(writer.put(Cf::Default, &long, Bytes::new(), 0), Err(refused.clone()));
        assert_eq!(writer.delete(Cf::Default, &long), Err(refused.clone()));
        assert_eq!(
            writer.batch_delete(Cf::Default, std::slice::from_ref(&long)),
            Err(refused.clone())
        );
        assert_eq!(writer.delete_range(Cf::Default, &long, &"s".into()), Err(refused.clone()));
        assert_eq!(writer.delete_range(Cf::Default, &"r".into(), &long), Err(refused));
        let put = writer.put(Cf::Default, &fits, "v".into(), 0).expect("8 KiB are allowed");
        store.apply([put]);
        let got = store.read(|view| view.get(Cf::Default, &fits)).expect("legal");
        assert_eq!(got, Some("v".into()));
    }
}

#[test]
fn delete_range_takes_start_and_leaves_end() {
    for api in MODES {
        let store = Store::new(api);
        store.fill(&["a", "b", "c", "d"]);
        let delete = |start, end| {
            let range =
                store.writer().delete_range(Cf::Default, &store.key(start), &store.key(end));
            store.apply(range.expect("legal"));
            store.scan("", "z", 10, false).expect("legal")
        };
        assert_eq!(delete("c", "b"), ["a", "b", "c", "d"]);
        assert_eq!(delete("b", "b"), ["a", "b", "c", "d"]);
        assert_eq!(delete("b", "d"), ["a", "d"]);
        assert_eq!(delete("", "z"), [""; 0]);
    }
}

#[test]
fn delete_range_without_an_end_goes_to_the_last_key() {
    let store = Store::new(ApiVersion::V1);
    store.fill(&["a", "b", "c"]);
    let range = store.writer().delete_range(Cf::Default, &"b".into(), &Bytes::new());
    store.apply(range.expect("legal"));
    assert_eq!(store.scan("", "", 10, false).expect("legal"), ["a"]);
}

#[test]
fn v2_writes_stay_among_the_raw_keys() {
    let writer = Store::new(ApiVersion::V2).writer();
    let refused = RequestError::KeyMode { key: "x".into() };
    let is_refused = |result: Result<(), RequestError>| result == Err(refused.clone());
    let (bad, good) = (Bytes::from("x"), Bytes::from("r"));
    assert!(is_refused(writer.put(Cf::Default, &bad, Bytes::new(), 0).map(drop)));
    assert!(is_refused(writer.delete(Cf::Default, &bad).map(drop)));
    assert!(is_refused(writer.delete_range(Cf::Default, &bad, &good).map(drop)));
    assert!(is_refused(writer.delete_range(Cf::Default, &good, &bad).map(drop)));
}

/// Compares and, on success, applies. Whether it succeeded, and what was there.
fn swap(store: &Store, request: CompareAndSwap) -> (bool, Option<Bytes>) {
    let swapped = store.read(|view| view.compare_and_swap(request)).expect("legal");
    let succeeded = swapped.mutation.is_some();
    store.apply(swapped.mutation);
    (succeeded, swapped.previous)
}

fn request(store: &Store, previous: Option<&'static str>, value: &'static str) -> CompareAndSwap {
    CompareAndSwap {
        cf: Cf::Default,
        key: store.key("k"),
        previous: previous.map(Bytes::from),
        value: value.into(),
        ttl_s: 0,
        delete: false,
    }
}

#[test]
fn compare_and_swap_writes_only_over_what_was_expected() {
    for api in MODES {
        let store = Store::new(api);
        assert_eq!(swap(&store, request(&store, Some("x"), "1")), (false, None));
        assert_eq!(store.get("k"), None);
        assert_eq!(swap(&store, request(&store, None, "1")), (true, None));
        assert_eq!(swap(&store, request(&store, None, "2")), (false, Some("1".into())));
        assert_eq!(swap(&store, request(&store, Some(""), "2")), (false, Some("1".into())));
        assert_eq!(swap(&store, request(&store, Some("1"), "")), (true, Some("1".into())));
        // An empty value is not the same as none.
        assert_eq!(swap(&store, request(&store, None, "3")), (false, Some("".into())));
        assert_eq!(swap(&store, request(&store, Some(""), "3")), (true, Some("".into())));
        assert_eq!(store.get("k"), Some("3".into()));
    }
}

#[test]
fn compare_and_delete() {
    for api in MODES {
        let store = Store::new(api);
        store.put("k", "1", 0);
        let delete = |previous| {
            let delete = true;
            swap(&store, CompareAndSwap { delete, ..request(&store, previous, "ignored") })
        };
        assert_eq!(delete(Some("2")), (false, Some("1".into())));
        assert_eq!(store.get("k"), Some("1".into()));
        assert_eq!(delete(Some("1")), (true, Some("1".into())));
        assert_eq!(store.get("k"), None);
        assert_eq!(delete(None), (true, None));
    }
}

#[test]
fn compare_and_swap_takes_an_expired_value_for_none() {
    for api in [ApiVersion::V1Ttl, ApiVersion::V2] {
        let mut store = Store::new(api);
        let ttl_s = 10;
        let first = CompareAndSwap { ttl_s, ..request(&store, None, "1") };
        assert_eq!(swap(&store, first), (true, None));
        assert_eq!(store.ttl("k"), Some(10));
        store.now_s += 10;
        assert_eq!(swap(&store, request(&store, Some("1"), "2")), (false, None));
        assert_eq!(swap(&store, request(&store, None, "2")), (true, None));
        assert_eq!(store.ttl("k"), Some(0));
    }
    let store = Store::new(ApiVersion::V1);
    let with_ttl = CompareAndSwap { ttl_s: 1, ..request(&store, None, "1") };
    let refused = store.read(|view| view.compare_and_swap(with_ttl));
    assert!(refused_text(refused).contains("ttl is not enabled"));
}

#[test]
fn compare_and_swap_stays_in_the_region() {
    for api in MODES {
        let store = Store::new(api).within("m", "z");
        let refused = store.read(|view| view.compare_and_swap(request(&store, None, "1")));
        assert_eq!(refused_key(refused), api.region_key(&store.key("k")));
    }
}
