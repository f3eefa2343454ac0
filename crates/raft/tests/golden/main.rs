//! Stories about a group, told in `tests/scripts/`. Each is a list of commands with what they
//! print. `UPDATE_GOLDENFILES=1` writes the answers anew; read the diff before believing it.
//!
//! ```text
//! cluster nodes=3 [plain] [async] [spares=N] [inflight=N] [append-bytes=N]
//!                                begin; plain = no pre-vote, no check-quorum; async = writes wait
//!                                for `persist`; spares are hosts that are no members yet
//! log ID TERM... [term=T] [commit=N]
//!                                give a node this log (terms of entries 1, 2, ...), start it anew
//! tick N [ID...]                 time passes at all or some; campaigns only by timeouts
//! campaign ID...   propose ID DATA...   read-index ID CONTEXT...
//! change ID v4|l4|r4             propose that 4 becomes a voter, a learner, or leaves
//! transfer ID TO                 ask ID to hand over
//! deliver [drop=ID/...] [to=ID]  what is on the way arrives, or is lost if it goes to drop
//! stabilize                      deliver until nothing is on the way
//! partition ID...   heal         cut these off from all others
//! persist ID [N]                 the oldest N (all) writes become durable
//! crash ID   restart ID          what was not durable is lost
//! step ID from=ID term=T KIND    a message by hand, see `hand.rs`
//! compact ID INDEX   status [ID...]   raft-log [ID...]
//! ```
//!
//! A command in brackets prints nothing.

mod cluster;
mod hand;

use std::error::Error;

use cluster::Cluster;
use goldenscript::{Command, Context, Runner};

struct Stories(Cluster);

impl Runner for Stories {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        self.0.run(command)?;
        Ok(self.0.take_output())
    }
}

#[test]
fn scripts_say_what_they_said() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 20, "only {} scripts", paths.len());
    let mut failed = Vec::new();
    for path in paths {
        let mut stories = Stories(Cluster::default());
        let run = std::panic::AssertUnwindSafe(|| goldenscript::run(&mut stories, &path));
        let name = path.file_name().expect("a file").to_owned();
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{}: {error}", name.display())),
            Err(_) => failed.push(format!("{}: says something else", name.display())),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
