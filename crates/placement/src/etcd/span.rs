//! The keys that a request names.

use std::ops::Bound;

use bytes::Bytes;

/// `key` and `range_end` of a request: no end is the one key, an end of one zero byte is everything
/// from the key on, and an end that is not above the key is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Nothing,
    One(Bytes),
    From(Bytes),
    Between(Bytes, Bytes),
}

impl Span {
    pub(super) fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match &range_end[..] {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            end if end <= &key[..] => Self::Nothing,
            _ => Self::Between(key.clone(), range_end.clone()),
        }
    }

    /// For a lookup in an ordered map. Nothing is a span that maps can take, too.
    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::Nothing => (Bound::Included(&[]), Bound::Excluded(&[])),
            Self::One(key) => (Bound::Included(key), Bound::Included(key)),
            Self::From(key) => (Bound::Included(key), Bound::Unbounded),
            Self::Between(key, end) => (Bound::Included(key), Bound::Excluded(end)),
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::One(one) => one == key,
            Self::From(start) => &start[..] <= key,
            Self::Between(start, end) => &start[..] <= key && key < &end[..],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_span_holds_what_a_map_finds_in_it() {
        let keys = ["", "\0", "a", "a\0", "b", "b\u{1}", "c"];
        let map: BTreeMap<Bytes, ()> = keys.iter().map(|key| ((*key).into(), ())).collect();
        for (key, end) in [("a", ""), ("a", "\0"), ("a", "c"), ("a", "b"), ("b", "a"), ("a", "a")] {
            let span = Span::new(&key.into(), &end.into());
            let found: Vec<_> = map.range::<[u8], _>(span.bounds()).map(|(key, ())| key).collect();
            let held: Vec<_> = map.keys().filter(|key| span.contains(key)).collect();
            assert_eq!(found, held, "{span:?}");
        }
    }
}
