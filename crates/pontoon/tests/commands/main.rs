//! The commands as a person runs them, against a node.

mod founding;
mod node;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use node::{Node, PONTOON};
use rustix::process::{Pid, Signal, kill_process};

fn pontoon(args: &[&str]) -> Output {
    Command::new(PONTOON).args(args).output().expect("the binary was built for this test")
}

/// Runs lines in the shell and returns what it printed.
fn shell(node: &Node, flags: &[&str], lines: &[&str]) -> String {
    let mut args = vec!["shell", "--addr", node.address()];
    args.extend(flags);
    args.extend(lines.iter().flat_map(|line| ["-e", line]));
    let output = pontoon(&args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines:?}: {errors}");
    String::from_utf8(output.stdout).expect("the shell prints text")
}

#[test]
fn wrong_flags_are_one_line() {
    for (args, named) in [
        (&["frob"][..], "'frob'"),
        (&["shell", "--adr", "x"], "'--adr'"),
        (&["bench", "raw", "put", "--clients", "0"], "--clients"),
        (&["shell", "-e", "frob"], "'frob'"),
        (&["shell", "--addr", "127.0.0.1:1", "-e", "stores"], "127.0.0.1:1"),
        (&["start", "--join", "nonsense"], "HOST:PORT"),
        (&["dev", "--nodes", "0"], "--nodes"),
        (&[], "a command is missing"),
    ] {
        let output = pontoon(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        assert!(error.starts_with("pontoon: ") && error.contains(named), "{args:?}: {error}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["shell", "--help"], &["bench", "raw", "--help"], &["version"]] {
        let output = pontoon(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn the_shell_reads_and_writes() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let node = Node::start(folder.path(), &[]);
    let printed = shell(
        &node,
        &[],
        &[
            "put a 1",
            r#"put "b \x00" "two words""#,
            "put c \"\"",
            "get a",
            "get a missing",
            "scan a",
            "rscan a c 1",
            "cas a 1 2",
            "cas a 1 3",
            "cas a \"2\" none",
            "delete c c",
            "scan \"\" \"\" 10",
            "delete-range a z",
            "scan \"\"",
        ],
    );
    let expected = r#"
ok
ok
ok
"1"
"a"  "1"
"missing"  (not found)
"a"  "1"
"b \x00"  "two words"
"c"  ""
"b \x00"  "two words"
swapped, was "1"
not swapped, is "2"
swapped, was "2"
ok
"b \x00"  "two words"
ok
"#;
    assert_eq!(printed, expected.trim_start());
    assert_eq!(shell(&node, &["--hex"], &["put 00ff 61", "scan 00"]), "ok\n00ff  61\n");
}

#[test]
fn the_shell_has_transactions() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let node = Node::start(folder.path(), &["--api-version", "2"]);
    let flags = ["--api-version", "2"];
    let lines = ["begin", "put a 1", "put b 2", "scan \"\"", "rscan a c 1", "commit", "get a"];
    let printed = shell(&node, &flags, &lines);
    let lines: Vec<_> = printed.lines().collect();
    assert!(
        lines[0].starts_with("began at ") && lines[6].starts_with("committed at "),
        "{printed}"
    );
    let between = ["ok", "ok", "\"a\"  \"1\"", "\"b\"  \"2\"", "\"b\"  \"2\""];
    assert_eq!(lines[1..6], between);
    assert_eq!(lines[7], "(not found)", "raw keys lie apart");

    let lines = [
        "begin pessimistic",
        "lock a missing",
        "put a 3",
        "delete b",
        "locks",
        "rollback",
        "locks",
        "mvcc a",
        "mvcc missing",
        "begin",
        "get a",
    ];
    let printed = shell(&node, &flags, &lines);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[1..5], ["\"a\"  \"1\"", "\"missing\"  (not found)", "ok", "ok"], "{printed}");
    let held: Vec<_> = lines[6..9].iter().map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(held, [Some("pessimistic"); 3], "{printed}");
    assert_eq!(lines[9..11], ["rolled back", "no locks"], "{printed}");
    assert!(lines[11].contains("commit_ts") && lines[12].starts_with("put "), "{printed}");
    assert!(lines[12].ends_with("\"1\"") && lines[13] == "nothing is stored", "{printed}");
    assert_eq!(lines[15], "\"1\"");
    assert_eq!(
        lines[16..],
        ["the transaction in progress is given up", "rolled back"],
        "{printed}"
    );

    let args = ["shell", "--addr", node.address(), "-e", "begin", "-e", "ttl a"];
    let output = pontoon(&args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("ttl is for raw keys"), "{text}");
}

#[test]
fn the_shell_shows_the_cluster() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let node = Node::start(folder.path(), &[]);
    let printed = shell(&node, &[], &["regions", "stores", "status", "members"]);
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].contains("[first, last)") && lines[0].contains("leader store"), "{printed}");
    assert!(lines[1].contains(node.address()) && lines[1].contains("Up"), "{printed}");
    assert!(lines[2].starts_with("cluster    "), "{printed}");
    assert!(printed.trim_end().ends_with("leader"), "{printed}");
}

