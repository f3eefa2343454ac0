//! How a node starts: who it is, what it finds, the first region, and that the cluster hears of it.
//!
//! The steps are those of a node of production, in its order, and each of them may be the last one
//! before a crash.

use base::{ClusterId, Peer, Region, RegionId, StoreId};
use placement::API_VERSION_LABEL;
use proto::{metapb, pdpb};
use storage::log::{LogBatch, LogError};
use store::bootstrap::{self, Action, Event as BootEvent, FirstRegion, Outcome};
use store::{Birth, Recovered, ShardInput, StoreIdent};

use super::event::{Actor, Event, Purpose, Reply, Request, Slot, Timer};
use super::process::{Core, Process};
use super::txn::TxnHost;
use super::world::{Wait, World, ms};

/// The only cluster there is.
pub(crate) const CLUSTER: ClusterId = ClusterId(7);

/// The header of what is asked of the placement driver.
pub(crate) fn header() -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id: CLUSTER.0, ..Default::default() })
}

/// How far the start is.
pub(crate) enum Boot {
    /// It asks whether there is a cluster to join.
    Looking,
    /// It asks for a store id.
    Joining,
    /// The first region: what was decided last.
    First(Box<FirstRegion>, Action),
    /// It tells the cluster that it is there.
    Announcing,
    /// It runs.
    Ready,
}

impl Boot {
    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Looking => "looking".to_owned(),
            Self::Joining => "joining".to_owned(),
            Self::First(_, action) => format!("first region: {action:?}"),
            Self::Announcing => "announcing".to_owned(),
            Self::Ready => "ready".to_owned(),
        }
    }
}

impl World {
    /// The process of a node begins.
    pub(crate) fn start(&mut self, slot: Slot) {
        let now = self.now();
        let node = &mut self.nodes[slot];
        assert!(node.process.is_none(), "node {slot} runs already");
        if node.damaged {
            return;
        }
        node.life += 1;
        node.clock.restart(now);
        let ask = slot + 1;
        node.process = Some(Process { boot: Boot::Looking, ask, core: None });
        self.trace.line(now, Some(slot), None, "start", String::new);
        let ident = bootstrap::store_ident(&self.nodes[slot].machine.engine);
        match ident.expect("what the engine holds is sound") {
            Some(ident) => self.open(slot, ident.store_id),
            None if slot == 0 && !self.founded => self.found(slot),
            None => self.boot_again(slot, 0),
        }
    }

    fn boot_again(&mut self, slot: Slot, delay_ms: u64) {
        let life = self.nodes[slot].life;
        self.queue.after(ms(delay_ms), Event::Timer(slot, life, Timer::Boot));
    }

    fn found(&mut self, slot: Slot) {
        self.identify(slot, StoreId::FOUNDER);
    }

    /// The store gets its name, durably, and goes on.
    fn identify(&mut self, slot: Slot, store_id: StoreId) {
        if !self.effect(slot) {
            return;
        }
        let ident = StoreIdent { cluster_id: CLUSTER, store_id, api_version: 0 };
        let engine = self.nodes[slot].machine.engine.clone();
        bootstrap::bootstrap_store(&engine, &ident).expect("an empty engine takes a name");
        self.founded |= store_id == StoreId::FOUNDER;
        if self.effect(slot) {
            self.open(slot, store_id);
        }
    }

