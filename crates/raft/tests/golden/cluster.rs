//! The group that the scripts drive: its hosts, and which command does what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;

use base::{Entry, Index, PeerId};
use goldenscript::{ArgumentConsumer, Command};
use pontoon_raft::{
    Config, HardState, MemoryStorage, Message, Persist, RawNode, Snapshot, SnapshotWanted,
};

use crate::show::role_of;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One node, its disk and its state machine.
pub(crate) struct Host {
    pub(crate) disk: MemoryStorage,
    pub(crate) node: Option<RawNode>,
    /// On the way to the disk.
    pub(crate) writes: VecDeque<Persist>,
    /// On the way to the state machine.
    pub(crate) pages: VecDeque<Vec<Entry>>,
    /// The state machine: the commands that were applied. Durable at once.
    pub(crate) state: Vec<String>,
    pub(crate) applied: Index,
    /// Asked for, and not made yet.
    pub(crate) wanted: Vec<SnapshotWanted>,
    /// Made, and not yet sent.
    pub(crate) snapshot: Option<Snapshot>,
    /// What was last said about the role.
    said: String,
}

/// All nodes, and the messages on the way.
#[derive(Default)]
pub(crate) struct Cluster {
    config: Option<Config>,
    /// Writes wait for `persist`.
    pub(crate) asynchronous: bool,
    /// Pages of committed entries wait for `apply`.
    pub(crate) lazy: bool,
    /// Snapshots are made and told of by the script.
    pub(crate) manual: bool,
    pub(crate) hosts: BTreeMap<PeerId, Host>,
    pub(crate) wire: Vec<Message>,
    /// Cut off from all others.
    pub(crate) island: BTreeSet<PeerId>,
    output: String,
}

impl Host {
    fn new(disk: MemoryStorage, applied: Index) -> Self {
        Self {
            disk,
            node: None,
            writes: VecDeque::new(),
            pages: VecDeque::new(),
            state: Vec::new(),
            applied,
            wanted: Vec::new(),
            snapshot: None,
            said: String::new(),
        }
    }
}

