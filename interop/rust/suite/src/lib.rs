//! What the tests in `tests/` share. Each starts a server of its own and uses the crate
//! `tikv-client` on it as that crate's documentation shows.

pub mod bank;
pub mod doomed;
pub mod placement;
mod random;

use std::time::{Duration, Instant};

use server_under_test::Server;
use tikv_client::{
    Config, Error, Key, KvPair, ProtoKeyError, ProtoLockInfo, RawClient, Snapshot, TimestampExt,
    TransactionClient, TransactionOptions,
};

pub use random::Random;

/// What takes longer has failed: enough for a lock to expire on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The three modes of raw data.
pub const API_VERSIONS: [&str; 3] = ["1", "1ttl", "2"];

/// The modes that take transactions.
pub const TXN_API_VERSIONS: [&str; 2] = ["1", "2"];

/// Starts a server on an empty folder. Panics with its log if it does not get ready.
pub fn start(api_version: &str) -> Server {
    Server::start(api_version).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens a raw client in the mode of the server: with the keyspace `DEFAULT` for version 2.
pub async fn open(server: &Server, api_version: &str) -> RawClient {
    let client = RawClient::new_with_config(vec![server.address()], config(api_version)).await;
    client.unwrap_or_else(|error| panic!("{error}"))
}

/// As [`open`], for transactions.
pub async fn open_txn(server: &Server, api_version: &str) -> TransactionClient {
    open_txn_at(server.address(), api_version).await
}

/// As [`open_txn`], on the server at an address.
pub async fn open_txn_at(address: &str, api_version: &str) -> TransactionClient {
    let client = TransactionClient::new_with_config(vec![address], config(api_version)).await;
    client.unwrap_or_else(|error| panic!("{error}"))
}

fn config(api_version: &str) -> Config {
    match api_version {
        "2" => Config::default().with_default_keyspace(),
        _ => Config::default(),
    }
}

/// The key that transactions of a client have in the store: with the prefix of its keyspace.
pub fn stored_key(api_version: &str, key: &[u8]) -> Vec<u8> {
    match api_version {
        "2" => [b"x\0\0\0", key].concat(),
        _ => key.to_vec(),
    }
}

/// Everything as it is now.
pub async fn now(client: &TransactionClient) -> Snapshot {
    let timestamp = client.current_timestamp().await.unwrap();
    client.snapshot(timestamp, TransactionOptions::new_optimistic())
}

/// Writes pairs in one transaction. Returns once none of them is locked.
pub async fn commit_pairs(client: &TransactionClient, pairs: Vec<(Vec<u8>, Vec<u8>)>) {
    let mut txn = client.begin_optimistic().await.unwrap();
    for (key, value) in pairs {
        txn.put(key, value).await.unwrap();
    }
    let committed = txn.commit().await.unwrap().expect("something is written");
    let began = Instant::now();
    while client
        .scan_locks(&committed, .., 1)
        .await
        .unwrap()
        .iter()
        .any(|lock| lock.lock_version == txn.start_timestamp().version())
    {
        assert!(began.elapsed() < PATIENCE, "its locks stay");
    }
}

/// Returns once no lock is left: this client commits all but the first key in the background.
pub async fn until_no_locks(client: &TransactionClient) {
    let began = Instant::now();
    loop {
        let left = locks(client).await;
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{} locks are left: {:?}", left.len(), left[0]);
        tokio::task::yield_now().await;
    }
}

/// Whether an error, or one of those within it, is this kind of a key's error.
pub fn is_key_error(error: &Error, kind: fn(&ProtoKeyError) -> bool) -> bool {
    match error {
        Error::KeyError(error) => kind(error),
        Error::ExtractedErrors(errors) | Error::MultipleKeyErrors(errors) => {
            errors.iter().any(|error| is_key_error(error, kind))
        }
        Error::PessimisticLockError { inner, .. } | Error::UndeterminedError(inner) => {
            is_key_error(inner, kind)
        }
        _ => false,
    }
}

/// Whether an error says that somebody else has written since.
pub fn is_conflict(error: &Error) -> bool {
    is_key_error(error, |error| error.conflict.is_some())
}

/// Asks for locks until nobody was in the way: who waited for one is told so once it is free, and
/// has to ask again, as of a newer timestamp. This client leaves that to its caller.
pub async fn again<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(error) if is_conflict(&error) && began.elapsed() < PATIENCE => {}
            result => return result,
        }
    }
}

/// All locks that there are, committed or not.
pub async fn locks(client: &TransactionClient) -> Vec<ProtoLockInfo> {
    let now = client.current_timestamp().await.unwrap();
    client.scan_locks(&now, .., 100_000).await.unwrap()
}

/// Key number `i`, in order.
pub fn key(i: usize) -> Vec<u8> {
    format!("key-{i:08}").into_bytes()
}

/// Pairs of numbered keys whose values are `value-i`.
pub fn pairs(range: std::ops::Range<usize>) -> Vec<(Vec<u8>, Vec<u8>)> {
    range.map(|i| (key(i), format!("value-{i}").into_bytes())).collect()
}

/// Pairs of the client as plain bytes.
pub fn plain(pairs: Vec<KvPair>) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.into_iter().map(|pair| (pair.0.into(), pair.1)).collect()
}

/// Keys of the client as plain bytes.
pub fn plain_keys(keys: Vec<Key>) -> Vec<Vec<u8>> {
    keys.into_iter().map(Into::into).collect()
}
