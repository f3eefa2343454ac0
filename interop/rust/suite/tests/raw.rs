//! What the documentation of `tikv-client` shows of raw keys.

use interop_suite::{API_VERSIONS, open, plain, plain_keys, start};
use tikv_client::{ColumnFamily, IntoOwnedRange, Key, KvPair, RawClient, Value};

fn owned(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
}

fn words(keys: &[&str]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.as_bytes().to_vec()).collect()
}

async fn put_all(client: &RawClient, pairs: &[(&str, &str)]) {
    client.batch_put(owned(pairs)).await.unwrap();
}

#[tokio::test]
async fn put_get_delete() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        assert_eq!(client.get("TiKV".to_owned()).await.unwrap(), None);
        client.put("TiKV".to_owned(), "Rust".to_owned()).await.unwrap();
        let value: Option<Value> = client.get("TiKV".to_owned()).await.unwrap();
        assert_eq!(value, Some(Value::from("Rust".to_owned())));
        client.put("TiKV".to_owned(), "other".to_owned()).await.unwrap();
        assert_eq!(client.get("TiKV".to_owned()).await.unwrap(), Some(b"other".to_vec()));
        client.delete("TiKV".to_owned()).await.unwrap();
        client.delete("TiKV".to_owned()).await.unwrap();
        assert_eq!(client.get("TiKV".to_owned()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn batches() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        put_all(&client, &[("k3", "v3"), ("k1", "v1"), ("k2", "v2")]).await;
        let keys = words(&["k1", "none", "k3"]);
        let mut found = plain(client.batch_get(keys).await.unwrap());
        found.sort();
        assert_eq!(found, owned(&[("k1", "v1"), ("k3", "v3")]));
        client.batch_delete(words(&["k1", "k2"])).await.unwrap();
        let keys = words(&["k1", "k2", "k3"]);
        assert_eq!(plain(client.batch_get(keys).await.unwrap()), owned(&[("k3", "v3")]));
    }
}

/// Where a range ends in the last region of all, this client asks again from the start until it has
/// as many pairs as it was told to take: so the limits of ranges with an end are exact here.
#[tokio::test]
async fn scans() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        put_all(&client, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).await;
        let found = client.scan(("b".."d").into_owned(), 2).await.unwrap();
        assert_eq!(plain(found), owned(&[("b", "2"), ("c", "3")]));
        let found = client.scan(("b"..="d").into_owned(), 3).await.unwrap();
        assert_eq!(plain(found), owned(&[("b", "2"), ("c", "3"), ("d", "4")]));
        let found = client.scan_keys(("a"..).into_owned(), 3).await.unwrap();
        assert_eq!(plain_keys(found), words(&["a", "b", "c"]));
        let found = client.scan_keys(("b"..).into_owned(), 10).await.unwrap();
        assert_eq!(plain_keys(found), words(&["b", "c", "d"]));
        assert!(client.scan(("x"..).into_owned(), 10).await.unwrap().is_empty());
        let found = client.scan_reverse(("b".."d").into_owned(), 2).await.unwrap();
        assert_eq!(plain(found), owned(&[("c", "3"), ("b", "2")]));
        let found = client.scan_keys_reverse(("a".."c").into_owned(), 1).await.unwrap();
        assert_eq!(plain_keys(found), words(&["b"]));
    }
}

