//! Messages by hand, and how messages are written.
//!
//! ```text
//! step 1 from=2 term=3 vote last=5@2            step 1 from=2 term=3 pre-vote last=5@2
//! step 1 from=2 term=3 append prev=4@2 entries=5@3/6@3 [conf=7@3/v4] commit=4
//! step 1 from=2 term=3 timeout-now round=7       step 1 from=2 term=3 vote last=5@2 released=7
//! step 1 from=2 term=3 heartbeat commit=4       step 1 from=2 term=3 vote-response granted=true
//! step 1 from=2 term=3 matched index=5          step 1 from=2 term=3 conflict prev=5 hint=3@1
//! ```

use std::error::Error;

use base::{Entry, EntryKind, PeerId};
use goldenscript::ArgumentConsumer;
use pontoon_raft::{AppendOutcome, Body, LogPos, Message};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The message of a `step` command, for node `to`.
pub(crate) fn parse(to: PeerId, args: &mut ArgumentConsumer<'_>) -> Result<Message> {
    let kind = args.next_pos().ok_or("which kind of message?")?.to_owned();
    let mut number = |key: &str| -> Result<u64> {
        Ok(args.take_key(key).map(str::parse).transpose()?.unwrap_or(0))
    };
    let (from, term, round) = (PeerId(number("from")?), number("term")?, number("round")?);
    let (commit, index) = (number("commit")?, number("index")?);
    let body = match kind.as_str() {
        "vote" => {
            let released = args.take_key("released").map(str::parse).transpose()?;
            Body::Vote { last: position(args.take_key("last"))?, released }
        }
        "timeout-now" => Body::TimeoutNow { round },
        "pre-vote" => Body::PreVote { last: position(args.take_key("last"))? },
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
        "heartbeat" => Body::Heartbeat { commit, round },
        "heartbeat-response" => Body::HeartbeatResponse { round },
        "matched" => Body::AppendResponse { outcome: AppendOutcome::Matched(index), round },
        "conflict" => {
            let prev = position(args.take_key("prev"))?.index;
            let hint = position(args.take_key("hint"))?;
            Body::AppendResponse { outcome: AppendOutcome::Conflict { prev, hint }, round }
        }
        other => return Err(format!("no message {other}").into()),
    };
    Ok(Message { from, to, term, body })
}

/// `5@2`, or `5` for term zero; nothing is the beginning.
fn position(text: Option<&str>) -> Result<LogPos> {
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

/// One entry: `5@2`, with its data if it has any.
pub(crate) fn show_entry(entry: &Entry) -> String {
    match entry.data.is_empty() {
        true => format!("{}@{}", entry.index, entry.term),
        false => format!("{}@{}:{}", entry.index, entry.term, String::from_utf8_lossy(&entry.data)),
    }
}

pub(crate) fn show_entries(entries: &[Entry]) -> String {
    format!("[{}]", entries.iter().map(show_entry).collect::<Vec<_>>().join(" "))
}

/// One message on one line.
pub(crate) fn show(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let what = match body {
        Body::PreVote { last } => format!("PreVote last={last}"),
        Body::PreVoteResponse { granted } => format!("PreVoteResponse granted={granted}"),
        Body::Vote { last, released: None } => format!("Vote last={last}"),
        Body::Vote { last, released: Some(round) } => format!("Vote last={last} released={round}"),
        Body::TransferLeader { to } => format!("TransferLeader to={to}"),
        Body::TimeoutNow { round } => format!("TimeoutNow round={round}"),
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
        Body::TermOver => "TermOver".into(),
    };
    format!("n{from} -> n{to} t{term} {what}")
}
