//! What a log entry says: a `raft_cmdpb.RaftCmdRequest`.
//!
//! ```text
//!   entry.data = header { region_epoch } , request* | admin_request
//!      request = put { cf key value } | delete { cf key } | delete_range { cf start end }
//! ```
//!
//! Writes are encoded where they are made (the caller's thread) into [`Writes`], a piece of the
//! final entry; the shard joins the pieces of all proposals that wait for one region behind a
//! common header; the applier walks the entry without building a message for each write. The bytes
//! are plain protobuf (a test decodes them with the generated type), written and read by hand
//! because this is the hottest path of all.

use base::{Cut, Epoch, Index, PeerId, RegionId, Term};
use bytes::Bytes;
use prost::Message;
use proto::{metapb, raft_cmdpb};
use storage::engine::Cf;

const HEADER: u8 = 0x0a;
const REQUEST: u8 = 0x12;
const CMD_TYPE: u8 = 0x08;
const PUT: u8 = 0x22;
const DELETE: u8 = 0x2a;
const DELETE_RANGE: u8 = 0x42;
const FIRST_BYTES: u8 = 0x0a;
const SECOND_BYTES: u8 = 0x12;
const THIRD_BYTES: u8 = 0x1a;

/// One write of an entry, borrowed from it. Keys are in the form in which regions are split; the
/// applier adds the prefix of the engine's key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    /// Sets a key.
    Put {
        /// Column family.
        cf: Cf,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Removes a key; a missing one is fine.
    Delete {
        /// Column family.
        cf: Cf,
        /// The key.
        key: &'a [u8],
    },
    /// Removes the keys of `[start, end)`. An empty `end` is unbounded.
    DeleteRange {
        /// Column family.
        cf: Cf,
        /// First key to remove.
        start: &'a [u8],
        /// First key to keep again.
        end: &'a [u8],
    },
}

/// The writes of one proposal, encoded.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    encoded: Vec<u8>,
}

impl Writes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, with room for `bytes` of keys, values and their framing.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { encoded: Vec::with_capacity(bytes) }
    }

    /// Bytes these writes add to an entry.
    pub fn byte_size(&self) -> usize {
        self.encoded.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.request(raft_cmdpb::CmdType::Put, PUT, cf, key, Some(value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.request(raft_cmdpb::CmdType::Delete, DELETE, cf, key, None);
    }

    /// Removes the keys of `[start, end)`; an empty `end` is unbounded.
    pub fn delete_range(&mut self, cf: Cf, start: &[u8], end: &[u8]) {
        self.request(raft_cmdpb::CmdType::DeleteRange, DELETE_RANGE, cf, start, Some(end));
    }

    /// `Request { cmd_type, kind { cf, first, second } }`: all three kinds have the same shape.
    fn request(
        &mut self,
        cmd_type: raft_cmdpb::CmdType,
        kind: u8,
        cf: Cf,
        first: &[u8],
        second: Option<&[u8]>,
    ) {
        let cf = cf_name(cf);
        let cf_size = if cf.is_empty() { 0 } else { field_size(cf.len()) };
        let inner = cf_size + field_size(first.len()) + second.map_or(0, |s| field_size(s.len()));
        let outer = 2 + field_size(inner);
        self.encoded.reserve(field_size(outer));
        self.length_delimited(REQUEST, outer);
        self.encoded.extend_from_slice(&[CMD_TYPE, cmd_type as u8]);
        self.length_delimited(kind, inner);
        if !cf.is_empty() {
            self.bytes(FIRST_BYTES, cf.as_bytes());
        }
        self.bytes(SECOND_BYTES, first);
        if let Some(second) = second {
            self.bytes(THIRD_BYTES, second);
        }
    }

    fn length_delimited(&mut self, tag: u8, len: usize) {
        self.encoded.push(tag);
        prost::encoding::encode_varint(len as u64, &mut self.encoded);
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.length_delimited(tag, bytes.len());
        self.encoded.extend_from_slice(bytes);
    }
}

/// The default family goes without a name, as clients send it.
fn cf_name(cf: Cf) -> &'static str {
    if cf == Cf::Default { "" } else { cf.name() }
}

fn field_size(len: usize) -> usize {
    1 + prost::length_delimiter_len(len) + len
}

fn header(epoch: Epoch) -> raft_cmdpb::RaftRequestHeader {
    let region_epoch = metapb::RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version };
    raft_cmdpb::RaftRequestHeader { region_epoch: Some(region_epoch), ..Default::default() }
}

/// Bytes of an entry's header, at most.
pub(crate) const HEADER_SIZE_MAX: usize = 32;

/// The entry of `pieces` proposed under `epoch`.
pub(crate) fn encode_writes<'a>(
    epoch: Epoch,
    pieces: impl Iterator<Item = &'a Writes> + Clone,
) -> Bytes {
    let header = header(epoch);
    let size: usize = pieces.clone().map(Writes::byte_size).sum();
    let mut entry = Vec::with_capacity(HEADER_SIZE_MAX + size);
    prost::encoding::message::encode(1, &header, &mut entry);
    assert!(entry.len() <= HEADER_SIZE_MAX, "the header outgrew its bound");
    pieces.for_each(|piece| entry.extend_from_slice(&piece.encoded));
    entry.into()
}

