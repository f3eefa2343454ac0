//! Several stores and the network between them: calm, when all that follows from a tick happens at
//! once, or in disorder, when a seed decides what happens next.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{
    Epoch, Instant, KeyRange, Peer, PeerChange, PeerId, PeerRole, Prng, Region, RegionId, StoreId,
    Term,
};
use raft::Body;
use storage::engine::Cf;
use store::{
    ChangePeersRequest, MergeRequest, Proposal, Purpose, RaftMessage, ReadRequest, RegionView,
    RequestHeader, ShardConfig, ShardInput, SnapshotCredit, SplitRequest, StoreAlive,
    TransferRequest, Writes,
};

use super::store;
use super::{Machine, Node, REGION, Slot, TICK, header_of, region_on};

/// Stores 1 to n.
pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
    pub now: Instant,
    /// Stores that nobody hears and that hear nobody.
    pub cut: Vec<StoreId>,
    /// A store that is sent heartbeats and no entries.
    pub starved: Option<StoreId>,
    /// Stores that do not run.
    pub down: BTreeSet<StoreId>,
    /// Stores that hear nothing of a region.
    pub deaf: Vec<(RegionId, StoreId)>,
    /// Messages on their way, in disorder.
    pub wire: Vec<RaftMessage>,
    /// Signs of life on their way, in disorder.
    pub signs: Vec<StoreAlive>,
    /// Words about room for snapshots on their way, in disorder.
    pub credits: Vec<SnapshotCredit>,
    /// Pairs of stores between which nothing passes.
    pub broken: Vec<(u64, u64)>,
    /// Messages and signs of life that were sent so far.
    pub said: (usize, usize),
    /// Snapshots that arrived.
    pub snapshots: Vec<(RegionId, PeerId)>,
    config: ShardConfig,
    starts: u64,
}

impl Cluster {
    /// Stores that share one region.
    pub(crate) fn new(size: u64) -> Self {
        Self::with(size, size, ShardConfig::default())
    }

    /// `size` stores, of which the first `members` share a region.
    pub(crate) fn with(size: u64, members: u64, config: ShardConfig) -> Self {
        let stores: Vec<u64> = (1..=members).collect();
        let region = region_on(&stores);
        let nodes = (1..=size).map(|id| {
            let machine = Machine::new(id);
            match id <= members {
                true => machine.found(&region),
                false => machine.join(),
            }
            machine.start(ShardConfig { seed: config.seed * 100 + id, ..config.clone() })
        });
        Self {
            nodes: nodes.collect(),
            now: Instant::ZERO,
            cut: Vec::new(),
            starved: None,
            down: BTreeSet::new(),
            deaf: Vec::new(),
            wire: Vec::new(),
            signs: Vec::new(),
            credits: Vec::new(),
            broken: Vec::new(),
            said: (0, 0),
            snapshots: Vec::new(),
            config,
            starts: size,
        }
    }

    /// Four stores, of which the first `members` share a region with so many rows.
    pub(crate) fn with_rows(members: u64, rows: u8) -> Self {
        let mut cluster = Self::with(4, members, ShardConfig::default());
        cluster.leader();
        for i in 0..rows {
            cluster.put(REGION, &[b'a' + i], b"v");
        }
        cluster
    }

    pub(crate) fn node(&mut self, store: u64) -> &mut Node {
        &mut self.nodes[store as usize - 1]
    }

    /// The store stops; what was not synced is lost if the power goes too.
    pub(crate) fn stop(&mut self, store: u64, power: Option<&mut Prng>) {
        self.down.insert(StoreId(store));
        let node = self.node(store);
        node.stop();
        match power {
            Some(prng) => node.machine.power_loss(prng),
            None => node.machine.kill(),
        }
    }

    pub(crate) fn start(&mut self, store: u64) {
        assert!(self.down.remove(&StoreId(store)), "it stands still");
        self.starts += 1;
        let seed = self.config.seed * 100 + self.starts;
        let config = ShardConfig { seed, ..self.config.clone() };
        let machine = self.node(store).machine.clone();
        *self.node(store) = machine.start(config);
    }

    /// Time passes by one tick, then everything that follows from it happens.
    pub(crate) fn tick(&mut self) {
        self.now = self.now + TICK;
        self.deliver();
    }

    pub(crate) fn ticks(&mut self, count: u32) {
        (0..count).for_each(|_| self.tick());
    }

