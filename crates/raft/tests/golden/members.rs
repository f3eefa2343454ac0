//! How changes of members are written: `v4` becomes a voter, `l4` a learner, `r4` leaves;
//! `joint/v4/r2` does both through a joint configuration, `joint/v4/r2/explicit` waits there for
//! `leave`.

use base::{EntryKind, PeerId};
use pontoon_raft::{ConfChange, ConfState, Leave, MemberChange};

use crate::cluster::Result;

/// The change that an entry holds, and the entry's kind. An entry that the leader made by itself
/// holds nothing, and means `leave`.
pub(crate) fn parse(text: &str) -> Result<(EntryKind, ConfChange)> {
    if text.is_empty() || text == "leave" {
        return Ok((EntryKind::ConfChangeV2, ConfChange::Leave));
    }
    let Some(list) = text.strip_prefix("joint/") else {
        return Ok((EntryKind::ConfChange, ConfChange::One(parse_one(text)?)));
    };
    let (list, leave) = match list.strip_suffix("/explicit") {
        Some(list) => (list, Leave::OnRequest),
        None => (list, Leave::Automatic),
    };
    let changes = list.split('/').map(parse_one).collect::<Result<_>>()?;
    Ok((EntryKind::ConfChangeV2, ConfChange::Enter { changes, leave }))
}

fn parse_one(text: &str) -> Result<MemberChange> {
    let (kind, id) = text.split_at(1);
    let id = PeerId(id.parse()?);
    match kind {
        "v" => Ok(MemberChange::AddVoter(id)),
        "l" => Ok(MemberChange::AddLearner(id)),
        "r" => Ok(MemberChange::Remove(id)),
        _ => Err(format!("no change {text}").into()),
    }
}

/// The members: `1 2 4 and 1 2 3 learners 5 learners next 3, leaves by itself`.
pub(crate) fn show(conf: &ConfState) -> String {
    let list = |ids: &[PeerId]| ids.iter().map(PeerId::to_string).collect::<Vec<_>>().join(" ");
    if *conf == ConfState::default() {
        return "nobody".into();
    }
    let mut text = list(&conf.voters);
    let mut add = |name: &str, ids: &[PeerId]| {
        if !ids.is_empty() {
            text.push_str(&format!(" {name} {}", list(ids)));
        }
    };
    add("and", conf.voters_outgoing());
    add("learners", &conf.learners);
    if let Some(joint) = &conf.joint {
        add("learners next", &joint.learners_next);
        if joint.leave == Leave::Automatic {
            text.push_str(", leaves by itself");
        }
    }
    text
}