impl Cluster {
    pub(crate) fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output)
    }

    pub(crate) fn say(&mut self, line: impl AsRef<str>) {
        self.output.push_str(line.as_ref());
        self.output.push('\n');
    }

    pub(crate) fn run(&mut self, command: &Command) -> Result<()> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "cluster" => self.begin(&mut args)?,
            "log" => self.give_log(&mut args)?,
            "add-nodes" => self.add_nodes(&mut args)?,
            "crash" => self.crash(&mut args)?,
            "restart" => self.restart(&mut args)?,
            "tick" => self.tick(&mut args)?,
            "campaign" => self.campaign(&mut args)?,
            "priority" => self.priority(&mut args)?,
            "quiesce" => self.quiesce(&mut args)?,
            "wake" => self.wake(&mut args)?,
            "inquire" => self.inquire(&mut args)?,
            "learn" => self.learn(&mut args)?,
            "propose" => self.propose(&mut args)?,
            "forward" => self.forward(&mut args)?,
            "read-index" => self.read_index(&mut args)?,
            "change" => self.change(&mut args)?,
            "transfer" => self.transfer(&mut args)?,
            "snapshot" => self.keep_snapshot(&mut args)?,
            "send-snapshot" => self.send_snapshot(&mut args)?,
            "report-snapshot" => self.report_snapshot(&mut args)?,
            "request-snapshot" => self.request_snapshot(&mut args)?,
            "step" => self.step(&mut args)?,
            "unreachable" => self.unreachable(&mut args)?,
            "deliver" => self.deliver(&mut args)?,
            "stabilize" => self.stabilize()?,
            "partition" => self.island = ids(&mut args)?.into_iter().collect(),
            "heal" => self.island.clear(),
            "persist" => self.persist(&mut args)?,
            "apply" => self.apply(&mut args)?,
            "compact" => self.compact(&mut args)?,
            "status" => self.status(&mut args)?,
            "members" => self.members(&mut args)?,
            "state" => self.state(&mut args)?,
            "raft-log" => self.raft_log(&mut args)?,
            name => return Err(format!("no command {name}").into()),
        }
        args.reject_next()
    }

    pub(crate) fn host(&mut self, id: PeerId) -> Result<&mut Host> {
        self.hosts.get_mut(&id).ok_or_else(|| format!("no node {id}").into())
    }

    pub(crate) fn node(&mut self, id: PeerId) -> Result<&mut RawNode> {
        self.host(id)?.node.as_mut().ok_or_else(|| format!("node {id} is down").into())
    }

    /// The ids that were named, or all.
    pub(crate) fn some_or_all(&self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<PeerId>> {
        let named = ids(args)?;
        Ok(if named.is_empty() { self.hosts.keys().copied().collect() } else { named })
    }

    fn begin(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        *self = Self::default();
        let mut config = Config { heartbeat_ticks: 1, ..Config::new(PeerId(1)) };
        let nodes: u64 = number(args, "nodes")?.ok_or("how many nodes?")?;
        let spares = number(args, "spares")?.unwrap_or(0);
        let after = crate::hand::position(args.take_key("after"))?;
        if let Some(max) = number(args, "inflight")? {
            config.inflight_max = u32::try_from(max)?;
        }
        config.gather_entries = number(args, "gather")?.unwrap_or(0);
        let limits = [
            ("inflight-bytes", &mut config.inflight_bytes_max),
            ("append-bytes", &mut config.append_bytes_max),
            ("committed-bytes", &mut config.committed_bytes_max),
            ("uncommitted-bytes", &mut config.uncommitted_bytes_max),
            ("tail-bytes", &mut config.tail_bytes_max),
        ];
        for (key, limit) in limits {
            if let Some(max) = number(args, key)? {
                *limit = usize::try_from(max)?;
            }
        }
        while let Some(word) = args.next_pos() {
            match word {
                "plain" => (config.pre_vote, config.check_quorum) = (false, false),
                "async" => self.asynchronous = true,
                "lazy" => self.lazy = true,
                "manual" => self.manual = true,
                other => return Err(format!("what is {other}?").into()),
            }
        }
        self.config = Some(config);
        let voters: Vec<PeerId> = (1..=nodes).map(PeerId).collect();
        for id in (1..=nodes + spares).map(PeerId) {
            let disk = MemoryStorage::starting_at(after, voters.iter().copied());
            self.add(id, disk, after.index)?;
        }
        Ok(())
    }

    fn add(&mut self, id: PeerId, disk: MemoryStorage, applied: Index) -> Result<()> {
        self.hosts.insert(id, Host::new(disk, applied));
        self.start(id)
    }

    /// Hosts that know of no member, not even of themselves.
    fn add_nodes(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        for id in ids(args)? {
            self.add(id, MemoryStorage::new([]), 0)?;
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
        let (term, vote) = (number(args, "term")?, number(args, "vote")?.unwrap_or(0));
        let after = crate::hand::position(args.take_key("after"))?;
        let commit = number(args, "commit")?.unwrap_or(after.index);
        let terms: Vec<u64> = ids(args)?.into_iter().map(|id| id.0).collect();
        let voters: Vec<PeerId> = self.hosts.keys().copied().collect();
        let entries: Vec<Entry> = terms
            .iter()
            .zip(after.index + 1..)
            .map(|(&term, index)| Entry { index, term, ..Entry::default() })
            .collect();
        let disk = MemoryStorage::starting_at(after, voters);
        disk.append(&entries);
        let term = term.or(terms.last().copied()).unwrap_or(after.term);
        disk.set_hard_state(HardState { term, vote: PeerId(vote), commit });
        self.add(id, disk, after.index)?;
        // The story begins long after the restart.
        (0..10).for_each(|_| {
            self.hosts.get_mut(&id).and_then(|h| h.node.as_mut()).expect("up").tick()
        });
        Ok(())
    }

    fn crash(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let host = self.host(id)?;
        host.node = None;
        host.pages.clear();
        host.wanted.clear();
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

    /// Says whether the role changed.
    pub(crate) fn say_role(&mut self, id: PeerId) -> Result<()> {
        let host = self.host(id)?;
        let now = role_of(host.node.as_ref().ok_or("it is down")?);
        if now != host.said {
            let before = std::mem::replace(&mut host.said, now.clone());
            self.say(format!("n{id} {before} => {now}"));
        }
        Ok(())
    }
}

pub(crate) fn id(args: &mut ArgumentConsumer<'_>) -> Result<PeerId> {
    Ok(PeerId(args.next_pos().ok_or("which node?")?.parse()?))
}

pub(crate) fn ids(args: &mut ArgumentConsumer<'_>) -> Result<Vec<PeerId>> {
    let mut ids = Vec::new();
    while let Some(id) = args.next_pos() {
        ids.push(PeerId(id.parse()?));
    }
    Ok(ids)
}

/// The value of `key=`, if it was given.
pub(crate) fn number(args: &mut ArgumentConsumer<'_>, key: &str) -> Result<Option<u64>> {
    Ok(args.take_key(key).map(str::parse).transpose()?)
}
