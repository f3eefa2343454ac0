//! Large transactions, scans over region borders, ranges that are destroyed, old versions that are
//! collected, many transfers at once, a server that is killed under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use interop_suite::placement::{regions, split_at, until};
use interop_suite::{
    PATIENCE, Random, TXN_API_VERSIONS, bank, commit_pairs, key, now, open_txn, pairs, plain,
    plain_keys, start, stored_key, until_no_locks,
};
use tikv_client::{BoundRange, Key, TimestampExt, TransactionClient, TransactionOptions};
use tokio::task::JoinSet;

#[tokio::test]
async fn scans_over_region_borders_both_ways() {
    const COUNT: usize = 1_000;
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let expected = pairs(0..COUNT);
        commit_pairs(&client, expected.clone()).await;
        // A border on a key, and one between two keys.
        let between = [key(600), b"~".to_vec()].concat();
        let borders = [key(100), key(101), key(350), between, key(900)];
        split_at(server.address(), borders.map(|border| stored_key(api, &border))).await;
        let mut snapshot = now(&client).await;
        let mut random = Random::new(1);
        for _ in 0..50 {
            let mut ends = [random.below(COUNT as u64 + 1), random.below(COUNT as u64 + 1)];
            ends.sort_unstable();
            let [first, end] = ends.map(|end| end as usize);
            let limit = 1 + random.below(COUNT as u64) as usize;
            let wanted = &expected[first..end];
            let range = || BoundRange::from(key(first)..key(end));
            let found = plain(snapshot.scan(range(), limit as u32).await.unwrap().collect());
            assert!(found == wanted[..wanted.len().min(limit)], "{first}..{end} {limit}");
            let found = snapshot.scan_keys_reverse(range(), limit as u32).await.unwrap();
            let found = plain_keys(found.collect());
            let wanted = wanted.iter().rev().map(|(key, _)| key).take(limit);
            assert!(found.iter().eq(wanted), "{first}..{end} {limit}, in reverse");
        }
        let found = snapshot.scan_reverse(.., COUNT as u32).await.unwrap();
        assert!(
            found.map(|pair| Vec::from(pair.0)).eq((0..COUNT).rev().map(key)),
            "all in reverse"
        );
        let found = snapshot.batch_get((0..COUNT + 10).map(key)).await.unwrap();
        assert_eq!(found.count(), COUNT);
    }
}

/// 10,000 keys of 512 bytes: several MiB over several regions, in one transaction.
#[tokio::test]
async fn a_large_transaction() {
    const COUNT: usize = 10_000;
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let borders = [2_500, 5_000, 7_500].map(|i| stored_key(api, &key(i)));
        split_at(server.address(), borders).await;
        for options in [
            TransactionOptions::new_optimistic(),
            TransactionOptions::new_optimistic().use_async_commit(),
            TransactionOptions::new_pessimistic(),
        ] {
            let value = format!("{options:?}").repeat(10).into_bytes()[..512].to_vec();
            let mut txn = client.begin_with_options(options).await.unwrap();
            let mutations = (0..COUNT)
                .map(|i| tikv_client::transaction::Mutation::Put(Key::from(key(i)), value.clone()));
            txn.batch_mutate(mutations).await.unwrap();
            txn.commit().await.unwrap();
            let mut snapshot = now(&client).await;
            for part in 0..COUNT / 1_000 {
                let range = key(part * 1_000)..key((part + 1) * 1_000);
                let found = plain(snapshot.scan(range, 1_000).await.unwrap().collect());
                assert_eq!(found.len(), 1_000);
                assert!(found.iter().all(|(_, found)| *found == value));
            }
            until_no_locks(&client).await;
        }
    }
}

#[tokio::test]
async fn large_values() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let large: Vec<u8> =
            (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        commit_pairs(&client, (0..6).map(|i| (key(i), large.clone())).collect()).await;
        for i in 0..6 {
            assert!(now(&client).await.get(key(i)).await.unwrap().as_ref() == Some(&large));
        }
        let mut txn = client.begin_optimistic().await.unwrap();
        txn.put(key(0), vec![7; 9 << 20]).await.unwrap();
        txn.commit().await.expect_err("a value of 9 MiB");
        txn.rollback().await.unwrap();
        let mut txn = client.begin_optimistic().await.unwrap();
        txn.put(vec![b'k'; 9 << 10], b"v".to_vec()).await.unwrap();
        txn.commit().await.expect_err("a key of 9 KiB");
        txn.rollback().await.unwrap();
        assert!(now(&client).await.get(key(0)).await.unwrap().as_ref() == Some(&large));
    }
}

