//! The replica checker and its operators, on groups that do at once what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use base::{Peer, PeerChange, PeerId, PeerRole, Prng, RegionId, StoreId};
use pontoon_placement::{Order, Settings, Step, header as headers};
use prost::Message;
use proto::pdpb::ErrorType;
use proto::{metapb, pdpb};

use crate::host::{CLUSTER, Host, header, heartbeat, kind, peer, region, store};

const SYSTEM: u64 = u64::MAX;
const DOWN: Duration = Duration::from_secs(30 * 60);

/// A region's group: what its leader would report.
pub(crate) struct Group {
    pub(crate) meta: metapb::Region,
    pub(crate) leader: metapb::Peer,
    /// Peers that have not caught up.
    pub(crate) pending: BTreeSet<u64>,
}

/// Groups on stores that report, and do what they are told, once a second.
pub(crate) struct Fake {
    pub(crate) host: Host,
    pub(crate) groups: BTreeMap<u64, Group>,
    silent: BTreeSet<u64>,
    stores: Vec<u64>,
    trace: String,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let host = Host::bootstrapped();
        let mut system = metapb::Region { id: SYSTEM, ..region(2, "", "", 1) };
        system.peers = vec![peer(SYSTEM, 1)];
        let mut fake = Self {
            host,
            groups: BTreeMap::new(),
            silent: BTreeSet::new(),
            stores: vec![1],
            trace: String::new(),
        };
        fake.group(region(2, "", "", 1));
        fake.group(system);
        fake
    }

    fn group(&mut self, meta: metapb::Region) {
        let group = Group::led(meta);
        self.groups.insert(group.meta.id, group);
    }

    pub(crate) fn join(&mut self, id: u64) {
        self.host.put_store(store(id)).unwrap();
        self.stores.push(id);
    }

    fn report_store(&mut self, store_id: u64, available: u64) {
        let stats = pdpb::StoreStats { store_id, capacity: 100, available, ..Default::default() };
        let (header, stats) = (header(), Some(stats));
        let request = pdpb::StoreHeartbeatRequest { header, stats, ..Default::default() };
        let (now, wall_ms) = (self.host.now, self.host.wall_ms);
        self.host.placement.store_heartbeat(&request, now, wall_ms).unwrap();
    }

    fn report(&mut self) {
        for id in self.stores.clone() {
            if !self.silent.contains(&id) {
                self.report_store(id, 40);
            }
        }
        for group in self.groups.values().filter(|g| !self.silent.contains(&g.leader.store_id)) {
            let pending = |peer: &&metapb::Peer| group.pending.contains(&peer.id);
            let request = pdpb::RegionHeartbeatRequest {
                leader: Some(group.leader),
                pending_peers: group.meta.peers.iter().filter(pending).copied().collect(),
                ..heartbeat(group.meta.clone())
            };
            self.host.placement.region_heartbeat(&request).unwrap();
        }
    }

    /// Looks at the regions, and returns the orders to give.
    fn look(&mut self) -> Vec<Order> {
        let now = self.host.now;
        let regions = self.host.placement.regions_to_check(now);
        let planned = self.host.write(|placement| placement.plan_orders(&regions, now)).unwrap();
        let orders = self.host.placement.start_orders(planned, now);
        let unique: BTreeSet<_> = orders.iter().map(|order| order.region_id).collect();
        assert_eq!(unique.len(), orders.len(), "two orders for one region: {orders:?}");
        orders
    }

    /// A second passes; what was ordered is done, new peers catch up within it.
    pub(crate) fn round(&mut self) -> usize {
        self.host.pass(Duration::from_secs(1));
        self.report();
        let orders = self.look();
        for order in &orders {
            self.obey(order);
        }
        orders.len()
    }

    fn obey(&mut self, order: &Order) {
        let group = self.groups.get_mut(&order.region_id.0).unwrap();
        let before = members(group);
        let epoch = group.meta.region_epoch.as_mut().unwrap();
        assert_eq!((order.epoch.conf_ver, order.epoch.version), (epoch.conf_ver, epoch.version));
        assert_eq!(order.leader.id.0, group.leader.id, "an order for somebody else");
        match &order.step {
            Step::Split(keys) => {
                let splits = epoch.version;
                epoch.version += 1;
                let [key] = &keys[..] else { panic!("{keys:?}") };
                let mut left = group.meta.clone();
                (left.id, left.end_key) = (1_000 * splits + left.id, key.clone());
                group.meta.start_key.clone_from(key);
                let before = self.groups.insert(left.id, Group::led(left));
                assert!(before.is_none(), "two regions of one name");
                return;
            }
            Step::Merge(target) => {
                let target = target.id.0;
                let source = self.groups.remove(&order.region_id.0).unwrap().meta;
                let group = self.groups.get_mut(&target).unwrap();
                match group.meta.end_key == source.start_key {
                    true => group.meta.end_key.clone_from(&source.end_key),
                    false => group.meta.start_key.clone_from(&source.start_key),
                }
                let version = epoch_of(&source).max(epoch_of(&group.meta)) + 1;
                group.meta.region_epoch.as_mut().unwrap().version = version;
                return;
            }
            Step::TransferLeader(to) => {
                group.leader = *group.meta.peers.iter().find(|p| p.id == to.id.0).unwrap();
                assert!(group.leader.role() == metapb::PeerRole::Voter);
            }
            Step::ChangePeers(changes) => {
                epoch.conf_ver += changes.len().max(1) as u64;
                change(group, changes);
            }
        }
        let id =
            if order.region_id.is_system() { "system".into() } else { order.region_id.to_string() };
        writeln!(self.trace, "{id} {}: {before} -> {}", order.name(), members(group)).unwrap();
        self.check_quorum(order.region_id.0);
    }

    /// No order may take the quorum of a group that has one.
    fn check_quorum(&self, id: u64) {
        let group = &self.groups[&id];
        let voters: Vec<_> =
            group.meta.peers.iter().filter(|p| p.role() == metapb::PeerRole::Voter).collect();
        let alive = voters.iter().filter(|p| !self.silent.contains(&p.store_id)).count();
        assert!(alive > voters.len() / 2, "{} lost its quorum", members(group));
    }

    /// Until nothing happens for a while.
    pub(crate) fn settle(&mut self) -> String {
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 3 {
            quiet = if self.round() == 0 { quiet + 1 } else { 0 };
            for group in self.groups.values_mut() {
                group.pending.clear();
            }
            rounds += 1;
            assert!(rounds < 10_000, "it never settles: {}", self.trace);
        }
        std::mem::take(&mut self.trace)
    }

    /// Somebody takes the store out of the cluster; nothing here does that yet.
    fn leave(&mut self, id: u64) {
        let mut meta = self.host.store(id).unwrap();
        meta.set_state(metapb::StoreState::Offline);
        let key = [&b"store/"[..], &id.to_be_bytes()].concat();
        self.host.rows.insert(key.into(), meta.encode_to_vec().into()).unwrap();
        self.host.restart();
    }
}

