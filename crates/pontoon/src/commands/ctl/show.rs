//! What there is: stores, regions, one region from all sides.

use serde_json::{Value, json};

use super::cluster::{Cluster, list, name_of, number, refusal, text};
use crate::commands::CommandError;
use crate::commands::shell::{parse_hex, quote};
use crate::commands::table::Table;

pub(super) async fn stores(cluster: &mut Cluster, json: bool) -> Result<(), CommandError> {
    let stores = cluster.get("/pd/api/v1/stores").await?;
    if json {
        return print_json(&stores);
    }
    let mut table = Table::new(&[
        "store", "address", "state", "regions", "leaders", "used", "free", "size", "version",
    ]);
    for store in list(&stores["stores"]) {
        let (meta, status) = (&store["store"], &store["status"]);
        table.row(vec![
            text(&meta["id"]),
            text(&meta["address"]),
            text(&meta["state_name"]),
            text(&status["region_count"]),
            text(&status["leader_count"]),
            text(&status["used_size"]),
            text(&status["available"]),
            text(&status["capacity"]),
            text(&meta["version"]),
        ]);
    }
    print(&table.text())
}

pub(super) async fn regions(
    cluster: &mut Cluster,
    store: Option<u64>,
    json: bool,
) -> Result<(), CommandError> {
    let path = match store {
        Some(store) => format!("/pd/api/v1/regions/store/{store}"),
        None => "/pd/api/v1/regions".to_owned(),
    };
    let regions = cluster.get(&path).await?;
    let system =
        cluster.find_one(&format!("/pd/api/v1/region/id/{}", base::RegionId::SYSTEM.0)).await?;
    if json {
        return print_json(&json!({ "regions": regions["regions"], "system": system }));
    }
    print(&table_of(list(&regions["regions"]).iter().chain(&system)))
}

/// One line a region.
pub(super) fn table_of<'a>(regions: impl Iterator<Item = &'a Value>) -> String {
    let mut table = Table::new(&[
        "region",
        "keys",
        "epoch",
        "leader on",
        "voters on",
        "learners on",
        "MiB",
        "remarks",
    ]);
    for region in regions.filter(|region| !region.is_null()) {
        let peers = list(&region["peers"]);
        let on = |learners: bool| {
            let peers = peers.iter().filter(|peer| is_learner(peer) == learners);
            let stores: Vec<String> = peers.map(|peer| text(&peer["store_id"])).collect();
            if stores.is_empty() { "-".to_owned() } else { stores.join(",") }
        };
        table.row(vec![
            name_of(number(&region["id"])),
            keys(region),
            epoch(region),
            text(&region["leader"]["store_id"]),
            on(false),
            on(true),
            text(&region["approximate_size"]),
            remarks(region),
        ]);
    }
    table.text()
}

fn remarks(region: &Value) -> String {
    let stores = |peers: &[&Value]| {
        let stores: Vec<String> = peers.iter().map(|peer| text(&peer["store_id"])).collect();
        stores.join(",")
    };
    let down: Vec<&Value> = list(&region["down_peers"]).iter().map(|down| &down["peer"]).collect();
    let pending: Vec<&Value> = list(&region["pending_peers"]).iter().collect();
    let mut remarks = Vec::new();
    if !down.is_empty() {
        remarks.push(format!("silent on {}", stores(&down)));
    }
    if !pending.is_empty() {
        remarks.push(format!("behind on {}", stores(&pending)));
    }
    if remarks.is_empty() { "-".to_owned() } else { remarks.join("; ") }
}

fn is_learner(peer: &Value) -> bool {
    peer["is_learner"].as_bool().unwrap_or(false) || number(&peer["role"]) == 1
}

fn epoch(region: &Value) -> String {
    format!("{}/{}", number(&region["epoch"]["conf_ver"]), number(&region["epoch"]["version"]))
}

/// `[first, last)` as they can be given to `ctl split`.
fn keys(region: &Value) -> String {
    let key = |key: &Value| quote(&parse_hex(key.as_str().unwrap_or("")).unwrap_or_default());
    let end = match region["end_key"].as_str() {
        Some("") | None => "end".to_owned(),
        Some(_) => key(&region["end_key"]),
    };
    format!("[{}, {end})", key(&region["start_key"]))
}

/// A copy of a region, and what its node says of it.
struct Copy {
    store: u64,
    peer: u64,
    role: String,
    address: String,
    page: Result<Value, String>,
}

