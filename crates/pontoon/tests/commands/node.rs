//! A node in a process of its own, in a folder that goes away with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The binary under test.
pub(crate) const PONTOON: &str = env!("CARGO_BIN_EXE_pontoon");

/// A running node. Dropping it kills it.
pub(crate) struct Node {
    child: Child,
    address: String,
}

impl Node {
    /// Starts a node on the data in `folder`, at a free port, and waits until it says that it
    /// serves.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Node {
        let mut child = Command::new(PONTOON)
            .args(["start", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let stdout = child.stdout.take().expect("it is a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("the pipe can be read");
        let address = line.strip_prefix("ready listen=").and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("the node did not start: {line:?}"));
        Node { child, address: address.to_owned() }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}
