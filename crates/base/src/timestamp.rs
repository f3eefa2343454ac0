//! Timestamps of the placement driver: physical milliseconds and a logical counter in one number.

use std::fmt;

/// `physical << 18 | logical`: milliseconds since 1970 and a counter within the millisecond. Zero
/// means "absent" and [`TimeStamp::MAX`] "the latest there is".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeStamp(pub u64);

impl TimeStamp {
    /// Bits of the logical part.
    pub const LOGICAL_BITS: u32 = 18;
    /// The largest logical part, so the most timestamps one millisecond can give out.
    pub const LOGICAL_MAX: u64 = (1 << Self::LOGICAL_BITS) - 1;
    /// Later than every timestamp that is handed out.
    pub const MAX: TimeStamp = TimeStamp(u64::MAX);

    /// Puts the two parts together. `logical` must not be above [`TimeStamp::LOGICAL_MAX`].
    pub fn compose(physical_ms: u64, logical: u64) -> Self {
        assert!(logical <= Self::LOGICAL_MAX, "logical part {logical} needs more than 18 bits");
        TimeStamp((physical_ms << Self::LOGICAL_BITS) | logical)
    }

    /// Milliseconds since 1970.
    pub fn physical_ms(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// The counter within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 & Self::LOGICAL_MAX
    }
}

impl fmt::Display for TimeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.physical_ms(), self.logical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_come_back() {
        let ts = TimeStamp::compose(1_700_000_000_123, TimeStamp::LOGICAL_MAX);
        assert_eq!(ts.physical_ms(), 1_700_000_000_123);
        assert_eq!(ts.logical(), TimeStamp::LOGICAL_MAX);
        assert!(ts < TimeStamp::compose(1_700_000_000_124, 0));
    }
}
