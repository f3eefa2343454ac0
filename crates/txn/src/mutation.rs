//! What a command wants changed.

use base::KeyRange;
use bytes::Bytes;
use storage::engine::Cf;

/// One change of a region's data. Keys are in region form (see the crate's page). The mutations of
/// one command belong to one region, are proposed together and applied together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The key gets this value, whatever it had.
    Put {
        /// Where.
        cf: Cf,
        /// Region form.
        key: Bytes,
        /// As it is stored: with expiry and flags where the mode has them.
        value: Bytes,
    },
    /// The key goes away if it is there.
    Delete {
        /// Where.
        cf: Cf,
        /// Region form.
        key: Bytes,
    },
    /// The keys of `[start, end)` go away.
    DeleteRange {
        /// Where.
        cf: Cf,
        /// First key, region form.
        start: Bytes,
        /// First key that stays, region form; empty: none does, to the end of the key space.
        end: Bytes,
    },
}

impl Mutation {
    /// The first key of this mutation that lies outside `region`; `None` if it stays inside. An
    /// unbounded end outside is reported as the empty key.
    pub fn key_outside(&self, region: &KeyRange) -> Option<&Bytes> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => {
                (!region.contains(key)).then_some(key)
            }
            Self::DeleteRange { start, end, .. } => {
                if !region.contains(start) {
                    return Some(start);
                }
                let end_inside = region.end.is_empty() || (!end.is_empty() && *end <= region.end);
                (!end_inside).then_some(end)
            }
        }
    }

    /// Bytes of keys and values.
    pub fn byte_size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
            Self::DeleteRange { start, end, .. } => start.len() + end.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outside_are_named() {
        let region = KeyRange::new("b", "d");
        let put = |key: &'static str| Mutation::Put {
            cf: Cf::Default,
            key: key.into(),
            value: Bytes::new(),
        };
        let range = |start: &'static str, end: &'static str| Mutation::DeleteRange {
            cf: Cf::Default,
            start: start.into(),
            end: end.into(),
        };
        assert_eq!(put("b").key_outside(&region), None);
        assert_eq!(put("d").key_outside(&region), Some(&Bytes::from("d")));
        assert_eq!(range("b", "d").key_outside(&region), None);
        assert_eq!(range("a", "c").key_outside(&region), Some(&Bytes::from("a")));
        assert_eq!(range("b", "e").key_outside(&region), Some(&Bytes::from("e")));
        assert_eq!(range("b", "").key_outside(&region), Some(&Bytes::new()));
        assert_eq!(range("b", "").key_outside(&KeyRange::new("b", "")), None);
    }
}
