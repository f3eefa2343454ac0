//! Stories about a group, told in `tests/scripts/`. Each is a list of commands with what they
//! print. `UPDATE_GOLDENFILES=1` writes the answers anew; read the diff before believing it.
//!
//! ```text
//! cluster nodes=N [spares=N] [after=I@T] [plain] [async] [lazy] [manual] [LIMIT=N...]
//!                                begin with nodes 1 to N, their logs after I@T. plain: no
//!                                pre-vote and no check-quorum; async: writes wait for `persist`;
//!                                lazy: pages of entries wait for `apply`; manual: snapshots wait
//!                                for `send-snapshot` and `report-snapshot`; spares are hosts that
//!                                know the members and are none; limits are inflight, gather,
//!                                inflight-bytes, append-bytes, committed-bytes,
//!                                uncommitted-bytes, tail-bytes
//! add-nodes ID...                hosts that know of no member
//! log ID TERM... [after=I@T] [term=T] [vote=ID] [commit=N]
//!                                give a node this log (terms of entries 1, 2, ..., or those
//!                                after I@T, where a snapshot was installed), start it anew
//! tick N [ID...]                 time passes at all or some; campaigns only by timeouts
//! campaign ID...   propose ID DATA...   read-index ID CONTEXT...
//! forward ID DATA...             propose by way of the leader
//! change ID v4|l4|r4             propose that 4 becomes a voter, a learner, or leaves
//! change ID joint v4/r2 or joint v4/r2/explicit; change ID leave
//!                                the same through a joint configuration
//! priority ID N                  who shall lead rather
//! quiesce ID   wake ID           the group sleeps, wakes
//! snapshot ID                    make one, for the next send-snapshot
//! send-snapshot FROM TO          the snapshot for TO is made
//! report-snapshot FROM TO ok|failed   and reached it, or did not
//! request-snapshot ID            the state machine of ID is damaged
//! transfer ID TO                 ask ID to hand over
//! unreachable ID PEER            tell ID that messages to PEER are lost
//! deliver [drop=ID/...] [to=ID]  what is on the way arrives, or is lost if it goes to drop
//! stabilize                      deliver until nothing is on the way
//! partition ID...   heal         cut these off from all others
//! persist ID [N]                 the oldest N (all) writes become durable
//! apply ID [N]                   the state machine applies the oldest N (all) pages
//! crash ID   restart ID          what was not durable is lost
//! step ID from=ID term=T KIND    a message by hand, see `hand.rs`
//! compact ID INDEX               the log is cut up to here
//! status [ID...]   members [ID...]   state [ID...]   raft-log [ID...]
//! ```
//!
//! Entries are written `INDEX@TERM:DATA`, or `INDEX@TERM=CHANGE` if they change members.
//!
//! A command in brackets prints nothing.

mod calls;
mod cluster;
mod effects;
mod hand;
mod members;
mod network;
mod show;
mod snapshots;

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
    assert!(paths.len() >= 90, "only {} scripts", paths.len());
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