impl Group {
    fn led(meta: metapb::Region) -> Self {
        let leader = meta.peers[0];
        Self { meta, leader, pending: BTreeSet::new() }
    }
}

fn epoch_of(region: &metapb::Region) -> u64 {
    region.region_epoch.unwrap().version
}

fn change(group: &mut Group, changes: &[PeerChange]) {
    let role = |peer: &mut metapb::Peer| {
        peer.role = match peer.role() {
            metapb::PeerRole::IncomingVoter => metapb::PeerRole::Voter.into(),
            metapb::PeerRole::DemotingVoter => metapb::PeerRole::Learner.into(),
            other => other.into(),
        }
    };
    if changes.is_empty() {
        group.meta.peers.iter_mut().for_each(role);
    }
    for change in changes {
        let peers = &mut group.meta.peers;
        match change {
            PeerChange::AddLearner(old) if peers.iter().any(|p| p.id == old.id.0) => {
                let known = peers.iter_mut().find(|p| p.id == old.id.0).unwrap();
                known.set_role(metapb::PeerRole::Learner);
            }
            PeerChange::AddLearner(new) => {
                assert!(peers.iter().all(|p| p.store_id != new.store_id.0 && p.id != new.id.0));
                let mut learner = peer(new.id.0, new.store_id.0);
                learner.set_role(metapb::PeerRole::Learner);
                peers.push(learner);
                group.pending.insert(new.id.0);
            }
            PeerChange::AddVoter(peer) => {
                let known = peers.iter_mut().find(|p| p.id == peer.id.0).expect("learner first");
                assert!(!group.pending.contains(&peer.id.0), "it has not caught up");
                known.set_role(metapb::PeerRole::Voter);
            }
            PeerChange::Remove(id) => {
                assert_ne!(group.leader.id, id.0, "the leader is removed");
                peers.retain(|p| p.id != id.0);
            }
        }
    }
}

