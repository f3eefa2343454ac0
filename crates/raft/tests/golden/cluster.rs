//! The group that the scripts drive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;

use base::{Entry, Index, PeerId};
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command};
use pontoon_raft::{
    ConfChange, ConfState, Config, EntryKind, FlowStatus, HardState, MemoryStorage, Message,
    Persist, RawNode, Role, Storage,
};

use crate::hand::{parse, show, show_entries, show_entry};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One node and its disk.
struct Host {
    disk: MemoryStorage,
    node: Option<RawNode>,
    writes: VecDeque<Persist>,
    applied: Index,
    /// What was last said about the role.
    said: String,
}

/// All nodes, and the messages on the way.
#[derive(Default)]
pub(crate) struct Cluster {
    config: Option<Config>,
    /// Writes wait for `persist`.
    asynchronous: bool,
    hosts: BTreeMap<PeerId, Host>,
    wire: Vec<Message>,
    /// Cut off from all others.
    island: BTreeSet<PeerId>,
    output: String,
}

impl Cluster {
    pub(crate) fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output)
    }

    fn say(&mut self, line: impl AsRef<str>) {
        self.output.push_str(line.as_ref());
        self.output.push('\n');
    }

    pub(crate) fn run(&mut self, command: &Command) -> Result<()> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "cluster" => self.begin(&mut args)?,
            "log" => self.give_log(&mut args)?,
            "tick" => self.tick(&mut args)?,
            "campaign" => self.each(&mut args, |node| drop_bool(node.campaign()))?,
            "propose" => self.propose(&mut args)?,
            "read-index" => self.read_index(&mut args)?,
            "change" => self.change(&mut args)?,
            "transfer" => {
                let (id, to) = (id(&mut args)?, id(&mut args)?);
                if let Err(error) = self.node(id)?.transfer_leader(to) {
                    self.say(format!("n{id} refuses: {error}"));
                }
                self.settle(id)?;
            }
            "deliver" => self.deliver(&mut args)?,
            "stabilize" => self.stabilize()?,
            "partition" => self.island = ids(&mut args)?.into_iter().collect(),
            "heal" => self.island.clear(),
            "persist" => self.persist(&mut args)?,
            "crash" => self.crash(&mut args)?,
            "restart" => self.restart(&mut args)?,
            "step" => self.step(&mut args)?,
            "compact" => {
                let (id, index) = (id(&mut args)?, args.next_pos().ok_or("which index?")?);
                self.host(id)?.disk.compact(index.parse()?);
            }
            "status" => self.status(&mut args)?,
            "raft-log" => self.raft_log(&mut args)?,
            name => return Err(format!("no command {name}").into()),
        }
        args.reject_next()
    }

    fn host(&mut self, id: PeerId) -> Result<&mut Host> {
        self.hosts.get_mut(&id).ok_or_else(|| format!("no node {id}").into())
    }

    fn node(&mut self, id: PeerId) -> Result<&mut RawNode> {
        self.host(id)?.node.as_mut().ok_or_else(|| format!("node {id} is down").into())
    }

    /// The ids that were named, or all.
    fn some_or_all(&self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<PeerId>> {
        let named = ids(args)?;
        Ok(if named.is_empty() { self.hosts.keys().copied().collect() } else { named })
    }

    fn begin(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        *self = Self::default();
        let mut config = Config { heartbeat_ticks: 1, ..Config::new(PeerId(1)) };
        let nodes: u64 = args.take_key("nodes").ok_or("how many nodes?")?.parse()?;
        if let Some(max) = args.take_key("inflight") {
            config.inflight_max = max.parse()?;
        }
        if let Some(max) = args.take_key("append-bytes") {
            config.append_bytes_max = max.parse()?;
        }
        while let Some(word) = args.next_pos() {
            match word {
                "plain" => (config.pre_vote, config.check_quorum) = (false, false),
                "async" => self.asynchronous = true,
                other => return Err(format!("what is {other}?").into()),
            }
        }
        self.config = Some(config);
        let spares = args.take_key("spares").map(str::parse).transpose()?.unwrap_or(0u64);
        let voters: Vec<PeerId> = (1..=nodes).map(PeerId).collect();
        for id in (1..=nodes + spares).map(PeerId) {
            let disk = MemoryStorage::new(voters.iter().copied());
            self.hosts.insert(id, Host::new(disk));
            self.start(id)?;
        }
        Ok(())
    }

    fn start(&mut self, id: PeerId) -> Result<()> {
        let config = self.config.clone().ok_or("no cluster")?;
        let host = self.host(id)?;
        let config = Config { id, seed: id.0, applied: host.applied, ..config };
        host.node = Some(RawNode::new(config, Box::new(host.disk.clone()))?);
        host.said = role_of(host.node.as_ref().expect("just set"));
        self.settle(id)
    }

    fn give_log(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let term = args.take_key("term").map(str::parse).transpose()?;
        let commit = args.take_key("commit").map(str::parse).transpose()?.unwrap_or(0);
        let terms: Vec<u64> = ids(args)?.into_iter().map(|id| id.0).collect();
        let voters: Vec<PeerId> = self.hosts.keys().copied().collect();
        let entries: Vec<Entry> = terms
            .iter()
            .zip(1..)
            .map(|(&term, index)| Entry { index, term, ..Entry::default() })
            .collect();
        let disk = MemoryStorage::new(voters);
        disk.append(&entries);
        let term = term.or(terms.last().copied()).unwrap_or(0);
        disk.set_hard_state(HardState { term, vote: PeerId::NONE, commit });
        self.hosts.insert(id, Host::new(disk));
        self.start(id)?;
        // The story begins long after the restart.
        (0..10).for_each(|_| {
            self.hosts.get_mut(&id).and_then(|h| h.node.as_mut()).expect("up").tick()
        });
        Ok(())
    }

    fn each(&mut self, args: &mut ArgumentConsumer<'_>, act: impl Fn(&mut RawNode)) -> Result<()> {
        for id in ids(args)? {
            act(self.node(id)?);
            self.settle(id)?;
        }
        Ok(())
    }

    fn tick(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let count: u64 = args.next_pos().ok_or("how many ticks?")?.parse()?;
        let who = self.some_or_all(args)?;
        for _ in 0..count {
            for &id in &who {
                if let Some(node) = &mut self.host(id)?.node {
                    node.tick();
                    self.settle(id)?;
                }
            }
        }
        Ok(())
    }

    fn propose(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(data) = args.next_pos() {
            match self.node(id)?.propose(Bytes::from(data.to_owned())) {
                Ok((term, index)) => self.say(format!("n{id} takes {data} as {index}@{term}")),
                Err(error) => self.say(format!("n{id} refuses {data}: {error}")),
            }
        }
        self.settle(id)
    }

    fn change(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(text) = args.next_pos() {
            let change = parse_change(text)?;
            let data = Bytes::from(text.to_owned());
            match self.node(id)?.propose_conf_change(EntryKind::ConfChange, data, change) {
                Ok((term, index)) => self.say(format!("n{id} takes {text} as {index}@{term}")),
                Err(error) => self.say(format!("n{id} refuses {text}: {error}")),
            }
        }
        self.settle(id)
    }

    /// Applies the changes of members in a page.
    fn apply_changes(&mut self, id: PeerId, committed: &[Entry]) -> Result<()> {
        for entry in committed.iter().filter(|entry| entry.kind != EntryKind::Normal) {
            let change = parse_change(std::str::from_utf8(&entry.data)?)?;
            match self.node(id)?.apply_conf_change(change) {
                Ok(conf) => {
                    self.say(format!("n{id} members: {}", show_conf(&conf)));
                    self.host(id)?.disk.set_conf(conf);
                }
                Err(error) => self.say(format!("n{id} changes nothing: {error}")),
            }
        }
        Ok(())
    }

    fn read_index(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(context) = args.next_pos() {
            if let Err(error) = self.node(id)?.read_index(context.parse()?) {
                self.say(format!("n{id} refuses read {context}: {error}"));
            }
        }
        self.settle(id)
    }

    fn step(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let message = parse(id, args)?;
        if let Err(error) = self.node(id)?.step(message) {
            self.say(format!("n{id} refuses: {error}"));
        }
        self.settle(id)
    }

    fn deliver(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let list = args.take_key("drop").unwrap_or("").split('/').filter(|id| !id.is_empty());
        let drops: Vec<PeerId> = list.map(|id| Ok(PeerId(id.parse()?))).collect::<Result<_>>()?;
        let only = args.take_key("to").map(str::parse).transpose()?.map(PeerId);
        for message in std::mem::take(&mut self.wire) {
            if only.is_some_and(|only| message.to != only) {
                self.wire.push(message);
                continue;
            }
            self.arrive(message, &drops)?;
        }
        Ok(())
    }

    fn arrive(&mut self, message: Message, drops: &[PeerId]) -> Result<()> {
        let (from, to) = (message.from, message.to);
        let cut = self.island.contains(&from) != self.island.contains(&to);
        let up = self.hosts.get(&to).is_some_and(|host| host.node.is_some());
        if cut || !up || drops.contains(&to) {
            self.say(format!("lost: {}", show(&message)));
            return Ok(());
        }
        if let Err(error) = self.node(to)?.step(message) {
            self.say(format!("n{to} refuses: {error}"));
        }
        self.settle(to)
    }

    fn stabilize(&mut self) -> Result<()> {
        for _ in 0..200 {
            if self.wire.is_empty() {
                return Ok(());
            }
            for message in std::mem::take(&mut self.wire) {
                self.arrive(message, &[])?;
            }
        }
        Err("never stable".into())
    }

    fn persist(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let count = args.next_pos().map(str::parse).transpose()?.unwrap_or(usize::MAX);
        self.finish_writes(id, count)?;
        self.settle(id)
    }

    /// The oldest writes of a node become durable. Returns whether there were any.
    fn finish_writes(&mut self, id: PeerId, count: usize) -> Result<bool> {
        let mut any = false;
        for _ in 0..count {
            let host = self.host(id)?;
            let Some(persist) = host.writes.pop_front() else { break };
            host.disk.write(&persist);
            if let Some(node) = &mut host.node {
                node.persisted(persist.ticket);
            }
            if self.asynchronous {
                self.say(format!("n{id} write {} is durable", persist.ticket));
            }
            for message in persist.then {
                self.leave(message);
            }
            any = true;
        }
        Ok(any)
    }

    fn leave(&mut self, message: Message) {
        self.say(show(&message));
        self.wire.push(message);
    }

    fn crash(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let host = self.host(id)?;
        host.node = None;
        let lost = host.writes.len();
        host.writes.clear();
        if self.asynchronous {
            self.say(format!("n{id} loses {lost} writes"));
        }
        Ok(())
    }

    fn restart(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        self.start(id)?;
        let said = self.host(id)?.said.clone();
        self.say(format!("n{id} starts as {said}"));
        Ok(())
    }

    /// Does and says everything that a node has to give.
    fn settle(&mut self, id: PeerId) -> Result<()> {
        loop {
            self.say_role(id)?;
            if self.node(id)?.has_ready() {
                self.take_ready(id)?;
            }
            if self.asynchronous || !self.finish_writes(id, usize::MAX)? {
                if self.node(id)?.has_ready() {
                    continue;
                }
                return self.say_role(id);
            }
        }
    }

    fn say_role(&mut self, id: PeerId) -> Result<()> {
        let host = self.host(id)?;
        let now = role_of(host.node.as_ref().ok_or("it is down")?);
        if now != host.said {
            let before = std::mem::replace(&mut host.said, now.clone());
            self.say(format!("n{id} {before} => {now}"));
        }
        Ok(())
    }

    fn take_ready(&mut self, id: PeerId) -> Result<()> {
        let ready = self.node(id)?.ready();
        for message in ready.messages {
            self.leave(message);
        }
        if let Some(persist) = ready.persist {
            self.say_persist(id, &persist);
            self.host(id)?.writes.push_back(persist);
        }
        if let Some(last) = ready.committed.last() {
            self.say(format!("n{id} applies {}", show_entries(&ready.committed)));
            self.host(id)?.applied = last.index;
            self.apply_changes(id, &ready.committed)?;
            self.node(id)?.applied(last.index);
        }
        for state in ready.read_states {
            self.say(format!("n{id} may read {} at {}", state.context, state.index));
        }
        if let Some(failure) = ready.failure {
            self.say(format!("n{id} stops: {failure}"));
        }
        Ok(())
    }

    fn say_persist(&mut self, id: PeerId, persist: &Persist) {
        let mut line = format!("n{id} writes");
        if self.asynchronous {
            line.push_str(&format!(" {}", persist.ticket));
        }
        if let Some(HardState { term, vote, commit }) = persist.hard_state {
            line.push_str(&format!(" term={term} vote={vote} commit={commit}"));
        }
        if !persist.entries.is_empty() {
            line.push_str(&format!(" {}", show_entries(&persist.entries)));
        }
        if self.asynchronous && !persist.then.is_empty() {
            line.push_str(&format!(" then sends {}", persist.then.len()));
        }
        if self.asynchronous || persist.hard_state.is_some() || !persist.entries.is_empty() {
            self.say(line);
        }
    }

    fn status(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        for id in self.some_or_all(args)? {
            let Some(node) = &self.host(id)?.node else {
                self.say(format!("n{id} is down"));
                continue;
            };
            let status = node.status();
            let mut line = format!(
                "n{id} {} vote={} last={} committed={} applied={} tail={}",
                role_of(node),
                status.vote,
                status.last,
                status.committed,
                status.applied,
                status.tail_entries,
            );
            if node.is_leader() {
                let (round, confirmed) = (node.round(), node.confirmed_round());
                line.push_str(&format!(" round={round} confirmed={confirmed}"));
            }
            if let Some(to) = status.transferring_to {
                line.push_str(&format!(" transferring_to={to}"));
            }
            for member in &status.members {
                let flow = match member.flow {
                    FlowStatus::Probe => "probe".into(),
                    FlowStatus::Replicate(count) => format!("replicate({count})"),
                };
                line.push_str(&format!(
                    " | n{} matched={} next={} {flow}",
                    member.id, member.matched, member.next
                ));
            }
            self.say(line);
        }
        Ok(())
    }

    fn raft_log(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        for id in self.some_or_all(args)? {
            let host = self.host(id)?;
            let first = host.disk.first_index()?;
            let entries = host.disk.all_entries();
            let HardState { term, vote, commit } = host.disk.hard_state();
            let shown: Vec<String> = entries.iter().map(show_entry).collect();
            let line = format!(
                "n{id} on disk: term={term} vote={vote} commit={commit} from {first}: {}",
                shown.join(" ")
            );
            self.say(line);
        }
        Ok(())
    }
}

