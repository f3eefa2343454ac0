//! How often things happened, to see that runs reach what they should.

use std::fmt;

/// What a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node's clock went on.
    Tick,
    /// A message reached a node.
    Delivered,
    /// A message was lost at random, or did not fit on the wire.
    Lost,
    /// A message was lost to a cut.
    LostToCut,
    /// A message came twice.
    Doubled,
    /// A message was put aside, to come very late.
    Late,
    /// Appends that said another part of the leader's log.
    Rewritten,
    /// Leaders that were cut off while their clock stood still.
    Paused,
    /// One-way cuts.
    CutOneWay,
    /// Two-way cuts.
    CutBothWays,
    /// Times that a driver did all that there was at once.
    Synchronous,
    /// Writes that became durable.
    Written,
    /// Writes of which a node heard only some time after they were durable.
    ToldLate,
    /// Entries of a log that were replaced by others.
    Replaced,
    /// Crashes.
    Crash,
    /// Crashes with writes on the way, some of which were lost.
    CrashLosingWrites,
    /// Crashes with writes on the way, some of which were durable untold.
    CrashKeepingWrites,
    /// Times that all but the leader lost power for a moment.
    PowerCut,
    /// Crashes in which the state machine went back.
    CrashUnapplying,
    /// Proposals that were taken.
    Proposed,
    /// Entries committed.
    Committed,
    /// Leaders.
    Elected,
    /// Leaders that a transfer was asked to.
    Transferred,
    /// Reads answered by the leader.
    ReadAtLeader,
    /// Reads answered by others.
    ReadAtFollower,
    /// Times that a lease was seen.
    Lease,
    /// Entries that changed one member, as each node applied them.
    MembersChanged,
    /// Entries that entered a joint change.
    JointEntered,
    /// Entries that left one, by the leader's own will.
    JointLeftByItself,
    /// Entries that left one, proposed by the driver.
    JointLeftOnRequest,
    /// Logs that lost their beginning.
    Compacted,
    /// Reports that a member cannot be reached.
    Unreachable,
    /// Snapshots that a leader asked its driver for.
    SnapshotWanted,
    /// Snapshots that were taken from a state machine.
    SnapshotMade,
    /// Snapshots that could not be made.
    SnapshotFailed,
    /// Snapshots that were made too late.
    SnapshotUseless,
    /// Snapshots that arrived.
    SnapshotArrived,
    /// Snapshots that were lost.
    SnapshotLost,
    /// Snapshots that were installed.
    SnapshotInstalled,
    /// Snapshots taken over while an older one was on its way to the disk.
    SnapshotReplaced,
    /// Hosts that knew nothing before their first snapshot.
    Joined,
    /// Snapshots that a follower asked for.
    SnapshotRequested,
    /// Pages that a snapshot made useless.
    PageDropped,
    /// Proposals that were passed on to the leader and taken.
    Forwarded,
    /// Priorities that were changed.
    Prioritised,
    /// Groups that were put to sleep.
    Quiesced,
    /// Nodes that were woken by their driver.
    Woken,
    /// Times that everything healed and the group agreed.
    Healed,
}

impl Event {
    /// All of them, in the order of their numbers.
    pub const ALL: [Event; 48] = {
        use Event::*;
        [
            Tick,
            Delivered,
            Lost,
            LostToCut,
            Doubled,
            Late,
            Rewritten,
            Paused,
            CutOneWay,
            CutBothWays,
            Synchronous,
            Written,
            ToldLate,
            Replaced,
            Crash,
            CrashLosingWrites,
            CrashKeepingWrites,
            PowerCut,
            CrashUnapplying,
            Proposed,
            Committed,
            Elected,
            Transferred,
            ReadAtLeader,
            ReadAtFollower,
            Lease,
            MembersChanged,
            JointEntered,
            JointLeftByItself,
            JointLeftOnRequest,
            Compacted,
            Unreachable,
            SnapshotWanted,
            SnapshotMade,
            SnapshotFailed,
            SnapshotUseless,
            SnapshotArrived,
            SnapshotLost,
            SnapshotInstalled,
            SnapshotReplaced,
            Joined,
            SnapshotRequested,
            PageDropped,
            Forwarded,
            Prioritised,
            Quiesced,
            Woken,
            Healed,
        ]
    };
}

/// A counter for each [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    counts: [u64; Event::ALL.len()],
}

impl Default for Totals {
    fn default() -> Self {
        Self { counts: [0; Event::ALL.len()] }
    }
}

impl Totals {
    /// How often `event` happened.
    pub fn of(&self, event: Event) -> u64 {
        self.counts[event as usize]
    }

    /// Counts `event` `times` more.
    pub(crate) fn count(&mut self, event: Event, times: u64) {
        self.counts[event as usize] += times;
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Totals) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<Event> {
        Event::ALL.into_iter().filter(|event| self.of(*event) == 0).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, event) in Event::ALL.into_iter().enumerate() {
            let begin = match i {
                0 => "",
                _ if i % 4 == 0 => "\n",
                _ => "  ",
            };
            let name = format!("{event:?}");
            write!(f, "{begin}{name:<20}{:>10}", self.of(event))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (i, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, i, "{event:?}");
        }
    }
}
