//! What the tests in `tests/` share. Each starts a server of its own and uses the crate
//! `tikv-client` on it as that crate's documentation shows.

use server_under_test::Server;
use tikv_client::{Config, Key, KvPair, RawClient};

/// The three modes of raw data.
pub const API_VERSIONS: [&str; 3] = ["1", "1ttl", "2"];

/// Starts a server on an empty folder. Panics with its log if it does not get ready.
pub fn start(api_version: &str) -> Server {
    Server::start(api_version).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens a raw client in the mode of the server: with the keyspace `DEFAULT` for version 2.
pub async fn open(server: &Server, api_version: &str) -> RawClient {
    let config = if api_version == "2" {
        Config::default().with_default_keyspace()
    } else {
        Config::default()
    };
    let client = RawClient::new_with_config(vec![server.address()], config).await;
    client.unwrap_or_else(|error| panic!("{error}"))
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
