//! The placement driver's HTTP interface, as far as tests use it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tikv_client::Key;

/// Regions change within a second or two; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a node answers to a call; nothing if it refuses.
pub fn call(address: &str, request: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_done = head.starts_with("HTTP/1.1 200 ");
    is_done.then(|| serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

/// The regions that the placement driver knows, in the order of their keys. It may be on its way
/// from one node to another.
pub fn regions(address: &str) -> Option<Vec<u64>> {
    Some(region_starts(address)?.into_iter().map(|(_, id)| id).collect())
}

/// As [`regions`], each with its first key: in the form that placement holds, as upper-case hex.
fn region_starts(address: &str) -> Option<Vec<(String, u64)>> {
    let page = call(address, "GET /pd/api/v1/regions", "")?;
    let regions = page["regions"].as_array().expect("a list of regions");
    let start =
        |region: &Value| Some((region["start_key"].as_str()?.to_owned(), region["id"].as_u64()?));
    let mut regions: Vec<_> = regions.iter().filter_map(start).collect();
    regions.sort_unstable();
    Some(regions)
}

/// Asks for an operator; false if it is refused.
pub fn operate(address: &str, body: &Value) -> bool {
    call(address, "POST /pd/api/v1/operators", &body.to_string()).is_some()
}

/// Returns once a region begins at each of these keys. They are those of transactions, and with the
/// prefix of their keyspace if they have one.
pub async fn split_at(address: &str, keys: impl IntoIterator<Item = Vec<u8>>) {
    for key in keys {
        let encoded: Vec<u8> = Key::from(key).to_encoded().into();
        let hex: String = encoded.iter().map(|byte| format!("{byte:02X}")).collect();
        let is_border = || {
            let starts = region_starts(address).unwrap_or_default();
            if starts.iter().any(|(start, _)| *start == hex) {
                return true;
            }
            if let Some((_, id)) = starts.iter().rev().find(|(start, _)| *start < hex) {
                // It is refused while the region is busy with something else.
                operate(
                    address,
                    &json!({
                        "name": "split-region", "region_id": id, "policy": "usekey", "keys": [hex],
                    }),
                );
            }
            false
        };
        until(&format!("a region begins at {hex}"), is_border).await;
    }
}

/// Looks until something is so. Panics with `what` if it takes too long.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        looks.tick().await;
    }
}
