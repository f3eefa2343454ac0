//! A group on one thread, driven by one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Entry, EntryKind, Index, PeerId, Prng};
use bytes::Bytes;
use pontoon_raft::{
    ConfChange, ConfState, Config, MemoryStorage, Message, Persist, RawNode, Storage,
};

use crate::check::{self, Checker};

/// Messages on the way; more are lost.
const WIRE_MAX: usize = 200;

/// How often things happened, to see that the runs reach them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) committed: u64,
    pub(crate) elections: u64,
    pub(crate) crashes: u64,
    pub(crate) reads: u64,
    pub(crate) leases: u64,
    pub(crate) cuts: u64,
    pub(crate) transfers: u64,
    pub(crate) changes: u64,
    pub(crate) compactions: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Totals) {
        self.committed += other.committed;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.reads += other.reads;
        self.leases += other.leases;
        self.cuts += other.cuts;
        self.transfers += other.transfers;
        self.changes += other.changes;
        self.compactions += other.compactions;
    }

    pub(crate) fn are_telling(&self) -> bool {
        let least = [self.committed / 20, self.elections, self.crashes, self.reads, self.leases];
        least.iter().all(|&n| n > 50)
            && self.cuts > 50
            && self.transfers > 50
            && self.changes > 50
            && self.compactions > 50
    }
}

/// What an entry that changes members holds: a letter and a host.
fn decode(data: &[u8]) -> ConfChange {
    let id = PeerId(u64::from(data[1]));
    match data[0] {
        b'v' => ConfChange::AddVoter(id),
        b'l' => ConfChange::AddLearner(id),
        _ => ConfChange::Remove(id),
    }
}

/// One machine: a disk that outlives the node.
struct Host {
    disk: MemoryStorage,
    node: Option<RawNode>,
    /// Handed out, not durable.
    writes: VecDeque<Persist>,
    /// Handed out, not applied.
    pages: VecDeque<Vec<Entry>>,
    /// What the state machine has applied, and of that what a crash cannot take back.
    applied: Index,
    synced: Index,
    /// The members as of each applied index at which they changed.
    confs: BTreeMap<Index, ConfState>,
    /// When each round began.
    rounds: BTreeMap<u64, u64>,
}

pub(crate) struct Sim {
    prng: Prng,
    config: Config,
    hosts: Vec<Host>,
    wire: Vec<Message>,
    /// Messages that are very late.
    parked: Vec<Message>,
    /// One-way cuts.
    cut: BTreeSet<(u64, u64)>,
    /// Members come and go.
    changing: bool,
    /// All nodes tick together, so that leases can be checked.
    lockstep: bool,
    now: u64,
    context: u64,
    checker: Checker,
    trace: bool,
    hash: u64,
    pub(crate) totals: Totals,
}