#[tokio::test]
async fn binary_keys() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let keys = (0..=255).flat_map(|b: u8| [vec![b], vec![b, 0], vec![b, 0, 255, b]]);
        let expected: Vec<_> = keys.map(|key| (key.clone(), key)).collect();
        commit_pairs(&client, expected.clone()).await;
        let found = plain(now(&client).await.scan(.., 1_000).await.unwrap().collect());
        assert!(found == expected, "{} pairs", found.len());
        let mut back = plain(now(&client).await.scan_reverse(.., 1_000).await.unwrap().collect());
        back.reverse();
        assert!(back == expected, "{} pairs in reverse", back.len());
    }
}

#[tokio::test]
async fn a_destroyed_range_is_gone_with_its_locks() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, pairs(0..1_000)).await;
        split_at(server.address(), [stored_key(api, &key(500))]).await;
        let mut locked = client.begin_pessimistic().await.unwrap();
        locked.lock_keys([key(400), key(100)]).await.unwrap();
        let before = client.current_timestamp().await.unwrap();
        client.unsafe_destroy_range(key(200)..key(800)).await.unwrap();
        let left = plain_keys(now(&client).await.scan_keys(.., 2_000).await.unwrap().collect());
        assert!(left.iter().eq((0..200).chain(800..1_000).map(key).collect::<Vec<_>>().iter()));
        let mut then = client.snapshot(before, TransactionOptions::new_optimistic());
        assert_eq!(then.get(key(300)).await.unwrap(), None, "its past is gone too");
        let found = interop_suite::locks(&client).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, key(100));
        locked.rollback().await.unwrap();
        client.unsafe_destroy_range(..).await.unwrap();
        assert_eq!(now(&client).await.scan(.., 10).await.unwrap().count(), 0);
        commit_pairs(&client, pairs(0..10)).await;
        assert_eq!(now(&client).await.scan(.., 100).await.unwrap().count(), 10);
    }
}

/// The newest value before the safe point stays, and what is newer.
#[tokio::test]
async fn a_collection_keeps_what_can_still_be_read() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let write = async |value: &str| {
            let mut txn = client.begin_optimistic().await.unwrap();
            txn.put(b"k".to_vec(), value.to_owned()).await.unwrap();
            match value {
                "2" => txn.delete(b"gone".to_vec()).await.unwrap(),
                _ => txn.put(b"gone".to_vec(), value.to_owned()).await.unwrap(),
            }
            txn.commit().await.unwrap();
            client.current_timestamp().await.unwrap()
        };
        let early = write("1").await;
        let safe_point = write("2").await;
        let later = write("3").await;
        assert!(client.gc(safe_point.clone()).await.unwrap(), "the safe point is taken");
        for (at, wanted, gone) in [(safe_point.clone(), "2", None), (later, "3", Some("3"))] {
            let mut then = client.snapshot(at, TransactionOptions::new_optimistic());
            let found = then.get(b"k".to_vec()).await.unwrap();
            assert_eq!(found.as_deref(), Some(wanted.as_bytes()));
            let found = then.get(b"gone".to_vec()).await.unwrap();
            assert_eq!(found.as_deref(), gone.map(str::as_bytes));
        }
        let back = tikv_client::Timestamp::from_version(safe_point.version() - (1 << 18));
        assert!(!client.gc(back).await.unwrap(), "a safe point does not go back");
        // Once the store has heard of it, it refuses to read what may be gone.
        let began = Instant::now();
        let refusal = loop {
            let mut then = client.snapshot(early.clone(), TransactionOptions::new_optimistic());
            if let Err(error) = then.get(b"k".to_vec()).await {
                break format!("{error:?}");
            }
            assert!(began.elapsed() < PATIENCE, "it hears of it");
        };
        assert!(refusal.contains("GC life time is shorter"), "{refusal}");
    }
}

/// Transfers in all ways at once; a reader of the past or the present always sees the same sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_with_many_tellers() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = Arc::new(open_txn(&server, api).await);
        split_at(server.address(), [10, 20, 30].map(|n| stored_key(api, &bank::account(n)))).await;
        bank::open(&client).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut tellers = JoinSet::new();
        for teller in 0..12 {
            let (client, stop) = (client.clone(), stop.clone());
            tellers.spawn(async move { work(&client, teller, true, &stop).await });
        }
        let mut past = Vec::new();
        for _ in 0..60 {
            let timestamp = client.current_timestamp().await.unwrap();
            past.push(timestamp.clone());
            check_at(&client, timestamp, &[]).await;
        }
        stop.store(true, Ordering::Relaxed);
        let acknowledged = tellers.join_all().await.concat();
        assert!(acknowledged.len() > 20, "{} transfers", acknowledged.len());
        for timestamp in past {
            check_at(&client, timestamp, &[]).await;
        }
        check_at(&client, client.current_timestamp().await.unwrap(), &acknowledged).await;
        until_no_locks(&client).await;
    }
}

