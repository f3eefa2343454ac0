//! What a step does: one thing, picked by the seed.

use base::{Entry, EntryKind, PeerId};
use bytes::Bytes;
use raft::Storage;

use super::cluster::Cluster;
use super::host::Host;
use super::network::Fate;
use super::shape::Act;
use super::totals::Event;

impl Cluster {
    /// One thing happens; then everything that it touched is checked.
    pub(crate) fn step(&mut self) {
        match self.shape.next_act(&mut self.prng) {
            Act::Tick => self.tick(),
            Act::Deliver => self.deliver(),
            Act::Write => self.write(),
            Act::Acknowledge => self.acknowledge(),
            Act::Apply => self.apply_some(),
            Act::Propose => self.propose(),
            Act::Change => self.change(),
            Act::Read => self.read(),
            Act::Cut => self.cut(),
            Act::Mend => self.mend(),
            Act::Pause => self.pause(),
            Act::Crash => self.crash_some(),
            Act::PowerCut => self.power_cut(),
            Act::Start => (0..self.hosts.len()).for_each(|at| self.start(at)),
            Act::Campaign => self.campaign(),
            Act::Transfer => self.transfer(),
            Act::Compact => self.compact(),
            Act::Unreachable => self.report_unreachable(),
            Act::Snapshot => self.snapshot_step(),
            Act::Damage => self.damage(),
            Act::Forward => self.forward(),
            Act::Prioritise => self.prioritise(),
            Act::Quiesce => self.quiesce(),
            Act::Wake => self.wake(),
        }
    }

    pub(crate) fn tick(&mut self) {
        self.now += 1;
        let (some, paused) = (self.some_host(), self.paused);
        let who = if self.shape.lockstep { 0..self.hosts.len() } else { some..some + 1 };
        for at in who.filter(|at| paused != Some(*at)) {
            self.totals.count(Event::Tick, 1);
            self.say(at, format_args!("ticks"));
            self.with_node(at, |node| node.tick());
        }
    }

    /// A message arrives, is lost, or is put aside. If there is none time goes on.
    fn deliver(&mut self) {
        match self.network.next(&mut self.prng, &self.shape.weather, &mut self.totals) {
            None => self.tick(),
            Some(Fate::Arrives(message)) => self.arrive(message),
            Some(Fate::Lost(message)) => self.lose(message),
            Some(Fate::Later(snapshot)) => self.give_up(snapshot),
        }
    }

    /// A snapshot that is very late may be given up before it comes.
    fn give_up(&mut self, snapshot: Option<(PeerId, PeerId)>) {
        let Some((from, to)) = snapshot else { return };
        let sender = &mut self.hosts[from.0 as usize - 1];
        if sender.node.is_some() {
            sender.snapshots.over.push((to, false));
        }
    }

    /// The first writes of a host become durable.
    fn write(&mut self) {
        let Some(at) = self.some_host_with(|host| !host.writes.is_empty()) else {
            return self.deliver();
        };
        if self.shape.slow == Some(at) && !self.prng.one_in(12) {
            return self.deliver();
        }
        let count = 1 + self.prng.below(3) as usize;
        self.write_some(at, count);
        match self.prng.one_in(self.shape.weather.untold) {
            true => self.totals.count(Event::ToldLate, 1),
            false => self.tell_durable(at),
        }
    }

    fn acknowledge(&mut self) {
        if let Some(at) = self.some_host_with(|host| host.untold.is_some()) {
            self.tell_durable(at);
        }
        if let Some(at) = self.some_host_with(|host| host.untold_applied) {
            self.tell_applied(at);
        }
        if let Some(at) = self.some_host_with(|host| host.outdated_applied.is_some()) {
            let applied = self.hosts[at].outdated_applied.take().expect("just seen");
            self.say(at, format_args!("applied {applied} long ago"));
            self.with_node(at, |node| node.applied(applied));
        }
    }

    fn apply_some(&mut self) {
        let Some(at) = self.some_host_with(|host| !host.pages.is_empty()) else {
            return self.deliver();
        };
        let whole = !self.prng.one_in(4);
        let count = if whole { usize::MAX } else { 1 + self.prng.below(3) as usize };
        self.apply_page(at, count);
        if !self.prng.one_in(self.shape.weather.untold) {
            self.tell_applied(at);
        }
    }

    /// A leader takes a command; sometimes somebody else is asked, who must refuse.
    fn propose(&mut self) {
        let anyone = self.prng.one_in(16);
        let Some(at) = self.some_host_with(|host| host.node.is_some() && (anyone || host.leads()))
        else {
            return self.deliver();
        };
        let data = match self.prng.one_in(50) {
            true => Bytes::new(),
            false => self.next_command(),
        };
        let host = &mut self.hosts[at];
        let leads = host.leads();
        let node = host.node.as_mut().expect("it runs");
        if let Ok((term, index)) = node.propose(data.clone()) {
            assert!(leads, "proposals: n{} takes one and does not lead", at + 1);
            self.on_proposed(at, Entry { index, term, kind: EntryKind::Normal, data });
        }
        self.settle(at);
    }

    /// Any member passes a command on to the leader.
    fn forward(&mut self) {
        let Some(at) = self.some_host_with(|host| host.node.is_some()) else { return };
        let data = self.next_command();
        self.history.on_forwarded(&data);
        self.say(at, format_args!("passes on {}", self.proposals));
        self.with_node(at, |node| {
            // Without a leader it is lost.
            let _ = node.forward(data);
        });
    }

