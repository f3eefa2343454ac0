//! The memcomparable encoding of byte strings: encoded strings compare like the originals, and none
//! is a prefix of another, so that something (a timestamp) can follow.
//!
//! The string is cut into groups of eight bytes, the last one padded with zeros. Each group is
//! followed by a marker byte `0xff - padding`. A string whose length is a multiple of eight ends
//! with a group of eight zeros and the marker `0xf7`. The length is therefore `(len / 8 + 1) * 9`.

const GROUP: usize = 8;
const MARKER: u8 = 0xff;

/// Length of the encoding of a string of `len` bytes.
pub fn encoded_len(len: usize) -> usize {
    (len / GROUP + 1) * (GROUP + 1)
}

/// Appends the encoding of `key` to `out`.
pub fn encode_bytes_to(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(encoded_len(key.len()));
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(MARKER);
    }
    let rest = groups.remainder();
    let padding = GROUP - rest.len();
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0; GROUP][..padding]);
    out.push(MARKER - padding as u8);
}

/// The encoding of `key`.
pub fn encode_bytes(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_bytes_to(key, &mut out);
    out
}

/// Decodes one string from the start of `data`; returns it and how many bytes it took. `None` if
/// `data` does not start with an encoding.
pub fn decode_bytes(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::with_capacity(data.len());
    for (i, group) in data.chunks(GROUP + 1).enumerate() {
        let (bytes, marker) = (group.get(..GROUP)?, *group.get(GROUP)?);
        let padding = usize::from(MARKER - marker);
        if padding == 0 {
            out.extend_from_slice(bytes);
            continue;
        }
        let (kept, zeros) = bytes.split_at(GROUP.checked_sub(padding)?);
        if zeros.iter().any(|&b| b != 0) {
            return None;
        }
        out.extend_from_slice(kept);
        return Some((out, (i + 1) * (GROUP + 1)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(encode_bytes(b""), [0, 0, 0, 0, 0, 0, 0, 0, 0xf7]);
        assert_eq!(encode_bytes(b"abc"), [b'a', b'b', b'c', 0, 0, 0, 0, 0, 0xfa]);
        assert_eq!(
            encode_bytes(b"12345678"),
            [b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0xf7]
        );
    }

    #[test]
    fn damaged_encodings_are_refused() {
        assert_eq!(decode_bytes(b""), None);
        assert_eq!(decode_bytes(&[0; 8]), None);
        assert_eq!(decode_bytes(&[0, 0, 0, 0, 0, 0, 0, 1, 0xf7]), None);
        assert_eq!(decode_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0xf6]), None);
        assert_eq!(decode_bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 0xff]), None);
    }

    #[test]
    fn order_and_value_survive() {
        let mut prng = crate::Prng::new(3);
        let mut random = || -> Vec<u8> {
            (0..prng.below(20)).map(|_| [0, 1, 0xfe, 0xff][prng.below(4) as usize]).collect()
        };
        for _ in 0..20_000 {
            let (a, b) = (random(), random());
            let (x, y) = (encode_bytes(&a), encode_bytes(&b));
            assert_eq!(x.cmp(&y), a.cmp(&b), "{a:?} {b:?}");
            assert_eq!(x.len(), encoded_len(a.len()));
            let mut long = x.clone();
            long.extend_from_slice(&y);
            assert_eq!(decode_bytes(&long), Some((a, x.len())));
        }
    }
}
