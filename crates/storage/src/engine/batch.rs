//! A batch of writes, in one flat buffer.
//!
//! The buffer has RocksDB's own layout of a batch, so that the engine takes it over in one call
//! instead of one a key:
//!
//! ```text
//!   sequence: 8 bytes, zero      count: 4 bytes, little endian      then `count` operations
//!
//!   put            01 | 05 family   key  value
//!   delete         00 | 04 family   key               the first form means family `default`
//!   delete range   0f | 0e family   start  end
//! ```
//!
//! Strings are preceded by their length; lengths and families are LEB128 numbers. The layout is
//! what RocksDB writes into its log, so it cannot change under our feet: older logs must stay
//! readable.
//!
//! Invariant: the buffer is empty, or a whole header with exactly `count` whole operations behind
//! it. All that constructs it is in this file.

use super::Cf;

const HEADER: usize = 12;
const COUNT: std::ops::Range<usize> = 8..12;
/// The header of an empty batch.
const EMPTY: [u8; HEADER] = [0; HEADER];

const DELETE: u8 = 0x00;
const PUT: u8 = 0x01;
const CF_DELETE: u8 = 0x04;
const CF_PUT: u8 = 0x05;
const CF_DELETE_RANGE: u8 = 0x0e;
const DELETE_RANGE: u8 = 0x0f;

/// Operations that [`Engine::write`](super::Engine::write) applies in their order, all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    data: Vec<u8>,
}

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// `key` has `value` from now on.
    Put {
        /// The family.
        cf: Cf,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// `key` has no value from now on.
    Delete {
        /// The family.
        cf: Cf,
        /// The key.
        key: &'a [u8],
    },
    /// No key in `[start, end)` has a value from now on.
    DeleteRange {
        /// The family.
        cf: Cf,
        /// First key that goes.
        start: &'a [u8],
        /// First key that stays.
        end: &'a [u8],
    },
}

impl WriteBatch {
    /// A batch without operations. Does not allocate.
    pub fn new() -> Self {
        Self::default()
    }

    /// A batch without operations and room for `bytes` of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { data: Vec::with_capacity(HEADER + bytes) }
    }

    /// `key` gets `value`.
    pub fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.begin(PUT, CF_PUT, cf, key.len() + value.len());
        self.push_string(key);
        self.push_string(value);
    }

    /// As [`put`](Self::put); key and value are the concatenations of the parts, which go straight
    /// into the buffer.
    pub fn put_parts(&mut self, cf: Cf, key: &[&[u8]], value: &[&[u8]]) {
        let key_len = key.iter().map(|part| part.len()).sum();
        let value_len = value.iter().map(|part| part.len()).sum();
        self.begin(PUT, CF_PUT, cf, key_len + value_len);
        for (len, parts) in [(key_len, key), (value_len, value)] {
            push_number(&mut self.data, len);
            for part in parts {
                self.data.extend_from_slice(part);
            }
        }
    }

    /// `key` goes. It need not exist.
    pub fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.begin(DELETE, CF_DELETE, cf, key.len());
        self.push_string(key);
    }

    /// As [`delete`](Self::delete); the key is the concatenation of the parts.
    pub fn delete_parts(&mut self, cf: Cf, key: &[&[u8]]) {
        let key_len = key.iter().map(|part| part.len()).sum();
        self.begin(DELETE, CF_DELETE, cf, key_len);
        push_number(&mut self.data, key_len);
        for part in key {
            self.data.extend_from_slice(part);
        }
    }

    /// All keys in `[start, end)` go. Adds nothing if there can be none. `end` must not be empty:
    /// the layout has no word for "unbounded", and keys have prefixes whose end is known.
    pub fn delete_range(&mut self, cf: Cf, start: &[u8], end: &[u8]) {
        assert!(!end.is_empty(), "a deletion of a range needs an end");
        if start >= end {
            return;
        }
        self.begin(DELETE_RANGE, CF_DELETE_RANGE, cf, start.len() + end.len());
        self.push_string(start);
        self.push_string(end);
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        match self.data.get(COUNT) {
            Some(count) => u32::from_le_bytes(count.try_into().expect("four bytes")) as usize,
            None => 0,
        }
    }

    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.data.len() <= HEADER
    }

    /// Bytes of the whole batch, so what the engine's log grows by.
    pub fn byte_size(&self) -> usize {
        self.data.len().max(HEADER)
    }

    /// Removes all operations; the room they took stays for new ones.
    pub fn clear(&mut self) {
        self.data.clear();
    }

    /// Moves all operations of `other` behind those of this batch.
    pub fn append(&mut self, other: &mut WriteBatch) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else if !other.is_empty() {
            let count = self.len() + other.len();
            self.data.extend_from_slice(&other.data[HEADER..]);
            self.set_count(count);
        }
        other.clear();
    }

    /// The operations in order.
    pub fn iter(&self) -> Ops<'_> {
        Ops { rest: self.data.get(HEADER..).unwrap_or_default() }
    }

    /// The batch in RocksDB's layout.
    pub(super) fn as_rocksdb(&self) -> &[u8] {
        if self.data.is_empty() { &EMPTY } else { &self.data }
    }

    /// Writes the tag of an operation with `payload` bytes of strings.
    fn begin(&mut self, tag: u8, cf_tag: u8, cf: Cf, payload: usize) {
        if self.data.is_empty() {
            self.data.extend_from_slice(&EMPTY);
        }
        self.set_count(self.len() + 1);
        // Tag, family and two lengths take up to 12 bytes.
        self.data.reserve(payload + 12);
        match cf {
            Cf::Default => self.data.push(tag),
            // Families have ids below 128: one byte each.
            _ => self.data.extend_from_slice(&[cf_tag, cf as u8]),
        }
    }

    fn set_count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("a batch has fewer than 2^32 operations");
        self.data[COUNT].copy_from_slice(&count.to_le_bytes());
    }

    fn push_string(&mut self, string: &[u8]) {
        push_number(&mut self.data, string.len());
        self.data.extend_from_slice(string);
    }
}

