//! Snapshots: made at leisure or not at all, handed over late, lost, reported late or early,
//! requested by a host whose state machine is damaged, installed.

use base::{Index, PeerId};
use bytes::Bytes;
use raft::{Body, LogPos, Message, Persist, Snapshot, SnapshotError, SnapshotWanted, Storage};

use super::cluster::Cluster;
use super::history::mix;
use super::host::{Host, Machine};
use super::totals::Event;

/// Snapshots of a host that somebody waits for.
#[derive(Default)]
pub(crate) struct Snapshots {
    /// Asked for, not begun.
    pub(crate) wanted: Vec<SnapshotWanted>,
    /// Taken from the state machine, not handed over.
    pub(crate) taken: Vec<(PeerId, Snapshot)>,
    /// Members to which one arrived or not, of which the node does not know.
    pub(crate) over: Vec<(PeerId, bool)>,
}

impl Snapshots {
    pub(crate) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.taken.is_empty() && self.over.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Machine {
    /// What a snapshot of it holds.
    fn encode(&self) -> Bytes {
        let words = [self.applied.to_le_bytes(), self.state.to_le_bytes()];
        Bytes::from(words.concat())
    }

    fn decode(data: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = data[at..at + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        assert_eq!(data.len(), 16, "snapshots: of another length");
        Self { applied: word(0), state: word(8), damaged: false }
    }
}

/// At the leader.
impl Cluster {
    /// The next thing happens to a snapshot of some host.
    pub(crate) fn snapshot_step(&mut self) {
        let Some(at) = self.some_host_with(|host| !host.snapshots.is_idle()) else { return };
        let snapshots = &self.hosts[at].snapshots;
        match self.prng.below(3) {
            0 if !snapshots.over.is_empty() => self.tell_over(at),
            1 if !snapshots.taken.is_empty() => self.hand_over_snapshot(at),
            _ if !snapshots.wanted.is_empty() => self.begin_snapshot(at, true),
            _ => {}
        }
    }

    /// All that waits for a snapshot at a host is done, and done well.
    pub(crate) fn serve_snapshots(&mut self, at: usize) {
        for _ in 0..self.hosts[at].snapshots.wanted.len() {
            self.begin_snapshot(at, false);
        }
        while !self.hosts[at].snapshots.taken.is_empty() {
            self.hand_over_snapshot(at);
        }
        while !self.hosts[at].snapshots.over.is_empty() {
            self.tell_over(at);
        }
    }

    /// Takes a snapshot of the state machine, or fails to. If not enough is applied it waits.
    fn begin_snapshot(&mut self, at: usize, may_fail: bool) {
        let wanted = self.hosts[at].snapshots.wanted.remove(0);
        if may_fail && self.prng.one_in(6) {
            self.say(at, format_args!("fails to make a snapshot for n{}", wanted.to));
            self.totals.count(Event::SnapshotFailed, 1);
            return self.with_node(at, |node| node.snapshot_failed(wanted.to));
        }
        let host = &mut self.hosts[at];
        if host.machine.applied < wanted.at_least.max(1) || host.machine.damaged {
            return host.snapshots.wanted.push(wanted);
        }
        let snapshot = host.snapshot();
        host.snapshots.taken.push((wanted.to, snapshot));
        let applied = host.machine.applied;
        self.totals.count(Event::SnapshotMade, 1);
        self.say(at, format_args!("makes a snapshot at {applied} for n{}", wanted.to));
    }

    fn hand_over_snapshot(&mut self, at: usize) {
        let (to, snapshot) = self.hosts[at].snapshots.taken.remove(0);
        self.say(at, format_args!("hands over the snapshot at {} for n{to}", snapshot.pos));
        let mut useless = false;
        self.with_node(at, |node| {
            let answer = node.snapshot_made(to, snapshot);
            useless = matches!(answer, Err(SnapshotError::Useless { .. }));
        });
        self.totals.count(Event::SnapshotUseless, u64::from(useless));
    }

    /// The leader learns what became of a snapshot.
    fn tell_over(&mut self, at: usize) {
        let (to, arrived) = self.hosts[at].snapshots.over.remove(0);
        let what = if arrived { "arrived at" } else { "is lost to" };
        self.say(at, format_args!("hears that a snapshot {what} n{to}"));
        self.with_node(at, |node| match arrived {
            true => node.snapshot_sent(to),
            false => node.snapshot_failed(to),
        });
    }

    /// Notes what became of a message, if it was a snapshot: the sender will hear of it.
    pub(crate) fn note_transfer(&mut self, message: &Message, arrived: bool) {
        if !matches!(message.body, Body::Snapshot { .. }) {
            return;
        }
        let event = if arrived { Event::SnapshotArrived } else { Event::SnapshotLost };
        self.totals.count(event, 1);
        // That it arrived may not come back.
        let told = arrived && !self.prng.one_in(4);
        let sender = &mut self.hosts[message.from.0 as usize - 1];
        if sender.node.is_some() {
            sender.snapshots.over.push((message.to, told));
        }
    }
}

/// At the one who gets it.
impl Cluster {
    /// The state machine of some host turns out to be damaged, or may be. Its log takes nothing new
    /// until a snapshot comes, so the others must be a quorum without it, by any configuration that
    /// anybody may go by: one at a time, not of two, and not while members change.
    pub(crate) fn damage(&mut self) {
        let at = self.some_host();
        let conf = self.hosts[at].conf();
        let few = conf.voters.len() < 3 || conf.is_joint();
        let changed = self.history.last_change();
        let changing = |id: &PeerId| self.hosts[id.0 as usize - 1].synced < changed;
        if few || conf.members().iter().any(changing) {
            return;
        }
        if self.hosts.iter().any(|host| host.machine.damaged || host.requested) {
            return;
        }
        let Some(node) = &mut self.hosts[at].node else { return };
        if node.request_snapshot().is_ok() {
            let host = &mut self.hosts[at];
            host.requested = true;
            // Else a restart, in which the request is forgotten, mends it.
            host.machine.damaged = self.prng.one_in(2);
            if host.machine.damaged {
                host.machine.state = mix(host.machine.state, 1);
            }
            self.totals.count(Event::SnapshotRequested, 1);
            self.say(at, format_args!("is damaged and requests a snapshot"));
        }
        self.settle(at);
    }

    /// A snapshot is handed out to be installed: it is what it says, and drops nothing that is
    /// committed.
    pub(crate) fn check_snapshot(&mut self, at: usize, snapshot: &Snapshot) {
        let LogPos { index, term } = snapshot.pos;
        let known = self.history.term_at(index);
        assert_eq!(known, Some(term), "snapshots: at {}, which is not committed", snapshot.pos);
        let machine = Machine::decode(&snapshot.data);
        assert_eq!(machine.applied, index, "snapshots: of another index");
        self.history.on_applied(machine);
        self.history.check_members(index, &snapshot.conf);
        let seen = &mut self.hosts[at].seen;
        assert_eq!(seen.led, 0, "snapshots: a leader installs one");
        for dropped in (index + 1).max(seen.log.first())..=seen.log.last() {
            let lost = self.history.term_at(dropped);
            assert!(
                lost.is_none() || lost != seen.log.term(dropped),
                "committed entries: a snapshot at {index} drops {dropped}"
            );
        }
        let empty = seen.log.last() == 0;
        seen.log.restart(snapshot.pos);
        seen.handed = index;
        let waiting = self.hosts[at].writes.iter().any(|write| write.snapshot.is_some());
        self.totals.count(Event::SnapshotReplaced, u64::from(waiting));
        self.totals.count(Event::Joined, u64::from(empty));
    }

    /// A snapshot is installed: log, members and state machine at once.
    pub(crate) fn install(&mut self, at: usize, persist: &Persist) {
        let Some(snapshot) = &persist.snapshot else { return };
        let host = &mut self.hosts[at];
        let machine = Machine::decode(&snapshot.data);
        assert!(
            machine.applied >= host.machine.applied,
            "state machine: a snapshot takes n{} back to {}",
            at + 1,
            machine.applied
        );
        if std::mem::take(&mut host.untold_applied) {
            host.outdated_applied = Some(host.machine.applied);
        }
        host.machine = machine;
        host.synced = machine.applied;
        host.confs = vec![(machine.applied, snapshot.conf.clone())];
        self.totals.count(Event::SnapshotInstalled, 1);
        self.totals.count(Event::PageDropped, host.pages.len() as u64);
        host.pages.clear();
        host.requested = false;
        self.say(at, format_args!("installed the snapshot at {}", snapshot.pos));
    }
}

impl Host {
    /// The state as of the applied index.
    fn snapshot(&self) -> Snapshot {
        let index: Index = self.machine.applied;
        let term = self.disk.term(index).expect("what is applied is on the disk");
        let pos = LogPos { index, term };
        Snapshot { pos, conf: self.conf().clone(), data: self.machine.encode() }
    }
}