    /// Everything until nobody has anything to do or to say.
    pub(crate) fn deliver(&mut self) {
        loop {
            let mut messages = std::mem::take(&mut self.wire);
            let mut signs = std::mem::take(&mut self.signs);
            let mut credits = std::mem::take(&mut self.credits);
            for node in &mut self.nodes {
                if !self.down.contains(&node.machine.store_id) {
                    node.settle(self.now);
                    messages.extend(node.sent.drain(..));
                    signs.extend(node.alive.drain(..));
                    credits.extend(node.credits.drain(..));
                }
            }
            if messages.is_empty() && signs.is_empty() && credits.is_empty() {
                return;
            }
            self.said = (self.said.0 + messages.len(), self.said.1 + signs.len());
            signs.into_iter().for_each(|sign| self.carry_sign(sign, false));
            credits.into_iter().for_each(|credit| self.carry_credit(credit, false));
            messages.into_iter().for_each(|message| self.carry(message, false));
        }
    }

    /// Placement tells what the leaders of orphans say, or that it knows of none.
    pub(crate) fn find_owners(&mut self) {
        for at in 0..self.nodes.len() {
            for id in std::mem::take(&mut self.nodes[at].orphans) {
                let mut views = self.nodes.iter().filter_map(|node| node.views.get(id));
                let known = views.find(|view| view.is_leader());
                let stores = self.nodes.iter().map(|node| node.machine.store_id).collect();
                self.nodes[at].inbox.push(match known {
                    Some(view) => ShardInput::OrphanKnown((*view.region).clone()),
                    None => ShardInput::OrphanUnknown(id, stores),
                });
            }
        }
    }

    fn is_deaf(&self, store: StoreId) -> bool {
        self.cut.contains(&store) || self.down.contains(&store)
    }

    /// Whether what one store says to the other is lost.
    fn is_lost(&self, from: StoreId, to: StoreId) -> bool {
        let is_broken = |pair: &(u64, u64)| *pair == (from.0, to.0) || *pair == (to.0, from.0);
        let nobody = to.0 == 0 || to.0 > self.nodes.len() as u64;
        nobody || self.is_deaf(from) || self.is_deaf(to) || self.broken.iter().any(is_broken)
    }

    /// A sign of life arrives, or does not.
    pub(crate) fn carry_sign(&mut self, sign: StoreAlive, lost: bool) {
        if !lost && !self.is_lost(sign.from, sign.to) {
            self.node(sign.to.0).inbox.push(ShardInput::Alive(sign));
        }
    }

    /// A word about room for a snapshot arrives, or does not.
    pub(crate) fn carry_credit(&mut self, credit: SnapshotCredit, lost: bool) {
        let (from, to) = (credit.from.store_id, credit.to.store_id);
        if !lost && !self.is_lost(from, to) {
            self.node(to.0).inbox.push(ShardInput::Credit(credit));
        }
    }

    /// A message arrives, or does not.
    pub(crate) fn carry(&mut self, message: RaftMessage, lost: bool) {
        let (from, to) = (message.from.store_id, message.to.store_id);
        let lost = lost
            || self.is_lost(from, to)
            || self.deaf.contains(&(message.region_id, message.to.store_id));
        let feeds =
            matches!(&message.message.body, Body::Append { entries, .. } if !entries.is_empty());
        let lost = lost || feeds && self.starved == Some(to);
        let arrived = match &message.message.body {
            Body::Snapshot { snapshot, .. } => {
                let arrived = !lost && self.carry_files(&message, snapshot);
                let (region_id, to) = (message.region_id, message.to.id);
                if !self.down.contains(&from) {
                    let sent = ShardInput::SnapshotSent { region_id, to, arrived };
                    self.node(from.0).inbox.push(sent);
                }
                arrived
            }
            _ => !lost,
        };
        if arrived {
            if let Body::Snapshot { .. } = message.message.body {
                self.snapshots.push((message.region_id, message.to.id));
            }
            self.node(to.0).inbox.push(ShardInput::Message(message));
        }
    }

    fn carry_files(&mut self, message: &RaftMessage, snapshot: &raft::Snapshot) -> bool {
        let (id, peer) = (message.region_id, message.to.id);
        let from = self.node(message.from.store_id.0).folder.clone();
        let to = self.node(message.to.store_id.0).folder.clone();
        let Ok(mut reader) = from.reader(id, peer, snapshot) else { return false };
        let Ok(mut writer) = to.writer(id, snapshot) else { return false };
        while let Ok(Some(chunk)) = reader.next_chunk() {
            writer.write(&chunk).expect("what was made can be written");
        }
        writer.finish().is_ok()
    }