    /// Log and engine are opened and brought together, and the replicas run.
    fn open(&mut self, slot: Slot, store_id: StoreId) {
        let salt = self.prng.next_u64();
        let machine = self.nodes[slot].machine.clone();
        let mut log = match machine.open_log(salt) {
            Ok(log) => log,
            Err(LogError::Full { .. }) => return self.restart_later(slot),
            Err(LogError::Damaged(damage)) => {
                let known = self.faults.may_be_damaged(slot);
                assert!(known, "no damage without a fault: node {slot}: {damage}");
                return self.is_damaged(slot);
            }
            // A sync was told to fail.
            Err(LogError::Io { .. }) if self.faults.is_expected(slot) => {
                return self.crash(slot, true);
            }
            Err(error) => panic!("a log opens: node {slot}: {error}"),
        };
        if store_id == StoreId::FOUNDER && !self.make_system_region(slot, &mut log) {
            return;
        }
        let recovered = store::recover(&machine.engine, &log.reader(), store_id);
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => panic!("a store recovers: node {slot}: {error}"),
        };
        if !recovered.log_repairs.is_empty() {
            let repaired = log.write(&recovered.log_repairs).and_then(|()| log.sync());
            if repaired.is_err() {
                return self.crash(slot, true);
            }
        }
        if !self.effect(slot) {
            return;
        }
        let Ok(folder) = machine.open_folder(&recovered) else { return self.crash(slot, true) };
        let seed = self.prng.next_u64();
        #[allow(unused_mut, reason = "only a mutated build changes it")]
        let mut config = self.plan.shard_config(seed);
        #[cfg(feature = "mutations")]
        super::mutations::prepare(&self.plan, &mut config);
        self.checks.promises.recovered(store_id, &machine, &log.reader(), &recovered);
        self.checks.ends_are_there(store_id, &recovered, &log.reader());
        let memory = self.plan.txn.map_or(0, |txn| txn.memory_bytes);
        let host = TxnHost::recall(memory, &machine.engine);
        let machine = machine.with_garbage(host.garbage());
        self.nodes[slot].machine = machine.clone();
        let mut core = Core::new(&machine, store_id, log, folder, config, host);
        self.checks.recovered((slot, store_id), &machine, &recovered);
        core.inbox.extend(recovered.births.iter().cloned().map(ShardInput::Create));
        self.nodes[slot].store_id = Some(store_id);
        self.nodes[slot].process.as_mut().expect("it starts").core = Some(core);
        self.stores.insert(store_id, slot);
        self.wake(slot, Actor::Shard);
        self.go_on(slot, &recovered);
    }

    /// The founder makes the region of the placement driver. The log comes first.
    fn make_system_region(&mut self, slot: Slot, log: &mut storage::log::RaftLog) -> bool {
        let engine = self.nodes[slot].machine.engine.clone();
        if bootstrap::has_system_region(&engine).expect("readable") {
            return true;
        }
        let mut batch = LogBatch::new();
        bootstrap::initial_log(&mut batch, RegionId::SYSTEM);
        if log.write(&batch).and_then(|()| log.sync()).is_err() {
            self.crash(slot, true);
            return false;
        }
        if !self.effect(slot) {
            return false;
        }
        bootstrap::write_system_region(&engine).expect("the engine works");
        self.effect(slot)
    }

    /// The replicas run; what is left is between the node and the cluster.
    fn go_on(&mut self, slot: Slot, recovered: &Recovered) {
        let store_id = self.nodes[slot].store_id.expect("it has its name");
        let mut system = recovered.births.iter().filter(|birth| birth.region.id.is_system());
        let alone = system.any(|birth| birth.region.peers.len() == 1);
        let may_found = store_id == StoreId::FOUNDER && (alone || recovered.prepared.is_some());
        let life = self.nodes[slot].life;
        self.beat_after(slot, 50);
        self.queue.after(ms(1_000), Event::Timer(slot, life, Timer::DiskWatch));
        self.past_later(slot);
        self.gc_later(slot);
        if may_found {
            let decision = Box::new(FirstRegion::new(store_id));
            let event = BootEvent::Started { prepared: recovered.prepared.clone() };
            self.set_boot(slot, Boot::First(decision, Action::AskBootstrapped));
            self.decide(slot, event);
        } else {
            self.set_boot(slot, Boot::Announcing);
            self.boot_again(slot, 0);
        }
    }

    fn set_boot(&mut self, slot: Slot, boot: Boot) {
        if let Some(process) = &mut self.nodes[slot].process {
            process.boot = boot;
        }
    }

    /// The bootstrap of the first region goes on.
    pub(crate) fn decide(&mut self, slot: Slot, event: BootEvent) {
        let local = self.local(slot);
        let Some(process) = &mut self.nodes[slot].process else { return };
        let Boot::First(decision, last) = &mut process.boot else { return };
        let action = decision.next(local, event);
        last.clone_from(&action);
        let now = self.now();
        self.trace.line(now, Some(slot), None, "bootstrap", || format!("{action:?}"));
        if !self.effect(slot) {
            return;
        }
        let engine = self.nodes[slot].machine.engine.clone();
        match action {
            Action::Prepare(region) => {
                bootstrap::prepare_region(&engine, &region).expect("the engine works");
                let mut batch = LogBatch::new();
                bootstrap::initial_log(&mut batch, region.id);
                self.boot_log(slot, batch, None);
            }
            Action::Remove(region) => {
                let mut batch = LogBatch::new();
                batch.remove(region);
                self.boot_log(slot, batch, Some(region));
            }
            Action::Clear => {
                bootstrap::clear_prepared(&engine).expect("the engine works");
                if self.effect(slot) {
                    self.decide(slot, BootEvent::Written);
                }
            }
            Action::Finish(outcome) => {
                if let Outcome::Ours(region) = outcome {
                    self.tell(slot, ShardInput::Create(Birth::initial(region)));
                }
                self.set_boot(slot, Boot::Announcing);
                self.boot_again(slot, 0);
            }
            Action::WaitUntil(until) => {
                let (at, life) = (self.nodes[slot].clock.true_time(until), self.nodes[slot].life);
                self.queue.at(at, Event::Timer(slot, life, Timer::Boot));
            }
            _ => self.boot_call(slot),
        }
    }

    fn boot_log(&mut self, slot: Slot, batch: LogBatch, remove: Option<RegionId>) {
        if !self.effect(slot) {
            return;
        }
        let number = self.wait(slot, Wait::Boot(remove));
        let results = self.results.clone();
        let done = Box::new(move || {
            results.lock().expect("one thread").push((number, Ok(())));
        });
        self.tell(slot, ShardInput::Log(batch, done));
    }

    /// What the bootstrap wanted written in the log is durable.
    pub(crate) fn boot_written(&mut self, slot: Slot, remove: Option<RegionId>) {
        if !self.effect(slot) {
            return;
        }
        if let Some(region) = remove {
            let engine = self.nodes[slot].machine.engine.clone();
            bootstrap::remove_prepared(&engine, region).expect("the engine works");
        }
        self.decide(slot, BootEvent::Written);
    }

    /// Asks the placement driver for what the start needs next.
    fn boot_call(&mut self, slot: Slot) {
        let store = self.store_record(slot);
        let Some(process) = &self.nodes[slot].process else { return };
        let request = match &process.boot {
            Boot::Looking => Request::IsBootstrapped,
            Boot::Joining => Request::AllocId,
            Boot::First(_, Action::AskBootstrapped) => Request::IsBootstrapped,
            Boot::First(_, Action::AllocId) => Request::AllocId,
            Boot::First(_, Action::AskFirstRegion) => Request::GetRegion(bytes::Bytes::new()),
            Boot::First(_, Action::Bootstrap(region)) => {
                let region = Some(proto::region_to_proto(region));
                let (header, store) = (header(), Some(store));
                Request::Bootstrap(Box::new(pdpb::BootstrapRequest { header, store, region }))
            }
            Boot::First(_, other) => unreachable!("{other:?} is no call"),
            Boot::Announcing => {
                let (header, store) = (header(), Some(store));
                Request::PutStore(Box::new(pdpb::PutStoreRequest { header, store }))
            }
            Boot::Ready => return,
        };
        self.ask_placement(slot, request, Purpose::Boot);
    }

    /// The time has come to try again.
    pub(crate) fn boot_timer(&mut self, slot: Slot) {
        let Some(process) = &self.nodes[slot].process else { return };
        match &process.boot {
            Boot::First(_, Action::WaitUntil(_)) => self.decide(slot, BootEvent::TimeHasCome),
            _ => self.boot_call(slot),
        }
    }

    /// The placement driver answered what the start had asked, or (`None`) nobody did.
    pub(crate) fn boot_reply(&mut self, slot: Slot, reply: Option<Reply>) {
        let Some(process) = &mut self.nodes[slot].process else { return };
        match (&process.boot, reply) {
            (Boot::Looking, Some(Reply::Bootstrapped(true))) => {
                process.boot = Boot::Joining;
                self.boot_again(slot, 0);
            }
            (Boot::Joining, Some(Reply::Id(id))) => self.identify(slot, StoreId(id)),
            (Boot::Announcing, Some(Reply::Done)) => {
                process.boot = Boot::Ready;
                self.beat_soon(slot);
            }
            (Boot::First(..), Some(reply)) => {
                let event = match reply {
                    Reply::Bootstrapped(is) => BootEvent::Bootstrapped(is),
                    Reply::Id(id) => BootEvent::Id(id),
                    Reply::Done => BootEvent::Accepted,
                    Reply::AlreadyBootstrapped => BootEvent::AlreadyBootstrapped,
                    Reply::Region(Some((region, _))) => BootEvent::PlacementRegion(region),
                    other => BootEvent::CallFailed(format!("{other:?}")),
                };
                self.decide(slot, event);
            }
            (Boot::First(..), None) => {
                self.decide(slot, BootEvent::CallFailed("no answer".to_owned()));
            }
            (Boot::Ready, _) => {}
            _ => self.boot_again(slot, 200),
        }
    }

    fn store_record(&self, slot: Slot) -> metapb::Store {
        let address = format!("node-{slot}:20160");
        let label = metapb::StoreLabel {
            key: API_VERSION_LABEL.to_owned(),
            value: txn::ApiVersion::V1.name().to_owned(),
        };
        // A wiped node comes back under another address, as a new machine would.
        let id = self.nodes[slot].store_id.map_or(0, |id| id.0);
        let address = format!("{address}/{id}");
        metapb::Store {
            id,
            status_address: address.clone(),
            peer_address: address.clone(),
            address,
            version: "8.5.0".to_owned(),
            node_state: metapb::NodeState::Serving.into(),
            labels: vec![label],
            ..Default::default()
        }
    }
}

/// A region and its leader, as the placement driver answers.
pub(crate) fn known_region(answer: &pdpb::GetRegionResponse) -> Option<(Region, Option<Peer>)> {
    let region = proto::region_from_proto(answer.region.as_ref()?);
    Some((region, answer.leader.as_ref().map(proto::peer_from_proto)))
}
