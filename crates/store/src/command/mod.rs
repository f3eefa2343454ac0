//! What a log entry says: a `raft_cmdpb.RaftCmdRequest`.
//!
//! ```text
//!   entry.data = header { region_epoch, flags } , request* | admin_request
//!      request = put { cf key value } | delete { cf key } | delete_range { cf start end }
//! ```
//!
//! Writes are encoded where they are made (the caller's thread) into [`Writes`], a piece of the
//! final entry; the shard joins the pieces of all proposals that wait for one region behind a
//! common header; the applier walks the entry without building a message for each write. The bytes
//! are plain protobuf (a test decodes them with the generated type).
//!
//! `writes` is the hot path; `admin` has what changes a region itself, one variant a command.

mod admin;
mod writes;

use base::Epoch;
use prost::Message;
use proto::raft_cmdpb;

pub(crate) use self::admin::{
    Admin, Merge, encode_admin, encode_commit_merge, encode_compact_log, encode_compute_hash,
    encode_flashback, encode_prepare_merge, encode_rollback_merge, encode_split,
    encode_verify_hash,
};
pub use self::writes::{Write, Writes};
pub(crate) use self::writes::{WriteIter, encode_writes};

/// An entry, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Changes of data, valid under this epoch's version only.
    Writes {
        /// The epoch under which they were proposed.
        epoch: Epoch,
        /// Whether they are a part of a flashback.
        flashback: bool,
        /// In the order in which they take effect.
        writes: WriteIter<'a>,
    },
    /// Something about the region itself.
    Admin {
        /// The epoch under which it was proposed.
        epoch: Epoch,
        /// What.
        admin: Admin,
    },
}

/// The bytes are no command: damage, or written by a version that knows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a command: {what} at byte {offset}")]
pub struct CommandError {
    /// What was expected.
    pub what: &'static str,
    /// Where, counted from the end of what was read.
    pub offset: usize,
}

/// Of the flags in an entry's header: it is a part of a flashback.
const FLAG_FLASHBACK: u64 = 1 << 3;

fn header(epoch: Epoch, flashback: bool) -> raft_cmdpb::RaftRequestHeader {
    let region_epoch = Some(proto::epoch_to_proto(epoch));
    let flags = if flashback { FLAG_FLASHBACK } else { 0 };
    raft_cmdpb::RaftRequestHeader { region_epoch, flags, ..Default::default() }
}

/// Opens an entry's data.
pub(crate) fn decode(data: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut fields = writes::Fields { rest: data };
    let (_, header) = fields.expect(writes::HEADER, "a header")?;
    let header = raft_cmdpb::RaftRequestHeader::decode(header)
        .map_err(|_| CommandError { what: "a header", offset: 0 })?;
    let flashback = header.flags & FLAG_FLASHBACK != 0;
    let epoch = proto::epoch_from_proto(&header.region_epoch.unwrap_or_default());
    if fields.rest.first().is_none_or(|&tag| tag == writes::REQUEST) {
        return Ok(Command::Writes { epoch, flashback, writes: WriteIter { fields } });
    }
    let offset = data.len() - fields.rest.len();
    let admin = admin::decode(data, offset)?;
    Ok(Command::Admin { epoch, admin })
}
