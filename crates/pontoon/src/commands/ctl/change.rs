//! Changes: an operator is given to the placement driver, which leads the region there step by
//! step; this waits for the end and says what it was.

use serde_json::{Value, json};

use super::cluster::{Cluster, Repeat, list, name_of, number, refusal, text};
use super::show::{print, table_of};
use crate::commands::CommandError;
use crate::commands::shell::{parse_hex, quote, split as split_words, to_hex};
use crate::remote::http::HttpFailure;

/// A placement driver that has just begun has heard of its region after so many looks.
const REPORT_LOOKS: u32 = 20;

const OPERATORS: &str = "/pd/api/v1/operators";

pub(super) async fn add_peer(
    cluster: &mut Cluster,
    region: u64,
    store: u64,
) -> Result<(), CommandError> {
    let body = json!({ "name": "add-peer", "region_id": region, "store_id": store });
    operate(cluster, region, &body).await?;
    show(cluster, region, &format!("region {} has a voter on store {store}", name_of(region))).await
}

pub(super) async fn remove_peer(
    cluster: &mut Cluster,
    region: u64,
    store: u64,
) -> Result<(), CommandError> {
    let body = json!({ "name": "remove-peer", "region_id": region, "store_id": store });
    operate(cluster, region, &body).await?;
    let done = format!("region {} has no copy on store {store}", name_of(region));
    show(cluster, region, &done).await
}

pub(super) async fn transfer_leader(
    cluster: &mut Cluster,
    region: u64,
    store: u64,
) -> Result<(), CommandError> {
    let body = json!({ "name": "transfer-leader", "region_id": region, "to_store_id": store });
    operate(cluster, region, &body).await?;
    show(cluster, region, &format!("region {} is led on store {store}", name_of(region))).await
}

pub(super) async fn transfer_region(
    cluster: &mut Cluster,
    region: u64,
    stores: &[u64],
) -> Result<(), CommandError> {
    let body = json!({ "name": "transfer-region", "region_id": region, "to_store_ids": stores });
    operate(cluster, region, &body).await?;
    show(cluster, region, &format!("region {} is on these stores alone", name_of(region))).await
}