    /// One thing happens somewhere.
    pub(crate) fn step(&mut self, prng: &mut Prng, loss: u64) {
        if !self.wire.is_empty() && prng.one_in(2) {
            let at = prng.below(self.wire.len() as u64) as usize;
            let message = self.wire.swap_remove(at);
            let lost = loss > 0 && prng.one_in(loss);
            if !lost && prng.one_in(20) && !matches!(message.message.body, Body::Snapshot { .. }) {
                self.wire.push(message.clone());
            }
            return self.carry(message, lost);
        }
        if !self.signs.is_empty() && prng.one_in(8) {
            let at = prng.below(self.signs.len() as u64) as usize;
            let sign = self.signs.swap_remove(at);
            return self.carry_sign(sign, loss > 0 && prng.one_in(loss));
        }
        if !self.credits.is_empty() && prng.one_in(4) {
            let at = prng.below(self.credits.len() as u64) as usize;
            let credit = self.credits.swap_remove(at);
            return self.carry_credit(credit, loss > 0 && prng.one_in(loss));
        }
        let at = prng.below(self.nodes.len() as u64) as usize;
        if self.down.contains(&self.nodes[at].machine.store_id) {
            return;
        }
        let (now, node) = (self.now, &mut self.nodes[at]);
        match prng.below(4) {
            0 => node.turn_shard(now),
            1 => node.turn_log(),
            2 => node.turn_applier(),
            _ => node.run_job(),
        }
        assert_eq!(node.fatal, None, "store {}", node.machine.store_id);
        self.wire.extend(node.sent.drain(..));
        self.signs.extend(node.alive.drain(..));
        self.credits.extend(node.credits.drain(..));
    }

    /// Ticks until one of the stores that are not cut off leads and serves reads; its place in
    /// `nodes`.
    pub(crate) fn leader(&mut self) -> usize {
        self.leader_of(REGION)
    }

    pub(crate) fn leader_of(&mut self, region: RegionId) -> usize {
        for _ in 0..300 {
            self.rouse();
            self.tick();
            if let Some(leader) = self.serving(region) {
                return leader;
            }
        }
        let views = self.nodes.iter().map(|node| (node.machine.store_id, node.views.all()));
        panic!("region {region}: no leader within 30 s: {:#?}", views.collect::<Vec<_>>());
    }

    /// Somebody reads where a leader has no lease: it may sleep.
    pub(crate) fn rouse(&mut self) {
        for node in &mut self.nodes {
            let views = node.views.all().into_iter();
            for view in views.filter(|view| view.is_leader() && !view.has_lease(self.now)) {
                let reply = Slot::default().reply();
                let purpose = match view.region.flashback {
                    Some(_) => Purpose::Flashback,
                    None => Purpose::Any,
                };
                let header = RequestHeader { purpose, ..header_of(&view) };
                let request = ReadRequest { header, any_replica: false, reply };
                if !self.down.contains(&node.machine.store_id) {
                    node.inbox.push(ShardInput::ReadIndex(request));
                }
            }
        }
    }

    fn serving(&self, region: RegionId) -> Option<usize> {
        self.nodes.iter().position(|node| {
            !self.is_deaf(node.machine.store_id)
                && node.views.get(region).is_some_and(|view| view.has_lease(self.now))
        })
    }

    pub(crate) fn view(&self, at: usize, region: RegionId) -> Arc<RegionView> {
        self.nodes[at].views.get(region).expect("the region is here")
    }

    /// Writes through the leader until it is acknowledged.
    pub(crate) fn put(&mut self, region: RegionId, key: &[u8], value: &[u8]) {
        let mut writes = Writes::new();
        writes.put(Cf::Default, key, value);
        self.write(region, &writes);
    }

    pub(crate) fn write(&mut self, region: RegionId, writes: &Writes) {
        for _ in 0..20 {
            let at = self.serving(region).unwrap_or_else(|| self.leader_of(region));
            let slot = Slot::default();
            let header = header_of(&self.view(at, region));
            let (writes, reply) = (writes.clone(), slot.reply());
            let proposal = Proposal { header, writes, only_in_term: None, reply };
            self.nodes[at].inbox.push(ShardInput::Propose(proposal));
            self.deliver();
            if slot.is_ok() {
                return;
            }
            self.tick();
        }
        panic!("region {region}: the write is not taken");
    }

    /// Asks the leader for a change of members until it takes it.
    pub(crate) fn change(&mut self, region: RegionId, changes: &[PeerChange]) {
        let mut last = None;
        for _ in 0..100 {
            let slot = self.try_change(region, changes);
            self.ticks(2);
            if slot.is_ok() {
                return;
            }
            last = slot.answer();
        }
        panic!("region {region}: {changes:?} is refused: {last:?}");
    }

    pub(crate) fn try_change(&mut self, region: RegionId, changes: &[PeerChange]) -> Slot {
        let at = self.serving(region).unwrap_or_else(|| self.leader_of(region));
        let slot = Slot::default();
        let (header, changes) = (header_of(&self.view(at, region)), changes.to_vec());
        let request = ChangePeersRequest { header, changes, reply: slot.reply() };
        self.nodes[at].inbox.push(ShardInput::ChangePeers(request));
        self.deliver();
        slot
    }

