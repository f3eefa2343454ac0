//! The messages on the way.

use base::PeerId;
use goldenscript::ArgumentConsumer;
use pontoon_raft::{Body, Message};

use crate::cluster::{Cluster, Result};
use crate::show::show;

impl Cluster {
    pub(crate) fn leave(&mut self, message: Message) {
        self.say(show(&message));
        self.wire.push(message);
    }

    pub(crate) fn deliver(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
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
            return self.tell_snapshot(&message, false);
        }
        if let Err(error) = self.node(to)?.step(message.clone()) {
            self.say(format!("n{to} refuses: {error}"));
        }
        self.settle(to)?;
        self.tell_snapshot(&message, true)
    }

    /// Tells the sender what became of a snapshot, but if the script does that.
    fn tell_snapshot(&mut self, message: &Message, arrived: bool) -> Result<()> {
        let Message { from, to, body: Body::Snapshot { .. }, .. } = *message else { return Ok(()) };
        let up = self.hosts.get(&from).is_some_and(|host| host.node.is_some());
        if self.manual || !up {
            return Ok(());
        }
        match arrived {
            true => self.node(from)?.snapshot_sent(to),
            false => self.node(from)?.snapshot_failed(to),
        }
        self.settle(from)
    }

    pub(crate) fn stabilize(&mut self) -> Result<()> {
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
}