/// The entry that moves the log's start: entries up to and with `(index, term)` may leave.
pub(crate) fn encode_compact_log(epoch: Epoch, index: Index, term: Term) -> Bytes {
    let compact_log = raft_cmdpb::CompactLogRequest {
        compact_index: index,
        compact_term: term,
        ..Default::default()
    };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::CompactLog as i32,
        compact_log: Some(compact_log),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

/// The entry that cuts the region. The region itself keeps the right-most part.
pub(crate) fn encode_split(epoch: Epoch, cuts: &[Cut]) -> Bytes {
    let requests = cuts.iter().map(|cut| raft_cmdpb::SplitRequest {
        split_key: cut.key.clone(),
        new_region_id: cut.region_id.0,
        new_peer_ids: cut.peer_ids.iter().map(|peer| peer.0).collect(),
        ..Default::default()
    });
    let splits = raft_cmdpb::BatchSplitRequest {
        requests: requests.collect(),
        right_derive: true,
        ..Default::default()
    };
    let admin = raft_cmdpb::AdminRequest {
        cmd_type: raft_cmdpb::AdminCmdType::BatchSplit as i32,
        splits: Some(splits),
        ..Default::default()
    };
    encode_admin(epoch, admin)
}

pub(crate) fn encode_admin(epoch: Epoch, admin: raft_cmdpb::AdminRequest) -> Bytes {
    let command = raft_cmdpb::RaftCmdRequest {
        header: Some(header(epoch)),
        admin_request: Some(admin),
        ..Default::default()
    };
    command.encode_to_vec().into()
}

/// An entry, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Changes of data, valid under this epoch's version only.
    Writes {
        /// The epoch under which they were proposed.
        epoch: Epoch,
        /// In the order in which they take effect.
        writes: WriteIter<'a>,
    },
    /// The log may forget what lies at or before this position.
    CompactLog {
        /// Last index that may leave.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// The region is cut into several, if it still has this epoch.
    Split {
        /// The epoch under which it was proposed.
        epoch: Epoch,
        /// Where, and what the parts are called.
        cuts: Vec<Cut>,
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

/// Opens an entry's data.
pub(crate) fn decode(data: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut fields = Fields { rest: data };
    let (_, header) = fields.expect(HEADER, "a header")?;
    let header = raft_cmdpb::RaftRequestHeader::decode(header)
        .map_err(|_| CommandError { what: "a header", offset: 0 })?;
    let epoch = header.region_epoch.unwrap_or_default();
    let epoch = Epoch { conf_ver: epoch.conf_ver, version: epoch.version };
    if fields.rest.first().is_none_or(|&tag| tag == REQUEST) {
        return Ok(Command::Writes { epoch, writes: WriteIter { fields } });
    }
    let offset = data.len() - fields.rest.len();
    let admin = raft_cmdpb::RaftCmdRequest::decode(Bytes::copy_from_slice(data))
        .map_err(|_| CommandError { what: "an admin request", offset })?
        .admin_request
        .unwrap_or_default();
    match (admin.compact_log, admin.splits) {
        (Some(compact), None) => {
            Ok(Command::CompactLog { index: compact.compact_index, term: compact.compact_term })
        }
        (None, Some(splits)) if splits.right_derive => {
            Ok(Command::Split { epoch, cuts: splits.requests.into_iter().map(cut).collect() })
        }
        _ => Err(CommandError { what: "an admin request that this version knows", offset }),
    }
}

fn cut(request: raft_cmdpb::SplitRequest) -> Cut {
    let peer_ids = request.new_peer_ids.into_iter().map(PeerId).collect();
    Cut { key: request.split_key, region_id: RegionId(request.new_region_id), peer_ids }
}

/// Walks the writes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteIter<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for WriteIter<'a> {
    type Item = Result<Write<'a>, CommandError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fields.rest.is_empty() {
            return None;
        }
        let write =
            self.fields.expect(REQUEST, "a request").and_then(|(_, body)| decode_write(body));
        if write.is_err() {
            self.fields.rest = &[];
        }
        Some(write)
    }
}

fn decode_write(body: &[u8]) -> Result<Write<'_>, CommandError> {
    let mut fields = Fields { rest: body };
    fields.expect_byte(CMD_TYPE, "a command type")?;
    fields.varint()?;
    let (kind, inner) = fields.next_bytes()?;
    let mut fields = Fields { rest: inner };
    let (mut cf, mut first, mut second) = (Cf::Default, &[][..], &[][..]);
    while !fields.rest.is_empty() {
        match fields.next_bytes()? {
            (FIRST_BYTES, name) => cf = cf_of_name(name)?,
            (SECOND_BYTES, bytes) => first = bytes,
            (THIRD_BYTES, bytes) => second = bytes,
            _ => return Err(fields.error("a field of a write")),
        }
    }
    match kind {
        PUT => Ok(Write::Put { cf, key: first, value: second }),
        DELETE => Ok(Write::Delete { cf, key: first }),
        DELETE_RANGE => Ok(Write::DeleteRange { cf, start: first, end: second }),
        _ => Err(fields.error("a write that this version knows")),
    }
}

