//! A group on one thread: the drivers of its nodes, and what lies between them.
//!
//! Everything that a node hands out passes through here once, is checked (`checks`), and then waits
//! at its host, or on the network, for the step that goes on with it.

use std::fmt;
use std::io::{self, Write as _};

use base::{Entry, EntryKind, PeerId, Prng};
use bytes::Bytes;
use raft::{Body, Config, Message, Persist, RawNode, ReadState, Ready};

use super::RaftOptions;
use super::history::{History, mix};
use super::host::Host;
use super::network::Network;
use super::shape::Shape;
use super::totals::{Event, Totals};
use super::trace::{Range, Said, Write};

pub(crate) struct Cluster {
    pub(crate) shape: Shape,
    pub(crate) prng: Prng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) history: History,
    pub(crate) totals: Totals,
    /// Ticks of all nodes together; in lockstep ticks of each.
    pub(crate) now: u64,
    /// A host whose clock stands still, until cuts are mended.
    pub(crate) paused: Option<usize>,
    /// Proposals so far; each says its number.
    pub(crate) proposals: u64,
    tracing: bool,
    hash: u64,
    #[cfg(feature = "mutations")]
    breaks: Option<raft::Rule>,
}

impl Cluster {
    pub(crate) fn new(seed: u64, options: &RaftOptions) -> Self {
        let mut prng = Prng::new(seed);
        let shape = Shape::draw(&mut prng);
        let hosts = (1..=shape.hosts).map(|id| Host::new(shape.first_disk(PeerId(id))));
        let mut cluster = Self {
            hosts: hosts.collect(),
            network: Network::new(shape.hosts as usize),
            history: History::new(shape.born, shape.first_members()),
            totals: Totals::default(),
            now: 0,
            paused: None,
            proposals: 0,
            tracing: options.trace,
            hash: seed,
            #[cfg(feature = "mutations")]
            breaks: options.breaks,
            shape,
            prng,
        };
        (0..cluster.hosts.len()).for_each(|at| cluster.start(at));
        cluster
    }