    pub(crate) fn transfer(&mut self, region: RegionId, to: PeerId) -> Slot {
        let at = self.serving(region).unwrap_or_else(|| self.leader_of(region));
        let slot = Slot::default();
        let header = header_of(&self.view(at, region));
        let request = TransferRequest { header, to, reply: slot.reply() };
        self.nodes[at].inbox.push(ShardInput::TransferLeader(request));
        self.deliver();
        slot
    }

    /// Cuts the region at `key`; the part to the left becomes region `id` with peers `10 * id + n`.
    pub(crate) fn split(&mut self, region: RegionId, key: &[u8], id: u64) {
        for _ in 0..20 {
            let at = self.serving(region).unwrap_or_else(|| self.leader_of(region));
            let slot = Slot::default();
            let view = self.view(at, region);
            let cuts = vec![cut(&view.region, key, id)];
            let request = SplitRequest { header: header_of(&view), cuts, reply: slot.reply() };
            self.nodes[at].inbox.push(ShardInput::Split(request));
            self.deliver();
            if slot.is_ok() {
                return;
            }
            self.tick();
        }
        panic!("region {region}: the split is not taken");
    }

    /// Asks the leader of `source` that it become a part of `target`, once.
    pub(crate) fn try_merge(&mut self, source: RegionId, target: RegionId) -> Slot {
        let at = self.serving(source).unwrap_or_else(|| self.leader_of(source));
        let to = self.serving(target).unwrap_or_else(|| self.leader_of(target));
        let slot = Slot::default();
        let target = (*self.view(to, target).region).clone();
        let header = header_of(&self.view(at, source));
        let request = MergeRequest { header, target, reply: slot.reply() };
        self.nodes[at].inbox.push(ShardInput::Merge(request));
        slot
    }

    /// Asks until the source waits for its end.
    pub(crate) fn prepare_merge(&mut self, source: RegionId, target: RegionId) {
        let mut last = None;
        for _ in 0..50 {
            let slot = self.try_merge(source, target);
            self.deliver();
            if slot.is_ok() {
                return;
            }
            last = slot.answer();
            self.tick();
        }
        panic!("region {source}: the merge is refused: {last:?}");
    }

    /// Merges two regions, and waits until no store has the source any more.
    pub(crate) fn merge(&mut self, source: RegionId, target: RegionId) {
        self.prepare_merge(source, target);
        for _ in 0..100 {
            self.tick();
            let runs = |node: &&Node| !self.down.contains(&node.machine.store_id);
            if self.nodes.iter().filter(runs).all(|node| node.views.get(source).is_none()) {
                return;
            }
        }
        panic!("region {source}: it does not become a part of {target}");
    }

    /// All replicas of the region hold the same, and the leader's region; it is returned.
    pub(crate) fn check_equal(&mut self, region: RegionId) -> Arc<Region> {
        let leader = self.leader_of(region);
        self.ticks(6);
        let known = self.view(leader, region).region.clone();
        let contents = self.nodes[leader].contents(region, &known.range);
        for peer in &known.peers {
            let node = self.node(peer.store_id.0);
            let view = node.views.get(region);
            let all = || node.views.all();
            let view = view.unwrap_or_else(|| panic!("{region} is not on {peer:?}: {:#?}", all()));
            assert_eq!((view.peer.id, &view.region), (peer.id, &known));
            assert_eq!(node.contents(region, &known.range), contents, "{region} on {peer:?}");
        }
        known
    }
}

pub(crate) fn cut(region: &Region, key: &[u8], id: u64) -> base::Cut {
    let peer_ids = region.peers.iter().map(|peer| PeerId(10 * id + peer.store_id.0)).collect();
    base::Cut { key: key.to_vec().into(), region_id: RegionId(id), peer_ids }
}

pub(crate) fn voter(id: u64, store: u64) -> PeerChange {
    PeerChange::AddVoter(Peer::voter(PeerId(id), StoreId(store)))
}

pub(crate) fn learner(id: u64, store: u64) -> PeerChange {
    let (id, store_id) = (PeerId(id), StoreId(store));
    PeerChange::AddLearner(Peer { id, store_id, role: PeerRole::Learner })
}

pub(crate) fn remove(id: u64) -> PeerChange {
    PeerChange::Remove(PeerId(id))
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::all()
}

/// What one member says to another, who shall be one by this.
pub(crate) fn word(
    region_id: RegionId,
    (from, to): (Peer, Peer),
    (epoch, range): (Epoch, KeyRange),
    (term, body): (Term, Body),
) -> RaftMessage {
    RaftMessage {
        region_id,
        from,
        to,
        epoch,
        message: raft::Message { from: from.id, to: to.id, term, body },
        range: Some(range),
        tombstone: false,
        merged_into: None,
    }
}