impl<'a> IntoIterator for &'a WriteBatch {
    type Item = Op<'a>;
    type IntoIter = Ops<'a>;

    fn into_iter(self) -> Ops<'a> {
        self.iter()
    }
}

/// The operations of a [`WriteBatch`].
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    fn next(&mut self) -> Option<Op<'a>> {
        let (&tag, rest) = self.rest.split_first()?;
        self.rest = rest;
        let cf = match tag {
            DELETE | PUT | DELETE_RANGE => Cf::Default,
            _ => Cf::from_id(self.number() as u32).expect("a batch names only our families"),
        };
        Some(match tag {
            PUT | CF_PUT => Op::Put { cf, key: self.string(), value: self.string() },
            DELETE | CF_DELETE => Op::Delete { cf, key: self.string() },
            DELETE_RANGE | CF_DELETE_RANGE => {
                Op::DeleteRange { cf, start: self.string(), end: self.string() }
            }
            _ => unreachable!("a batch has only the tags that this file writes"),
        })
    }
}

impl<'a> Ops<'a> {
    fn number(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = self.rest.split_first().expect("operations are whole");
            self.rest = rest;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn string(&mut self) -> &'a [u8] {
        let len = self.number();
        let (string, rest) = self.rest.split_at(len);
        self.rest = rest;
        string
    }
}

/// Appends a LEB128 number. Lengths have 32 bits in this layout.
fn push_number(out: &mut Vec<u8>, number: usize) {
    let mut number = u32::try_from(number).expect("strings are below 4 GiB");
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut batch = WriteBatch::new();
        assert_eq!(batch.as_rocksdb(), [0; 12]);
        batch.put(Cf::Default, b"k", b"vv");
        batch.delete(Cf::Lock, b"k");
        batch.delete_range(Cf::Raft, b"a", b"b");
        batch.put_parts(Cf::Write, &[b"x", b"", b"y"], &[&[7; 200]]);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        expected.extend_from_slice(b"\x01\x01k\x02vv");
        expected.extend_from_slice(b"\x04\x01\x01k");
        expected.extend_from_slice(b"\x0e\x03\x01a\x01b");
        expected.extend_from_slice(b"\x05\x02\x02xy\xc8\x01");
        expected.extend_from_slice(&[7; 200]);
        assert_eq!(batch.as_rocksdb(), expected);
        assert_eq!(batch.byte_size(), expected.len());
    }

    #[test]
    fn operations_come_back_in_order() {
        let mut batch = WriteBatch::with_capacity(64);
        batch.put(Cf::Raft, b"", &[1; 70_000]);
        batch.delete_parts(Cf::Default, &[b"a", b"b"]);
        batch.delete_range(Cf::Default, b"b", b"b");
        batch.delete_range(Cf::Default, b"", b"b");
        let ops: Vec<_> = batch.iter().collect();
        assert_eq!(
            ops,
            [
                Op::Put { cf: Cf::Raft, key: b"", value: &[1; 70_000] },
                Op::Delete { cf: Cf::Default, key: b"ab" },
                Op::DeleteRange { cf: Cf::Default, start: b"", end: b"b" },
            ]
        );
        assert_eq!(batch.len(), 3);
        batch.clear();
        assert!(batch.is_empty() && batch.iter().next().is_none());
    }

    #[test]
    fn append_moves_everything() {
        let one = |key: &[u8]| {
            let mut batch = WriteBatch::new();
            batch.put(Cf::Lock, key, b"v");
            batch
        };
        let (mut a, mut b) = (WriteBatch::new(), one(b"1"));
        a.append(&mut b);
        assert_eq!((a.len(), b.len()), (1, 0));
        a.append(&mut b);
        a.append(&mut one(b"2"));
        assert_eq!((a.len(), b.is_empty()), (2, true));
        let mut whole = one(b"1");
        whole.put(Cf::Lock, b"2", b"v");
        assert_eq!(a, whole);
    }

    #[test]
    #[should_panic(expected = "needs an end")]
    fn a_range_needs_an_end() {
        WriteBatch::new().delete_range(Cf::Default, b"a", b"");
    }
}
