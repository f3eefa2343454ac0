//! What the scripts ask of single nodes.

use base::{Entry, PeerId};
use bytes::Bytes;
use goldenscript::ArgumentConsumer;
use pontoon_raft::LogPos;

use crate::cluster::{Cluster, Result, id, ids};
use crate::{hand, members};

impl Cluster {
    pub(crate) fn tick(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
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

    pub(crate) fn campaign(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        for id in ids(args)? {
            self.node(id)?.campaign();
            self.settle(id)?;
        }
        Ok(())
    }

    pub(crate) fn propose(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(data) = args.next_pos() {
            match self.node(id)?.propose(Bytes::from(data.to_owned())) {
                Ok((term, index)) => self.say(format!("n{id} takes {data} as {index}@{term}")),
                Err(error) => self.say(format!("n{id} refuses {data}: {error}")),
            }
        }
        self.settle(id)
    }

    pub(crate) fn forward(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(data) = args.next_pos() {
            if let Err(error) = self.node(id)?.forward(Bytes::from(data.to_owned())) {
                self.say(format!("n{id} refuses {data}: {error}"));
            }
        }
        self.settle(id)
    }

    pub(crate) fn learn(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let mut entries = Vec::new();
        while let Some(pos) = args.next_pos() {
            let LogPos { index, term } = hand::position(Some(pos))?;
            let data = Bytes::from(format!("learnt{index}"));
            entries.push(Entry { index, term, data, ..Entry::default() });
        }
        if let Err(error) = self.node(id)?.learn(entries) {
            self.say(format!("n{id} learns nothing: {error}"));
        }
        self.settle(id)
    }

    pub(crate) fn inquire(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let others = ids(args)?;
        self.node(id)?.inquire(&others);
        self.settle(id)
    }

    pub(crate) fn priority(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let (id, priority) = (id(args)?, args.next_pos().ok_or("which priority?")?);
        self.node(id)?.set_priority(priority.parse()?);
        Ok(())
    }

    pub(crate) fn quiesce(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        if !self.node(id)?.quiesce() {
            self.say(format!("n{id} stays awake"));
        }
        self.settle(id)
    }

    pub(crate) fn wake(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        self.node(id)?.wake();
        self.settle(id)
    }

    pub(crate) fn read_index(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(context) = args.next_pos() {
            if let Err(error) = self.node(id)?.read_index(context.parse()?) {
                self.say(format!("n{id} refuses read {context}: {error}"));
            }
        }
        self.settle(id)
    }

    pub(crate) fn change(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        while let Some(text) = args.next_pos() {
            let mut text = text.to_owned();
            if text == "joint" {
                text = format!("joint/{}", args.next_pos().ok_or("which changes?")?);
            }
            let (kind, change) = members::parse(&text)?;
            let data = Bytes::from(text.clone());
            match self.node(id)?.propose_conf_change(kind, data, &change) {
                Ok((term, index)) => self.say(format!("n{id} takes {text} as {index}@{term}")),
                Err(error) => self.say(format!("n{id} refuses {text}: {error}")),
            }
        }
        self.settle(id)
    }

    pub(crate) fn transfer(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let (id, to) = (id(args)?, id(args)?);
        if let Err(error) = self.node(id)?.transfer_leader(to) {
            self.say(format!("n{id} refuses: {error}"));
        }
        self.settle(id)
    }

    pub(crate) fn unreachable(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let (id, peer): (PeerId, PeerId) = (id(args)?, id(args)?);
        self.node(id)?.report_unreachable(peer);
        self.settle(id)
    }

    pub(crate) fn step(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let id = id(args)?;
        let message = hand::parse(id, args)?;
        if let Err(error) = self.node(id)?.step(message) {
            self.say(format!("n{id} refuses: {error}"));
        }
        self.settle(id)
    }
}
