//! The HTTP half of the port, asked over TCP as monitoring, tools and test suites of clients ask
//! it; and what the gRPC half says to calls that it does not serve.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pontoon_server::{ApiVersionName, Config, Node};
use proto::kvrpcpb::{self, GcRequest};
use proto::pdpb;
use proto::pdpb::pd_client::PdClient;
use proto::tikvpb::tikv_client::TikvClient;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// A node on a folder of its own.
struct Running {
    node: Node,
    folder: PathBuf,
}

async fn start(name: &str, api_version: ApiVersionName) -> Running {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("http-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    open(folder, api_version).await
}

async fn open(folder: PathBuf, api_version: ApiVersionName) -> Running {
    let mut config = Config { data_dir: folder.clone(), ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.storage.api_version = api_version;
    Running { node: Node::open(config).await.expect("it starts"), folder }
}

/// What came back.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        let json = serde_json::from_str(&self.body);
        json.unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Running {
    fn url(&self) -> String {
        format!("http://{}", self.node.address())
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut connection = TcpStream::connect(self.node.address()).await.expect("a listener");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Answer { status, head, body: body.to_owned() }
    }

    /// GET of what must be there.
    async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// GET of what must fail, with this status and a text that says this.
    async fn refused(&self, path: &str, status: u16, text: &str) {
        let answer = self.ask("GET", path, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let said = answer.json();
        assert!(said.as_str().is_some_and(|said| said.contains(text)), "{path}: {said}");
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        let cluster_id = self.node.cluster_id().0;
        Some(pdpb::RequestHeader { cluster_id, ..Default::default() })
    }

    async fn stop(self) {
        self.node.stop().await;
        std::fs::remove_dir_all(self.folder).expect("nobody uses it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_node() {
    let running = start("node", ApiVersionName::V1).await;
    let status = running.get("/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["compatible_version"], "8.5.0");
    assert_eq!(status["address"], running.node.address().to_string());
    assert_eq!(status["store_id"], running.node.store_id().0);
    assert_eq!(status["cluster_id"], running.node.cluster_id().0);
    assert_eq!((&status["regions"], &status["leaders"]), (&json!(1), &json!(1)));
    assert_eq!(status["leads_placement"], true);
    assert!(status["uptime_seconds"].as_u64().unwrap() < 60);
    assert!(status["start_timestamp"].as_u64().unwrap() > 1_700_000_000);

    assert_eq!(running.get("/ready").await, "ready");
    let engine = running.ask("GET", "/engine_type", "").await;
    assert_eq!((engine.status, engine.body.as_str()), (200, "raft-kv"));

    let metrics = running.ask("GET", "/metrics", "").await;
    assert!(metrics.head.contains("content-type: application/openmetrics-text"));
    assert!(metrics.body.contains("\npontoon_raft_log_syncs_total "), "{}", metrics.body);
    assert!(metrics.body.ends_with("# EOF\n"));

    let id = &running.get("/pd/api/v1/regions").await["regions"][0]["id"];
    let region = running.get(&format!("/region/{id}")).await;
    assert_eq!(
        (&region["id"], &region["start_key"], &region["end_key"]),
        (id, &json!(""), &json!(""))
    );
    assert_eq!(region["epoch"], json!({ "conf_ver": 1, "version": 1 }));
    assert_eq!((&region["leader"], &region["serves_reads"]), (&region["peer"], &json!(true)));
    running.refused("/region/77777", 404, "region 77777").await;
    running.refused("/region/x", 400, "\"x\" is no such number").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_names_paths_that_are_there() {
    let running = start("index", ApiVersionName::V1).await;
    let index = running.ask("GET", "/", "").await;
    assert_eq!(index.status, 200);
    let paths: Vec<_> = index.body.lines().filter(|line| line.starts_with('/')).collect();
    assert!(paths.len() > 20);
    let id = running.get("/pd/api/v1/regions").await["regions"][0]["id"].to_string();
    for line in paths {
        let path = line.split_once("  ").unwrap().0;
        let id = if path.contains("store") { "1" } else { &id };
        let name = if path.contains("checker") { "replica" } else { "DEFAULT" };
        let path = path.replace("{id}", id).replace("{key}", "k").replace("{name}", name);
        assert_eq!(running.ask("GET", &path, "").await.status, 200, "{path}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_says_the_api_version_as_tikv_does() {
    let modes = [
        (ApiVersionName::V1, "config1", 1, false),
        (ApiVersionName::V1Ttl, "config1ttl", 1, true),
        (ApiVersionName::V2, "config2", 2, true),
    ];
    for (mode, name, number, ttl) in modes {
        let running = start(name, mode).await;
        let config = running.get("/config").await;
        assert_eq!(config["storage"]["api-version"], number);
        assert_eq!(config["storage"]["enable-ttl"], ttl);
        assert_eq!(config["advertise"], running.node.address().to_string());
        assert_eq!(config["data-dir"], running.folder.to_str().unwrap());
        assert_eq!(config["raft"]["election-ticks"], 10);
        running.stop().await;
    }
}

/// Calls of raw clients and of transactions are counted apart.
#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_their_kind() {
    const COUNTERS: [&str; 4] =
        ["raw_write_requests", "raw_read_requests", "txn_commands", "txn_read_requests"];
    let running = start("counters", ApiVersionName::V1).await;
    let counted = async || {
        let page = running.ask("GET", "/metrics", "").await.body;
        COUNTERS.map(|name| {
            let name = format!("pontoon_{name}_total ");
            let value = page.lines().find_map(|line| line.strip_prefix(&name));
            value.and_then(|value| value.parse::<u64>().ok()).expect("it is counted")
        })
    };
    let mut store = TikvClient::connect(running.url()).await.expect("it connects");
    assert_eq!(counted().await, [0, 0, 0, 0]);
    store.raw_put(kvrpcpb::RawPutRequest::default()).await.expect("an answer");
    assert_eq!(counted().await, [1, 0, 0, 0]);
    store.raw_get(kvrpcpb::RawGetRequest::default()).await.expect("an answer");
    assert_eq!(counted().await, [1, 1, 0, 0]);
    store.kv_prewrite(kvrpcpb::PrewriteRequest::default()).await.expect("an answer");
    assert_eq!(counted().await, [1, 1, 1, 0]);
    store.kv_get(kvrpcpb::GetRequest::default()).await.expect("an answer");
    assert_eq!(counted().await, [1, 1, 1, 1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_in_the_shape_of_pd() {
    let running = start("regions", ApiVersionName::V1).await;
    let all = running.get("/pd/api/v1/regions").await;
    assert_eq!(all["count"], 1);
    let region = &all["regions"][0];
    let id = region["id"].as_u64().unwrap();
    let peer = json!({
        "id": region["peers"][0]["id"],
        "store_id": 1,
        "role": 0,
        "role_name": "Voter",
        "is_learner": false,
    });
    assert!(peer["id"].as_u64().unwrap() > 0);
    let wanted = json!({
        "id": id,
        "start_key": "",
        "end_key": "",
        "epoch": { "conf_ver": 1, "version": 1 },
        "peers": [peer],
        "leader": peer,
        "down_peers": [],
        "pending_peers": [],
        "written_bytes": region["written_bytes"],
        "read_bytes": 0,
        "written_keys": region["written_keys"],
        "read_keys": 0,
        "approximate_size": region["approximate_size"],
        "approximate_keys": 0,
    });
    assert_eq!(*region, wanted);

    for path in ["regions/key", "regions/key?key=a&end_key=b&limit=1", "regions/key?limit=-1"] {
        assert_eq!(running.get(&format!("/pd/api/v1/{path}")).await, all, "{path}");
    }
    assert_eq!(running.get("/pd/api/v1/regions/store/1").await, all);
    let none = json!({ "count": 0, "regions": [] });
    assert_eq!(running.get("/pd/api/v1/regions/store/9").await, none);
    assert_eq!(running.get("/pd/api/v1/regions/key?limit=0").await, none);
    assert_eq!(running.get("/pd/api/v1/regions/key?key=b&end_key=a").await, none);
    assert_eq!(running.get("/pd/api/v1/regions/count").await, json!({ "count": 1 }));
    for path in ["key/", "key/k", "key/%00%ff", "key/a/b", "key/00FF?format=hex"] {
        assert_eq!(running.get(&format!("/pd/api/v1/region/{path}")).await, wanted, "{path}");
    }
    assert_eq!(running.get(&format!("/pd/api/v1/region/id/{id}")).await, wanted);
    running.refused("/pd/api/v1/region/id/77777", 404, "region 77777 not found").await;
    running.refused("/pd/api/v1/region/id/-1", 400, "no such number").await;
    running.refused("/pd/api/v1/region/key/0?format=hex", 400, "not hex").await;
    running.refused("/pd/api/v1/region/key/%2", 400, "bad escape").await;
    running.refused("/pd/api/v1/regions/key?limit=x", 400, "limit").await;

    let sums = running.get("/pd/api/v1/stats/region?start_key=&end_key=").await;
    assert_eq!((&sums["count"], &sums["empty_count"]), (&json!(1), &json!(1)));
    assert_eq!(sums["store_leader_count"], json!({ "1": 1 }));
    assert_eq!(sums["store_peer_count"], json!({ "1": 1 }));
    let count = running.get("/pd/api/v1/stats/region?start_key=a&end_key=b&count").await;
    assert_eq!(count, json!({ "count": 1 }));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_in_the_shape_of_pd() {
    let running = start("stores", ApiVersionName::V1).await;
    // A store tells how it is as soon as it finds a cluster, which the first start founds.
    running.node.stop().await;
    let running = open(running.folder, ApiVersionName::V1).await;
    let all = running.get("/pd/api/v1/stores").await;
    assert_eq!(all["count"], 1);
    let (store, status) = (&all["stores"][0]["store"], &all["stores"][0]["status"]);
    let address = running.node.address().to_string();
    assert_eq!((&store["id"], &store["address"]), (&json!(1), &json!(address)));
    let labels = json!([{ "key": "api-version", "value": "V1" }]);
    assert_eq!((&store["status_address"], &store["labels"]), (&json!(address), &labels));
    assert_eq!((&store["version"], &store["state_name"]), (&json!("8.5.0"), &json!("Up")));
    assert_eq!(store["node_state_name"], "Serving");
    assert!(store["start_timestamp"].as_u64().unwrap() > 1_700_000_000);
    for size in ["capacity", "available", "used_size"] {
        let text = status[size].as_str().unwrap();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        assert!(text.ends_with('B') && digits.parse::<f64>().is_ok(), "{size}: {text}");
        assert!(size == "used_size" || text.ends_with("iB"), "{size}: {text}");
    }
    assert_eq!((&status["leader_count"], &status["region_count"]), (&json!(1), &json!(1)));
    assert_eq!((&status["leader_weight"], &status["region_weight"]), (&json!(1), &json!(1)));
    for time in ["start_ts", "last_heartbeat_ts"] {
        let text = status[time].as_str().unwrap();
        assert!(text.starts_with("20") && text.ends_with('Z') && text.len() == 24, "{text}");
    }
    assert!(status["uptime"].as_str().unwrap().ends_with('s'));
    assert!(store["last_heartbeat"].as_u64().unwrap() > 1_700_000_000_000_000_000);

    assert_eq!(running.get("/pd/api/v1/store/1").await["store"]["id"], 1);
    running.refused("/pd/api/v1/store/9", 404, "store 9 not found").await;
    running.refused("/pd/api/v1/store/one", 400, "no such number").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_cluster() {
    let running = start("members", ApiVersionName::V1).await;
    let cluster_id = running.node.cluster_id().0;
    let members = running.get("/pd/api/v1/members").await;
    let member = &members["members"][0];
    assert_eq!(members["header"]["cluster_id"], cluster_id);
    assert_eq!(members["members"].as_array().unwrap().len(), 1);
    assert_eq!((&members["leader"], &members["etcd_leader"]), (member, member));
    assert_eq!(member["client_urls"], json!([running.url()]));
    assert_eq!(member["member_id"], 1);
    assert_eq!(running.get("/pd/api/v1/leader").await, *member);
    let health = json!([{
        "name": member["name"],
        "member_id": 1,
        "client_urls": [running.url()],
        "health": true,
    }]);
    assert_eq!(running.get("/pd/api/v1/health").await, health);
    assert_eq!(running.ask("GET", "/pd/api/v1/ping", "").await.status, 200);
    assert_eq!(running.get("/pd/api/v1/version").await["version"], "v8.5.0");
    let status = running.get("/pd/api/v1/status").await;
    assert_eq!((&status["version"], &status["kernel_type"]), (&json!("v8.5.0"), &json!("Classic")));

    let cluster = json!({ "id": cluster_id, "max_peer_count": 3 });
    assert_eq!(running.get("/pd/api/v1/cluster").await, cluster);
    let status = running.get("/pd/api/v1/cluster/status").await;
    assert_eq!(
        (&status["is_initialized"], &status["replication_status"]),
        (&json!(true), &json!(""))
    );
    assert!(status["raft_bootstrap_time"].as_str().unwrap().ends_with('Z'));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_an_empty_answer() {
    let running = start("empty", ApiVersionName::V1).await;
    let config = running.get("/pd/api/v1/config").await;
    assert_eq!(config["schedule"], running.get("/pd/api/v1/config/schedule").await);
    assert_eq!(config["replication"], running.get("/pd/api/v1/config/replicate").await);
    assert_eq!(config["replication"]["max-replicas"], 3);
    assert_eq!(config["schedule"]["region-schedule-limit"], 0);
    assert_eq!(running.get("/pd/api/v1/config/cluster-version").await, "8.5.0");

    for path in [
        "config/rules",
        "config/rules/group/pd",
        "config/rules/key/7480",
        "config/rules/region/2",
        "config/rule_groups",
        "config/placement-rule",
        "config/region-label/rules",
        "config/region-label/rules/ids",
        "region/id/2/labels",
        "schedulers",
        "operators",
    ] {
        assert_eq!(running.get(&format!("/pd/api/v1/{path}")).await, json!([]), "{path}");
    }
    let group = json!({ "group_id": "g", "group_index": 0, "group_override": false, "rules": [] });
    assert_eq!(running.get("/pd/api/v1/config/placement-rule/g").await, group);
    running.refused("/pd/api/v1/config/rule/pd/default", 404, "rule pd/default").await;
    running.refused("/pd/api/v1/config/rule_group/g", 404, "group g").await;
    running.refused("/pd/api/v1/config/region-label/rule/a/b", 404, "rule a/b").await;
    running.refused("/pd/api/v1/operators/2", 404, "region 2").await;
    let hot = json!({ "as_peer": {}, "as_leader": {} });
    assert_eq!(running.get("/pd/api/v1/hotspot/regions/read").await, hot);
    assert_eq!(running.get("/pd/api/v1/hotspot/regions/write").await, hot);
    assert_eq!(running.get("/pd/api/v1/hotspot/stores").await["bytes-read-rate"], json!({}));

    let checker = "/pd/api/v1/checker/merge";
    assert_eq!(running.get(checker).await, json!({ "paused": false }));
    let paused = running.ask("POST", checker, "{\"delay\": 90}").await;
    assert_eq!(paused.status, 200);
    assert!(paused.json().as_str().unwrap().contains("for 1m30s"));
    assert_eq!(running.get(checker).await, json!({ "paused": true }));
    assert_eq!(running.ask("POST", checker, "{\"delay\": 0}").await.status, 200);
    assert_eq!(running.get(checker).await, json!({ "paused": false }));
    assert_eq!(running.ask("POST", checker, "{").await.status, 400);
    running.refused("/pd/api/v1/checker/none", 404, "no checker none").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keyspaces_are_made_and_switched() {
    let running = start("keyspaces", ApiVersionName::V2).await;
    let path = "/pd/api/v2/keyspaces";
    let made =
        running.ask("POST", path, "{\"name\":\"blue\",\"config\":{\"b\":\"2\",\"a\":\"1\"}}");
    let made = made.await;
    assert_eq!(made.status, 200, "{}", made.body);
    let blue = made.json();
    assert_eq!((&blue["id"], &blue["name"]), (&json!(1), &json!("blue")));
    assert_eq!(
        (&blue["state"], &blue["config"]),
        (&json!("ENABLED"), &json!({ "a": "1", "b": "2" }))
    );
    assert!(blue["created_at"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(running.ask("POST", path, "{\"name\":\"red\"}").await.status, 200);
    assert_eq!(running.ask("POST", path, "{\"name\":\"red\"}").await.status, 409);
    assert_eq!(running.ask("POST", path, "{\"name\":\"no/slash\"}").await.status, 400);
    assert_eq!(running.ask("POST", path, "{}").await.status, 400);

    assert_eq!(running.get(&format!("{path}/blue")).await, blue);
    assert_eq!(running.get(&format!("{path}/id/1")).await, blue);
    running.refused(&format!("{path}/green"), 404, "green").await;
    running.refused(&format!("{path}/id/9"), 404, "9").await;
    running.refused(&format!("{path}/id/x"), 400, "no such number").await;

    let all = running.get(path).await;
    let names: Vec<_> = all["keyspaces"].as_array().unwrap().iter().map(|k| &k["name"]).collect();
    assert_eq!(names, ["DEFAULT", "blue", "red"]);
    assert_eq!(all["next_page_token"], "");
    let first = running.get(&format!("{path}?limit=2")).await;
    assert_eq!((&first["keyspaces"][1], &first["next_page_token"]), (&blue, &json!("2")));
    let second = running.get(&format!("{path}?limit=2&page_token=2")).await;
    assert_eq!(second["keyspaces"].as_array().unwrap().len(), 1);

    let state = format!("{path}/blue/state");
    let switched = running.ask("PUT", &state, "{\"state\":\"disabled\"}").await;
    assert_eq!((switched.status, &switched.json()["state"]), (200, &json!("DISABLED")));
    assert_eq!(running.ask("PUT", &state, "{\"state\":\"TOMBSTONE\"}").await.status, 400);
    assert_eq!(running.ask("PUT", &state, "{\"state\":\"GREEN\"}").await.status, 400);
    assert_eq!(running.get(&format!("{path}/blue")).await["state"], "DISABLED");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_points_and_resolved_timestamps() {
    let running = start("gc", ApiVersionName::V1).await;
    let path = "/pd/api/v1/gc/safepoint";
    let none = json!({
        "service_gc_safe_points": [],
        "min_service_gc_safe_point": 0,
        "gc_safe_point": 0,
    });
    assert_eq!(running.get(path).await, none);
    let mut pd = PdClient::connect(running.url()).await.unwrap();
    pd.update_service_gc_safe_point(pdpb::UpdateServiceGcSafePointRequest {
        header: running.header(),
        service_id: "backup".into(),
        ttl: 600,
        safe_point: 900,
    })
    .await
    .unwrap();
    let request = pdpb::UpdateGcSafePointRequest { header: running.header(), safe_point: 500 };
    pd.update_gc_safe_point(request).await.unwrap();
    let page = running.get(path).await;
    assert_eq!(
        (&page["gc_safe_point"], &page["min_service_gc_safe_point"]),
        (&json!(500), &json!(500))
    );
    let backup = &page["service_gc_safe_points"][0];
    assert_eq!((&backup["service_id"], &backup["safe_point"]), (&json!("backup"), &json!(900)));
    assert!(backup["expired_at"].as_u64().unwrap() > 1_700_000_000);

    let path = "/pd/api/v1/min-resolved-ts";
    let page = running.get(path).await;
    assert_eq!((&page["min_resolved_ts"], &page["is_real_time"]), (&json!(0), &json!(false)));
    assert_eq!(page["stores_min_resolved_ts"], Value::Null);
    for scope in ["cluster", "1"] {
        let page = running.get(&format!("{path}?scope={scope}")).await;
        assert_eq!(page["stores_min_resolved_ts"], json!({ "1": 0 }), "{scope}");
    }
    running.refused(&format!("{path}?scope=1,9"), 404, "store 9").await;
    running.refused(&format!("{path}?scope=x"), 400, "scope").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_named() {
    let running = start("unknown", ApiVersionName::V1).await;
    running.refused("/nowhere/x?y", 404, "no such path: /nowhere/x").await;
    running.refused("/pd/api/v1/nowhere", 404, "/pd/api/v1/nowhere").await;
    for (method, path) in [("POST", "/config"), ("DELETE", "/pd/api/v1/stores"), ("PUT", "/")] {
        let answer = running.ask(method, path, "").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        let text = answer.json();
        assert!(
            text.as_str().unwrap().contains(&format!("{path} does not take {method}")),
            "{text}"
        );
        assert!(answer.head.contains("allow: "), "{}", answer.head);
    }
    assert_eq!(running.ask("HEAD", "/status", "").await.status, 200);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_served_name_themselves() {
    let running = start("unserved", ApiVersionName::V1).await;
    let mut tikv = TikvClient::connect(running.url()).await.unwrap();
    let status = tikv.kv_gc(GcRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "unimplemented: /tikvpb.Tikv/KvGC");

    let mut pd = PdClient::connect(running.url()).await.unwrap();
    let streamed = tokio_stream::iter([pdpb::SyncRegionRequest::default()]);
    let status = pd.sync_regions(streamed).await.unwrap_err();
    assert_eq!(status.message(), "unimplemented: /pdpb.PD/SyncRegions");
    running.stop().await;
}
