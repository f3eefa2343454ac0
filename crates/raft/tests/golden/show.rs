//! How things are written: messages, entries, roles, logs.

use base::{Entry, EntryKind};
use goldenscript::ArgumentConsumer;
use pontoon_raft::{
    AppendOutcome, Body, FlowStatus, HardState, MemberStatus, Message, RawNode, Role, Storage,
};

use crate::cluster::{Cluster, Result};
use crate::{members, snapshots};

/// One entry: `5@2`, with its data if it has any: `5@2:data`, or `5@2=v4` if it changes members.
fn show_entry(entry: &Entry) -> String {
    let Entry { index, term, kind, data } = entry;
    let data = String::from_utf8_lossy(data);
    match kind {
        EntryKind::Normal if data.is_empty() => format!("{index}@{term}"),
        EntryKind::Normal => format!("{index}@{term}:{data}"),
        EntryKind::ConfChangeV2 if data.is_empty() => format!("{index}@{term}=leave"),
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => format!("{index}@{term}={data}"),
    }
}

pub(crate) fn show_entries(entries: &[Entry]) -> String {
    format!("[{}]", entries.iter().map(show_entry).collect::<Vec<_>>().join(" "))
}

/// One message on one line.
pub(crate) fn show(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let what = match body {
        Body::PreVote { last, priority } => {
            format!("PreVote last={last}{}", show_priority(*priority))
        }
        Body::PreVoteResponse { granted } => format!("PreVoteResponse granted={granted}"),
        Body::Vote { last, priority, released } => {
            let released = released.map_or(String::new(), |round| format!(" released={round}"));
            format!("Vote last={last}{}{released}", show_priority(*priority))
        }
        Body::TransferLeader { to } => format!("TransferLeader to={to}"),
        Body::TimeoutNow { round } => format!("TimeoutNow round={round}"),
        Body::Committed { upto } => format!("Committed upto={upto}"),
        Body::VoteResponse { granted } => format!("VoteResponse granted={granted}"),
        Body::Append { prev, entries, commit, round } => {
            format!("Append prev={prev} {} commit={commit} round={round}", show_entries(entries))
        }
        Body::AppendResponse { outcome: AppendOutcome::Matched(index), round } => {
            format!("AppendResponse matched={index} round={round}")
        }
        Body::AppendResponse { outcome: AppendOutcome::Conflict { prev, hint }, round } => {
            format!("AppendResponse conflict={prev} hint={hint} round={round}")
        }
        Body::Heartbeat { commit, round } => format!("Heartbeat commit={commit} round={round}"),
        Body::HeartbeatResponse { round } => format!("HeartbeatResponse round={round}"),
        Body::ReadIndex { context } => format!("ReadIndex {context}"),
        Body::ReadIndexResponse { context, index } => {
            format!("ReadIndexResponse {context} index={index}")
        }
        Body::Snapshot { snapshot, round } => {
            format!("Snapshot {} round={round}", snapshots::show(snapshot))
        }
        Body::SnapshotRequest { at_least } => format!("SnapshotRequest at_least={at_least}"),
        Body::Propose { data } => format!("Propose {}", String::from_utf8_lossy(data)),
        Body::Quiesce { commit } => format!("Quiesce commit={commit}"),
        Body::TermOver => "TermOver".into(),
    };
    format!("n{from} -> n{to} t{term} {what}")
}

fn show_priority(priority: i64) -> String {
    if priority == 0 { String::new() } else { format!(" priority={priority}") }
}

pub(crate) fn role_of(node: &RawNode) -> String {
    let name = match node.role() {
        Role::Follower => format!("follower({})", node.leader().map_or(0, |id| id.0)),
        Role::PreCandidate => "pre-candidate".into(),
        Role::Candidate => "candidate".into(),
        Role::Leader => "leader".into(),
    };
    let asleep = if node.is_quiet() { " asleep" } else { "" };
    format!("{name}@{}{asleep}", node.term())
}

fn show_member(member: &MemberStatus) -> String {
    let flow = match member.flow {
        FlowStatus::Probe => "probe".into(),
        FlowStatus::Replicate(count) => format!("replicate({count})"),
        FlowStatus::Snapshot(None) => "snapshot(wanted)".into(),
        FlowStatus::Snapshot(Some(index)) => format!("snapshot({index})"),
    };
    format!("n{} matched={} next={} {flow}", member.id, member.matched, member.next)
}

fn show_status(node: &RawNode) -> String {
    let status = node.status();
    let mut line = format!(
        "n{} {} vote={} last={} committed={} applied={} tail={}",
        status.id,
        role_of(node),
        status.vote,
        status.last,
        status.committed,
        status.applied,
        status.tail_entries,
    );
    if status.stable != status.last {
        line.push_str(&format!(" stable={}", status.stable));
    }
    if node.is_leader() {
        let (round, confirmed) = (node.round(), node.confirmed_round());
        line.push_str(&format!(" round={round} confirmed={confirmed}"));
    }
    if let Some(to) = status.transferring_to {
        line.push_str(&format!(" transferring_to={to}"));
    }
    for member in &status.members {
        line.push_str(&format!(" | {}", show_member(member)));
    }
    line
}

impl Cluster {
    pub(crate) fn status(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        self.each_node(args, show_status)
    }

    pub(crate) fn members(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        self.each_node(args, |node| {
            let status = node.status();
            format!("n{} members: {}", status.id, members::show(&status.conf))
        })
    }

    fn each_node(
        &mut self,
        args: &mut ArgumentConsumer<'_>,
        show: impl Fn(&RawNode) -> String,
    ) -> Result<()> {
        for id in self.some_or_all(args)? {
            let line = match &self.host(id)?.node {
                Some(node) => show(node),
                None => format!("n{id} is down"),
            };
            self.say(line);
        }
        Ok(())
    }

    pub(crate) fn state(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        for id in self.some_or_all(args)? {
            let host = self.host(id)?;
            let line = format!("n{id} applied {}: {}", host.applied, host.state.join(" "));
            self.say(line.trim_end());
        }
        Ok(())
    }

    pub(crate) fn raft_log(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        for id in self.some_or_all(args)? {
            let host = self.host(id)?;
            let first = host.disk.first_index()?;
            let entries = host.disk.all_entries();
            let begin = match host.disk.term(first - 1)? {
                0 => "from 1".into(),
                term => format!("after {}@{term}", first - 1),
            };
            let HardState { term, vote, commit } = host.disk.hard_state();
            let shown: Vec<String> = entries.iter().map(show_entry).collect();
            let line = format!(
                "n{id} on disk: term={term} vote={vote} commit={commit} {begin}: {}",
                shown.join(" ")
            );
            self.say(line.trim_end());
        }
        Ok(())
    }
}
