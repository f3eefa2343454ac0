//! Liveness: once nothing goes wrong any more the group finds a leader, everybody catches up, and
//! it goes on. At the end all logs, states and members are the same.

use base::{Entry, EntryKind, Index, PeerId};
use raft::RawNode;

use super::cluster::Cluster;
use super::host::Host;
use super::totals::Event;

/// Ticks within which a group must agree, as a multiple of its election timeout.
const TIMEOUTS_MAX: u64 = 25;

/// Exchanges of messages between two ticks, if there are so many.
const EXCHANGES: usize = 64;

impl Cluster {
    /// No more faults: a leader, a proposal that everybody applies, equal logs; and again after
    /// sleep.
    pub(crate) fn heal_and_agree(&mut self) {
        self.say(0, format_args!("(everything heals)"));
        self.network.heal();
        self.paused = None;
        (0..self.hosts.len()).for_each(|at| self.start(at));
        self.agree();
        if self.prng.one_in(2) {
            self.sleep();
            self.wake_somehow();
            self.agree();
        }
        self.totals.count(Event::Healed, 1);
        self.network.well = false;
    }

    fn agree(&mut self) {
        self.run_until("a leader, and everybody catches up", |cluster| {
            cluster.settled_leader().is_some()
        });
        let index = self.propose_at_last();
        self.run_until("a new proposal is applied everywhere", |cluster| {
            cluster.settled_leader().is_some_and(|_| cluster.all_applied(index))
        });
        self.check_agreement();
    }

    /// Well-behaved time until `done`. Fails if that takes too long.
    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let ticks = TIMEOUTS_MAX * u64::from(self.shape.config.election_ticks);
        for _ in 0..ticks {
            if done(self) {
                return;
            }
            self.run_well();
        }
        panic!("liveness: {what}: not after {ticks} ticks\n{}", self.show());
    }

    /// A proposal that is taken, perhaps not at once. Answers its index.
    fn propose_at_last(&mut self) -> Index {
        let ticks = TIMEOUTS_MAX * u64::from(self.shape.config.election_ticks);
        for _ in 0..ticks {
            let data = self.next_command();
            if let Some(leader) = self.settled_leader() {
                let node = self.hosts[leader].node.as_mut().expect("it leads");
                if let Ok((term, index)) = node.propose(data.clone()) {
                    let entry = Entry { index, term, kind: EntryKind::Normal, data };
                    self.on_proposed(leader, entry);
                    return index;
                }
            }
            self.run_well();
        }
        panic!("liveness: no proposal is taken in {ticks} ticks\n{}", self.show());
    }

    /// A tick for everybody, and some time in which nothing goes wrong.
    fn run_well(&mut self) {
        self.now += 1;
        self.wake_the_forsaken();
        for at in 0..self.hosts.len() {
            self.with_node(at, |node| node.tick());
        }
        for _ in 0..EXCHANGES {
            for at in 0..self.hosts.len() {
                self.catch_up(at);
            }
            if self.network.is_empty() {
                return;
            }
            for _ in 0..self.network.len() {
                let message = self.network.next_in_order().expect("counted");
                self.arrive(message);
            }
        }
    }

    /// A host does all that it has to do.
    fn catch_up(&mut self, at: usize) {
        loop {
            self.take_ready(at);
            self.write_some(at, usize::MAX);
            self.tell_durable(at);
            while !self.hosts[at].pages.is_empty() {
                self.apply_page(at, usize::MAX);
            }
            self.tell_applied(at);
            self.serve_snapshots(at);
            if !self.hosts[at].node.as_ref().is_some_and(RawNode::has_ready) {
                return;
            }
        }
    }

    /// Nobody in a sleeping group notices that its leader is gone, or that somebody has none: their
    /// drivers do.
    fn wake_the_forsaken(&mut self) {
        let leads = |id: PeerId| self.hosts[id.0 as usize - 1].leads();
        let forsaken = |id: &PeerId| {
            let host = &self.hosts[id.0 as usize - 1];
            !host.node.as_ref().and_then(RawNode::leader).is_some_and(leads)
        };
        let level = self.settled_leader().is_some();
        if !level && self.members().iter().any(forsaken) {
            for at in 0..self.hosts.len() {
                self.with_node(at, |node| node.wake());
            }
        }
    }

    /// The only leader of the members, if all of them follow it and have all that it has.
    fn settled_leader(&self) -> Option<usize> {
        let members = self.members();
        let leads = |id: &&PeerId| self.hosts[id.0 as usize - 1].leads();
        let mut leaders = members.iter().filter(leads);
        let leader = *leaders.next()?;
        let node = self.hosts[leader.0 as usize - 1].node.as_ref()?;
        let caught_up = members.iter().all(|id| {
            let host = &self.hosts[id.0 as usize - 1];
            let Some(other) = &host.node else { return false };
            other.leader() == Some(leader)
                && other.term() == node.term()
                && host.machine.applied == node.last_index()
                && !host.machine.damaged
        });
        (leaders.next().is_none() && caught_up && self.conf().is_voter(leader))
            .then_some(leader.0 as usize - 1)
    }

    fn all_applied(&self, index: Index) -> bool {
        let applied = |id: &PeerId| self.hosts[id.0 as usize - 1].machine.applied >= index;
        self.members().iter().all(applied)
    }

    /// The members by the one who applied most.
    fn conf(&self) -> &raft::ConfState {
        let latest = self.hosts.iter().max_by_key(|host| host.machine.applied);
        latest.expect("there are hosts").conf()
    }

    fn members(&self) -> Vec<PeerId> {
        self.conf().members()
    }

    /// All members have the same log, state and members.
    fn check_agreement(&self) {
        let members = self.members();
        let first = &self.hosts[members[0].0 as usize - 1];
        for id in &members {
            let host = &self.hosts[id.0 as usize - 1];
            let (a, b) = (&host.seen.log, &first.seen.log);
            assert_eq!(a.last(), b.last(), "agreement: logs of {id} and {} end apart", members[0]);
            for index in a.first().max(b.first())..=a.last() {
                assert_eq!(a.term(index), b.term(index), "agreement: {id} differs at {index}");
            }
            assert_eq!(host.machine, first.machine, "agreement: {id} has another state");
            assert_eq!(host.conf(), first.conf(), "agreement: {id} has other members");
            let own = host.node.as_ref().expect("it runs").status().conf;
            assert_eq!(&own, host.conf(), "agreement: {id} thinks of other members");
        }
    }

    /// Every node's state, for a failure's message.
    fn show(&self) -> String {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        nodes.map(RawNode::status).map(|status| format!("{status:?}\n")).collect()
    }
}

