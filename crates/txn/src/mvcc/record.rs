//! The parts that records are made of: numbers, strings, fields with a tag.

use thiserror::Error;

/// Most bytes of a LEB128 number of 64 bits.
const VAR_U64_MAX: usize = 10;

/// Why stored bytes are not a record. Whoever reads one must not guess: the store is damaged, or
/// was written by a later version.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadRecord {
    /// It ends in the middle of a field.
    #[error("the record is cut short")]
    Truncated,
    /// The first byte names no kind of record.
    #[error("no record begins with byte {0:#04x}")]
    Kind(u8),
    /// A lock that several transactions hold. This store never writes one.
    #[error("the record is a shared lock, which this store does not know")]
    SharedLock,
    /// A field of a later version: to skip it could lose what it means.
    #[error("the record has the unknown field {0:#04x}")]
    Field(u8),
    /// A number with more than 64 bits, or a negative length.
    #[error("a number in the record is out of bounds")]
    Number,
    /// The key does not end with a timestamp behind a whole encoded key.
    #[error("the key of the record is no versioned key")]
    Key,
}

/// Appends a LEB128 number.
pub(super) fn push_var_u64(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends eight bytes, big endian.
pub(super) fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a string behind its length. The length is a signed number in the format (zigzag), so it
/// is stored doubled.
pub(super) fn push_compact(out: &mut Vec<u8>, string: &[u8]) {
    push_var_u64(out, (string.len() as u64) << 1);
    out.extend_from_slice(string);
}

/// Takes a record apart.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self { rest: record }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, BadRecord> {
        let (&byte, rest) = self.rest.split_first().ok_or(BadRecord::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], BadRecord> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(BadRecord::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BadRecord> {
        let bytes = self.take(8)?;
        Ok(u64::from_be_bytes(bytes.try_into().expect("eight were taken")))
    }

    pub(super) fn var_u64(&mut self) -> Result<u64, BadRecord> {
        let mut number = 0u64;
        for i in 0..VAR_U64_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if i == VAR_U64_MAX - 1 && bits > 1 {
                return Err(BadRecord::Number);
            }
            number |= bits << (7 * i);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(BadRecord::Number)
    }

    /// A string behind its length.
    pub(super) fn compact(&mut self) -> Result<&'a [u8], BadRecord> {
        let doubled = self.var_u64()?;
        if doubled & 1 == 1 {
            return Err(BadRecord::Number);
        }
        self.take(usize::try_from(doubled >> 1).map_err(|_| BadRecord::Number)?)
    }

    /// A string of at most 255 bytes behind one byte of length.
    pub(super) fn short(&mut self) -> Result<&'a [u8], BadRecord> {
        let len = usize::from(self.byte()?);
        self.take(len)
    }

    /// How many items follow, of which each takes at least `item_len` bytes: a damaged count must
    /// not reserve memory.
    pub(super) fn count(&mut self, item_len: usize) -> Result<usize, BadRecord> {
        let count = usize::try_from(self.var_u64()?).map_err(|_| BadRecord::Number)?;
        if count.checked_mul(item_len).is_none_or(|bytes| bytes > self.rest.len()) {
            return Err(BadRecord::Truncated);
        }
        Ok(count)
    }
}
