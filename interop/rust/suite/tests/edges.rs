//! Much, large, empty, binary, at once.

use std::sync::Arc;

use interop_suite::{API_VERSIONS, key, open, pairs, plain, plain_keys, start};
use tikv_client::{BoundRange, Key};

/// The client refuses a scan of more.
const SCAN_LIMIT: u32 = 10_240;

fn from(start: Vec<u8>) -> BoundRange {
    BoundRange::range_from(Key::from(start))
}

#[tokio::test]
async fn a_hundred_thousand_keys() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        let expected = pairs(0..100_000);
        for part in expected.chunks(10_000) {
            client.batch_put(part.to_vec()).await.unwrap();
        }
        if std::env::var_os("PONTOON_CONFIG").is_some() {
            // Regions split: this client stops a scan without an end where a region ends, and
            // begins one with an end anew behind the last region.
            let found =
                plain(client.batch_get(expected.iter().map(|(key, _)| key.clone())).await.unwrap());
            assert_eq!(found.len(), expected.len(), "by their keys");
            continue;
        }
        let (mut found, mut start) = (Vec::new(), Vec::new());
        loop {
            let page = plain(client.scan(from(start), SCAN_LIMIT).await.unwrap());
            let Some((last, _)) = page.last() else { break };
            start = [last.as_slice(), b"\0"].concat();
            found.extend(page);
        }
        assert!(found == expected, "{} pairs of {}", found.len(), expected.len());
        // As many pages as there are: a reverse scan that finds too little asks again for ever.
        let (mut back, mut end) = (Vec::new(), b"l".to_vec());
        for _ in 0..10 {
            let range = b"k".to_vec()..end;
            let page = plain_keys(client.scan_keys_reverse(range, 10_000).await.unwrap());
            end = page.last().expect("there are so many").clone();
            back.extend(page);
        }
        assert!(back.iter().rev().eq(expected.iter().map(|(key, _)| key)), "{} keys", back.len());
    }
}

#[tokio::test]
async fn a_batch_of_ten_thousand() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        let expected = pairs(0..10_000);
        client.batch_put(expected.clone()).await.unwrap();
        let keys = || (0..10_000).map(key);
        let mut found = plain(client.batch_get(keys()).await.unwrap());
        found.sort();
        assert!(found == expected, "{} pairs", found.len());
        client.batch_delete(keys()).await.unwrap();
        assert!(client.scan(from(vec![]), 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn values_of_a_mebibyte() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        let large: Vec<u8> =
            (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for i in 0..5 {
            client.put(key(i), large.clone()).await.unwrap();
        }
        assert!(client.get(key(4)).await.unwrap().as_ref() == Some(&large));
        // More than 4 MiB in an answer are refused by the client as it is set by default. The range
        // has an end, because these regions split, and a scan without one stops where one ends.
        let range = BoundRange::from(key(0)..key(5));
        let found = plain(client.scan(range, 3).await.unwrap());
        let keys: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
        assert!(found.iter().all(|(_, value)| *value == large) && found.len() == 3, "{keys:?}");
    }
}

#[tokio::test]
async fn what_is_over_a_limit_is_an_error_and_the_server_goes_on() {
    let server = start("1");
    let client = open(&server, "1").await;
    client.put(b"k".to_vec(), vec![7; 9 << 20]).await.expect_err("a value of 9 MiB");
    client.put(vec![b'k'; (8 << 10) + 1], b"v".to_vec()).await.expect_err("a key over 8 KiB");
    client.put(b"k".to_vec(), b"v".to_vec()).await.unwrap();
    assert_eq!(client.get(b"k".to_vec()).await.unwrap(), Some(b"v".to_vec()));
}

#[tokio::test]
async fn empty_values() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        client.put(b"empty".to_vec(), Vec::new()).await.unwrap();
        assert_eq!(client.get(b"empty".to_vec()).await.unwrap(), Some(vec![]));
        let found = plain(client.scan(from(vec![]), 10).await.unwrap());
        assert_eq!(found, [(b"empty".to_vec(), vec![])]);
    }
}

#[tokio::test]
async fn binary_keys() {
    for api in API_VERSIONS {
        let server = start(api);
        let client = open(&server, api).await;
        let keys = (0..=255).flat_map(|b: u8| [vec![b], vec![b, 0], vec![b, 0, 255, b]]);
        let expected: Vec<_> = keys.map(|key| (key.clone(), key)).collect();
        client.batch_put(expected.clone()).await.unwrap();
        let found = plain(client.scan(from(vec![]), 1000).await.unwrap());
        assert!(found == expected, "{} pairs", found.len());
        let value = client.get(vec![0, 0, 255, 0]).await.unwrap();
        assert_eq!(value, Some(vec![0, 0, 255, 0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once() {
    let server = start("1");
    let client = Arc::new(open(&server, "1").await);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64 {
        let client = client.clone();
        callers.spawn(async move {
            for i in 0..50 {
                let key = format!("{caller}/{i}").into_bytes();
                client.put(key.clone(), key.clone()).await.unwrap();
                assert_eq!(client.get(key.clone()).await.unwrap(), Some(key));
            }
        });
    }
    callers.join_all().await;
}