/// `1v 4l`: a voter on store 1, which leads, and a learner on store 4. The first leads.
pub(crate) fn members(group: &Group) -> String {
    let mut peers = group.meta.peers.clone();
    peers.sort_by_key(|peer| (peer.id != group.leader.id, peer.store_id));
    let name = |peer: &metapb::Peer| {
        let role = match peer.role() {
            metapb::PeerRole::Voter => "v",
            metapb::PeerRole::Learner => "l",
            metapb::PeerRole::IncomingVoter => "i",
            metapb::PeerRole::DemotingVoter => "d",
        };
        format!("{}{role}", peer.store_id)
    };
    peers.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn regions_grow_with_their_cluster() {
    let mut fake = Fake::new();
    assert_eq!(fake.settle(), "");
    fake.join(4);
    let second = "\
        2 add-learner: 1v -> 1v 4l\n\
        system add-learner: 1v -> 1v 4l\n";
    assert_eq!(fake.settle(), second, "a second voter would only be one more that can fail");
    fake.join(5);
    let third = "\
        2 add-learner: 1v 4l -> 1v 4l 5l\n\
        system add-learner: 1v 4l -> 1v 4l 5l\n\
        2 promote-learner: 1v 4l 5l -> 1v 4v 5l\n\
        system promote-learner: 1v 4l 5l -> 1v 4v 5l\n\
        2 promote-learner: 1v 4v 5l -> 1v 4v 5v\n\
        system promote-learner: 1v 4v 5l -> 1v 4v 5v\n";
    assert_eq!(fake.settle(), third);
    fake.join(6);
    assert_eq!(fake.settle(), "", "three copies are enough");
}

#[test]
fn two_stores_at_once_are_waited_for() {
    let mut fake = Fake::new();
    fake.join(4);
    fake.join(5);
    fake.round();
    fake.round();
    assert!(fake.trace.ends_with("system add-learner: 1v 5l -> 1v 4l 5l\n"), "{}", fake.trace);
    // Neither has caught up: nothing more happens, however long it takes.
    fake.trace.clear();
    (0..100).for_each(|_| assert_eq!(fake.round(), 0));
    // One has, which alone is of no use.
    let learner = fake.groups[&2].meta.peers[1].id;
    fake.groups.get_mut(&2).unwrap().pending.remove(&learner);
    (0..100).for_each(|_| assert_eq!(fake.round(), 0));
    assert_eq!(fake.trace, "");
    assert!(fake.settle().contains("2 promote-learner: 1v 4v 5l -> 1v 4v 5v"));
}

#[test]
fn what_lies_on_a_lost_store_is_replaced_when_there_is_another() {
    let mut fake = Fake::new();
    fake.join(4);
    fake.join(5);
    fake.settle();
    fake.silent.insert(5);
    fake.host.pass(DOWN + Duration::from_secs(60));
    assert_eq!(fake.settle(), "", "no voter goes without replacement");
    fake.join(6);
    let replaced = "\
        2 add-learner: 1v 4v 5v -> 1v 4v 5v 6l\n\
        system add-learner: 1v 4v 5v -> 1v 4v 5v 6l\n\
        2 promote-learner: 1v 4v 5v 6l -> 1v 4v 5v 6v\n\
        system promote-learner: 1v 4v 5v 6l -> 1v 4v 5v 6v\n\
        2 remove-peer: 1v 4v 5v 6v -> 1v 4v 6v\n\
        system remove-peer: 1v 4v 5v 6v -> 1v 4v 6v\n";
    assert_eq!(fake.settle(), replaced);
}

#[test]
fn a_silent_store_keeps_its_copies_for_a_while_and_gets_no_new_ones() {
    let mut fake = Fake::new();
    for id in [4, 5, 6] {
        fake.join(id);
    }
    fake.settle();
    fake.silent.insert(5);
    fake.host.pass(DOWN - Duration::from_secs(60));
    assert_eq!(fake.settle(), "");
    fake.silent.remove(&5);
    assert_eq!(fake.settle(), "");
    fake.host.placement.configure(Settings { max_store_down: Duration::from_secs(90) });
    fake.silent.insert(5);
    fake.host.pass(Duration::from_secs(60));
    assert_eq!(fake.settle(), "");
    fake.host.pass(Duration::from_secs(30));
    assert!(fake.settle().contains("2 remove-peer: 1v 4v 5v 6v -> 1v 4v 6v\n"));
    // It comes back when it is no longer needed.
    fake.silent.remove(&5);
    assert_eq!(fake.settle(), "");
}

#[test]
fn a_new_leader_of_placement_goes_on_where_the_old_one_stopped() {
    let mut fake = Fake::new();
    fake.join(4);
    fake.join(5);
    for _ in 0..8 {
        fake.host.restart();
        fake.round();
        fake.groups.values_mut().for_each(|group| group.pending.clear());
    }
    assert!(fake.groups.values().all(|group| members(group) == "1v 4v 5v"), "{}", fake.trace);
}

#[test]
fn nobody_gets_copies_before_it_reports_or_without_space() {
    let mut fake = Fake::new();
    fake.join(4);
    fake.stores.pop();
    assert_eq!(fake.settle(), "", "it has never reported");
    for (available, orders) in [(4, 0), (5, 2)] {
        fake.host.pass(Duration::from_secs(1));
        fake.report();
        fake.report_store(4, available);
        assert_eq!(fake.look().len(), orders);
    }
}

#[test]
fn a_leaving_store_hands_over_first() {
    let mut fake = Fake::new();
    for id in [4, 5] {
        fake.join(id);
    }
    fake.settle();
    fake.join(6);
    fake.leave(1);
    let replaced = "\
        2 add-learner: 1v 4v 5v -> 1v 4v 5v 6l\n\
        system add-learner: 1v 4v 5v -> 1v 4v 5v 6l\n\
        2 promote-learner: 1v 4v 5v 6l -> 1v 4v 5v 6v\n\
        system promote-learner: 1v 4v 5v 6l -> 1v 4v 5v 6v\n\
        2 transfer-leader: 1v 4v 5v 6v -> 4v 1v 5v 6v\n\
        system transfer-leader: 1v 4v 5v 6v -> 5v 1v 4v 6v\n\
        2 remove-peer: 4v 1v 5v 6v -> 4v 5v 6v\n\
        system remove-peer: 5v 1v 4v 6v -> 5v 4v 6v\n";
    assert_eq!(fake.settle(), replaced);
}

#[test]
fn too_many_copies_and_joint_states_are_cleared_up() {
    let mut fake = Fake::new();
    for id in [4, 5, 6] {
        fake.join(id);
    }
    fake.settle();
    let group = fake.groups.get_mut(&2).unwrap();
    let free = [4, 5, 6].into_iter().find(|id| group.meta.peers.iter().all(|p| p.store_id != *id));
    let mut extra = peer(900, free.unwrap());
    extra.set_role(metapb::PeerRole::IncomingVoter);
    group.meta.peers.push(extra);
    group.meta.region_epoch.as_mut().unwrap().conf_ver += 1;
    let cleared = "\
        2 leave-joint-state: 1v 4v 5v 6i -> 1v 4v 5v 6v\n\
        2 remove-peer: 1v 4v 5v 6v -> 1v 4v 5v\n";
    assert_eq!(fake.settle(), cleared);
    let group = fake.groups.get_mut(&2).unwrap();
    let mut extra = peer(901, 6);
    extra.set_role(metapb::PeerRole::Learner);
    group.meta.peers.push(extra);
    group.meta.region_epoch.as_mut().unwrap().conf_ver += 1;
    assert_eq!(fake.settle(), "2 remove-peer: 1v 4v 5v 6l -> 1v 4v 5v\n");
}

/// It leads until it notices. (Found by the simulator: `./x sim --seed 28`.)
#[test]
fn a_leader_that_was_demoted_is_not_removed() {
    let mut fake = Fake::new();
    for id in [4, 5, 6] {
        fake.join(id);
    }
    fake.settle();
    let group = fake.groups.get_mut(&2).unwrap();
    let free = [4, 5, 6].into_iter().find(|id| group.meta.peers.iter().all(|p| p.store_id != *id));
    group.meta.peers.push(peer(900, free.unwrap()));
    let leader = group.leader.id;
    let leads = group.meta.peers.iter_mut().find(|peer| peer.id == leader).unwrap();
    leads.set_role(metapb::PeerRole::Learner);
    group.leader = *leads;
    group.meta.region_epoch.as_mut().unwrap().conf_ver += 2;
    fake.host.pass(Duration::from_secs(1));
    fake.report();
    assert_eq!(fake.look(), [], "it is left alone");
    let group = fake.groups.get_mut(&2).unwrap();
    group.leader = *group.meta.peers.last().unwrap();
    assert!(fake.settle().contains("2 remove-peer"), "and goes when another one leads");
}

#[test]
fn an_order_is_given_again_and_given_up_and_void_when_the_region_changed() {
    let mut fake = Fake::new();
    fake.groups.remove(&SYSTEM);
    fake.join(4);
    fake.host.pass(Duration::from_secs(1));
    fake.report();
    let first = fake.look();
    assert_eq!(first.len(), 1);
    assert_eq!(fake.host.placement.orders().collect::<Vec<_>>(), [&first[0]]);
    let request = pdpb::GetOperatorRequest { header: header(), region_id: 2 };
    let operator = fake.host.placement.get_operator(&request).unwrap();
    assert_eq!((&operator.desc[..], operator.region_id), (&b"add-learner"[..], 2));
    let mut given = Vec::new();
    for _ in 0..29 {
        fake.host.pass(Duration::from_secs(1));
        fake.report();
        given.extend(fake.look());
    }
    assert_eq!(given, vec![first[0].clone(); 14], "the same, every two seconds");
    fake.host.pass(Duration::from_secs(1));
    fake.report();
    let second = fake.look();
    assert_ne!(second[0].step, first[0].step, "given up: the next has a peer of its own");
    // The region is split; its leader reports, and the order has gone with the old epoch.
    fake.groups.get_mut(&2).unwrap().meta.region_epoch.as_mut().unwrap().version += 1;
    fake.report();
    assert_eq!(fake.host.placement.orders().count(), 0);
    let error = fake.host.placement.get_operator(&request).unwrap_err();
    assert_eq!(kind(&error), ErrorType::RegionNotFound);
    let third = fake.look();
    assert_eq!(third[0].epoch.version, second[0].epoch.version + 1);
}

#[test]
fn a_plan_that_was_overtaken_gives_no_order() {
    let mut fake = Fake::new();
    fake.join(4);
    fake.report();
    let now = fake.host.now;
    let regions = fake.host.placement.regions_to_check(now);
    let change = fake.host.placement.plan_orders(&regions, now).unwrap();
    assert_eq!(change.reply.len(), 2);
    fake.groups.get_mut(&2).unwrap().meta.region_epoch.as_mut().unwrap().version += 1;
    fake.report();
    let orders = fake.host.placement.start_orders(change.reply, now);
    assert_eq!(orders.iter().map(|order| order.region_id).collect::<Vec<_>>(), [RegionId::SYSTEM]);
}

/// Regions `0..count`, each with one peer on store 1.
fn with_many_regions(count: u64) -> Fake {
    let mut fake = Fake::new();
    fake.host.alloc(u32::try_from(3 * count).unwrap());
    fake.groups.remove(&2);
    for at in 0..count {
        let start = if at == 0 { String::new() } else { format!("{at:04}") };
        let end = if at + 1 == count { String::new() } else { format!("{:04}", at + 1) };
        fake.group(region(10 + 2 * at, &start, &end, 2));
    }
    fake
}

#[test]
fn a_store_catches_up_with_few_copies_at_once() {
    let mut fake = with_many_regions(100);
    fake.join(600);
    for _ in 0..5 {
        fake.round();
        let pending: usize = fake.groups.values().map(|group| group.pending.len()).sum();
        assert!(pending <= 9, "8 regions and the system region, not {pending}");
        assert!(pending >= 8);
    }
    fake.settle();
    assert!(fake.groups.values().all(|group| members(group) == "1v 600l"));
    fake.join(601);
    fake.settle();
    assert!(fake.groups.values().all(|group| members(group) == "1v 600v 601v"));
}

#[test]
fn copies_are_spread_evenly() {
    let mut fake = with_many_regions(60);
    for id in [600, 601, 602, 603] {
        fake.join(id);
    }
    fake.settle();
    let loads = fake.host.placement.regions().store_loads();
    for id in [600, 601, 602, 603] {
        let regions = loads[&StoreId(id)].regions;
        assert!((28..=32).contains(&regions), "{regions} of 120 copies on store {id}");
    }
}

#[test]
fn whatever_stores_do_regions_end_up_with_three_copies_on_live_ones() {
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let mut fake = with_many_regions(1 + prng.below(12));
        let mut next = 700;
        for _ in 0..40 {
            match prng.below(10) {
                0..3 => {
                    fake.join(next);
                    next += 1;
                }
                3 => {
                    fake.host.restart();
                }
                4 => fake.silent.clear(),
                5 if fake.silent.is_empty() => {
                    // Any one store may fail once everything has three copies.
                    fake.settle();
                    let store = fake.stores[prng.below(fake.stores.len() as u64) as usize];
                    fail(&mut fake, store);
                }
                6 => fake.host.pass(DOWN),
                _ => {
                    (0..prng.below(9)).for_each(|_| assert!(fake.round() <= 64 * 2));
                    let caught_up = prng.one_in(2);
                    for group in fake.groups.values_mut().filter(|_| caught_up) {
                        group.pending.clear();
                    }
                }
            }
        }
        fake.silent.clear();
        (0..3).for_each(|at| fake.join(next + at));
        fake.settle();
        for group in fake.groups.values() {
            let voters = members(group);
            assert_eq!(voters.matches('v').count(), 3, "seed {seed}: {voters}");
            assert_eq!(group.meta.peers.len(), 3, "seed {seed}: {voters}");
        }
    }
}

