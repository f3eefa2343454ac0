//! What must hold after every step, whatever happened: looked at where it may have changed.

use base::{Entry, Index, PeerId, Term};
use raft::{
    AppendOutcome, Body, LogPos, MemoryStorage, Message, Persist, Ready, Storage, StorageError,
};

use super::cluster::Cluster;
use super::totals::Event;

impl Cluster {
    /// After a node did something: what its own state shows.
    pub(crate) fn check_node(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let node = host.node.as_ref().expect("only a node that runs does something");
        let (term, committed, last) = (node.term(), node.committed(), node.last_index());
        let (leads, round) = (node.is_leader(), node.round());
        let seen = &mut host.seen;
        assert!(node.applied_index() <= committed && committed <= last, "marks: out of order");
        assert!(node.applied_index() <= host.machine.applied, "marks: applied before it was");
        assert!(term >= seen.term, "terms: back from {} to {term}", seen.term);
        assert!(committed >= seen.committed, "commit: back from {} to {committed}", seen.committed);
        seen.term = term;
        let known = std::mem::replace(&mut seen.committed, committed);
        let was_led = std::mem::replace(&mut seen.led, if leads { term } else { 0 });
        if leads && was_led == term {
            assert!(last >= seen.last, "leader append-only: back from {} to {last}", seen.last);
        }
        seen.last = last;
        if committed > known {
            self.check_commit(at, known + 1, committed);
        }
        if leads && was_led != term {
            self.check_elected(at);
        }
        if self.shape.lockstep {
            let timeout = u64::from(self.shape.config.election_ticks);
            self.hosts[at].seen.note_round(round, self.now, self.now.saturating_sub(timeout));
            self.check_lease(at);
        }
    }

    /// Committed entries never change, and a new one is durable on a quorum.
    fn check_commit(&mut self, at: usize, from: Index, to: Index) {
        let host = &self.hosts[at];
        let node = host.node.as_ref().expect("it runs");
        let news = self.history.committed() + 1;
        for index in from..=to {
            let Some(term) = node.term_at(index) else {
                // Behind a snapshot.
                assert!(index < news && index < to, "commit: n{} lacks {index}", at + 1);
                continue;
            };
            if index < news {
                let known = self.history.committed_at(index);
                assert!(known.is_none_or(|known| known.term == term), "commit: {index} changed");
            } else {
                self.history.on_committed(LogPos { index, term }, node.term());
            }
        }
        if to >= news {
            let pos = LogPos { index: to, term: node.term_at(to).expect("just seen") };
            let conf = host.conf();
            let enough = self.is_on_quorum(&conf.voters, pos)
                && (!conf.is_joint() || self.is_on_quorum(conf.voters_outgoing(), pos));
            assert!(enough, "commit: {pos} is committed, and not durable on a quorum");
            assert!(node.is_leader(), "commit: n{} commits {pos} and does not lead", at + 1);
            assert_eq!(pos.term, node.term(), "commit: {pos} counted in another term");
            self.totals.count(Event::Committed, to + 1 - news);
        }
    }

    /// Whether an entry is durable on most hosts of `voters`.
    fn is_on_quorum(&self, voters: &[PeerId], pos: LogPos) -> bool {
        let holds = |id: &&PeerId| holds(&self.hosts[id.0 as usize - 1].disk, pos);
        voters.iter().filter(holds).count() * 2 > voters.len()
    }

