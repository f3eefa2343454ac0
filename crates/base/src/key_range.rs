//! Half-open key ranges.

use bytes::Bytes;

/// The keys `k` with `start <= k < end`. An empty `start` is the smallest key; an empty `end` means
/// unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// First key inside.
    pub start: Bytes,
    /// First key outside again, or empty for none.
    pub end: Bytes,
}

impl KeyRange {
    /// The range `[start, end)`.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into() }
    }

    /// Every key there is.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.is_before_end(key)
    }

    /// Whether `key` lies inside or is the range's end: where a reverse scan may begin, whose upper
    /// bound is exclusive. With an unbounded end only keys from `start` on count.
    pub fn contains_or_ends_at(&self, key: &[u8]) -> bool {
        self.contains(key) || (!self.end.is_empty() && key == &self.end[..])
    }

    /// Whether `key < end`.
    pub fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.is_empty() || key < &self.end[..]
    }

    /// Whether the two share a key.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        self.is_before_end(&other.start) && other.is_before_end(&self.start)
    }

    /// Whether every key of `other` lies in this range.
    pub fn covers(&self, other: &KeyRange) -> bool {
        self.start <= other.start
            && (self.end.is_empty() || (!other.end.is_empty() && other.end <= self.end))
    }

    /// Whether the range can hold no key.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    /// The keys of both, if one ends where the other begins.
    pub fn join(&self, other: &KeyRange) -> Option<KeyRange> {
        let follows = |a: &KeyRange, b: &KeyRange| !a.end.is_empty() && a.end == b.start;
        if follows(self, other) {
            return Some(KeyRange { start: self.start.clone(), end: other.end.clone() });
        }
        follows(other, self).then(|| KeyRange { start: other.start.clone(), end: self.end.clone() })
    }

    /// The keys that lie in both. May be [empty](Self::is_empty).
    pub fn intersect(&self, other: &KeyRange) -> KeyRange {
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        KeyRange { start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(start, end)
    }

    #[test]
    fn an_empty_end_is_unbounded() {
        assert!(range("", "").contains(b""));
        assert!(range("", "").contains(b"\xff\xff"));
        assert!(range("b", "").contains(b"b"));
        assert!(!range("b", "").contains(b"a"));
        assert!(!range("b", "d").contains(b"d"));
        assert!(range("b", "d").contains_or_ends_at(b"d"));
        assert!(!range("b", "").contains_or_ends_at(b""));
    }

    #[test]
    fn overlap_cover_and_intersection_agree() {
        let ends = ["", "a", "b", "c", "d"];
        for s1 in ends {
            for e1 in ends {
                for s2 in ends {
                    for e2 in ends {
                        let (x, y) = (range(s1, e1), range(s2, e2));
                        if x.is_empty() || y.is_empty() {
                            continue;
                        }
                        assert_eq!(x.overlaps(&y), !x.intersect(&y).is_empty(), "{x:?} {y:?}");
                        assert_eq!(x.covers(&y), x.intersect(&y) == y, "{x:?} {y:?}");
                    }
                }
            }
        }
    }
}