    /// A number that differs when the runs do.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.hash
    }

    /// One line of the trace.
    pub(crate) fn say(&self, at: usize, what: fmt::Arguments<'_>) {
        if self.tracing {
            // Whoever reads it may have read enough.
            let _ = writeln!(io::stdout(), "{:>6} n{} {what}", self.now, at + 1);
        }
    }

    /// A host by chance.
    pub(crate) fn some_host(&mut self) -> usize {
        self.prng.below(self.hosts.len() as u64) as usize
    }

    /// A host for which `fits`, by chance.
    pub(crate) fn some_host_with(&mut self, fits: impl Fn(&Host) -> bool) -> Option<usize> {
        let from = self.some_host();
        let count = self.hosts.len();
        (from..from + count).map(|at| at % count).find(|at| fits(&self.hosts[*at]))
    }

    /// Lets a node do something, if it runs; then everything that this may have changed is checked.
    pub(crate) fn with_node(&mut self, at: usize, act: impl FnOnce(&mut RawNode)) {
        let Some(node) = &mut self.hosts[at].node else { return };
        act(node);
        self.settle(at);
    }

    /// Checks a node, and takes what it has to give or leaves it for later.
    pub(crate) fn settle(&mut self, at: usize) {
        let Some(node) = &self.hosts[at].node else { return };
        for number in [at as u64, node.term(), node.last_index(), node.committed()] {
            self.hash = mix(self.hash, number);
        }
        self.check_node(at);
        if self.shape.synchronous {
            return self.do_everything(at);
        }
        if !self.prng.one_in(self.shape.weather.lazy) {
            self.take_ready(at);
        }
    }

    /// A synchronous driver: does all of a `Ready` before it goes on, until nothing is left.
    fn do_everything(&mut self, at: usize) {
        loop {
            let node = self.hosts[at].node.as_mut().expect("it runs");
            if !node.has_ready() {
                return;
            }
            let mut ready = node.ready();
            self.totals.count(Event::Synchronous, 1);
            self.check_ready(at, &ready);
            if let Some(persist) = &ready.persist {
                self.put_on_disk(at, persist);
            }
            self.answer_reads(at, &ready.read_states);
            self.hosts[at].snapshots.wanted.append(&mut ready.snapshots_wanted);
            for message in std::mem::take(&mut ready.messages) {
                self.leave(at, message);
            }
            for entry in &ready.committed {
                assert!(self.apply(at, entry), "snapshots: one covers a page that came with it");
            }
            let node = self.hosts[at].node.as_mut().expect("it runs");
            for message in node.advance(ready) {
                self.leave(at, message);
            }
            self.check_node(at);
        }
    }

    pub(crate) fn take_ready(&mut self, at: usize) {
        let node = self.hosts[at].node.as_mut().expect("it runs");
        let has_ready = node.has_ready();
        if !has_ready && !self.prng.one_in(16) {
            return;
        }
        let ready = node.ready();
        let nothing = ready.persist.is_none()
            && ready.messages.is_empty()
            && ready.committed.is_empty()
            && ready.read_states.is_empty()
            && ready.snapshots_wanted.is_empty();
        assert!(has_ready || nothing, "has_ready: a ready came out of nothing");
        if has_ready {
            self.take(at, ready);
        }
    }

    fn take(&mut self, at: usize, ready: Ready) {
        self.check_ready(at, &ready);
        self.hosts[at].writes.extend(ready.persist);
        if !ready.committed.is_empty() {
            self.hosts[at].pages.push_back(ready.committed);
        }
        self.answer_reads(at, &ready.read_states);
        self.hosts[at].snapshots.wanted.extend(ready.snapshots_wanted);
        for message in ready.messages {
            self.leave(at, message);
        }
    }

    /// What is handed out is checked before anything is done with it.
    fn check_ready(&mut self, at: usize, ready: &Ready) {
        assert!(ready.failure.is_none(), "sound driver: {:?}", ready.failure);
        self.check_node(at);
        if let Some(persist) = &ready.persist {
            self.say(at, format_args!("hands out write {}", Write(persist)));
            self.check_write(at, persist);
        }
        if !ready.committed.is_empty() {
            self.say(at, format_args!("hands out page {}", Range(&ready.committed)));
            self.check_page(at, ready);
        }
        for wanted in &ready.snapshots_wanted {
            self.say(at, format_args!("wants {wanted:?}"));
            self.totals.count(Event::SnapshotWanted, 1);
        }
    }

    fn answer_reads(&mut self, at: usize, states: &[ReadState]) {
        for state in states {
            self.say(at, format_args!("read {} at {}", state.context, state.index));
            self.history.on_read_state(state.context, state.index);
            let leads = self.hosts[at].leads();
            let event = if leads { Event::ReadAtLeader } else { Event::ReadAtFollower };
            self.totals.count(event, 1);
        }
    }

    /// A message leaves.
    pub(crate) fn leave(&mut self, at: usize, message: Message) {
        self.say(at, format_args!("-> n{} {}", message.to, Said(&message)));
        self.check_leaving(at, &message);
        if let Some(message) = self.network.send(message) {
            self.lose(message);
            self.totals.count(Event::Lost, 1);
        }
    }

    /// A message is on the way no more.
    pub(crate) fn lose(&mut self, message: Message) {
        let from = message.from.0 as usize - 1;
        self.say(from, format_args!("-x n{} {}", message.to, Said(&message)));
        self.note_transfer(&message, false);
    }

    pub(crate) fn arrive(&mut self, mut message: Message) {
        let at = message.to.0 as usize - 1;
        if self.hosts[at].node.is_none() {
            return self.lose(message);
        }
        self.rewrite(&mut message);
        self.say(at, format_args!("<- n{} {}", message.from, Said(&message)));
        self.totals.count(Event::Delivered, 1);
        self.note_transfer(&message, true);
        if matches!(message.body, Body::Append { .. } | Body::Snapshot { .. }) {
            let seen = &mut self.hosts[at].seen;
            seen.taken_in = Some(seen.taken_in.map_or(message.term, |term| term.min(message.term)));
        }
        self.with_node(at, |node| {
            let answer = node.step(message);
            assert!(answer.is_ok(), "sound peers: {answer:?}");
        });
    }
}