/// With keyspaces every range ends within a region that has an end.
#[tokio::test]
async fn scans_of_a_keyspace_end_where_they_should() {
    let server = start("2");
    let client = open(&server, "2").await;
    put_all(&client, &[("k1", "v1"), ("k2", "v2"), ("k3", "v3")]).await;
    let found = client.scan(("k1"..="k2").into_owned(), 10).await.unwrap();
    assert_eq!(plain(found), owned(&[("k1", "v1"), ("k2", "v2")]));
    let found = client.scan_reverse(("k1".."k3").into_owned(), 10).await.unwrap();
    assert_eq!(plain(found), owned(&[("k2", "v2"), ("k1", "v1")]));
    assert!(client.scan(("x".."y").into_owned(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn batch_scans() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        put_all(&client, &[("k1", "v1"), ("k2", "v2"), ("k3", "v3")]).await;
        let ranges =
            || [("k1", "k2"), ("k2", "k3"), ("k1", "k3")].map(|(a, b)| (a..=b).into_owned());
        let found = client.batch_scan(ranges(), 10).await.unwrap();
        let values: Vec<_> = plain(found).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, words(&["v1", "v2", "v2", "v3", "v1", "v2", "v3"]));
        let found = client.batch_scan_keys(ranges(), 1).await.unwrap();
        assert_eq!(plain_keys(found), words(&["k1", "k2", "k1"]));
    }
}

#[tokio::test]
async fn delete_range() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        put_all(&client, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).await;
        client.delete_range(("b".."d").into_owned()).await.unwrap();
        let left = client.scan_keys(("a"..).into_owned(), 10).await.unwrap();
        assert_eq!(plain_keys(left), words(&["a", "d"]));
        client.delete_range("".to_owned().."".to_owned()).await.unwrap();
        assert_eq!(client.get("a".to_owned()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn compare_and_swap() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await.with_atomic_for_cas();
        let swap = |previous: Option<&str>, next: &str| {
            let previous = previous.map(|value| value.as_bytes().to_vec());
            client.compare_and_swap("k".to_owned(), previous, next.as_bytes().to_vec())
        };
        assert_eq!(swap(Some("no"), "1").await.unwrap(), (None, false));
        assert_eq!(swap(None, "1").await.unwrap(), (None, true));
        assert_eq!(swap(None, "2").await.unwrap(), (Some(b"1".to_vec()), false));
        assert_eq!(swap(Some("1"), "2").await.unwrap(), (Some(b"1".to_vec()), true));
        client.put("k".to_owned(), "3".to_owned()).await.unwrap();
        assert_eq!(swap(Some("3"), "4").await.unwrap(), (Some(b"3".to_vec()), true));
        assert_eq!(client.get("k".to_owned()).await.unwrap(), Some(b"4".to_vec()));
    }
}

#[tokio::test]
async fn time_to_live() {
    for api in ["1ttl", "2"] {
        let server = start(api);
        let client = open(&server, api).await;
        client.put_with_ttl("long".to_owned(), "v".to_owned(), 1000).await.unwrap();
        client.put("for-ever".to_owned(), "v".to_owned()).await.unwrap();
        let left = client.get_key_ttl_secs("long".to_owned()).await.unwrap().unwrap();
        assert!((900..=1000).contains(&left), "{left} s left");
        assert_eq!(client.get_key_ttl_secs("for-ever".to_owned()).await.unwrap(), Some(0));
        assert_eq!(client.get_key_ttl_secs("none".to_owned()).await.unwrap(), None);
        let pairs = [KvPair::from(("x".to_owned(), "1")), KvPair::from(("y".to_owned(), "2"))];
        client.batch_put_with_ttl(pairs, [1, 500]).await.unwrap();
        while client.get("x".to_owned()).await.unwrap().is_some() {}
        let left = client.scan_keys(("a"..).into_owned(), 10).await.unwrap();
        assert_eq!(plain_keys(left), words(&["for-ever", "long", "y"]));
    }
}

#[tokio::test]
async fn time_to_live_needs_its_mode() {
    let server = start("1");
    let client = open(&server, "1").await;
    client.put_with_ttl("k".to_owned(), "v".to_owned(), 10).await.unwrap_err();
    assert_eq!(client.get("k".to_owned()).await.unwrap(), None);
}

#[tokio::test]
async fn column_families() {
    let server = start("1");
    let client = open(&server, "1").await;
    let write = client.with_cf(ColumnFamily::Write);
    client.put("k".to_owned(), "default".to_owned()).await.unwrap();
    assert_eq!(write.get("k".to_owned()).await.unwrap(), None);
    write.put("k".to_owned(), "write".to_owned()).await.unwrap();
    assert_eq!(client.get("k".to_owned()).await.unwrap(), Some(b"default".to_vec()));
    assert_eq!(write.get("k".to_owned()).await.unwrap(), Some(b"write".to_vec()));
}

#[tokio::test]
async fn keyspaces_are_apart_from_plain_keys() {
    let server = start("2");
    let client = open(&server, "2").await;
    client.put("k".to_owned(), "v".to_owned()).await.unwrap();
    let unknown = tikv_client::Config::default().with_keyspace("nobody-made-this");
    assert!(RawClient::new_with_config(vec![server.address()], unknown).await.is_err());
    let mode = RawClient::new(vec![server.address()]).await.unwrap();
    mode.get(Key::from("k".to_owned())).await.expect_err("a client of version 1 is refused");
}
