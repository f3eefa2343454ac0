//! What a group costs that does nothing: the second table.
//!
//! A member of a group of three whose log is applied on all of them, with nothing in memory that
//! it does not need; ours sleeps. Counted is the core alone: the node with all its heap, without
//! the storage.

mod ours;
mod theirs;

use crate::measure::allocations;

/// Members of ours that are held at once.
pub const GROUPS: usize = 1_000_000;

/// Members of theirs that are held at once. Each is as large as the other, and much larger.
const THEIR_GROUPS: usize = 50_000;

/// Bytes a member of ours may have.
const BYTES_GOAL: f64 = 600.0;

/// What one member costs.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Bytes that it asked the allocator for, and its own size.
    pub bytes: f64,
    /// Blocks of the allocator, each a little larger than what was asked for.
    pub blocks: f64,
}

/// The cost of a member of one kind on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    name: &'static str,
    ours: Footprint,
    theirs: Footprint,
}

/// Measures leaders and followers.
pub fn measure() -> [Row; 2] {
    [
        Row {
            name: "leader",
            ours: footprint(GROUPS, ours::leader),
            theirs: footprint_of_theirs(theirs::leader),
        },
        Row {
            name: "follower",
            ours: footprint(GROUPS, ours::follower),
            theirs: footprint_of_theirs(theirs::follower),
        },
    ]
}

fn footprint<M>(groups: usize, mut make: impl FnMut() -> M) -> Footprint {
    let mut members = Vec::with_capacity(groups);
    let heap = allocations(|| members.extend((0..groups).map(|_| make())));
    let each = |total: i64| total as f64 / groups as f64;
    Footprint {
        bytes: each(heap.bytes_current) + size_of::<M>() as f64,
        blocks: each(heap.count_current),
    }
}

/// Their storage is an object that grows with each group, so what the members leave behind when
/// they are gone is not theirs.
fn footprint_of_theirs(make: fn(&raft::storage::MemStorage) -> theirs::Member) -> Footprint {
    let storage = theirs::storage();
    let mut members: Vec<_> = (0..THEIR_GROUPS).map(|_| make(&storage)).collect();
    let gone = allocations(|| members.clear());
    let each = |total: i64| -total as f64 / THEIR_GROUPS as f64;
    Footprint {
        bytes: each(gone.bytes_current) + size_of::<theirs::Member>() as f64,
        blocks: each(gone.count_current),
    }
}

impl Row {
    /// Whether ours is larger than theirs.
    pub fn is_worse(&self) -> bool {
        self.ours.bytes > self.theirs.bytes
    }
}

/// Prints the table.
pub fn print(rows: &[Row]) {
    println!("\nAn idle member of a group of three, {GROUPS} held at once: ours / theirs = part\n");
    println!("{:<30} {:^22} {:^22} goal {BYTES_GOAL:.0} bytes", "", "bytes", "blocks");
    for Row { name, ours, theirs } in rows {
        let verdict = if ours.bytes < BYTES_GOAL { "reached" } else { "missed" };
        println!(
            "{name:<30} {:>6.0} /{:>6.0} = {:<4.2} {:>6.1} /{:>6.1} = {:<4.2} {verdict}",
            ours.bytes,
            theirs.bytes,
            ours.bytes / theirs.bytes,
            ours.blocks,
            theirs.blocks,
            ours.blocks / theirs.blocks,
        );
    }
    println!("\nof it the node itself: {} bytes", size_of::<pontoon_raft::RawNode>());
}