pub(super) async fn split(
    cluster: &mut Cluster,
    region: u64,
    key: &str,
    hex: bool,
) -> Result<(), CommandError> {
    let key = read_key(key, hex)?;
    let before = cluster.region(region).await?;
    let body = json!({
        "name": "split-region", "region_id": region, "policy": "usekey", "keys": [to_hex(&key)],
    });
    operate(cluster, region, &body).await?;
    let (start, end) = (text_of(&before["start_key"]), text_of(&before["end_key"]));
    // Either part may report first.
    loop {
        let path = format!("/pd/api/v1/regions/key?format=hex&key={start}&end_key={end}&limit=-1");
        let parts = cluster.get(&path).await?;
        let parts = list(&parts["regions"]);
        let begins =
            |part: &&Value| text_of(&part["start_key"]).eq_ignore_ascii_case(&to_hex(&key));
        if parts.len() >= 2 && parts.iter().any(|part| begins(&part)) {
            print(&format!("region {region} is cut at {}\n", quote(&key)))?;
            return print(&table_of(parts.iter()));
        }
        cluster.check_time(|| "the new region has not reported yet".to_owned())?;
        cluster.pause().await;
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

/// A key as `ctl regions` writes it, with or without quotes, or hex digits.
fn read_key(key: &str, hex: bool) -> Result<Vec<u8>, CommandError> {
    let bad = |why: &str| CommandError::new(format!("key {key}: {why}"));
    let bytes = if hex {
        parse_hex(key).ok_or_else(|| bad("not hex digits"))?
    } else {
        let words = split_words(key).map_err(|why| bad(&why))?;
        let [word] = &words[..] else { return Err(bad("one word is a key; blanks need quotes")) };
        word.bytes.clone()
    };
    if bytes.is_empty() {
        return Err(bad("nothing can be cut at the empty key"));
    }
    Ok(bytes)
}

pub(super) async fn merge(
    cluster: &mut Cluster,
    region: u64,
    into: u64,
) -> Result<(), CommandError> {
    let body = json!({
        "name": "merge-region", "source_region_id": region, "target_region_id": into,
    });
    operate(cluster, region, &body).await?;
    show(cluster, into, &format!("region {region} is a part of region {into}")).await
}

/// Gives the operator and waits for its end.
async fn operate(cluster: &mut Cluster, region: u64, body: &Value) -> Result<(), CommandError> {
    // A region that there is not is told better than a refusal would.
    cluster.region(region).await?;
    cluster.ask("POST", OPERATORS, Some(body), Repeat::No).await?;
    let (what, path) = (text(&body["name"]), format!("{OPERATORS}/{region}"));
    loop {
        let Some(operator) = cluster.find_one(&path).await? else {
            if is_led_there(cluster, region, body).await? {
                return Ok(());
            }
            return Err(CommandError::new(format!(
                "{what}: the placement driver moved to another node and has forgotten it: \
                 ctl region {} shows how far it came",
                name_of(region)
            )));
        };
        let (status, detail) = (text(&operator["status"]), text(&operator["step"]));
        match &status[..] {
            "RUNNING" => {}
            "SUCCESS" => return Ok(()),
            other => {
                let other = other.to_lowercase();
                return Err(CommandError::new(format!("{what}: {other}: {detail}")));
            }
        }
        cluster.check_time(|| {
            format!("{what} goes on (ctl cancel {} takes it back): {detail}", name_of(region))
        })?;
        cluster.pause().await;
    }
}

/// Whoever moves the placement driver itself is answered by one that knows of no operators.
async fn is_led_there(
    cluster: &mut Cluster,
    region: u64,
    body: &Value,
) -> Result<bool, CommandError> {
    if body["name"] != "transfer-leader" {
        return Ok(false);
    }
    for _ in 0..REPORT_LOOKS {
        let leader = cluster.find_one(&format!("/pd/api/v1/region/id/{region}")).await?;
        if leader.is_some_and(|known| known["leader"]["store_id"] == body["to_store_id"]) {
            return Ok(true);
        }
        cluster.pause().await;
    }
    Ok(false)
}

async fn show(cluster: &mut Cluster, region: u64, done: &str) -> Result<(), CommandError> {
    let region = cluster.region(region).await?;
    print(&format!("{done}\n{}", table_of([&region].into_iter())))
}

pub(super) async fn cancel(cluster: &mut Cluster, region: u64) -> Result<(), CommandError> {
    let path = format!("{OPERATORS}/{region}");
    cluster.ask("DELETE", &path, None, Repeat::No).await?;
    print(&format!(
        "taken back for region {}; what was ordered may still happen\n",
        name_of(region)
    ))
}

/// Asks the leader of a region for something until it is done. Returns the leader's store and what
/// it says of the region then.
pub(super) async fn ask_leader(
    cluster: &mut Cluster,
    region: u64,
    action: &str,
) -> Result<(u64, Value), CommandError> {
    let path = format!("/region/{region}/{action}");
    loop {
        let known = cluster.region(region).await?;
        let store = number(&known["leader"]["store_id"]);
        let address = cluster.addresses().await?.remove(&store);
        let last = match address {
            None => "nobody is known to lead it".to_owned(),
            Some(address) => match cluster.node(&address, "POST", &path).await {
                Ok(answer) if answer.status == 200 => return Ok((store, answer.body)),
                Ok(answer) => refusal(&address, &answer),
                Err(error @ HttpFailure::Lost { .. }) => {
                    let name = name_of(region);
                    return Err(CommandError::new(format!("{action} of region {name}: {error}")));
                }
                Err(error) => error.to_string(),
            },
        };
        cluster.check_time(|| format!("{action} of region {}: {last}", name_of(region)))?;
        cluster.pause().await;
    }
}

pub(super) async fn compact(cluster: &mut Cluster, region: u64) -> Result<(), CommandError> {
    let (store, page) = ask_leader(cluster, region, "compact").await?;
    let (applied, truncated) = (number(&page["applied"]), number(&page["truncated"]["index"]));
    print(&format!(
        "the log of region {} begins at {} (leader on store {store}, applied up to {applied})\n",
        name_of(region),
        truncated + 1,
    ))
}

pub(super) async fn remove_store(
    cluster: &mut Cluster,
    store: u64,
    destroyed: bool,
) -> Result<(), CommandError> {
    let path = format!("/pd/api/v1/store/{store}");
    let force = if destroyed { "?force=true" } else { "" };
    cluster.ask("DELETE", &format!("{path}{force}"), None, Repeat::Yes).await?;
    loop {
        let state = text(&cluster.get(&path).await?["store"]["state_name"]);
        if state == "Tombstone" {
            return print(&format!("store {store} is removed\n"));
        }
        let left = cluster.get(&format!("/pd/api/v1/regions/store/{store}")).await?;
        let left = number(&left["count"]);
        if destroyed {
            return print(&format!(
                "store {store} is being removed, {left} regions count on it still; \
                 its address is free\n"
            ));
        }
        cluster.check_time(|| {
            format!("store {store} is {state} and holds {left} regions; its removal goes on")
        })?;
        cluster.pause().await;
    }
}

pub(super) async fn keep_store(cluster: &mut Cluster, store: u64) -> Result<(), CommandError> {
    let path = format!("/pd/api/v1/store/{store}/state?state=Up");
    cluster.ask("POST", &path, None, Repeat::Yes).await?;
    print(&format!("store {store} stays\n"))
}

pub(super) async fn pause(
    cluster: &mut Cluster,
    checker: &str,
    seconds: u64,
) -> Result<(), CommandError> {
    let path = format!("/pd/api/v1/checker/{checker}");
    let body = json!({ "delay": seconds });
    cluster.ask("POST", &path, Some(&body), Repeat::Yes).await?;
    print(&match seconds {
        0 => format!("the {checker} checker works again\n"),
        seconds => format!("the {checker} checker rests for {seconds} s\n"),
    })
}