impl Sim {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut prng = Prng::new(seed);
        let size = [1, 3, 3, 5][prng.below(4) as usize];
        let ids: Vec<PeerId> = (1..=size).map(PeerId).collect();
        // Some groups change their members; then there are hosts that are none yet.
        let changing = prng.one_in(3);
        let hosts = if changing { size.max(2) + 1 } else { size };
        let lockstep = prng.one_in(2);
        let config = Config {
            election_ticks: 6,
            heartbeat_ticks: 1 + prng.below(2) as u32,
            append_bytes_max: [1, 100, 1 << 20][prng.below(3) as usize],
            inflight_max: 1 + prng.below(6) as usize,
            inflight_bytes_max: [60, 1 << 20][prng.below(2) as usize],
            committed_bytes_max: [1, 100, 1 << 20][prng.below(3) as usize],
            tail_bytes_max: [0, 100, 1 << 20][prng.below(3) as usize],
            pre_vote: prng.one_in(2),
            check_quorum: lockstep || changing || prng.one_in(2),
            ..Config::new(PeerId(1))
        };
        let host = |_| Host {
            disk: MemoryStorage::new(ids.iter().copied()),
            node: None,
            writes: VecDeque::new(),
            pages: VecDeque::new(),
            applied: 0,
            synced: 0,
            confs: BTreeMap::from([(0, ConfState::of_voters(ids.iter().copied()))]),
            rounds: BTreeMap::new(),
        };
        let mut sim = Self {
            config,
            hosts: (0..hosts).map(host).collect(),
            changing,
            wire: Vec::new(),
            parked: Vec::new(),
            cut: BTreeSet::new(),
            lockstep,
            now: 0,
            context: 0,
            checker: Checker::default(),
            trace,
            hash: seed,
            totals: Totals::default(),
            prng,
        };
        (0..sim.hosts.len()).for_each(|at| sim.start(at));
        sim
    }

    /// A number that differs when the runs do.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.hash
    }

    fn say(&mut self, what: &str, at: usize) {
        for byte in what.bytes().chain([at as u8]) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace {
            println!("{} n{} {what}", self.now, at + 1);
        }
    }

    fn some_host(&mut self) -> usize {
        self.prng.below(self.hosts.len() as u64) as usize
    }

    /// One thing happens; then everything is checked.
    pub(crate) fn step(&mut self) {
        let at = self.some_host();
        match self.prng.below(1000) {
            0..250 => self.tick(at),
            250..600 => self.deliver(),
            600..780 => self.write(at),
            780..880 => self.apply(at),
            880..885 if self.changing => self.change(at),
            880..930 => self.propose(at),
            930..960 => self.read(at),
            960..968 => self.partition(),
            968..976 => self.cut.clear(),
            976..983 => self.crash(at),
            983..985 => self.campaign(at),
            _ if self.prng.one_in(3) => self.transfer(at),
            985..990 => self.compact(at),
            _ => (0..self.hosts.len()).for_each(|at| self.start(at)),
        }
    }

    fn tick(&mut self, at: usize) {
        // In lockstep a tick is everybody's, so it comes less often.
        if self.lockstep && !self.prng.one_in(self.hosts.len() as u64) {
            return;
        }
        self.now += 1;
        let who = if self.lockstep { 0..self.hosts.len() } else { at..at + 1 };
        for at in who {
            self.with_node(at, |node| node.tick());
        }
    }

    fn deliver(&mut self) {
        if !self.parked.is_empty() && self.prng.one_in(15) {
            let pick = self.prng.below(self.parked.len() as u64) as usize;
            let message = self.parked.swap_remove(pick);
            return self.arrive(message);
        }
        if self.wire.is_empty() {
            return;
        }
        // Mostly in order, sometimes not.
        let last = self.wire.len() as u64;
        let pick = if self.prng.one_in(4) { self.prng.below(last) } else { 0 };
        let message = match self.prng.one_in(30) {
            true => self.wire[pick as usize].clone(),
            false => self.wire.remove(pick as usize),
        };
        if self.prng.one_in(15) {
            return self.parked.push(message);
        }
        if self.cut.contains(&(message.from.0, message.to.0)) || self.prng.one_in(25) {
            return;
        }
        self.arrive(message);
    }

    fn arrive(&mut self, message: Message) {
        let to = message.to.0;
        self.say(&format!("{message:?}"), to as usize - 1);
        self.with_node(to as usize - 1, |node| node.step(message).expect("all peers are sound"));
    }

    /// The first writes of a host become durable.
    fn write(&mut self, at: usize) {
        let count = 1 + self.prng.below(3);
        let told = !self.prng.one_in(10);
        self.write_some(at, count, told);
    }

    fn write_some(&mut self, at: usize, count: u64, told: bool) {
        for _ in 0..count {
            let Some(persist) = self.hosts[at].writes.pop_front() else { return };
            self.hosts[at].disk.write(&persist);
            for message in persist.then {
                self.leave(at, message);
            }
            if told || self.hosts[at].writes.is_empty() {
                self.with_node(at, |node| node.persisted(persist.ticket));
            }
        }
    }

    fn apply(&mut self, at: usize) {
        let Some(page) = self.hosts[at].pages.pop_front() else { return };
        let last = page.last().expect("a page is not empty").index;
        assert_eq!(page[0].index, self.hosts[at].applied + 1, "applied in order");
        self.hosts[at].applied = last;
        for entry in page.iter().filter(|entry| entry.kind != EntryKind::Normal) {
            self.apply_change(at, entry);
        }
        self.with_node(at, |node| node.applied(last));
    }

    fn apply_change(&mut self, at: usize, entry: &Entry) {
        let host = &mut self.hosts[at];
        let node = host.node.as_mut().expect("it applies");
        if let Ok(conf) = node.apply_conf_change(decode(&entry.data)) {
            host.disk.set_conf(conf.clone());
            host.confs.insert(entry.index, conf);
            self.totals.changes += 1;
        }
    }

    fn change(&mut self, at: usize) {
        let id = 1 + self.prng.below(self.hosts.len() as u64) as u8;
        let data = Bytes::from(vec![b"vvlr"[self.prng.below(4) as usize], id]);
        let change = decode(&data);
        let Some(node) = &mut self.hosts[at].node else { return };
        // From two voters to one: the one that leaves may be needed, and need not know it (see
        // `conf_change`).
        let voters = node.status().conf.voters.len();
        if voters == 2 && !matches!(change, ConfChange::AddVoter(_)) {
            return;
        }
        if let Ok(position) = node.propose_conf_change(EntryKind::ConfChange, data.clone(), change)
        {
            self.checker.on_proposed(position, data, true);
        }
        self.settle(at);
    }

    fn propose(&mut self, at: usize) {
        let data =
            Bytes::from(format!("{:>width$}", self.now, width = self.prng.below(40) as usize));
        let alone = self.hosts.len() == 1 || self.changing;
        let Some(node) = &mut self.hosts[at].node else { return };
        if let Ok(position) = node.propose(data.clone()) {
            self.checker.on_proposed(position, data, alone);
        }
        self.settle(at);
    }

    fn read(&mut self, at: usize) {
        self.context += 1;
        self.checker.on_read(self.context);
        let context = self.context;
        self.with_node(at, |node| {
            let _ = node.read_index(context);
        });
    }

    fn campaign(&mut self, at: usize) {
        self.say("campaign", at);
        self.with_node(at, |node| {
            let _ = node.campaign();
        });
    }

    fn transfer(&mut self, at: usize) {
        let to = PeerId(1 + self.prng.below(self.hosts.len() as u64));
        self.say("transfer", at);
        self.totals.transfers +=
            u64::from(self.hosts[at].node.as_ref().is_some_and(RawNode::is_leader));
        self.with_node(at, |node| {
            let _ = node.transfer_leader(to);
        });
    }

    /// Cuts some pairs, one way or both.
    fn partition(&mut self) {
        self.totals.cuts += 1;
        let size = self.hosts.len() as u64;
        for _ in 0..=self.prng.below(size) {
            let (a, b) = (1 + self.prng.below(size), 1 + self.prng.below(size));
            self.cut.insert((a, b));
            if self.prng.one_in(2) {
                self.cut.insert((b, a));
            }
        }
    }

    /// The node goes, and with it what was not durable. Some of its last writes may have been,
    /// untold.
    fn crash(&mut self, at: usize) {
        if self.hosts[at].node.take().is_none() {
            return;
        }
        self.say("crash", at);
        self.totals.crashes += 1;
        let durable = self.prng.below(self.hosts[at].writes.len() as u64 + 1);
        let lost = self.prng.below(3);
        let host = &mut self.hosts[at];
        for persist in host.writes.drain(..).take(durable as usize) {
            host.disk.write(&persist);
        }
        host.writes.clear();
        host.pages.clear();
        host.rounds.clear();
        host.applied = host.applied.saturating_sub(lost).max(host.synced);
        host.confs.split_off(&(host.applied + 1));
        host.disk.set_conf(host.confs.values().next_back().expect("the first one").clone());
        if self.prng.one_in(2) {
            self.start(at);
        }
    }

    fn start(&mut self, at: usize) {
        if self.hosts[at].node.is_some() {
            return;
        }
        self.say("start", at);
        let seed = self.prng.next_u64();
        let host = &mut self.hosts[at];
        let id = PeerId(at as u64 + 1);
        let config = Config { id, seed, applied: host.applied, ..self.config.clone() };
        host.node = Some(RawNode::new(config, Box::new(host.disk.clone())).expect("starts"));
        self.settle(at);
    }

    /// Drops from a log what all hosts have applied for good.
    fn compact(&mut self, at: usize) {
        self.hosts[at].synced = self.hosts[at].applied;
        let to = self.hosts.iter().map(|host| host.synced).min().expect("there are hosts");
        let disk = &self.hosts[at].disk;
        if to >= disk.first_index().expect("in memory") {
            disk.compact(to);
            assert!(check::is_compacted(disk, to - 1));
            self.totals.compactions += 1;
        }
    }

    fn with_node(&mut self, at: usize, act: impl FnOnce(&mut RawNode)) {
        let before = self.hosts[at].node.as_ref().map_or(0, RawNode::committed);
        let Some(node) = &mut self.hosts[at].node else { return };
        act(node);
        assert!(node.committed() >= before, "committed goes back");
        self.settle(at);
    }

    /// Takes what a node has to give (or leaves it for later), and checks.
    fn settle(&mut self, at: usize) {
        // While members change it is not clear to an observer which majority counts.
        let fixed = self.hosts.iter().filter(|_| !self.changing);
        let disks: Vec<MemoryStorage> = fixed.map(|host| host.disk.clone()).collect();
        let lazy = self.prng.one_in(4);
        let Some(node) = &mut self.hosts[at].node else { return };
        self.checker.on_node(node, &disks);
        self.note_rounds(at);
        if !lazy {
            self.take_ready(at);
        }
        self.check_lease();
        let node = self.hosts[at].node.as_ref().expect("it runs");
        for other in self.hosts.iter().filter_map(|host| host.node.as_ref()) {
            self.checker.on_pair(node, other);
        }
        self.totals.committed = self.checker.committed();
        self.totals.elections = self.checker.leaders().len() as u64;
        self.totals.reads = self.checker.reads_answered;
    }

    fn take_ready(&mut self, at: usize) {
        let node = self.hosts[at].node.as_mut().expect("it runs");
        if !node.has_ready() {
            let ready = node.ready();
            let nothing = ready.persist.is_none() && ready.messages.is_empty();
            assert!(nothing && ready.committed.is_empty() && ready.read_states.is_empty());
            return;
        }
        let ready = node.ready();
        assert!(ready.failure.is_none(), "{:?}", ready.failure);
        self.note_rounds(at);
        let host = &mut self.hosts[at];
        host.writes.extend(ready.persist);
        self.checker.on_handed_out(&host.disk, &ready.committed);
        if !ready.committed.is_empty() {
            host.pages.push_back(ready.committed);
        }
        for state in ready.read_states {
            self.checker.on_read_state(state.context, state.index);
        }
        for message in ready.messages {
            self.leave(at, message);
        }
    }

    fn leave(&mut self, at: usize, message: Message) {
        self.checker.on_leaving(&self.hosts[at].disk, &message);
        if self.wire.len() < WIRE_MAX {
            self.wire.push(message);
        }
    }

    fn note_rounds(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let round = host.node.as_ref().expect("it runs").round();
        host.rounds.entry(round).or_insert(self.now);
    }

    /// As long as a confirmed round is younger than an election timeout nobody else leads a later
    /// term.
    fn check_lease(&mut self) {
        if !self.lockstep {
            return;
        }
        for host in &self.hosts {
            let Some(holder) = &host.node else { continue };
            let Some(began) = host.rounds.get(&holder.confirmed_round()) else { continue };
            if !holder.is_leader() || self.now >= began + u64::from(self.config.election_ticks) {
                continue;
            }
            self.totals.leases += 1;
            let later = |n: &&RawNode| n.is_leader() && n.term() > holder.term();
            let other = self.hosts.iter().filter_map(|host| host.node.as_ref()).find(later);
            assert!(
                other.is_none(),
                "n{} leads while n{} holds a lease",
                other.map_or(0, |n| n.id().0),
                holder.id()
            );
        }
    }

    /// No more faults: a leader, a proposal that everybody applies, equal logs.
    pub(crate) fn heal_and_agree(&mut self) {
        self.cut.clear();
        self.wire.append(&mut self.parked);
        (0..self.hosts.len()).for_each(|at| self.start(at));
        self.run_well(100);
        let data = Bytes::from_static(b"the end");
        let alone = self.hosts.len() == 1 || self.changing;
        let leader = self.leader();
        let leader = leader.unwrap_or_else(|| panic!("no leader after the heal:\n{}", self.show()));
        let node = self.hosts[leader].node.as_mut().expect("leads");
        let position = node.propose(data.clone()).expect("it leads");
        self.checker.on_proposed(position, data, alone);
        self.run_well(20);
        let first = check::terms(self.hosts[leader].node.as_ref().expect("it runs"));
        let members = self.members();
        for host in &self.hosts {
            let node = host.node.as_ref().expect("it runs");
            if !members.contains(&node.id()) {
                continue;
            }
            assert_eq!(host.applied, node.last_index(), "everything is applied");
            assert!(host.applied >= position.1, "the last proposal is applied");
            let own = check::terms(node);
            let agree = own.iter().zip(&first).all(|(a, b)| a.is_none() || b.is_none() || a == b);
            assert!(agree && own.len() == first.len(), "logs differ after the heal");
        }
    }

    /// The host of the latest leader that is a voter.
    fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let node = self.hosts[*at].node.as_ref();
            node.is_some_and(|node| node.is_leader() && node.status().conf.is_voter(node.id()))
        };
        let term = |at: &usize| self.hosts[*at].node.as_ref().map(RawNode::term);
        (0..self.hosts.len()).filter(leads).max_by_key(term)
    }

    /// Every node's state, for a failure's message.
    fn show(&self) -> String {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        nodes.map(|node| format!("{:?}\n", node.status())).collect()
    }

    /// The members by the one who applied most.
    fn members(&self) -> Vec<PeerId> {
        let latest = self.hosts.iter().max_by_key(|host| host.applied).expect("there are hosts");
        latest.confs.values().next_back().expect("the first one").members()
    }

    /// Rounds in which nothing goes wrong.
    fn run_well(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now += 1;
            for at in 0..self.hosts.len() {
                self.with_node(at, |node| node.tick());
            }
            for _ in 0..12 {
                for at in 0..self.hosts.len() {
                    self.take_ready(at);
                    self.write_some(at, u64::MAX, true);
                    while !self.hosts[at].pages.is_empty() {
                        self.apply(at);
                    }
                }
                for message in std::mem::take(&mut self.wire) {
                    let to = message.to.0 as usize - 1;
                    self.with_node(to, |node| node.step(message).expect("all peers are sound"));
                }
            }
        }
    }
}