    /// Election safety, leader completeness, and that it was elected in no lease of another.
    fn check_elected(&mut self, at: usize) {
        self.hosts[at].seen.appends = false;
        self.hosts[at].seen.change_taken = 0;
        let host = &self.hosts[at];
        let node = host.node.as_ref().expect("it leads");
        let (term, id) = (node.term(), node.id());
        if self.history.on_leader(term, id) {
            self.totals.count(Event::Elected, 1);
        }
        if let Some(needed) = self.history.leader_needs(term) {
            let own = node.term_at(needed.index);
            assert_eq!(own, Some(needed.term), "leader completeness: {id} lacks {needed}");
        }
        // It goes by the members as of what it knows to be committed.
        let unapplied = host.seen.log.change_above(node.applied_index());
        assert!(
            unapplied.is_none_or(|index| index > node.committed()),
            "members: {id} leads, and has not applied {unapplied:?}"
        );
        let state = host.disk.hard_state();
        let alone = host.conf().members() == [id];
        assert!(
            alone || (state.term, state.vote) == (term, id),
            "votes: {id} leads term {term} with {state:?} on its disk"
        );
        let conf = host.conf();
        let elected = self.has_votes(&conf.voters, term, id)
            && (!conf.is_joint() || self.has_votes(conf.voters_outgoing(), term, id));
        assert!(alone || elected, "votes: {id} leads term {term} without a durable quorum");
        self.say(at, format_args!("leads term {term}"));
        for (other, host) in self.hosts.iter().enumerate() {
            let led = host.seen.led;
            assert!(
                led == 0 || led >= term || host.seen.lease_until <= self.now,
                "leases: n{} holds one in term {led} as {id} is elected in {term}",
                other + 1
            );
        }
    }

    /// Whether most of `voters` voted for `id`, as far as their disks tell: those of later terms
    /// may have.
    fn has_votes(&self, voters: &[PeerId], term: Term, id: PeerId) -> bool {
        let voted = |voter: &&PeerId| {
            let state = self.hosts[voter.0 as usize - 1].disk.hard_state();
            state.term > term || (state.term, state.vote) == (term, id)
        };
        voters.iter().filter(voted).count() * 2 > voters.len()
    }

    /// As long as a confirmed round is younger than an election timeout nobody else leads a later
    /// term, and nobody has committed what the holder does not know.
    fn check_lease(&mut self, at: usize) {
        let seen = &self.hosts[at].seen;
        if seen.led == 0 {
            self.hosts[at].seen.lease_until = 0;
            return;
        }
        let node = self.hosts[at].node.as_ref().expect("it leads");
        let timeout = u64::from(self.shape.config.election_ticks);
        let until = seen.round_began(node.confirmed_round()).map_or(0, |began| began + timeout);
        if until > self.now {
            let own = node.term_at(node.committed()) == Some(seen.led);
            let newest = self.history.committed();
            assert!(
                !own || node.committed() == newest,
                "leases: n{} would read at {} of {newest}",
                at + 1,
                node.committed()
            );
        }
        if until > self.now && until != seen.lease_until {
            self.totals.count(Event::Lease, 1);
            let later = self.hosts.iter().find(|host| host.seen.led > seen.led);
            assert!(
                later.is_none(),
                "leases: n{} has one in term {}, {:?} leads",
                at + 1,
                seen.led,
                later.map(|host| host.seen.led)
            );
        }
        self.hosts[at].seen.lease_until = until;
    }

    /// A write is handed out: it appends or replaces, but never what is committed, and never at a
    /// leader.
    pub(crate) fn check_write(&mut self, at: usize, persist: &Persist) {
        let seen = &mut self.hosts[at].seen;
        assert!(seen.ticket < Some(persist.ticket), "writes: tickets go back");
        seen.ticket = Some(persist.ticket);
        if let Some(state) = persist.hard_state {
            let old = std::mem::replace(&mut seen.hard_state, state);
            let same_vote = old.vote == PeerId::NONE || old.vote == state.vote;
            assert!(
                state.term > old.term || (state.term == old.term && same_vote),
                "votes: {old:?} becomes {state:?}"
            );
            assert!(state.commit >= old.commit, "commit: {old:?} becomes {state:?}");
        }
        if let Some(snapshot) = &persist.snapshot {
            self.check_snapshot(at, snapshot);
        }
        if let Some(first) = persist.entries.first() {
            self.check_replaced(at, first);
            let log = &mut self.hosts[at].seen.log;
            for entry in &persist.entries {
                assert_eq!(entry.index, log.last() + 1, "writes: a gap");
                let prev = log.term(entry.index - 1).expect("the end of the log");
                assert!(entry.term >= prev, "writes: terms in a log only grow");
                self.history.on_written(entry, prev);
                log.push(entry);
            }
        }
        let seen = &mut self.hosts[at].seen;
        seen.appends = seen.led != 0;
        seen.taken_in = None;
    }