/// Disks.
impl Cluster {
    /// Up to `count` writes of a host become durable, and what waits for them leaves.
    pub(crate) fn write_some(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let Some(persist) = self.hosts[at].writes.pop_front() else { return };
            self.say(at, format_args!("wrote #{}", persist.ticket));
            self.put_on_disk(at, &persist);
            self.hosts[at].untold = Some(persist.ticket);
            for message in persist.then {
                self.leave(at, message);
            }
        }
    }

    fn put_on_disk(&mut self, at: usize, persist: &Persist) {
        self.hosts[at].disk.write(persist);
        self.totals.count(Event::Written, 1);
        self.install(at, persist);
    }

    /// The node learns what is durable.
    pub(crate) fn tell_durable(&mut self, at: usize) {
        if let Some(ticket) = self.hosts[at].untold.take() {
            self.with_node(at, |node| node.persisted(ticket));
        }
    }

    /// The node goes, and with it what was not durable. Some of its last writes may have been,
    /// untold.
    pub(crate) fn crash(&mut self, at: usize) {
        let Some(node) = &self.hosts[at].node else { return };
        let (term, id, leads) = (node.term(), node.id(), node.is_leader());
        self.totals.count(Event::Crash, 1);
        let on_the_way = self.hosts[at].writes.len();
        let durable = self.prng.below(on_the_way as u64 + 1) as usize;
        self.totals.count(Event::CrashLosingWrites, u64::from(durable < on_the_way));
        self.totals.count(Event::CrashKeepingWrites, u64::from(durable > 0));
        self.say(at, format_args!("crashes with {durable} of {on_the_way} writes durable"));
        let writes: Vec<Persist> = self.hosts[at].writes.drain(..durable).collect();
        writes.iter().for_each(|persist| self.put_on_disk(at, persist));
        let host = &mut self.hosts[at];
        host.forget();
        let alone = host.conf().members() == [id];
        if leads && alone && host.disk.hard_state().term < term {
            self.history.forget_term(term, id);
        }
        self.take_back(at);
    }

    /// The state machine loses some of what was not synced.
    fn take_back(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let unsynced = host.machine.applied - host.synced;
        let lost = match self.prng.below(4) {
            0 => unsynced,
            n => n.min(unsynced),
        };
        if lost > 0 {
            self.totals.count(Event::CrashUnapplying, 1);
            let applied = host.machine.applied - lost;
            host.unapply(applied, self.history.state_at(applied));
        }
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.hosts[at].node.is_some() {
            return;
        }
        let seed = self.prng.next_u64();
        let host = &mut self.hosts[at];
        let applied = host.machine.applied;
        let id = PeerId(at as u64 + 1);
        let config = Config {
            id,
            seed,
            applied,
            priority: host.priority,
            #[cfg(feature = "mutations")]
            breaks: self.breaks,
            ..self.shape.config.clone()
        };
        let node = RawNode::new(config, Box::new(host.disk.clone()));
        host.begin_seen();
        host.node = Some(node.unwrap_or_else(|error| panic!("sound driver: {error}")));
        let state = host.disk.hard_state();
        let (first, last) = (host.seen.log.first(), host.seen.log.last());
        self.say(at, format_args!("starts with {first}..={last}, {state:?}, applied {applied}"));
        if self.hosts[at].machine.damaged {
            // It forgot that it asked. Nobody to ask is none of its own errors.
            self.hosts[at].requested = true;
            self.with_node(at, |node| {
                let _ = node.request_snapshot();
            });
        }
        self.settle(at);
    }
}

/// State machines.
impl Cluster {
    /// Applies the first page of a host, or up to `count` entries of it.
    pub(crate) fn apply_page(&mut self, at: usize, count: usize) {
        let Some(mut page) = self.hosts[at].pages.pop_front() else { return };
        if count < page.len() {
            let rest = page.split_off(count);
            self.hosts[at].pages.push_front(rest);
        }
        for entry in &page {
            if !self.apply(at, entry) {
                self.say(at, format_args!("drops {} and all after it", entry.index));
                self.totals.count(Event::PageDropped, 1);
                self.hosts[at].pages.clear();
                break;
            }
        }
        self.hosts[at].untold_applied = true;
        // Other members may commit more.
        self.settle(at);
    }

    /// The node learns what is applied.
    pub(crate) fn tell_applied(&mut self, at: usize) {
        if std::mem::take(&mut self.hosts[at].untold_applied) {
            let applied = self.hosts[at].machine.applied;
            self.say(at, format_args!("applied {applied}"));
            self.with_node(at, |node| node.applied(applied));
        }
    }

    /// Applies the next entry. Answers whether it was, or a snapshot covers it.
    fn apply(&mut self, at: usize, entry: &Entry) -> bool {
        if entry.kind != EntryKind::Normal && !self.apply_change(at, entry) {
            return false;
        }
        let host = &mut self.hosts[at];
        host.machine.apply(entry);
        self.history.on_applied(host.machine);
        true
    }

    /// Takes a proposal that the leader accepted into the history.
    pub(crate) fn on_proposed(&mut self, at: usize, entry: Entry) {
        self.say(at, format_args!("takes {}@{} {:?}", entry.index, entry.term, entry.data));
        let node = self.hosts[at].node.as_ref().expect("it took a proposal");
        let prev = node.term_at(entry.index - 1).expect("a leader knows what is before");
        self.history.on_proposed(&entry, prev);
        self.totals.count(Event::Proposed, 1);
    }

    /// A command of its own.
    pub(crate) fn next_command(&mut self) -> Bytes {
        self.proposals += 1;
        let mut data = self.proposals.to_le_bytes().to_vec();
        data.resize(8 + self.prng.below(40) as usize, 0);
        Bytes::from(data)
    }
}
