//! Runs the program `doomed`, a client that stops at a chosen step so that it can be killed there.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A client in a process of its own. It is killed with its [`Doomed`].
#[derive(Debug)]
pub struct Doomed {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Doomed {
    /// Starts `program` with arguments: those that it documents.
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        let piped = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let out = child.stdout.take().expect("stdout is piped");
        Self { child, lines: BufReader::new(out).lines() }
    }

    /// The next line that it says; nothing when it has ended.
    pub fn line(&mut self) -> Option<String> {
        self.lines.next()?.ok()
    }

    /// Tells it to go on.
    pub fn go_on(&mut self) {
        let input = self.child.stdin.as_mut().expect("stdin is piped");
        input.write_all(b"\n").expect("it is waiting");
    }

    /// Ends it with SIGKILL, in the middle of whatever it does. Returns the lines that it had said
    /// before, and nobody had read.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        // The last one may be cut off.
        self.lines.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