    /// Everything from `first` on is about to be replaced.
    fn check_replaced(&mut self, at: usize, first: &Entry) {
        let host = &mut self.hosts[at];
        let log = &mut host.seen.log;
        assert!(first.index <= log.last() + 1, "writes: a gap before {}", first.index);
        assert!(first.index >= log.first(), "writes: {} is compacted", first.index);
        let replaced = log.last() + 1 - first.index;
        if replaced == 0 {
            return;
        }
        let leads = host.seen.led != 0 && host.seen.appends;
        assert!(!leads, "leader append-only: n{} replaces {}", at + 1, first.index);
        self.totals.count(Event::Replaced, replaced);
        // A leader of an older term may not know what a later one has committed.
        let by = host.seen.taken_in.unwrap_or(host.seen.term);
        for index in first.index..=log.last() {
            let known = self.history.committed_at(index).filter(|known| known.committed_in <= by);
            let own = log.term(index);
            let lost = known.is_some() && known.map(|known| known.term) == own;
            assert!(!lost, "committed entries: n{} drops {index} of {own:?}", at + 1);
        }
        log.cut_from(first.index);
    }

    /// Entries are handed out for applying: what is committed, in order, and durable here.
    pub(crate) fn check_page(&mut self, at: usize, ready: &Ready) {
        let host = &mut self.hosts[at];
        for entry in &ready.committed {
            assert_eq!(entry.index, host.seen.handed + 1, "state machine: handed out in order");
            host.seen.handed = entry.index;
            self.history.on_handed_out(entry);
            let pos = LogPos { index: entry.index, term: entry.term };
            assert!(holds(&host.disk, pos), "state machine: {pos} handed out, not durable");
        }
    }

    /// What a message promises is durable when it leaves, and true.
    pub(crate) fn check_leaving(&mut self, at: usize, message: &Message) {
        let host = &self.hosts[at];
        assert_eq!(message.from.0, at as u64 + 1, "messages: in the name of another");
        let state = host.disk.hard_state();
        if state.term > message.term {
            return;
        }
        match &message.body {
            Body::VoteResponse { granted: true } => {
                let vote = (state.term, state.vote);
                assert_eq!(vote, (message.term, message.to), "durable promises: a vote");
            }
            Body::Vote { .. } => {
                let vote = (state.term, state.vote);
                assert_eq!(vote, (message.term, message.from), "durable promises: the own vote");
            }
            Body::AppendResponse { outcome: AppendOutcome::Matched(index), .. } => {
                assert_eq!(state.term, message.term, "durable promises: the term");
                let last = host.disk.last_index().expect("in memory");
                assert!(last >= *index, "durable promises: {index} matched, {last} on disk");
                self.check_matched(at, message, *index);
            }
            Body::HeartbeatResponse { .. }
            | Body::AppendResponse { .. }
            | Body::SnapshotRequest { .. }
            | Body::TermOver => {
                assert_eq!(state.term, message.term, "durable promises: the term");
            }
            Body::Append { commit, .. }
            | Body::Heartbeat { commit, .. }
            | Body::Quiesce { commit } => {
                let known = self.history.committed();
                assert!(*commit <= known, "commit: {commit} is told, {known} is committed");
            }
            _ => {}
        }
    }

    /// If the leader to which a match is told still leads, its log does match.
    fn check_matched(&self, at: usize, message: &Message, index: Index) {
        let leader = &self.hosts[message.to.0 as usize - 1];
        if leader.seen.led != message.term {
            return;
        }
        let theirs = leader.node.as_ref().and_then(|node| node.term_at(index));
        let own = self.hosts[at].disk.term(index).ok();
        if let (Some(theirs), Some(own)) = (theirs, own) {
            assert_eq!(theirs, own, "log matching: n{} claims to match at {index}", at + 1);
        }
    }
}

/// Whether an entry is on a disk, or was and is compacted.
fn holds(disk: &MemoryStorage, pos: LogPos) -> bool {
    match disk.term(pos.index) {
        Ok(term) => term == pos.term,
        Err(StorageError::Compacted) => true,
        Err(_) => false,
    }
}