    fn read(&mut self) {
        let leader = self.prng.one_in(2);
        let Some(at) = self.some_host_with(|host| host.node.is_some() && (!leader || host.leads()))
        else {
            return;
        };
        let context = self.history.on_read();
        self.say(at, format_args!("asks for read {context}"));
        self.with_node(at, |node| {
            // Without a leader there is nobody to ask, and no answer.
            let _ = node.read_index(context);
        });
    }

    fn campaign(&mut self) {
        let at = self.some_host();
        self.say(at, format_args!("is told to campaign"));
        self.with_node(at, |node| {
            node.campaign();
        });
    }

    fn transfer(&mut self) {
        let at = self.some_host();
        let to = PeerId(1 + self.prng.below(self.hosts.len() as u64));
        self.say(at, format_args!("is told to hand over to n{to}"));
        let leads = self.hosts[at].leads();
        let mut taken = false;
        self.with_node(at, |node| taken = node.transfer_leader(to).is_ok());
        self.totals.count(Event::Transferred, u64::from(leads && taken));
    }

    /// Cuts some pairs, one way or both; or one host off.
    fn cut(&mut self) {
        let size = self.hosts.len() as u64;
        let alone = self.prng.one_in(3).then(|| 1 + self.prng.below(size));
        for i in 0..=self.prng.below(size) {
            let a = alone.unwrap_or_else(|| 1 + self.prng.below(size));
            let b = if alone.is_some() { 1 + i } else { 1 + self.prng.below(size) };
            self.network.cut(PeerId(a), PeerId(b));
            let both = self.prng.one_in(2);
            if both {
                self.network.cut(PeerId(b), PeerId(a));
            }
            self.totals.count(if both { Event::CutBothWays } else { Event::CutOneWay }, 1);
            let arrow = if both { "<-/->" } else { "-/->" };
            self.say(a as usize - 1, format_args!("{arrow} n{b} is cut"));
        }
    }

    fn mend(&mut self) {
        self.network.mend();
        self.paused = None;
    }

    /// A leader is cut off, and does not notice that time goes on.
    fn pause(&mut self) {
        let Some(at) = self.some_host_with(Host::leads) else { return };
        let id = PeerId(at as u64 + 1);
        for other in (1..=self.hosts.len() as u64).map(PeerId) {
            self.network.cut(id, other);
            self.network.cut(other, id);
        }
        self.paused = Some(at);
        self.totals.count(Event::Paused, 1);
        self.say(at, format_args!("is cut off, and its clock stands still"));
    }

    fn crash_some(&mut self) {
        let at = self.some_host();
        self.crash(at);
        if self.prng.one_in(2) {
            self.start(at);
        }
    }

    /// Drops from a log some of what its host has applied for good, whatever others lack.
    fn compact(&mut self) {
        let anyone = self.prng.one_in(2);
        let Some(at) = self.some_host_with(|host| anyone || host.leads()) else { return };
        let host = &mut self.hosts[at];
        // The node must know that it is applied.
        if host.untold_applied || host.untold.is_some() {
            return;
        }
        host.sync_machine();
        let first = host.disk.first_index().expect("in memory");
        if host.synced < first {
            return;
        }
        let keep = self.prng.below(host.synced - first + 1) * self.prng.below(2);
        let to = host.synced - keep;
        host.disk.compact(to);
        if host.node.is_some() {
            host.seen.log.compact(to);
        }
        self.say(at, format_args!("compacts to {to}"));
        self.totals.count(Event::Compacted, 1);
        let first = |host: &Host| host.disk.first_index().expect("in memory");
        let floor = self.hosts.iter().map(first).min().expect("there are hosts") - 1;
        self.history.drop_to(floor);
    }

    /// All but the leader lose power for a moment; then one of them is told to campaign.
    fn power_cut(&mut self) {
        let Some(leader) = self.some_host_with(Host::leads) else { return };
        self.totals.count(Event::PowerCut, 1);
        for at in (0..self.hosts.len()).filter(|at| *at != leader) {
            self.crash(at);
            self.start(at);
        }
        self.campaign();
    }

    fn prioritise(&mut self) {
        let at = self.some_host();
        let priority = self.prng.below(4) as i64 - 1;
        self.hosts[at].priority = priority;
        self.say(at, format_args!("gets priority {priority}"));
        self.totals.count(Event::Prioritised, 1);
        self.with_node(at, |node| node.set_priority(priority));
    }

    /// Puts the group to sleep, if it is idle.
    fn quiesce(&mut self) {
        let Some(at) = self.some_host_with(|host| host.leads() && !host.is_quiet()) else {
            return self.deliver();
        };
        let mut sleeps = false;
        self.with_node(at, |node| sleeps = node.quiesce());
        if sleeps {
            self.say(at, format_args!("goes to sleep"));
            self.totals.count(Event::Quiesced, 1);
        }
    }

    fn wake(&mut self) {
        let Some(at) = self.some_host_with(Host::is_quiet) else { return };
        self.say(at, format_args!("is woken"));
        self.totals.count(Event::Woken, 1);
        self.with_node(at, |node| node.wake());
    }

    fn report_unreachable(&mut self) {
        let Some(at) = self.some_host_with(|host| host.leads()) else { return };
        let peer = PeerId(1 + self.prng.below(self.hosts.len() as u64));
        self.say(at, format_args!("hears that n{peer} is unreachable"));
        self.totals.count(Event::Unreachable, 1);
        self.with_node(at, |node| node.report_unreachable(peer));
    }
}
