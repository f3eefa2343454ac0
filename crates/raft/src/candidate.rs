//! The candidate: collects pre-votes, or votes.

use base::PeerId;

use crate::common::{Common, Next};
use crate::message::{Body, Message};
use crate::quorum::VoteResult;

pub(crate) struct Candidate {
    /// Only asks whether it would win. Term and vote are as they were.
    pub(crate) pre: bool,
    /// The former leader asked for this election, and released leases that rest on rounds up to
    /// this one.
    released: Option<u64>,
    /// The votes cast, the own one among them once it counts.
    votes: Vec<(PeerId, bool)>,
    /// Ticks since the election began.
    pub(crate) elapsed: u32,
    timeout: u32,
}

impl Candidate {
    pub(crate) fn new(pre: bool, released: Option<u64>, common: &mut Common) -> Self {
        Self { pre, released, votes: Vec::new(), elapsed: 0, timeout: common.draw_timeout() }
    }

    /// Asks all other voters.
    pub(crate) fn ask(&self, common: &mut Common) {
        let last = common.log.last();
        for to in common.conf.members() {
            if to == common.id() || !common.conf.is_voter(to) {
                continue;
            }
            match self.pre {
                true => common.ask_pre_vote(to, last),
                // An own vote that a crash could forget would be worth nothing, and its answers
                // would be counted for a log that the crash cut.
                false => {
                    let (priority, released) = (common.config.priority, self.released);
                    common.respond(to, Body::Vote { last, priority, released });
                }
            }
        }
    }

    pub(crate) fn tick(&mut self) -> Next {
        self.elapsed += 1;
        if self.elapsed < self.timeout {
            return Next::Stay;
        }
        Next::Elect
    }

    pub(crate) fn step(&mut self, common: &mut Common, message: Message) -> Next {
        match message.body {
            Body::PreVoteResponse { granted } if self.pre => {
                let wanted = if granted { common.term() + 1 } else { common.term() };
                match message.term == wanted {
                    true => self.count(common, message.from, granted),
                    false => Next::Stay,
                }
            }
            Body::VoteResponse { granted } if !self.pre => {
                self.count(common, message.from, granted)
            }
            _ => Next::Stay,
        }
    }

    /// Counts a vote. The first answer of each member stands.
    pub(crate) fn count(&mut self, common: &mut Common, voter: PeerId, granted: bool) -> Next {
        if common.conf.contains(voter) && !self.votes.iter().any(|(id, _)| *id == voter) {
            self.votes.push((voter, granted));
        }
        let vote = |id| self.votes.iter().find(|(voter, _)| *voter == id).map(|(_, yes)| *yes);
        match common.conf.vote_result(vote) {
            VoteResult::Pending => Next::Stay,
            VoteResult::Lost => Next::Follow { leader: PeerId::NONE },
            VoteResult::Won if self.pre => Next::Campaign,
            VoteResult::Won => Next::Lead,
        }
    }
}