#[test]
fn one_command_runs_a_cluster_and_ends_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut cluster = Command::new(PONTOON)
        .args(["dev", "--nodes", "3", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let mut line = String::new();
    let stdout = cluster.stdout.take().expect("it is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("the pipe can be read");
    let list = line.strip_prefix("ready nodes=3 listen=").and_then(|rest| rest.split(' ').next());
    let addresses: Vec<_> = list.unwrap_or_else(|| panic!("{line:?}")).split(',').collect();
    for (at, address) in addresses.iter().enumerate() {
        let put = format!("put {at} x");
        let output = pontoon(&["shell", "--addr", address, "-e", &put, "-e", "members"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(addresses.iter().all(|member| text.contains(member)), "{text}");
    }
    let pid = Pid::from_child(&cluster);
    kill_process(pid, Signal::TERM).expect("it runs");
    assert!(cluster.wait().expect("it is our child").success());
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "a node is left");
    }
}

#[test]
fn other_api_versions_are_spoken() {
    for (version, expires) in [("1ttl", true), ("2", true)] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let node = Node::start(folder.path(), &["--api-version", version]);
        let lines =
            ["put a 1 ttl 1000", "put b 2", "ttl b", "ttl missing", "scan \"\"", "rscan \"\""];
        let printed = shell(&node, &["--api-version", version], &lines);
        let expected = [
            "ok",
            "ok",
            "never expires",
            "(not found)", // what the first four lines say
            "\"a\"  \"1\"",
            "\"b\"  \"2\"",
            "\"b\"  \"2\"",
            "\"a\"  \"1\"",
        ];
        let printed: Vec<_> = printed.lines().collect();
        assert_eq!(printed, expected);
        let left = shell(&node, &["--api-version", version], &["ttl a"]);
        let left =
            left.trim_end().strip_suffix(" s").and_then(|seconds| seconds.parse::<u64>().ok());
        assert_eq!(expires, left.is_some_and(|left| (900..=1000).contains(&left)), "{left:?}");
    }
}

#[test]
fn a_bench_reports_what_it_did() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let node = Node::start(folder.path(), &[]);
    let bench = |args: &[&str]| {
        let mut all = vec!["bench", "raw"];
        all.extend(args);
        all.extend(["--addr", node.address(), "--clients", "8", "--keys", "1000", "--json"]);
        let output = pontoon(&all);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("it prints JSON")
    };
    let load = bench(&["load", "--batch", "33"]);
    assert_eq!(load["operations"], 1000);
    for (workload, kinds) in [("put", 1), ("get", 1), ("scan", 1), ("mixed", 2)] {
        let report = bench(&[workload, "--ops", "2000", "--distribution", "zipf"]);
        assert_eq!(report["operations"], 2000, "{workload}");
        assert_eq!(report["not_found"], 0, "{workload}");
        let latencies = report["latencies"].as_array().expect("a list");
        assert_eq!(latencies.len(), kinds, "{workload}");
        for row in latencies {
            let at = |name: &str| row[name].as_f64().expect("a number");
            assert!(at("p50_ms") <= at("p99_ms") && at("p99_ms") <= at("max_ms"), "{row}");
        }
    }
}

#[test]
fn a_bench_of_transactions_adds_the_money_up() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let node = Node::start(folder.path(), &[]);
    let bench = |args: &[&str]| {
        let mut all = vec!["bench", "txn"];
        all.extend(args);
        all.extend(["--addr", node.address(), "--clients", "8", "--json"]);
        let output = pontoon(&all);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("it prints JSON")
    };
    assert_eq!(bench(&["load", "--keys", "500", "--batch", "33"])["operations"], 500);
    for (workload, more) in [
        ("read-only", &["--keys-per-txn", "1"][..]),
        ("read-only", &["--keys-per-txn", "3"]),
        ("update", &[]),
        ("update", &["--pessimistic"]),
        ("transfer", &["--two-phases"]),
        ("transfer", &["--pessimistic"]),
    ] {
        let mut args = vec![workload, "--ops", "200", "--keys", "500"];
        args.extend(more);
        let report = bench(&args);
        assert_eq!(report["operations"], 200, "{args:?}");
        assert_eq!((&report["interface"], &report["not_found"]), (&"txn".into(), &0.into()));
        assert_eq!(report["latencies"][0]["name"], workload);
    }
}
