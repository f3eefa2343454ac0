//! A client that was there before the server was killed goes on with the new one, and timestamps
//! grow over it.

use interop_suite::{key, open, pairs, plain, start};
use tikv_client::{BoundRange, Key, TimestampExt, TransactionClient};

#[tokio::test]
async fn the_client_outlives_the_server() {
    for api in ["1", "2"] {
        let mut server = start(api);
        let client = open(&server, api).await;
        for round in 0..3 {
            let new = pairs(round * 200..(round + 1) * 200);
            for (key, value) in &new {
                client.put(key.clone(), value.clone()).await.unwrap();
            }
            server.kill().unwrap();
            server.start_again().unwrap();
            assert_eq!(client.get(key(0)).await.unwrap(), Some(b"value-0".to_vec()));
            let all = BoundRange::range_from(Key::EMPTY);
            let found = plain(client.scan(all, 1000).await.unwrap());
            assert!(found == pairs(0..(round + 1) * 200), "{} pairs", found.len());
        }
    }
}

#[tokio::test]
async fn timestamps_grow_over_a_restart() {
    let mut server = start("1");
    let mut last = 0;
    for _ in 0..3 {
        let client = TransactionClient::new(vec![server.address()]).await.unwrap();
        for _ in 0..500 {
            let now = client.current_timestamp().await.unwrap().version();
            assert!(now > last, "timestamp {now} after {last}");
            last = now;
        }
        server.kill().unwrap();
        server.start_again().unwrap();
    }
}

#[tokio::test]
async fn timestamps_are_unique() {
    let server = start("1");
    let client = std::sync::Arc::new(TransactionClient::new(vec![server.address()]).await.unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = client.clone();
        callers.spawn(async move {
            let mut found = Vec::new();
            for _ in 0..200 {
                found.push(client.current_timestamp().await.unwrap().version());
            }
            assert!(found.is_sorted());
            found
        });
    }
    let mut all = callers.join_all().await.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 32 * 200);
}
