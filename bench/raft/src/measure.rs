//! Processor time and allocations of one thread.
//!
//! The allocator of this program counts, through the crate `allocation-counter`, whenever it is
//! not told to leave it. What is timed runs uncounted.

use allocation_counter::AllocationInfo;
use rustix::time::{ClockId, clock_gettime};

/// Processor time of this thread so far in nanoseconds: a busy machine does not count.
fn processor_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let number = |part: i64| u64::try_from(part).expect("time since the thread began");
    number(time.tv_sec) * 1_000_000_000 + number(time.tv_nsec)
}

/// Nanoseconds of processor time that `work` takes.
pub fn time(work: impl FnOnce()) -> u64 {
    let mut nanos = 0;
    allocation_counter::opt_out(|| {
        let began = processor_nanos();
        work();
        nanos = processor_nanos() - began;
    });
    nanos
}

/// What `work` allocates. A buffer that grows is counted each time.
pub fn allocations(work: impl FnOnce()) -> AllocationInfo {
    allocation_counter::measure(work)
}

/// The middle one, or the upper of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
