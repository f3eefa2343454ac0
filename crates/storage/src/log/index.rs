//! Where everything is: the log's index in memory.
//!
//! ```text
//!    regions:  7 ──▶ truncated (120, t3)  state  runs ──▶ [121: slot slot slot ...]
//!              9 ──▶ ...                  slot = term, segment, offset, length, kind, checksum
//!    segments: 4 ──▶ file, how many rows in it are still wanted
//! ```
//! The writer puts every record through [`LogIndex::apply`] after it wrote it, recovery after it
//! read it: the index after a restart is the one before it because the same code made it from the
//! same bytes.
//!
//! While records are replayed a region may have several runs: its older entries may have been
//! written again later in the log than its newer ones. At the end of recovery, and always after it,
//! there is at most one, and it begins right behind the truncated index.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Entry, EntryKind, Index, RegionId, Term};
use bytes::Bytes;

use super::error::LostEntries;
use super::record::{EntryRow, EntryRows, Row, Rows};
use super::segment::Segment;

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) term: Term,
    pub(super) segment: u32,
    /// First byte of its data in the file.
    pub(super) offset: u32,
    crc: u32,
    kind_and_len: u32,
}

impl Slot {
    fn row(&self) -> EntryRow {
        EntryRow::new(self.term, self.crc, self.kind_and_len)
    }

    pub(super) fn len(&self) -> u32 {
        self.row().len()
    }

    /// The entry, if `data` is what was written.
    pub(super) fn entry(&self, index: Index, data: Bytes) -> Option<Entry> {
        let kind: EntryKind = self.row().kind()?;
        let good = crc32fast::hash(&data) == self.crc;
        good.then_some(Entry { index, term: self.term, kind, data })
    }
}

/// Entries that follow each other.
struct Run {
    first: Index,
    slots: VecDeque<Slot>,
}

impl Run {
    /// The index behind the last entry.
    fn end(&self) -> Index {
        self.first + self.slots.len() as u64
    }
}

/// What the log knows of a region.
#[derive(Default)]
pub(super) struct RegionLog {
    /// Index and term of the last entry that left; (0, 0) if none did.
    truncated: (Index, Term),
    /// The segment of the row that says so; 0 if there is none.
    truncated_in: u32,
    state: Vec<u8>,
    /// The segment of the state's row; 0 if there is no state.
    state_in: u32,
    runs: Vec<Run>,
    /// Roughly the bytes of its entries.
    bytes: u64,
}

impl RegionLog {
    pub(super) fn truncated(&self) -> (Index, Term) {
        self.truncated
    }

    pub(super) fn last_index(&self) -> Index {
        self.runs.last().map_or(self.truncated.0, |run| run.end() - 1)
    }

    /// Roughly the bytes of its entries.
    pub(super) fn live_bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn state(&self) -> Option<&[u8]> {
        (self.state_in != 0).then_some(&self.state)
    }

    /// The entry's place, if it is in the log.
    pub(super) fn slot(&self, index: Index) -> Option<&Slot> {
        let run = self.runs.last()?;
        run.slots.get(usize::try_from(index.checked_sub(run.first)?).ok()?)
    }

    /// Index and place of the entries that lie in `segment`.
    pub(super) fn slots_in(&self, segment: u32) -> impl Iterator<Item = (Index, &Slot)> {
        let all = self.runs.iter().flat_map(|run| (run.first..).zip(run.slots.iter()));
        all.filter(move |(_, slot)| slot.segment == segment)
    }

    pub(super) fn has_state_in(&self, segment: u32) -> bool {
        self.state_in == segment
    }

    pub(super) fn has_truncation_in(&self, segment: u32) -> bool {
        self.truncated_in == segment
    }

    fn push(&mut self, index: Index, slots: impl Iterator<Item = Slot>) {
        match self.runs.last_mut() {
            Some(run) if run.end() == index => run.slots.extend(slots),
            _ => self.runs.push(Run { first: index, slots: slots.collect() }),
        }
    }

