//! Writing the records, over the server's death, and comparing what is there.

use server_under_test::Server;
use tikv_client::{Key, RawClient};
use tokio::task::JoinSet;

use crate::Failure;
use crate::index::Records;

/// Records in one call.
const BATCH: usize = 200;

/// Calls on their way at once.
const CALLS: usize = 8;

/// Keys in a page of a scan: with their stanzas they stay below the 4 MiB that the client takes.
const PAGE: u32 = 500;

type Record<'a> = (&'a Vec<u8>, &'a Vec<u8>);

/// Loads in order until half of the records are acknowledged, then kills the server with calls on
/// their way. Returns how many records, from the first on, were acknowledged without a gap, and how
/// many more were in flight.
pub async fn until_killed(
    client: &RawClient,
    records: &[Record<'_>],
    server: &mut Server,
) -> Result<(usize, usize), Failure> {
    let batches: Vec<_> = records.chunks(BATCH).collect();
    let mut acknowledged = vec![false; batches.len()];
    let mut calls = JoinSet::new();
    let (mut sent, mut done) = (0, 0);
    while done < batches.len() / 2 {
        while calls.len() < CALLS {
            put(&mut calls, client, sent, batches[sent]);
            sent += 1;
        }
        let (batch, result) = calls.join_next().await.expect("calls are on their way")?;
        result?;
        acknowledged[batch] = true;
        done += 1;
    }
    server.kill()?;
    // A call that was answered before the kill may not have been looked at yet.
    while let Some(Ok((batch, result))) = calls.try_join_next() {
        acknowledged[batch] = result.is_ok();
    }
    calls.shutdown().await;
    let whole = acknowledged.iter().take_while(|there| **there).count();
    Ok((whole * BATCH, (sent - whole) * BATCH))
}

/// Loads what is left.
pub async fn rest(client: &RawClient, records: &[Record<'_>]) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    for (number, batch) in records.chunks(BATCH).enumerate() {
        put(&mut calls, client, number, batch);
        if calls.len() == CALLS {
            calls.join_next().await.expect("calls are on their way")?.1?;
        }
    }
    while let Some(call) = calls.join_next().await {
        call?.1?;
    }
    Ok(())
}

type Call = (usize, Result<(), tikv_client::Error>);

fn put(calls: &mut JoinSet<Call>, client: &RawClient, number: usize, batch: &[Record<'_>]) {
    let client = client.clone();
    let pairs: Vec<_> =
        batch.iter().map(|(key, value)| ((*key).clone(), (*value).clone())).collect();
    calls.spawn(async move { (number, client.batch_put(pairs).await) });
}

/// Whether each of these records is there.
pub async fn compare_keys(client: &RawClient, records: &[Record<'_>]) -> Result<(), Failure> {
    for batch in records.chunks(BATCH) {
        let keys = batch.iter().map(|(key, _)| (*key).clone());
        let mut found = client.batch_get(keys).await?;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut found = found.into_iter();
        for (key, value) in batch {
            let pair = found.next().ok_or_else(|| differs(key, "is missing"))?;
            if Vec::from(pair.0) != **key || pair.1 != **value {
                return Err(differs(key, "is not what was loaded"));
            }
        }
    }
    Ok(())
}

/// Whether the store holds the records and nothing else. Returns how many were compared.
pub async fn compare_everything(client: &RawClient, records: &Records) -> Result<usize, Failure> {
    let found = scan(client, b"", |_| true).await?;
    let mut found_next = found.iter();
    for (key, value) in records {
        match found_next.next() {
            Some((there, is)) if there == key && is == value => {}
            _ => return Err(differs(key, "is not in its place")),
        }
    }
    match found_next.next() {
        None => Ok(records.len()),
        Some((key, _)) => Err(differs(key, "was never loaded")),
    }
}

/// All pairs from a key on while they belong to what is asked, page by page. The ranges have no
/// end, because this version of the client asks again and again where an end lies in the last
/// region.
pub async fn scan(
    client: &RawClient,
    start: &[u8],
    belongs: impl Fn(&[u8]) -> bool,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
    let mut start = Key::from(start.to_vec());
    let mut found = Vec::new();
    loop {
        let page = client.scan(start.., PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        start = Key::from([<&[u8]>::from(last.key()), b"\0"].concat());
        for pair in page {
            let key = Vec::from(pair.0);
            if !belongs(&key) {
                return Ok(found);
            }
            found.push((key, pair.1));
        }
    }
}

fn differs(key: &[u8], how: &str) -> Failure {
    format!("{} {how}", String::from_utf8_lossy(key)).into()
}
