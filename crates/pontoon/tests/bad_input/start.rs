//! Command lines and folders that a server must refuse.

use std::net::TcpListener;
use std::path::Path;

use crate::server::{Server, contents, refused, refused_on};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

/// Starts on a folder, puts a key, and kills the server.
fn fill(path: &Path, flags: &[&str]) {
    let server = Server::start(path, flags);
    tokio::runtime::Runtime::new().expect("threads can be made").block_on(async {
        if !flags.contains(&"2") {
            server.connect().await.must_put(b"k", b"v").await;
        }
    });
}

/// Whether the key of [`fill`] is there.
fn holds_its_key(path: &Path) {
    let server = Server::start(path, &[]);
    let value = tokio::runtime::Runtime::new()
        .expect("threads can be made")
        .block_on(async { server.connect().await.must_get(b"k").await });
    assert_eq!(value, b"v");
}

#[test]
fn a_wrong_command_line_names_the_flag() {
    let folder = folder();
    for (args, named) in [
        (&["start", "--frob"][..], "--frob"),
        (&["start", "--data-dirr", "x"], "--data-dirr"),
        (&["start", "--api-version", "3"], "--api-version"),
        (&["start", "--listen", "nowhere"], "--listen"),
        (&["start", "--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (&["start", "too", "many"], "too"),
        (&["frob"], "frob"),
    ] {
        let line = refused(args);
        assert!(line.contains(named), "{args:?}: {line}");
    }
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[raft]\nheartbeat-ticks = 9\n").expect("it can be written");
    let config = config.to_str().expect("text");
    assert!(refused(&["start", "--config", config]).contains("raft.heartbeat-ticks"));
}

#[test]
fn a_port_in_use_is_named() {
    let folder = folder();
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let line =
        refused(&["start", "--listen", &address, "--data-dir", data.to_str().expect("text")]);
    assert!(line.contains(&address), "{line}");
    assert!(!data.exists(), "a folder was made for nothing");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let line = refused_on(folder.path(), &[]);
    assert!(line.contains("in use"), "{line}");
    drop(server);
    Server::start(folder.path(), &[]);
}

#[test]
fn a_folder_of_another_api_version_is_left_alone() {
    let folder = folder();
    fill(folder.path(), &["--api-version", "1"]);
    for other in ["1ttl", "2"] {
        let line = refused_on(folder.path(), &["--api-version", other]);
        assert!(line.contains("API version"), "{line}");
    }
    holds_its_key(folder.path());
    let other = self::folder();
    fill(other.path(), &["--api-version", "2"]);
    assert!(refused_on(other.path(), &[]).contains("API version"));
}

#[test]
fn a_folder_of_a_newer_format_is_left_alone() {
    let folder = folder();
    fill(folder.path(), &[]);
    let marker = folder.path().join("PONTOON");
    let ours = std::fs::read_to_string(&marker).expect("every folder of ours has it");
    for (text, named) in [("pontoon data format 999\n", "999"), ("something else\n", "something")] {
        std::fs::write(&marker, text).expect("it can be written");
        let before = contents(folder.path());
        let line = refused_on(folder.path(), &[]);
        assert!(line.contains(named), "{line}");
        assert!(contents(folder.path()) == before, "the folder was changed");
    }
    std::fs::write(&marker, ours).expect("it can be written");
    holds_its_key(folder.path());
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let folder = folder();
    std::fs::write(folder.path().join("thesis.tex"), "years of work").expect("it can be written");
    let before = contents(folder.path());
    let line = refused_on(folder.path(), &[]);
    assert!(line.contains("not a Pontoon data folder"), "{line}");
    assert!(contents(folder.path()) == before, "the folder was changed");
}

#[test]
fn a_damaged_log_is_named() {
    let folder = folder();
    fill(folder.path(), &[]);
    let log = folder.path().join("log");
    for (path, bytes) in contents(&log) {
        // The magic and the version of the file.
        let damaged: Vec<u8> =
            bytes.iter().enumerate().map(|(i, b)| if i < 16 { !b } else { *b }).collect();
        std::fs::write(path, damaged).expect("it can be written");
    }
    let before = contents(&log);
    let line = refused_on(folder.path(), &[]);
    assert!(line.contains(log.to_str().expect("text")), "{line}");
    assert!(contents(&log) == before, "the log was changed");
}

/// Root may do nearly everything, so these are places where even root may not make a folder.
#[test]
fn a_place_that_is_not_ours_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "a file").expect("it can be written");
    let below = file.join("below");
    for place in [&file, &below, Path::new("/sys/pontoon-data"), Path::new("/proc/pontoon-data")] {
        let line = refused(&[
            "start",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            place.to_str().expect("text"),
        ]);
        assert!(line.contains(place.to_str().expect("text")), "{line}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "a file");
}
