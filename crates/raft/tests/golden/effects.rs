//! What nodes want done: writes, messages, entries to apply.

use base::{Entry, EntryKind, PeerId};
use goldenscript::ArgumentConsumer;
use pontoon_raft::{ConfChangeError, HardState, Persist};

use crate::cluster::{Cluster, Result, id};
use crate::members;
use crate::show::show_entries;

impl Cluster {
    /// Does and says everything that a node has to give.
    pub(crate) fn settle(&mut self, id: PeerId) -> Result<()> {
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

    fn take_ready(&mut self, id: PeerId) -> Result<()> {
        let ready = self.node(id)?.ready();
        for message in ready.messages {
            self.leave(message);
        }
        if let Some(persist) = ready.persist {
            self.say_persist(id, &persist);
            self.host(id)?.writes.push_back(persist);
        }
        if !ready.committed.is_empty() {
            self.host(id)?.pages.push_back(ready.committed);
        }
        if !self.lazy {
            self.apply_pages(id, usize::MAX)?;
        }
        for wanted in ready.snapshots_wanted {
            self.want_snapshot(id, wanted)?;
        }
        self.make_wanted(id)?;
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
        if let Some(snapshot) = &persist.snapshot {
            line.push_str(&format!(" snapshot {}", snapshot.pos));
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

    pub(crate) fn persist(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
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
            if self.asynchronous {
                self.say(format!("n{id} write {} is durable", persist.ticket));
            }
            if let Some(snapshot) = &persist.snapshot {
                self.install(id, snapshot)?;
            }
            if let Some(node) = &mut self.host(id)?.node {
                node.persisted(persist.ticket);
            }
            for message in persist.then {
                self.leave(message);
            }
            any = true;
        }
        Ok(any)
    }

    pub(crate) fn apply(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let count = args.next_pos().map(str::parse).transpose()?.unwrap_or(usize::MAX);
        self.apply_pages(id, count)?;
        self.make_wanted(id)?;
        self.settle(id)
    }

    /// The state machine applies the oldest pages.
    fn apply_pages(&mut self, id: PeerId, count: usize) -> Result<()> {
        for _ in 0..count {
            let Some(page) = self.host(id)?.pages.pop_front() else { break };
            self.apply_page(id, &page)?;
        }
        Ok(())
    }

    fn apply_page(&mut self, id: PeerId, page: &[Entry]) -> Result<()> {
        self.say(format!("n{id} applies {}", show_entries(page)));
        for entry in page {
            if entry.kind != EntryKind::Normal && !self.apply_change(id, entry)? {
                self.host(id)?.pages.clear();
                break;
            }
            let host = self.host(id)?;
            if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
                host.state.push(String::from_utf8_lossy(&entry.data).into_owned());
            }
            host.applied = entry.index;
        }
        let applied = self.host(id)?.applied;
        self.node(id)?.applied(applied);
        Ok(())
    }

    /// Returns whether the entry counts as applied, and is not covered by a snapshot on its way.
    fn apply_change(&mut self, id: PeerId, entry: &Entry) -> Result<bool> {
        let (_, change) = members::parse(std::str::from_utf8(&entry.data)?)?;
        match self.node(id)?.apply_conf_change(entry.index, &change) {
            Ok(conf) => {
                self.say(format!("n{id} members: {}", members::show(&conf)));
                self.host(id)?.disk.set_conf(conf);
            }
            Err(error) => {
                self.say(format!("n{id} changes nothing: {error}"));
                return Ok(error != ConfChangeError::Superseded);
            }
        }
        Ok(true)
    }

    pub(crate) fn compact(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let (id, index) = (id(args)?, args.next_pos().ok_or("which index?")?);
        self.host(id)?.disk.compact(index.parse()?);
        Ok(())
    }
}
