//! Clients that are killed in the middle: whoever comes next resolves their transactions, and all
//! who come find the same answer.

use std::path::Path;
use std::time::{Duration, Instant};

use interop_suite::doomed::Doomed;
use interop_suite::placement::split_at;
use interop_suite::{
    PATIENCE, TXN_API_VERSIONS, bank, commit_pairs, key, locks, now, open_txn, plain, start,
    stored_key, until_no_locks,
};
use server_under_test::Server;
use tikv_client::transaction::ResolveLocksOptions;
use tikv_client::{Error, TimestampExt, TransactionClient, TransactionOptions};
use tokio::task::JoinSet;

/// Keys of a doomed transaction, in two regions.
const KEYS: usize = 40;

fn doomed(server: &Server, api: &str, step: &str, way: &str) -> Doomed {
    let program = Path::new(env!("CARGO_BIN_EXE_doomed"));
    Doomed::start(program, &[server.address(), api, step, way, &KEYS.to_string()])
}

/// A server with two regions and the keys in them, their value `old`.
async fn prepare(api: &str) -> (Server, TransactionClient) {
    let server = start(api);
    let client = open_txn(&server, api).await;
    split_at(server.address(), [stored_key(api, &key(KEYS / 2))]).await;
    commit_pairs(&client, (0..KEYS).map(|i| (key(i), b"old".to_vec())).collect()).await;
    until_no_locks(&client).await;
    (server, client)
}

/// What readers find who all come at once, each starting at another key. This client gives up
/// before a lock has expired, so they come again.
async fn read(server: &Server, api: &str) -> Vec<u8> {
    let mut readers = JoinSet::new();
    for reader in 0..8 {
        let client = open_txn(server, api).await;
        readers.spawn(async move {
            let began = Instant::now();
            loop {
                match try_read(&client, reader * KEYS / 8).await {
                    Ok(found) => return found,
                    Err(error) => {
                        assert!(began.elapsed() < PATIENCE, "{error:?}");
                        assert!(matches!(error, Error::ResolveLockError(_)), "{error:?}");
                    }
                }
            }
        });
    }
    let mut found = readers.join_all().await.concat();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 1, "all keys have one answer, for all readers");
    found.remove(0)
}

async fn try_read(client: &TransactionClient, first: usize) -> Result<Vec<Vec<u8>>, Error> {
    let mut snapshot = now(client).await;
    let mut found = vec![snapshot.get(key(first)).await?.expect("it is there")];
    found.extend(plain(snapshot.scan(.., 1_000).await?.collect()).into_iter().map(|pair| pair.1));
    assert_eq!(found.len(), KEYS + 1);
    Ok(found)
}

#[tokio::test]
async fn killed_after_prewrite_it_was_never_there() {
    for api in TXN_API_VERSIONS {
        let (server, client) = prepare(api).await;
        let mut victim = doomed(&server, api, "prewritten", "optimistic");
        assert_eq!(victim.line().unwrap(), "prewritten");
        victim.kill();
        assert_eq!(locks(&client).await.len(), KEYS);
        assert_eq!(read(&server, api).await, b"old");
        until_no_locks(&client).await;
    }
}

/// With async commit the prewrite is what decides. This client's readers do not look at the other
/// keys' locks; who cleans up does.
#[tokio::test]
async fn killed_after_an_async_prewrite_it_is_committed() {
    for api in TXN_API_VERSIONS {
        for (step, way) in [("prewritten", "optimistic+async"), ("committed", "pessimistic+async")]
        {
            let (server, client) = prepare(api).await;
            let mut victim = doomed(&server, api, step, way);
            assert_eq!(victim.line().unwrap(), step);
            victim.kill();
            let found = locks(&client).await;
            assert_eq!(found.len(), KEYS);
            assert!(found.iter().all(|lock| lock.use_async_commit && lock.min_commit_ts != 0));
            clean(&client).await;
            assert_eq!(read(&server, api).await, b"new", "{step} {way}");
        }
    }
}

/// Resolves all locks that there are, expired or not.
async fn clean(client: &TransactionClient) {
    let began = Instant::now();
    loop {
        let now = client.current_timestamp().await.unwrap();
        let options = ResolveLocksOptions { batch_size: 1_000, ..Default::default() };
        // What the victim sent last may still be on its way through the server.
        match client.cleanup_locks(.., &now, options).await {
            Ok(_) if locks(client).await.is_empty() => return,
            result => assert!(began.elapsed() < PATIENCE, "{result:?}"),
        }
    }
}

#[tokio::test]
async fn killed_after_the_commit_of_its_primary_it_is_committed() {
    for api in TXN_API_VERSIONS {
        for way in ["optimistic", "pessimistic"] {
            let (server, client) = prepare(api).await;
            let mut victim = doomed(&server, api, "committed", way);
            assert_eq!(victim.line().unwrap(), "committed");
            victim.kill();
            assert_eq!(locks(&client).await.len(), KEYS - 1);
            assert_eq!(read(&server, api).await, b"new", "{way}");
            until_no_locks(&client).await;
        }
    }
}