/// The store falls silent, if every group can do without it; another voter leads where it did.
fn fail(fake: &mut Fake, store: u64) {
    let voters = |group: &Group| members(group).matches('v').count();
    let needs = |group: &Group| group.meta.peers.iter().any(|p| p.store_id == store);
    if fake.groups.values().any(|group| needs(group) && voters(group) < 3) {
        return;
    }
    fake.silent.insert(store);
    for group in fake.groups.values_mut().filter(|group| group.leader.store_id == store) {
        let heir =
            |peer: &&metapb::Peer| peer.store_id != store && peer.role() == metapb::PeerRole::Voter;
        group.leader = *group.meta.peers.iter().find(heir).unwrap();
    }
}

#[test]
fn orders_travel() {
    let peer = |id, role| Peer { id: PeerId(id), store_id: StoreId(4), role };
    let steps = [
        Step::ChangePeers(vec![]),
        Step::ChangePeers(vec![PeerChange::AddLearner(peer(9, PeerRole::Learner))]),
        Step::ChangePeers(vec![
            PeerChange::AddVoter(peer(9, PeerRole::Voter)),
            PeerChange::Remove(PeerId(3)),
        ]),
        Step::TransferLeader(peer(9, PeerRole::Voter)),
        Step::Split(vec!["m".into()]),
        Step::Split(vec![]),
        Step::Merge(base::Region {
            id: RegionId(9),
            range: base::KeyRange::new("a", "m"),
            epoch: base::Epoch { conf_ver: 1, version: 2 },
            peers: vec![peer(9, PeerRole::Voter)],
            flashback: None,
        }),
    ];
    for step in steps {
        let epoch = base::Epoch { conf_ver: 3, version: 7 };
        let leader = peer(SYSTEM, PeerRole::Voter);
        let order = Order { region_id: RegionId(8), epoch, leader, step };
        let wire = order.to_wire(headers::success(CLUSTER));
        assert_eq!(Order::from_wire(&wire), Some(order.clone()), "{order:?}");
        let decoded = pdpb::RegionHeartbeatResponse::decode(&wire.encode_to_vec()[..]).unwrap();
        assert_eq!(decoded, wire);
    }
    let other = pdpb::RegionHeartbeatResponse {
        region_epoch: Some(metapb::RegionEpoch::default()),
        target_peer: Some(metapb::Peer::default()),
        switch_witnesses: Some(pdpb::BatchSwitchWitness::default()),
        ..Default::default()
    };
    assert_eq!(Order::from_wire(&other), None, "a kind that nobody here gives");
    assert_eq!(Order::from_wire(&pdpb::RegionHeartbeatResponse::default()), None);
}
