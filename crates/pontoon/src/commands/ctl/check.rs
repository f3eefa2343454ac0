//! Compares the copies of regions: the leader's hash goes through the log, every copy compares its
//! own, and this waits until each has said that it agrees.
//!
//! A copy that differs stops its node. So silence is the bad news here; the node's own log has the
//! region, the entry and both hashes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::change::ask_leader;
use super::cluster::{Cluster, list, name_of, number, refusal, text};
use super::show::{print, print_json};
use crate::commands::CommandError;
use crate::commands::table::Table;

/// A copy that says nothing so long may have nothing to say: it was just started, or collects
/// garbage just now. Then there is another comparison.
const SILENCE: Duration = Duration::from_secs(3);

pub(super) async fn run(
    cluster: &mut Cluster,
    region: Option<u64>,
    json: bool,
) -> Result<(), CommandError> {
    let regions = match region {
        Some(region) => vec![region],
        None => all(cluster).await?,
    };
    let mut table =
        Table::new(&["region", "at entry", "keys", "bytes", "copies agree on", "otherwise"]);
    let (mut pages, mut bad) = (Vec::new(), 0);
    for region in &regions {
        let checked = check(cluster, *region).await?;
        bad += usize::from(!checked.otherwise.is_empty());
        table.row(vec![
            name_of(*region),
            text(&checked.hash["index"]),
            text(&checked.hash["keys"]),
            text(&checked.hash["bytes"]),
            words(&checked.agreed),
            if checked.otherwise.is_empty() {
                "-".to_owned()
            } else {
                checked.otherwise.join("; ")
            },
        ]);
        pages.push(json!({
            "region_id": region,
            "hash": checked.hash,
            "agreed_on": checked.agreed,
            "otherwise": checked.otherwise,
        }));
    }
    match json {
        true => print_json(&Value::Array(pages))?,
        false => print(&table.text())?,
    }
    if bad > 0 {
        return Err(CommandError::new(format!("{bad} of {} regions are not sound", regions.len())));
    }
    if !json {
        print(&format!("{} regions: all copies agree\n", regions.len()))?;
    }
    Ok(())
}

fn words(stores: &[u64]) -> String {
    stores.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

async fn all(cluster: &mut Cluster) -> Result<Vec<u64>, CommandError> {
    let regions = cluster.get("/pd/api/v1/regions").await?;
    let ids = list(&regions["regions"]).iter().map(|region| number(&region["id"]));
    Ok(ids.chain([base::RegionId::SYSTEM.0]).collect())
}

/// What came of one region.
struct Checked {
    hash: Value,
    /// Stores whose copies agree.
    agreed: Vec<u64>,
    /// What is known of the others.
    otherwise: Vec<String>,
}

async fn check(cluster: &mut Cluster, region: u64) -> Result<Checked, CommandError> {
    let (leader, page) = ask_leader(cluster, region, "check").await?;
    let hash = page["check"].clone();
    let mut index = number(&hash["index"]);
    let mut asked = Instant::now();
    let addresses = cluster.addresses().await?;
    let peers = list(&page["peers"]).iter().map(|peer| number(&peer["store_id"]));
    let mut waiting: BTreeMap<u64, String> =
        peers.map(|store| (store, "no word yet".to_owned())).collect();
    let mut checked = Checked { hash, agreed: Vec::new(), otherwise: Vec::new() };
    loop {
        for store in waiting.keys().copied().collect::<Vec<_>>() {
            let address = addresses.get(&store).map_or("-", String::as_str);
            match look(cluster, region, address, index).await {
                Verdict::Agrees => {
                    waiting.remove(&store);
                    checked.agreed.push(store);
                }
                Verdict::Never(why) => {
                    waiting.remove(&store);
                    checked.otherwise.push(format!("store {store}: {why}"));
                }
                Verdict::NotYet(why) => drop(waiting.insert(store, why)),
            }
        }
        if waiting.is_empty() {
            break;
        }
        if cluster.time_left().is_zero() {
            let late = waiting.iter().map(|(store, why)| format!("store {store}: {why}"));
            checked.otherwise.extend(late);
            break;
        }
        if asked.elapsed() > SILENCE {
            let page = ask_leader(cluster, region, "check").await?.1;
            checked.hash = page["check"].clone();
            (index, asked) = (number(&checked.hash["index"]), Instant::now());
        }
        cluster.pause().await;
    }
    checked.agreed.sort_unstable();
    assert!(leader != 0, "somebody answered as the leader");
    Ok(checked)
}

enum Verdict {
    Agrees,
    NotYet(String),
    /// Waiting does not help.
    Never(String),
}

async fn look(cluster: &Cluster, region: u64, address: &str, index: u64) -> Verdict {
    let page = match cluster.node(address, "GET", &format!("/region/{region}")).await {
        Ok(answer) if answer.status == 200 => answer.body,
        Ok(answer) => return Verdict::NotYet(refusal(address, &answer)),
        Err(error) => {
            return Verdict::Never(format!("{error}: if its copy differs, its log says so"));
        }
    };
    let check = &page["check"];
    let (at, applied) = (number(&check["index"]), number(&page["applied"]));
    match at {
        // A later comparison than ours includes it.
        at if at >= index && check["agreed"].as_bool() == Some(true) => Verdict::Agrees,
        0 if applied > index && number(&page["truncated"]["index"]) >= index => {
            Verdict::Never("a snapshot carried it beyond the entry: check it again".to_owned())
        }
        _ => Verdict::NotYet(format!("applied up to {applied}, not compared yet")),
    }
}