/// Transfers until it is told to stop. Not by async commit where it may be cut off: this client
/// takes one of which a part was never prewritten for committed. Returns the ids of those that
/// were acknowledged.
async fn work(
    client: &TransactionClient,
    teller: u64,
    may_be_async: bool,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut random = Random::new(teller);
    let mut acknowledged = Vec::new();
    let mut options = match teller % 2 {
        0 => TransactionOptions::new_optimistic(),
        _ => TransactionOptions::new_pessimistic(),
    };
    if teller % 3 == 0 && may_be_async {
        options = options.use_async_commit();
    }
    if teller % 4 == 0 {
        options = options.try_one_pc();
    }
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{teller}-{number}");
        let done = bank::transfer(client, options.clone(), &mut random, &id).await.is_ok();
        // Version 0.4 of the client takes a commit for done whose region it cannot look up, as
        // when everything is down, though it sent nothing (`shards` of its `CommitRequest`).
        if done && !stop.load(Ordering::Relaxed) {
            acknowledged.push(id);
        }
    }
    acknowledged
}

/// Reads at a timestamp until no lock is in the way.
async fn check_at(client: &TransactionClient, at: tikv_client::Timestamp, acknowledged: &[String]) {
    let began = Instant::now();
    loop {
        let mut then = client.snapshot(at.clone(), TransactionOptions::new_optimistic());
        match bank::check(&mut then, acknowledged).await {
            Ok(()) => return,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_whose_server_is_killed() {
    for api in TXN_API_VERSIONS {
        let mut server = start(api);
        bank::open(&open_txn(&server, api).await).await;
        let mut acknowledged = Vec::new();
        for round in 0..3 {
            let mut tellers = JoinSet::new();
            let stop = Arc::new(AtomicBool::new(false));
            for teller in 0..8 {
                let (client, stop) = (open_txn(&server, api).await, stop.clone());
                let teller = round * 100 + teller;
                tellers.spawn(async move { work(&client, teller, false, &stop).await });
            }
            let client = open_txn(&server, api).await;
            for _ in 0..20 {
                check_at(&client, client.current_timestamp().await.unwrap(), &acknowledged).await;
            }
            // What is in flight fails, and its answer is not known.
            stop.store(true, Ordering::Relaxed);
            server.kill().unwrap();
            server.start_again().unwrap();
            acknowledged.extend(tellers.join_all().await.concat());
            let client = open_txn(&server, api).await;
            check_at(&client, client.current_timestamp().await.unwrap(), &acknowledged).await;
        }
        assert!(acknowledged.len() > 20, "{} transfers", acknowledged.len());
    }
}

/// Where regions split by themselves, they do so under transactions too.
#[tokio::test]
async fn regions_split_under_transactions() {
    const COUNT: usize = 6_000;
    let config = "[coprocessor]\nregion-split-size = '64KiB'\n\
                  [raftstore]\nsplit-region-check-tick-interval = '100ms'\n";
    let nodes = std::env::var("PONTOON_NODES").map_or(1, |nodes| nodes.parse().unwrap());
    let server = server_under_test::Server::start_cluster(nodes, config).unwrap();
    let client = open_txn(&server, "1").await;
    let before = regions(server.address()).unwrap().len();
    let mut random = Random::new(7);
    for _ in 0..COUNT / 100 {
        let mut txn = client.begin_optimistic().await.unwrap();
        let mutations = (0..100).map(|_| {
            let key = key(random.below(COUNT as u64) as usize);
            tikv_client::transaction::Mutation::Put(Key::from(key.clone()), key.repeat(30))
        });
        txn.batch_mutate(mutations.collect::<Vec<_>>()).await.unwrap();
        txn.commit().await.unwrap();
    }
    until("splits", || regions(server.address()).is_some_and(|now| now.len() > before + 10)).await;
    let found = plain(now(&client).await.scan(.., COUNT as u32).await.unwrap().collect());
    assert!(found.iter().all(|(key, value)| *value == key.repeat(30)), "{} pairs", found.len());
    let mut back = now(&client).await;
    let back = back.scan_keys_reverse(.., COUNT as u32).await.unwrap();
    assert!(plain_keys(back.collect()).iter().rev().eq(found.iter().map(|(key, _)| key)));
    until_no_locks(&client).await;
}
