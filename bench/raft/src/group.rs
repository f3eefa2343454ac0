//! A group in memory: nodes of one side, and the messages between them.
//!
//! ```text
//!   one turn:  step what came ──▶ propose (leader) ──▶ handle every Ready ──▶ outbox
//!                   ▲                                                            │
//!                   └──────────────── inbox of the next turn ◀───────────────────┘
//! ```
//!
//! A message takes one turn, so an entry of a group of three is applied everywhere three turns
//! after it was proposed: append, answer, commit. Both sides run the same turns. What the harness
//! itself needs is allocated before anything is counted: the boxes, and one command that all
//! entries share by reference, as commands share the buffer of the socket that they came from.

use std::fmt;

use bytes::Bytes;

/// More than an election and its empty entry need.
const TURNS_OF_ELECTION: usize = 10;

/// A node of one side, with its storage and a state machine that counts.
pub trait Node: Sized {
    /// What nodes of this side say to each other.
    type Message;

    /// Node `id` of a group with voters `1..=voters`.
    fn new(id: u64, voters: u64) -> Self;

    /// Begins an election, without pre-votes.
    fn campaign(&mut self);

    /// Whether it leads.
    fn is_leader(&self) -> bool;

    /// A message came.
    fn step(&mut self, message: Self::Message);

    /// Takes a command.
    fn propose(&mut self, data: Bytes);

    /// Does all that the node wants done, in the loop that its authors recommend: writes to
    /// storage, applies, and leaves what shall be sent in `outbox`.
    fn handle_readies(&mut self, outbox: &mut Vec<Self::Message>);

    /// Commands that its state machine has seen.
    fn commands(&self) -> u64;

    /// To whom a message goes.
    fn receiver(message: &Self::Message) -> u64;
}

/// What is measured: a row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Voters of the group.
    pub voters: u64,
    /// Bytes of a command.
    pub size: usize,
    /// Commands that are proposed and not yet applied everywhere.
    pub depth: u64,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = match self.voters {
            1 => "1 node".to_owned(),
            count => format!("{count} nodes"),
        };
        let size = match self.size {
            bytes if bytes % 1024 == 0 => format!("{} KiB", bytes / 1024),
            bytes => format!("{bytes} B"),
        };
        write!(f, "{group}, {size}, {} at a time", self.depth)
    }
}

impl Load {
    /// Commands that may come within one turn. A group of three needs three turns for one, so that
    /// its pipeline is full and even when a quarter of the window comes in each.
    fn arrivals(&self) -> u64 {
        match self.voters {
            1 => self.depth,
            _ => self.depth.div_ceil(4),
        }
    }
}

/// A group whose node 1 leads.
pub struct Group<N: Node> {
    nodes: Vec<N>,
    load: Load,
    command: Bytes,
    inboxes: Vec<Vec<N::Message>>,
    outbox: Vec<N::Message>,
    proposed: u64,
}

impl<N: Node> Group<N> {
    /// A group that has elected node 1.
    pub fn new(load: Load) -> Self {
        let nodes: Vec<N> = (1..=load.voters).map(|id| N::new(id, load.voters)).collect();
        let inboxes = nodes.iter().map(|_| Vec::with_capacity(1024)).collect();
        let outbox = Vec::with_capacity(1024);
        let command = Bytes::from(vec![7; load.size]);
        let mut group = Self { nodes, load, command, inboxes, outbox, proposed: 0 };
        group.nodes[0].campaign();
        for _ in 0..TURNS_OF_ELECTION {
            group.turn(0);
        }
        assert!(group.nodes[0].is_leader(), "node 1 is elected");
        group
    }

    /// Commits `count` more commands, and applies them everywhere.
    pub fn run(&mut self, count: u64) {
        let wanted = self.proposed + count;
        while self.applied_everywhere() < wanted {
            self.turn(wanted - self.proposed);
        }
        assert_eq!(self.proposed, wanted, "no more was applied than was proposed");
    }

    fn applied_everywhere(&self) -> u64 {
        self.nodes.iter().map(N::commands).min().expect("a group has nodes")
    }

    /// One turn, in which no more than `left` commands come.
    fn turn(&mut self, left: u64) {
        for (node, inbox) in self.nodes.iter_mut().zip(&mut self.inboxes) {
            inbox.drain(..).for_each(|message| node.step(message));
        }
        let free = self.load.depth - (self.proposed - self.applied_everywhere());
        let coming = free.min(self.load.arrivals()).min(left);
        for _ in 0..coming {
            self.nodes[0].propose(self.command.clone());
        }
        self.proposed += coming;
        for node in &mut self.nodes {
            node.handle_readies(&mut self.outbox);
        }
        for message in self.outbox.drain(..) {
            self.inboxes[N::receiver(&message) as usize - 1].push(message);
        }
    }
}

/// When a log in memory is cut, the same for both sides.
#[derive(Default)]
pub struct Compaction {
    cut: u64,
}

impl Compaction {
    /// Entries that are cut at once.
    const STEP: u64 = 2048;

    /// Applied entries that stay for members that lag.
    const KEPT: u64 = 1024;

    /// Up to which entry the log shall be cut now, if at all.
    pub fn due(&mut self, applied: u64) -> Option<u64> {
        if applied < self.cut + Self::STEP + Self::KEPT {
            return None;
        }
        self.cut = applied - Self::KEPT;
        Some(self.cut)
    }
}