    /// Puts one entry where it belongs, whatever is there. Returns what it replaces.
    fn place(&mut self, index: Index, slot: Slot) -> Option<Slot> {
        let after = self.runs.partition_point(|run| run.first <= index);
        if let Some(run) = after.checked_sub(1).map(|i| &mut self.runs[i]) {
            if index < run.end() {
                return Some(std::mem::replace(&mut run.slots[(index - run.first) as usize], slot));
            }
            if index == run.end() {
                run.slots.push_back(slot);
                self.join(after);
                return None;
            }
        }
        match self.runs.get_mut(after) {
            Some(run) if run.first == index + 1 => {
                run.slots.push_front(slot);
                run.first = index;
            }
            _ => self.runs.insert(after, Run { first: index, slots: VecDeque::from([slot]) }),
        }
        None
    }

    /// Joins run `i` with the one before it if there is nothing between them.
    fn join(&mut self, i: usize) {
        if i > 0 && i < self.runs.len() && self.runs[i - 1].end() == self.runs[i].first {
            let mut later = self.runs.remove(i);
            self.runs[i - 1].slots.append(&mut later.slots);
        }
    }

    /// Drops the entries from `index` on.
    fn cut_from(&mut self, index: Index, dropped: &mut impl FnMut(&Slot)) {
        while let Some(run) = self.runs.last_mut() {
            let keep = index.saturating_sub(run.first).min(run.slots.len() as u64) as usize;
            run.slots.drain(keep..).for_each(|slot| dropped(&slot));
            if keep > 0 {
                break;
            }
            self.runs.pop();
        }
    }

    /// Drops the entries up to and with `index`.
    fn drop_to(&mut self, index: Index, dropped: &mut impl FnMut(&Slot)) {
        while let Some(run) = self.runs.first_mut() {
            let gone = (index + 1).saturating_sub(run.first).min(run.slots.len() as u64);
            run.slots.drain(..gone as usize).for_each(|slot| dropped(&slot));
            run.first += gone;
            if !run.slots.is_empty() {
                // A log that was long once does not keep the memory for it.
                if run.slots.capacity() > 64 && run.slots.len() < run.slots.capacity() / 4 {
                    run.slots.shrink_to(run.slots.len() * 2);
                }
                break;
            }
            self.runs.remove(0);
        }
    }

    /// Indexes between the truncated one and the last that have no entry.
    fn gaps(&self) -> impl Iterator<Item = (Index, Index)> {
        let ends = std::iter::once(self.truncated.0 + 1).chain(self.runs.iter().map(Run::end));
        let gaps = ends.zip(&self.runs).filter(|(end, run)| *end < run.first);
        gaps.map(|(end, run)| (end, run.first - 1))
    }
}

/// A segment and how much of it is still wanted.
pub(super) struct SegmentUse {
    pub(super) segment: Arc<Segment>,
    /// Entries, states and truncations in it that are the current ones.
    pub(super) live_rows: u64,
    /// Roughly the bytes of those.
    pub(super) live_bytes: u64,
}

/// Bytes that a live row is taken to cost beside its value.
const ROW_COST: u64 = 32;

/// See the module's page.
#[derive(Default)]
pub(super) struct LogIndex {
    pub(super) regions: BTreeMap<RegionId, RegionLog>,
    pub(super) segments: BTreeMap<u32, SegmentUse>,
}

