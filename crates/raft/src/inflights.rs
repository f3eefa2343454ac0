//! The window of `Append`s on the way to one follower, bounded by count and by bytes.

use std::collections::VecDeque;

use base::Index;

/// The messages on the way, oldest first.
#[derive(Default)]
pub(crate) struct Inflights {
    /// Index of the last entry and bytes of the entries of each.
    messages: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflights {
    pub(crate) fn count(&self) -> usize {
        self.messages.len()
    }

    /// Whether nothing more may be sent. A single message may be larger than `bytes_max`.
    pub(crate) fn is_full(&self, count_max: u32, bytes_max: usize) -> bool {
        self.messages.len() >= count_max as usize || self.bytes >= bytes_max
    }

    /// A message whose last entry is `last` leaves.
    pub(crate) fn add(&mut self, last: Index, bytes: usize) {
        assert!(self.messages.back().is_none_or(|(end, _)| *end < last), "entries leave in order");
        self.messages.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `index` arrived.
    pub(crate) fn free_to(&mut self, index: Index) {
        while let Some(&(last, bytes)) = self.messages.front()
            && last <= index
        {
            self.bytes -= bytes;
            self.messages.pop_front();
        }
    }

    /// Gives memory back if nothing is on the way.
    pub(crate) fn rest(&mut self) {
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_by_count_or_by_bytes() {
        let mut window = Inflights::default();
        assert!(!window.is_full(2, 100));
        window.add(5, 40);
        window.add(7, 10);
        assert!(window.is_full(2, 100));
        assert!(window.is_full(3, 50));
        assert!(!window.is_full(3, 51));
        window.free_to(6);
        assert_eq!((window.count(), window.bytes), (1, 10));
        window.free_to(7);
        assert_eq!((window.count(), window.bytes), (0, 0));
    }
}
