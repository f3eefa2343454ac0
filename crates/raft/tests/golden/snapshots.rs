//! Snapshots: made, sent, told of and installed.

use base::{Index, PeerId};
use bytes::Bytes;
use goldenscript::ArgumentConsumer;
use pontoon_raft::{LogPos, Snapshot, SnapshotWanted, Storage};

use crate::cluster::{Cluster, Result, id};
use crate::members;

/// How it is written: where it stands, the members, the commands in it.
pub(crate) fn show(snapshot: &Snapshot) -> String {
    let Snapshot { pos, conf, data } = snapshot;
    let data = String::from_utf8_lossy(data);
    format!("{pos} [{data}] members {}", members::show(conf))
}

impl Cluster {
    /// A node asks for a snapshot.
    pub(crate) fn want_snapshot(&mut self, id: PeerId, wanted: SnapshotWanted) -> Result<()> {
        let SnapshotWanted { to, at_least } = wanted;
        self.say(format!("n{id} wants a snapshot for n{to} at {at_least} or later"));
        if !self.manual {
            self.host(id)?.wanted.push(wanted);
        }
        Ok(())
    }

    /// Makes the snapshots that are wanted, as far as the state machine is far enough.
    pub(crate) fn make_wanted(&mut self, id: PeerId) -> Result<()> {
        let host = self.host(id)?;
        let applied = host.applied;
        let due: Vec<_> = host.wanted.extract_if(.., |wanted| wanted.at_least <= applied).collect();
        due.into_iter().try_for_each(|wanted| self.hand_over(id, wanted.to))
    }

    /// The state machine as it is now.
    fn make_snapshot(&mut self, id: PeerId) -> Result<Snapshot> {
        let host = self.host(id)?;
        let index: Index = host.applied;
        let term = match &host.node {
            Some(node) => node.term_at(index),
            None => host.disk.term(index).ok(),
        };
        let pos = LogPos { index, term: term.ok_or("the log does not know the term")? };
        let data = Bytes::from(host.state.join(" "));
        Ok(Snapshot { pos, conf: host.disk.conf(), data })
    }

    fn hand_over(&mut self, id: PeerId, to: PeerId) -> Result<()> {
        let snapshot = match self.host(id)?.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.make_snapshot(id)?,
        };
        if let Err(error) = self.node(id)?.snapshot_made(to, snapshot) {
            self.say(format!("n{id} drops the snapshot: {error}"));
        }
        Ok(())
    }

    /// Makes a snapshot that the next `send-snapshot` sends.
    pub(crate) fn keep_snapshot(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let snapshot = self.make_snapshot(id)?;
        self.say(format!("n{id} keeps snapshot {}", show(&snapshot)));
        self.host(id)?.snapshot = Some(snapshot);
        Ok(())
    }

    pub(crate) fn send_snapshot(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let (id, to) = (id(args)?, id(args)?);
        self.hand_over(id, to)?;
        self.settle(id)
    }

    pub(crate) fn report_snapshot(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let (from, to) = (id(args)?, id(args)?);
        match args.next_pos() {
            Some("ok") => self.node(from)?.snapshot_sent(to),
            Some("failed") => self.node(from)?.snapshot_failed(to),
            _ => return Err("ok or failed?".into()),
        }
        self.settle(from)
    }

    pub(crate) fn request_snapshot(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        if let Err(error) = self.node(id)?.request_snapshot() {
            self.say(format!("n{id} refuses: {error}"));
        }
        self.settle(id)
    }

    /// The state machine becomes what the snapshot holds.
    pub(crate) fn install(&mut self, id: PeerId, snapshot: &Snapshot) -> Result<()> {
        self.say(format!("n{id} installs snapshot {}", show(snapshot)));
        let data = String::from_utf8_lossy(&snapshot.data).into_owned();
        let host = self.host(id)?;
        host.pages.clear();
        host.state = data.split_whitespace().map(str::to_owned).collect();
        host.applied = snapshot.pos.index;
        Ok(())
    }
}