impl Host {
    fn new(disk: MemoryStorage) -> Self {
        Self { disk, node: None, writes: VecDeque::new(), applied: 0, said: String::new() }
    }
}

/// `v4`: a voter; `l4`: a learner; `r4`: leaves.
fn parse_change(text: &str) -> Result<ConfChange> {
    let (kind, id) = text.split_at(1);
    let id = PeerId(id.parse()?);
    match kind {
        "v" => Ok(ConfChange::AddVoter(id)),
        "l" => Ok(ConfChange::AddLearner(id)),
        "r" => Ok(ConfChange::Remove(id)),
        _ => Err(format!("no change {text}").into()),
    }
}

fn show_conf(conf: &ConfState) -> String {
    let list = |ids: &[PeerId]| ids.iter().map(PeerId::to_string).collect::<Vec<_>>().join(" ");
    match conf.learners.is_empty() {
        true => list(&conf.voters),
        false => format!("{} learners {}", list(&conf.voters), list(&conf.learners)),
    }
}

fn drop_bool(_: bool) {}

fn role_of(node: &RawNode) -> String {
    let name = match node.role() {
        Role::Follower => format!("follower({})", node.leader().map_or(0, |id| id.0)),
        Role::PreCandidate => "pre-candidate".into(),
        Role::Candidate => "candidate".into(),
        Role::Leader => "leader".into(),
    };
    format!("{name}@{}", node.term())
}

fn id(args: &mut ArgumentConsumer<'_>) -> Result<PeerId> {
    Ok(PeerId(args.next_pos().ok_or("which node?")?.parse()?))
}

fn ids(args: &mut ArgumentConsumer<'_>) -> Result<Vec<PeerId>> {
    let mut ids = Vec::new();
    while let Some(id) = args.next_pos() {
        ids.push(PeerId(id.parse()?));
    }
    Ok(ids)
}
