//! `pontoon ctl` as a person runs it, against three nodes in processes of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const PONTOON: &str = env!("CARGO_BIN_EXE_pontoon");

/// What a cluster has to do is done within this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(90);

/// `pontoon dev` with three nodes. Dropping it ends them.
struct Cluster {
    child: Child,
    addresses: Vec<String>,
    _folder: TempDir,
}

impl Cluster {
    fn start(nodes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut child = Command::new(PONTOON)
            .args(["dev", "--nodes", &nodes.to_string(), "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the pipe can be read");
        let list = line.split("listen=").nth(1).and_then(|rest| rest.split(' ').next());
        let list = list.unwrap_or_else(|| panic!("{line:?}"));
        let addresses = list.trim().split(',').map(str::to_owned).collect();
        let cluster = Self { child, addresses, _folder: folder };
        cluster.wait_for_voters(nodes as usize);
        cluster
    }

    fn run(&self, at: usize, args: &[&str]) -> Output {
        let mut all = vec!["ctl", "--addr", &self.addresses[at], "--timeout", "90"];
        all.extend(args);
        Command::new(PONTOON).args(all).output().expect("the binary was built for this test")
    }

    /// What it prints.
    fn ctl(&self, at: usize, args: &[&str]) -> String {
        let output = self.run(at, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctl {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    fn json(&self, at: usize, args: &[&str]) -> Value {
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.ctl(at, &args)).expect("it prints JSON")
    }

    /// The one line of an error.
    fn refused(&self, at: usize, args: &[&str]) -> String {
        let output = self.run(at, args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), error.lines().count()),
            (Some(1), 1),
            "{args:?}: {error}"
        );
        error
    }

    fn regions(&self) -> Vec<Value> {
        self.json(0, &["regions"])["regions"].as_array().expect("a list").clone()
    }

    /// Their ids, in order.
    fn stores(&self) -> Vec<String> {
        let page = self.json(0, &["stores"]);
        let stores = page["stores"].as_array().expect("a list");
        stores.iter().map(|store| id(&store["store"])).collect()
    }

    /// Until every region has so many voters.
    fn wait_for_voters(&self, count: usize) {
        eventually("replicas", || {
            let page = self.json(0, &["regions"]);
            let regions = page["regions"].as_array()?.iter().chain([&page["system"]]);
            let voters = |region: &Value| {
                let peers = region["peers"].as_array().map_or(&[][..], |peers| peers);
                peers.iter().filter(|peer| peer["role_name"] == "Voter").count()
            };
            regions.map(voters).all(|voters| voters == count).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
    }
}

fn id(region: &Value) -> String {
    region["id"].as_u64().expect("a number").to_string()
}

#[test]
fn a_cluster_is_looked_at_and_changed_through_any_node() {
    let cluster = Cluster::start(3);
    looks(&cluster);
    let left = splits(&cluster);
    leaders_move(&cluster, &left);
    peers_move(&cluster, &left);
    regions_merge(&cluster);
    copies_are_compared(&cluster);
    refusals_say_why(&cluster, &left);
}

fn looks(cluster: &Cluster) {
    for at in 0..3 {
        let stores = cluster.ctl(at, &["stores"]);
        assert!(cluster.addresses.iter().all(|address| stores.contains(address)), "{stores}");
        assert_eq!(stores.lines().count(), 4, "{stores}");
        let regions = cluster.ctl(at, &["regions"]);
        assert!(regions.contains("system") && regions.contains("[\"\", end)"), "{regions}");
    }
    let region = id(&cluster.regions()[0]);
    let page = cluster.ctl(1, &["region", &region]);
    assert_eq!(page.matches("follower").count(), 2, "{page}");
    assert!(page.contains("leader") && page.contains("truncated"), "{page}");
}

/// Cuts the first region at `m`. Returns the left part.
fn splits(cluster: &Cluster) -> String {
    let region = id(&cluster.regions()[0]);
    let printed = cluster.ctl(2, &["split", &region, "m"]);
    assert!(printed.contains("is cut at \"m\""), "{printed}");
    assert!(printed.contains("[\"\", \"m\")") && printed.contains("[\"m\", end)"), "{printed}");
    let left = cluster.regions().into_iter().find(|region| region["end_key"] == "6D");
    id(&left.expect("it is on the map"))
}

fn leaders_move(cluster: &Cluster, region: &str) {
    let stores = cluster.stores();
    for store in [&stores[1], &stores[2], &stores[0], &stores[0]] {
        let printed = cluster.ctl(0, &["transfer-leader", region, store]);
        assert!(printed.contains(&format!("is led on store {store}")), "{printed}");
    }
    let printed = cluster.ctl(0, &["transfer-leader", "system", &stores[1]]);
    assert!(printed.contains("region system is led on store"), "{printed}");
    assert!(cluster.ctl(0, &["compact", region]).contains("begins at"));
}

fn peers_move(cluster: &Cluster, region: &str) {
    cluster.ctl(0, &["pause", "replica", "600"]);
    let printed = cluster.ctl(1, &["remove-peer", region, "1"]);
    assert!(printed.contains("has no copy on store 1"), "{printed}");
    let region_page = cluster.ctl(0, &["region", region]);
    assert_eq!(region_page.matches("Voter").count(), 2, "{region_page}");
    let printed = cluster.ctl(1, &["add-peer", region, "1"]);
    assert!(printed.contains("has a voter on store 1"), "{printed}");
    assert!(cluster.ctl(2, &["operators"]).contains("SUCCESS"));
    cluster.ctl(0, &["pause", "replica", "0"]);
}

/// Cuts the last region at `x`, and makes one of the two parts again.
fn regions_merge(cluster: &Cluster) {
    let whole = id(cluster.regions().last().expect("there are two"));
    cluster.ctl(0, &["split", &whole, "x"]);
    let regions = cluster.regions();
    assert_eq!(regions.len(), 3);
    let (source, target) = (id(&regions[1]), id(&regions[2]));
    let printed = cluster.ctl(1, &["merge", &source, &target]);
    assert!(printed.contains(&target), "{printed}");
    assert_eq!(cluster.regions().len(), 2);
}

fn copies_are_compared(cluster: &Cluster) {
    let printed = cluster.ctl(1, &["check"]);
    assert!(printed.ends_with("3 regions: all copies agree\n"), "{printed}");
    let all = cluster.stores().join(",");
    assert_eq!(printed.matches(&all).count(), 3, "{printed}");
}

fn refusals_say_why(cluster: &Cluster, region: &str) {
    for (args, why) in [
        (&["region", "77777"][..], "there is no region 77777"),
        (&["add-peer", region, "99"], "store ID 99"),
        (&["transfer-leader", region, "99"], "store ID 99"),
        (&["split", region, "zzz"], "is not inside of the region"),
        (&["split", region, "\"\""], "empty key"),
        (&["merge", region, region], "no neighbour"),
        (&["merge", region, "77777"], "region 77777 is not known"),
        (&["cancel", region], "no operator works on region"),
        (&["remove-store", "1"], "can not remove store 1"),
        (&["remove-store", "44"], "store 44 not found"),
        (&["pause", "nonsense", "1"], "there is no checker nonsense"),
        (&["region", "x"], "is no region"),
    ] {
        let error = cluster.refused(0, args);
        assert!(error.starts_with("pontoon: ") && error.contains(why), "{args:?}: {error}");
    }
    let output = Command::new(PONTOON).args(["ctl", "--addr", "127.0.0.1:1", "stores"]).output();
    let output = output.expect("the binary was built for this test");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot reach 127.0.0.1:1"), "{error}");
}
