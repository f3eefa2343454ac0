//! Messages by hand.
//!
//! ```text
//! step 1 from=2 term=3 vote last=5@2            step 1 from=2 term=3 pre-vote last=5@2
//! step 1 from=2 term=3 append prev=4@2 entries=5@3/6@3 [conf=7@3/v4] commit=4
//! step 1 from=2 term=3 timeout-now round=7       step 1 from=2 term=3 vote last=5@2 released=7
//! step 1 from=2 term=3 heartbeat commit=4       step 1 from=2 term=3 vote-response granted=true
//! step 1 from=2 term=3 snapshot pos=5@2 voters=1/2/3 learners=4 data=a/b
//! step 1 from=2 term=3 snapshot-request index=5  step 1 from=2 term=3 propose a
//! step 1 from=2 term=3 quiesce commit=5          step 1 from=2 term=3 pre-vote last=5@2 priority=7
//! step 1 from=2 term=3 matched index=5          step 1 from=2 term=3 conflict prev=5 hint=3@1
//! ```

use base::{Entry, EntryKind, PeerId};
use goldenscript::ArgumentConsumer;
use pontoon_raft::{AppendOutcome, Body, ConfState, LogPos, Message, Snapshot};

use crate::cluster::Result;

/// The message of a `step` command, for node `to`.
pub(crate) fn parse(to: PeerId, args: &mut ArgumentConsumer<'_>) -> Result<Message> {
    let kind = args.next_pos().ok_or("which kind of message?")?.to_owned();
    let mut number = |key: &str| -> Result<u64> {
        Ok(args.take_key(key).map(str::parse).transpose()?.unwrap_or(0))
    };
    let (from, term, round) = (PeerId(number("from")?), number("term")?, number("round")?);
    let (commit, index) = (number("commit")?, number("index")?);
    let priority = args.take_key("priority").map(str::parse).transpose()?.unwrap_or(0);
    let body = match kind.as_str() {
        "vote" => {
            let released = args.take_key("released").map(str::parse).transpose()?;
            Body::Vote { last: position(args.take_key("last"))?, priority, released }
        }
        "timeout-now" => Body::TimeoutNow { round },
        "pre-vote" => Body::PreVote { last: position(args.take_key("last"))?, priority },
        "committed" => Body::Committed { upto: position(args.take_key("upto"))? },
        "vote-response" => Body::VoteResponse { granted: args.take_key("granted") == Some("true") },
        "append" => {
            let prev = position(args.take_key("prev"))?;
            let mut entries = entries(args.take_key("entries"))?;
            if let Some((at, data)) = args.take_key("conf").and_then(|text| text.split_once('/')) {
                let LogPos { index, term } = position(Some(at))?;
                let data = data.to_owned().into();
                entries.push(Entry { index, term, kind: EntryKind::ConfChange, data });
            }
            Body::Append { prev, entries, commit, round }
        }
        "pre-vote-response" => {
            Body::PreVoteResponse { granted: args.take_key("granted") == Some("true") }
        }
        "heartbeat" => Body::Heartbeat { commit, round },
        "heartbeat-response" => Body::HeartbeatResponse { round },
        "matched" => Body::AppendResponse { outcome: AppendOutcome::Matched(index), round },
        "conflict" => {
            let prev = position(args.take_key("prev"))?.index;
            let hint = position(args.take_key("hint"))?;
            Body::AppendResponse { outcome: AppendOutcome::Conflict { prev, hint }, round }
        }
        "snapshot" => Body::Snapshot { snapshot: Box::new(snapshot(args)?), round },
        "snapshot-request" => Body::SnapshotRequest { at_least: index },
        "propose" => {
            let data = args.next_pos().ok_or("propose what?")?;
            Body::Propose { data: data.to_owned().into() }
        }
        "quiesce" => Body::Quiesce { commit },
        other => return Err(format!("no message {other}").into()),
    };
    Ok(Message { from, to, term, body })
}

/// `pos=5@2 voters=1/2/3 [learners=4] [data=a/b]`.
fn snapshot(args: &mut ArgumentConsumer<'_>) -> Result<Snapshot> {
    let mut list = |key: &str| -> Result<Vec<PeerId>> {
        let ids = args.take_key(key).unwrap_or("").split('/').filter(|id| !id.is_empty());
        ids.map(|id| Ok(PeerId(id.parse()?))).collect()
    };
    let learners = list("learners")?;
    let conf = ConfState { learners, ..ConfState::of_voters(list("voters")?) };
    let data = args.take_key("data").unwrap_or("").replace('/', " ").into();
    Ok(Snapshot { pos: position(args.take_key("pos"))?, conf, data })
}

/// `5@2`, or `5` for term zero; nothing is the beginning.
pub(crate) fn position(text: Option<&str>) -> Result<LogPos> {
    let text = text.unwrap_or("0@0");
    let (index, term) = text.split_once('@').unwrap_or((text, "0"));
    Ok(LogPos { index: index.parse()?, term: term.parse()? })
}

fn entries(text: Option<&str>) -> Result<Vec<Entry>> {
    let positions = text.unwrap_or("").split('/').filter(|text| !text.is_empty());
    positions
        .map(|text| {
            let LogPos { index, term } = position(Some(text))?;
            Ok(Entry { index, term, ..Entry::default() })
        })
        .collect()
}