/// Sleep.
impl Cluster {
    /// A group that has nothing to do can sleep, and then nobody does anything.
    fn sleep(&mut self) {
        let timeout = u64::from(self.shape.config.election_ticks);
        let mut slept = false;
        for _ in 0..2 * timeout {
            // What is on the way may make somebody want something.
            self.run_well();
            let Some(at) = self.settled_leader() else { continue };
            self.with_node(at, |node| slept = node.quiesce());
            if slept {
                self.say(at, format_args!("goes to sleep"));
                self.totals.count(Event::Quiesced, 1);
                break;
            }
        }
        // A host that was removed and does not know it wakes the others.
        let members = self.members();
        if self.hosts.len() > members.len() || self.conf().is_joint() {
            return;
        }
        assert!(slept, "sleep: an idle group does not\n{}", self.show());
        let leader = self.settled_leader();
        for _ in 0..3 * timeout {
            self.run_well_asleep();
        }
        let all_sleep = self.hosts.iter().all(Host::is_quiet);
        assert!(all_sleep, "sleep: somebody does not\n{}", self.show());
        assert!(self.network.is_empty(), "sleep: somebody speaks in it\n{}", self.show());
        assert_eq!(self.settled_leader(), leader, "sleep: the leader changed");
    }

    /// Like `run_well`, but nobody is woken.
    fn run_well_asleep(&mut self) {
        self.now += 1;
        for at in 0..self.hosts.len() {
            self.with_node(at, |node| node.tick());
            self.catch_up(at);
        }
        while let Some(message) = self.network.next_in_order() {
            self.arrive(message);
        }
        (0..self.hosts.len()).for_each(|at| self.catch_up(at));
    }

    /// Something happens to a group that may sleep.
    fn wake_somehow(&mut self) {
        let at = self.some_host();
        match self.prng.below(4) {
            0 => {
                self.say(at, format_args!("is woken"));
                self.totals.count(Event::Woken, 1);
                self.with_node(at, |node| node.wake());
            }
            1 => {
                let data = self.next_command();
                self.history.on_forwarded(&data);
                self.with_node(at, |node| {
                    let _ = node.forward(data);
                });
            }
            2 => {
                let context = self.history.on_read();
                self.with_node(at, |node| {
                    let _ = node.read_index(context);
                });
            }
            _ => {
                self.crash(at);
                self.start(at);
            }
        }
    }
}