pub(super) async fn region(cluster: &mut Cluster, id: u64, json: bool) -> Result<(), CommandError> {
    let region = cluster.region(id).await?;
    let copies = copies(cluster, id, &region).await?;
    if json {
        let page = |copy: &Copy| match &copy.page {
            Ok(page) => page.clone(),
            Err(why) => json!({ "error": why }),
        };
        let copies: Vec<_> = copies
            .iter()
            .map(|copy| json!({ "store_id": copy.store, "copy": page(copy) }))
            .collect();
        return print_json(&json!({ "region": region, "copies": copies }));
    }
    print(&format!(
        "region {}  keys {}  epoch {}\nleader: peer {} on store {}  about {} MiB, {} keys  {}\n\n",
        name_of(id),
        keys(&region),
        epoch(&region),
        text(&region["leader"]["id"]),
        text(&region["leader"]["store_id"]),
        text(&region["approximate_size"]),
        text(&region["approximate_keys"]),
        remarks(&region),
    ))?;
    let leader = copies.iter().filter_map(|copy| copy.page.as_ref().ok()).find(|page| {
        page["leader"]["id"] == page["peer"]["id"] && !list(&page["members"]).is_empty()
    });
    print(&copies_table(&copies, leader))
}

async fn copies(cluster: &mut Cluster, id: u64, region: &Value) -> Result<Vec<Copy>, CommandError> {
    let addresses = cluster.addresses().await?;
    let mut copies = Vec::new();
    for peer in list(&region["peers"]) {
        let store = number(&peer["store_id"]);
        let address = addresses.get(&store).cloned().unwrap_or_else(|| "-".to_owned());
        let page = match cluster.node(&address, "GET", &format!("/region/{id}")).await {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => Err(refusal(&address, &answer)),
            Err(error) => Err(error.to_string()),
        };
        let role = text(&peer["role_name"]);
        copies.push(Copy { store, peer: number(&peer["id"]), role, address, page });
    }
    Ok(copies)
}

fn copies_table(copies: &[Copy], leader: Option<&Value>) -> String {
    let mut table = Table::new(&[
        "store",
        "address",
        "peer",
        "role",
        "state",
        "term",
        "last",
        "committed",
        "applied",
        "truncated",
        "log bytes",
        "lease ms",
        "matched",
        "flow",
    ]);
    let mut silent = String::new();
    for copy in copies {
        let members = leader.map_or(&[][..], |leader| list(&leader["members"]));
        let member = members.iter().find(|member| number(&member["peer_id"]) == copy.peer);
        let progress = |name: &str| member.map_or("-".to_owned(), |member| text(&member[name]));
        let of = |name: &str| copy.page.as_ref().map_or("-".to_owned(), |page| text(&page[name]));
        let truncated =
            copy.page.as_ref().map_or("-".to_owned(), |p| text(&p["truncated"]["index"]));
        table.row(vec![
            copy.store.to_string(),
            copy.address.clone(),
            copy.peer.to_string(),
            copy.role.clone(),
            state(copy),
            of("term"),
            of("last"),
            of("committed"),
            of("applied"),
            truncated,
            of("log_bytes"),
            of("lease_left_ms"),
            progress("matched"),
            progress("flow"),
        ]);
        if let Err(why) = &copy.page {
            silent += &format!("store {}: {why}\n", copy.store);
        }
    }
    table.text() + &silent
}

fn state(copy: &Copy) -> String {
    let Ok(page) = &copy.page else { return "no answer".to_owned() };
    let leads = !page["leader"].is_null() && page["leader"]["id"] == page["peer"]["id"];
    let role = match (leads, page["leader"].is_null()) {
        (true, _) => "leader",
        (false, true) => "no leader known",
        (false, false) => "follower",
    };
    let activity = text(&page["activity"]);
    let quiet = if page["quiet"].as_bool() == Some(true) { ", asleep" } else { "" };
    if activity == "Serving" {
        return format!("{role}{quiet}");
    }
    format!("{role}{quiet}, {}", activity.to_lowercase())
}

pub(super) async fn operators(cluster: &mut Cluster, json: bool) -> Result<(), CommandError> {
    let running = cluster.get("/pd/api/v1/operators").await?;
    let records = cluster.get("/pd/api/v1/operators/records").await?;
    if json {
        return print_json(&json!({ "running": running, "records": records }));
    }
    let mut table = Table::new(&["region", "what", "for", "status", "detail"]);
    for operator in list(&records).iter().chain(list(&running)) {
        table.row(vec![
            name_of(number(&operator["region_id"])),
            text(&operator["desc"]),
            text(&operator["kind"]),
            text(&operator["status"]),
            text(&operator["step"]),
        ]);
    }
    print(&table.text())
}

pub(super) fn print_json(value: &Value) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).expect("JSON can be written");
    print(&(text + "\n"))
}

/// Whoever reads may have gone away (`| head`): that is no error of ours, but the end.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| CommandError::new(format!("cannot write: {error}")))
}
