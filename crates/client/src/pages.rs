//! A scan, page by page over the borders of regions, in either direction.

use base::KeyRange;
use bytes::Bytes;

use crate::core::Side;
use crate::keys::Keys;

/// What is left of a range of data keys that is read in pages.
pub(crate) struct Pages {
    keys: Keys,
    left: Option<KeyRange>,
    reverse: bool,
}

impl Pages {
    pub(crate) fn new(keys: Keys, range: KeyRange, reverse: bool) -> Self {
        let left = (!range.is_empty()).then_some(range);
        Self { keys, left, reverse }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.is_none()
    }

    pub(crate) fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// Where the next page begins: the region on this side of this data key.
    pub(crate) fn next(&self) -> (&Bytes, Side) {
        let left = self.left.as_ref().expect("a page is asked for while there is one");
        if self.reverse { (&left.end, Side::Below) } else { (&left.start, Side::Holding) }
    }

    /// The bounds of the next page as a scan request has them: the near one first, which is
    /// exclusive in reverse.
    pub(crate) fn bounds(&self, region: &KeyRange) -> (Bytes, Bytes) {
        let part = self.part(region);
        if self.reverse { (part.end, part.start) } else { (part.start, part.end) }
    }

    /// A page of this region was read up to `last`, or to the region's border if it was the rest.
    pub(crate) fn advance(&mut self, region: &KeyRange, last: Option<&Bytes>) {
        let part = self.part(region);
        let left = self.left.as_mut().expect("what was read was left before");
        let is_over = if self.reverse {
            match last {
                Some(last) => left.end = last.clone(),
                None => left.end = part.start.clone(),
            }
            left.end.is_empty() || left.is_empty()
        } else {
            match last {
                Some(last) => left.start = successor(last),
                None => left.start = part.end.clone(),
            }
            // The part's end is empty where neither the region nor the range has one.
            left.start.is_empty() || left.is_empty()
        };
        if is_over {
            self.left = None;
        }
    }

    fn part(&self, region: &KeyRange) -> KeyRange {
        let left = self.left.as_ref().expect("a page is asked for while there is one");
        self.keys.within(region, left)
    }
}

/// The smallest key above `key`.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ApiVersion;

    fn pages(start: &'static str, end: &'static str, reverse: bool) -> Pages {
        Pages::new(Keys::raw(ApiVersion::V1), KeyRange::new(start, end), reverse)
    }

    #[test]
    fn forward_pages_end_with_the_range() {
        let mut scan = pages("b", "x", false);
        let first = KeyRange::new("", "m");
        assert_eq!(scan.bounds(&first), ("b".into(), "m".into()));
        scan.advance(&first, Some(&"c".into()));
        assert_eq!(scan.next(), (&"c\0".into(), Side::Holding));
        scan.advance(&first, None);
        let second = KeyRange::new("m", "");
        assert_eq!(scan.bounds(&second), ("m".into(), "x".into()));
        scan.advance(&second, None);
        assert!(scan.is_done() && pages("b", "a", false).is_done());
    }

    #[test]
    fn reverse_pages_end_with_the_first_key() {
        let mut scan = pages("", "", true);
        let last = KeyRange::new("m", "");
        assert_eq!(
            (scan.next(), scan.bounds(&last)),
            ((&"".into(), Side::Below), ("".into(), "m".into()))
        );
        scan.advance(&last, Some(&"x".into()));
        assert_eq!(scan.bounds(&last), ("x".into(), "m".into()));
        scan.advance(&last, None);
        let first = KeyRange::new("", "m");
        assert_eq!(scan.bounds(&first), ("m".into(), "".into()));
        scan.advance(&first, Some(&"a".into()));
        assert!(!scan.is_done());
        scan.advance(&first, None);
        assert!(scan.is_done());
    }
}