fn cf_of_name(name: &[u8]) -> Result<Cf, CommandError> {
    Cf::ALL
        .into_iter()
        .find(|cf| cf.name().as_bytes() == name)
        .ok_or(CommandError { what: "a column family's name", offset: 0 })
}

/// A cursor over protobuf fields of the length-delimited kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn error(&self, what: &'static str) -> CommandError {
        CommandError { what, offset: self.rest.len() }
    }

    fn expect_byte(&mut self, byte: u8, what: &'static str) -> Result<(), CommandError> {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => self.rest = rest,
            _ => return Err(self.error(what)),
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, CommandError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => prost::encoding::decode_varint(&mut self.rest)
                .map_err(|_| self.error("a variable-length number")),
        }
    }

    fn next_bytes(&mut self) -> Result<(u8, &'a [u8]), CommandError> {
        let (&tag, rest) = self.rest.split_first().ok_or_else(|| self.error("a field"))?;
        self.rest = rest;
        let len = self.varint()? as usize;
        let (bytes, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| self.error("a field's bytes"))?;
        self.rest = rest;
        Ok((tag, bytes))
    }

    fn expect(&mut self, tag: u8, what: &'static str) -> Result<(u8, &'a [u8]), CommandError> {
        match self.next_bytes() {
            Ok(field) if field.0 == tag => Ok(field),
            _ => Err(self.error(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch { conf_ver: 3, version: 300 };

    fn sample() -> Writes {
        let mut writes = Writes::new();
        writes.put(Cf::Default, b"k", &[7; 300]);
        writes.put(Cf::Lock, b"", b"");
        writes.delete(Cf::Write, b"d");
        writes.delete_range(Cf::Default, b"a", b"");
        writes
    }

    #[test]
    fn writes_come_back_in_order() {
        let (one, two) = (sample(), sample());
        let data = encode_writes(EPOCH, [&one, &two].into_iter());
        let Ok(Command::Writes { epoch, writes }) = decode(&data) else { panic!("no writes") };
        assert_eq!(epoch, EPOCH);
        let writes: Vec<_> = writes.map(|write| write.expect("valid")).collect();
        assert_eq!(writes.len(), 8);
        assert_eq!(writes[0], Write::Put { cf: Cf::Default, key: b"k", value: &[7; 300] });
        assert_eq!(writes[1], Write::Put { cf: Cf::Lock, key: b"", value: b"" });
        assert_eq!(writes[2], Write::Delete { cf: Cf::Write, key: b"d" });
        assert_eq!(writes[3], Write::DeleteRange { cf: Cf::Default, start: b"a", end: b"" });
        assert_eq!(writes[..4], writes[4..]);
    }

    #[test]
    fn the_generated_type_reads_the_same() {
        let data = encode_writes(EPOCH, [&sample()].into_iter());
        let command = raft_cmdpb::RaftCmdRequest::decode(&data[..]).expect("protobuf");
        assert_eq!(command.header.expect("set").region_epoch.expect("set").version, 300);
        let requests = command.requests;
        assert_eq!(requests.len(), 4);
        let put = requests[0].put.as_ref().expect("put");
        assert_eq!((&put.cf[..], &put.key[..], put.value.len()), ("", &b"k"[..], 300));
        assert_eq!(requests[1].put.as_ref().expect("put").cf, "lock");
        assert_eq!(requests[2].delete.as_ref().expect("delete").cf, "write");
        assert_eq!(requests[3].delete_range.as_ref().expect("range").start_key, "a");
        assert_eq!(requests[3].cmd_type, raft_cmdpb::CmdType::DeleteRange as i32);
    }

    #[test]
    fn compact_log_comes_back() {
        let data = encode_compact_log(EPOCH, 77, 5);
        assert_eq!(decode(&data), Ok(Command::CompactLog { index: 77, term: 5 }));
    }

    #[test]
    fn a_split_comes_back() {
        let cut = |key: &'static str, id: u64| Cut {
            key: Bytes::from(key),
            region_id: RegionId(id),
            peer_ids: vec![PeerId(id + 1), PeerId(id + 2)],
        };
        let cuts = vec![cut("f", 7), cut("m", 10)];
        let data = encode_split(EPOCH, &cuts);
        assert_eq!(decode(&data), Ok(Command::Split { epoch: EPOCH, cuts }));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let data = encode_writes(EPOCH, [&sample()].into_iter());
        for cut in 0..data.len() {
            walk(&data[..cut]);
        }
        for at in 0..data.len() {
            for bit in 0..8 {
                let mut damaged = data.to_vec();
                damaged[at] ^= 1 << bit;
                walk(&damaged);
            }
        }
        assert!(decode(b"").is_err());
    }

    fn walk(data: &[u8]) {
        if let Ok(Command::Writes { writes, .. }) = decode(data) {
            assert!(writes.count() <= 4);
        }
    }
}