impl LogIndex {
    /// Takes a new segment into account. Numbers only grow.
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        let last = self.segments.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(segment.seq > last, "segment {} comes after segment {last}", segment.seq);
        let seq = segment.seq;
        self.segments.insert(seq, SegmentUse { segment, live_rows: 0, live_bytes: 0 });
    }

    /// Takes in the rows of a record of `segment`, whose entries' data begins at `data_offset` of
    /// the file. The record must be intact.
    pub(super) fn apply(&mut self, meta: &[u8], segment: u32, data_offset: u32) {
        let mut offset = data_offset;
        let mut rows = Rows::new(meta);
        while let Some(row) = rows.next().expect("the caller checked the record") {
            match row {
                Row::Append { region, first, entries, cut } => {
                    offset = self.apply_entries(region, first, entries, cut, (segment, offset));
                }
                Row::State { region, value } => self.apply_state(region, value, segment),
                Row::Truncate { region, index, term, reset } => {
                    self.apply_truncation(region, (index, term), reset, segment);
                }
                Row::Remove { region } => self.apply_removal(region),
            }
        }
    }

    fn apply_entries(
        &mut self,
        region: RegionId,
        first: Index,
        entries: EntryRows<'_>,
        cut: bool,
        (segment, mut offset): (u32, u32),
    ) -> u32 {
        let Self { regions, segments } = self;
        let log = regions.entry(region).or_default();
        let start = offset;
        let count = entries.count() as u64;
        let slots = entries.iter().map(|row| {
            let at = offset;
            offset += row.len();
            let (term, crc, kind_and_len) = (row.term, row.crc, row.kind_and_len());
            Slot { term, segment, offset: at, crc, kind_and_len }
        });
        let mut freed = 0;
        if cut {
            log.cut_from(first, &mut |slot| freed += release(segments, slot.segment, slot.len()));
            log.push(first, slots);
        } else {
            for (index, slot) in (first..).zip(slots) {
                if let Some(old) = log.place(index, slot) {
                    freed += release(segments, old.segment, old.len());
                }
            }
        }
        log.bytes += u64::from(offset - start) + count * ROW_COST;
        log.bytes -= freed;
        let used = segments.get_mut(&segment).expect("a record is in a known segment");
        used.live_rows += count;
        used.live_bytes += u64::from(offset - start) + count * ROW_COST;
        offset
    }

    fn apply_state(&mut self, region: RegionId, value: &[u8], segment: u32) {
        let Self { regions, segments } = self;
        let log = regions.entry(region).or_default();
        release(segments, log.state_in, log.state.len() as u32);
        log.state.clear();
        log.state.extend_from_slice(value);
        log.state_in = segment;
        claim(segments, segment, value.len() as u32);
    }

    fn apply_truncation(&mut self, region: RegionId, to: (Index, Term), reset: bool, segment: u32) {
        let Self { regions, segments } = self;
        let log = regions.entry(region).or_default();
        let again = to.0 == log.truncated.0 && log.truncated_in != 0;
        if to.0 < log.truncated.0 || (again && to != log.truncated) {
            return;
        }
        release(segments, log.truncated_in, 0);
        log.truncated = to;
        log.truncated_in = segment;
        claim(segments, segment, 0);
        let mut freed = 0;
        let mut dropped = |slot: &Slot| freed += release(segments, slot.segment, slot.len());
        match reset {
            true => log.cut_from(0, &mut dropped),
            false => log.drop_to(to.0, &mut dropped),
        }
        log.bytes -= freed;
    }

    fn apply_removal(&mut self, region: RegionId) {
        let Some(mut log) = self.regions.remove(&region) else { return };
        let segments = &mut self.segments;
        release(segments, log.state_in, log.state.len() as u32);
        release(segments, log.truncated_in, 0);
        log.cut_from(0, &mut |slot| {
            release(segments, slot.segment, slot.len());
        });
    }

    /// Entries that should be there and are not. None, unless the log is damaged.
    pub(super) fn gaps(&self) -> Vec<LostEntries> {
        let of = |(region, log): (&RegionId, &RegionLog)| -> Vec<LostEntries> {
            let region = *region;
            log.gaps().map(|(first, last)| LostEntries { region, first, last }).collect()
        };
        self.regions.iter().flat_map(of).collect()
    }
}

fn claim(segments: &mut BTreeMap<u32, SegmentUse>, segment: u32, len: u32) {
    let used = segments.get_mut(&segment).expect("a record is in a known segment");
    used.live_rows += 1;
    used.live_bytes += u64::from(len) + ROW_COST;
}

/// A row is not wanted any more. Segment 0: there was none. Returns what it cost.
fn release(segments: &mut BTreeMap<u32, SegmentUse>, segment: u32, len: u32) -> u64 {
    if segment == 0 {
        return 0;
    }
    let used = segments.get_mut(&segment).expect("a live row keeps its segment");
    assert!(used.live_rows > 0, "segment {segment} loses more rows than it has");
    used.live_rows -= 1;
    let cost = u64::from(len) + ROW_COST;
    used.live_bytes -= cost;
    cost
}
