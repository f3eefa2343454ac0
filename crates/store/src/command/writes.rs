//! Writes of data in an entry: the hottest path, so the bytes of protobuf are made and read by
//! hand.

use base::Epoch;
use bytes::Bytes;
use proto::raft_cmdpb;
use storage::engine::Cf;

use super::{CommandError, header};

pub(super) const HEADER: u8 = 0x0a;
pub(super) const REQUEST: u8 = 0x12;
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

/// Bytes of an entry's header, at most.
pub(crate) const HEADER_SIZE_MAX: usize = 32;

/// The entry of `pieces` proposed under `epoch`, which are parts of a flashback or are not.
pub(crate) fn encode_writes<'a>(
    epoch: Epoch,
    flashback: bool,
    pieces: impl Iterator<Item = &'a Writes> + Clone,
) -> Bytes {
    let header = header(epoch, flashback);
    let size: usize = pieces.clone().map(Writes::byte_size).sum();
    let mut entry = Vec::with_capacity(HEADER_SIZE_MAX + size);
    prost::encoding::message::encode(1, &header, &mut entry);
    assert!(entry.len() <= HEADER_SIZE_MAX, "the header outgrew its bound");
    pieces.for_each(|piece| entry.extend_from_slice(&piece.encoded));
    entry.into()
}

/// Walks the writes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteIter<'a> {
    pub(super) fields: Fields<'a>,
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
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
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

    pub(super) fn expect(
        &mut self,
        tag: u8,
        what: &'static str,
    ) -> Result<(u8, &'a [u8]), CommandError> {
        match self.next_bytes() {
            Ok(field) if field.0 == tag => Ok(field),
            _ => Err(self.error(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::{Command, decode};
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
        let data = encode_writes(EPOCH, true, [&one, &two].into_iter());
        let Ok(Command::Writes { epoch, flashback, writes }) = decode(&data) else {
            panic!("no writes")
        };
        assert_eq!((epoch, flashback), (EPOCH, true));
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
        let data = encode_writes(EPOCH, false, [&sample()].into_iter());
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
    fn damage_is_an_error_and_never_a_panic() {
        let data = encode_writes(EPOCH, false, [&sample()].into_iter());
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