/// Its locks are for 20 s; who cleans up does not wait for that.
#[tokio::test]
async fn killed_while_it_held_pessimistic_locks() {
    for api in TXN_API_VERSIONS {
        for step in ["locked", "prewritten"] {
            let (server, client) = prepare(api).await;
            let mut victim = doomed(&server, api, step, "pessimistic");
            assert_eq!(victim.line().unwrap(), step);
            victim.kill();
            assert_eq!(locks(&client).await.len(), KEYS);
            clean(&client).await;
            assert_eq!(read(&server, api).await, b"old", "{step}");
        }
    }
}

#[tokio::test]
async fn the_locks_of_who_was_killed_expire() {
    let (server, client) = prepare("1").await;
    let mut victim = doomed(&server, "1", "locked", "pessimistic");
    assert_eq!(victim.line().unwrap(), "locked");
    victim.kill();
    let began = Instant::now();
    loop {
        let mut txn = client.begin_pessimistic().await.unwrap();
        match txn.put(key(0), b"new".to_vec()).await {
            Ok(()) => {
                txn.commit().await.unwrap();
                break;
            }
            Err(error) => {
                assert!(began.elapsed() < PATIENCE, "{error:?}");
                txn.rollback().await.unwrap();
            }
        }
    }
    assert!(began.elapsed() > Duration::from_secs(15), "not before they expired");
    assert_eq!(now(&client).await.get(key(0)).await.unwrap(), Some(b"new".to_vec()));
}

/// Its locks are resolved while it stands still. When it goes on it must not commit any more.
#[tokio::test]
async fn who_comes_too_late_cannot_commit() {
    for api in TXN_API_VERSIONS {
        let (server, client) = prepare(api).await;
        let mut late = doomed(&server, api, "prewritten", "optimistic");
        assert_eq!(late.line().unwrap(), "prewritten");
        assert_eq!(read(&server, api).await, b"old");
        late.go_on();
        let said = late.line().unwrap();
        assert!(said.contains("TxnLockNotFound"), "{said}");
        assert_eq!(read(&server, api).await, b"old");
        until_no_locks(&client).await;
    }
}

/// What a collection finds locked before its safe point it resolves first.
#[tokio::test]
async fn a_collection_resolves_what_was_left() {
    for api in TXN_API_VERSIONS {
        let (server, client) = prepare(api).await;
        for (step, way) in [("prewritten", "optimistic"), ("committed", "pessimistic")] {
            let mut victim = doomed(&server, api, step, way);
            assert_eq!(victim.line().unwrap(), step);
            victim.kill();
            let safe_point = client.current_timestamp().await.unwrap();
            assert!(client.gc(safe_point).await.unwrap(), "the safe point is taken");
            assert_eq!(locks(&client).await, []);
        }
        assert_eq!(read(&server, api).await, b"new");
    }
}

/// Locks that were found can be handed back to be resolved.
#[tokio::test]
async fn found_locks_are_resolved() {
    for api in TXN_API_VERSIONS {
        let (server, client) = prepare(api).await;
        let mut victim = doomed(&server, api, "committed", "optimistic");
        assert_eq!(victim.line().unwrap(), "committed");
        victim.kill();
        let timestamp = client.current_timestamp().await.unwrap();
        let found = client.scan_locks(&timestamp, key(0)..key(KEYS / 4), 5).await.unwrap();
        assert!(found.len() >= 4, "{} locks", found.len());
        assert!(found.iter().all(|lock| lock.primary_lock == found[0].primary_lock));
        assert!(found.iter().all(|lock| lock.lock_version < timestamp.version()));
        let backoff = tikv_client::Backoff::no_jitter_backoff(2, 500, 20);
        let live = client.resolve_locks(found, timestamp, backoff).await.unwrap();
        assert_eq!(live, []);
        assert_eq!(read(&server, api).await, b"new");
    }
}

/// Several that transfer at once in different ways, killed at any moment, round by round. None by
/// async commit: this client takes one of which a part was never prewritten for committed.
#[tokio::test]
async fn a_bank_whose_clients_are_killed() {
    const ROUNDS: u64 = 6;
    const WAYS: [&str; 4] = ["optimistic", "pessimistic", "optimistic+1pc", "pessimistic+1pc"];
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        split_at(server.address(), [10, 20, 30].map(|n| stored_key(api, &bank::account(n)))).await;
        bank::open(&client).await;
        let mut acknowledged = Vec::new();
        for round in 0..ROUNDS {
            let mut clients: Vec<_> =
                WAYS.iter().map(|way| doomed(&server, api, "transfers", way)).collect();
            for (client, enough) in clients.iter_mut().zip([3, 5, 7, 9]) {
                for _ in 0..enough + round {
                    acknowledged.push(client.line().expect("a transfer"));
                }
            }
            acknowledged.extend(clients.into_iter().flat_map(Doomed::kill));
            clean(&client).await;
            until_sum_is_seen(&client, &acknowledged).await;
        }
    }
}

async fn until_sum_is_seen(client: &TransactionClient, acknowledged: &[String]) {
    let began = Instant::now();
    loop {
        let timestamp = client.current_timestamp().await.unwrap();
        let mut then = client.snapshot(timestamp, TransactionOptions::new_optimistic());
        match bank::check(&mut then, acknowledged).await {
            Ok(()) => return,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error:?}"),
        }
    }
}
