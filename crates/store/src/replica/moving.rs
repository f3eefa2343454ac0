//! Before the leadership moves, or the region's keys become another one's, those hand over who keep
//! something in memory for it. See the page of `crate::leading`.

use std::sync::Arc;

use base::{Region, RegionId, Term};

use super::Replica;
use crate::RegionError;
use crate::input::{MergeRequest, Outbox, SplitRequest, TransferRequest};
use crate::leading::LeaderEvent;
use crate::reply::ReplyTo;
use crate::view::RequestHeader;

/// What waits until everything is handed over.
#[derive(Debug)]
pub(crate) enum Step {
    Split(SplitRequest),
    Merge(MergeRequest),
    Transfer(TransferRequest),
    /// The store is about to stop: whoever can lead best shall.
    Stop,
}

impl Step {
    /// The region that it is a step of; nobody's if the store itself wants it.
    pub(crate) fn region(&self) -> RegionId {
        self.header().map_or(RegionId(0), |header| header.region_id)
    }

    fn header(&self) -> Option<&RequestHeader> {
        match self {
            Self::Split(SplitRequest { header, .. })
            | Self::Merge(MergeRequest { header, .. })
            | Self::Transfer(TransferRequest { header, .. }) => Some(header),
            Self::Stop => None,
        }
    }

    pub(crate) fn into_reply(self) -> Option<ReplyTo> {
        match self {
            Self::Split(SplitRequest { reply, .. })
            | Self::Merge(MergeRequest { reply, .. })
            | Self::Transfer(TransferRequest { reply, .. }) => Some(reply),
            Self::Stop => None,
        }
    }
}

/// What those know who keep something for the region.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// That it is led here.
    told: Option<(Term, Arc<Region>)>,
    /// That they are to hand over.
    asked: Option<Box<Asked>>,
    /// They did, or took too long; nothing is kept until they are told again.
    closed: bool,
    tickets: u64,
}

#[derive(Debug)]
struct Asked {
    ticket: u64,
    /// In ticks of the replica.
    since: u64,
    steps: Vec<Step>,
}

impl Moving {
    /// Whether a step waits, or is not over.
    pub(super) fn is_busy(&self) -> bool {
        self.asked.is_some() || self.closed
    }
}

impl Replica {
    /// Takes the step; before that those hand over who keep something, for so many ticks at most.
    pub(crate) fn begin(&mut self, step: Step, patience: u32, out: &mut Outbox) {
        let term = self.node.term();
        let led = self.moving.told.as_ref().is_some_and(|(told, _)| *told == term);
        let keeps = led && self.node.is_leader() && !self.moving.closed;
        let fits = step.header().is_none_or(|header| self.check_header(header).is_ok());
        if patience == 0 || !keeps || !fits {
            return self.take(step, out);
        }
        if let Some(asked) = &mut self.moving.asked {
            // A store that stops says so with every tick.
            if step.header().is_some() || asked.steps.iter().all(|step| step.header().is_some()) {
                asked.steps.push(step);
            }
            return;
        }
        self.wake();
        self.moving.tickets += 1;
        let (ticket, since, steps) = (self.moving.tickets, self.ticks, vec![step]);
        self.moving.asked = Some(Box::new(Asked { ticket, since, steps }));
        out.leading.push(LeaderEvent::HandOver { region_id: self.region.id, term, ticket });
    }

    fn take(&mut self, step: Step, out: &mut Outbox) {
        match step {
            Step::Split(request) => self.split(request, out),
            Step::Merge(request) => self.prepare_merge(request, out),
            Step::Transfer(request) => self.transfer(request, out),
            Step::Stop => self.hand_over(),
        }
    }

    /// What was kept is in the engine, or will never be: the steps are taken.
    pub(crate) fn handed_over(&mut self, term: Term, ticket: u64, out: &mut Outbox) {
        let answers = |asked: &mut Box<Asked>| asked.ticket == ticket;
        if term == self.node.term()
            && let Some(asked) = self.moving.asked.take_if(answers)
        {
            self.close(*asked, out);
        }
    }

    /// Whoever does not hand over for so many ticks loses what he keeps.
    pub(super) fn hurry(&mut self, patience: u32, out: &mut Outbox) {
        let (now, patience) = (self.ticks, u64::from(patience));
        let late = |asked: &mut Box<Asked>| now - asked.since >= patience;
        if let Some(asked) = self.moving.asked.take_if(late) {
            tracing::warn!(region = %self.region.id, "not handed over in time");
            self.close(*asked, out);
        }
    }

    fn close(&mut self, asked: Asked, out: &mut Outbox) {
        self.moving.closed = true;
        asked.steps.into_iter().for_each(|step| self.take(step, out));
    }

    /// Tells those who keep something what became of the leadership.
    pub(super) fn tell_leading(&mut self, out: &mut Outbox) {
        if self.region.id.is_system() {
            return;
        }
        let leads = self.serves_reads().then(|| self.node.term());
        if self.moving.told.as_ref().is_some_and(|(term, _)| Some(*term) != leads) {
            self.tell_lost(out);
        }
        let Some(term) = leads.filter(|_| self.moving.asked.is_none()) else { return };
        let known = self.moving.told.as_ref();
        let same = known.is_some_and(|(_, region)| Arc::ptr_eq(region, &self.region));
        match self.moving.closed {
            true if self.is_under_way() => return,
            false if same => return,
            _ => self.moving.closed = false,
        }
        let region = self.region.clone();
        self.moving.told = Some((term, region.clone()));
        out.leading.push(LeaderEvent::Leads { region, term });
    }

    /// Whether a step that was taken is not over.
    fn is_under_way(&self) -> bool {
        self.is_fenced() || self.node.status().transferring_to.is_some()
    }

    /// It leads no longer. Steps that waited are refused.
    pub(super) fn tell_lost(&mut self, out: &mut Outbox) {
        let Some((term, _)) = self.moving.told.take() else { return };
        let region_id = self.region.id;
        out.leading.push(LeaderEvent::Lost { region_id, term });
        self.moving.closed = false;
        let steps = self.moving.asked.take().into_iter().flat_map(|asked| asked.steps);
        let error = match self.leaving {
            true => RegionError::RegionNotFound(region_id),
            false => self.not_leader(),
        };
        let replies = steps.filter_map(Step::into_reply);
        out.replies.extend(replies.map(|reply| (reply, Err(error.clone()))));
    }
}
