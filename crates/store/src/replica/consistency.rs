//! A replica's part in comparing the replicas of its region ([`ComputeHash`] says how).
//!
//! [`ComputeHash`]: crate::ComputeHash

use base::Term;
use bytes::Bytes;

use super::Replica;
use crate::apply::Waiting;
use crate::consistency::RegionHash;
use crate::input::{Outbox, RegionRequest};
use crate::inspection::CheckStatus;
use crate::reply::ReplyTo;
use crate::{Fatal, RegionError, command};

/// What is known of the last comparison.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Ours, and the leader's: whichever comes second is compared.
    ours: Option<RegionHash>,
    leaders: Option<RegionHash>,
    agreed: Option<RegionHash>,
    /// Who asked here, in the term in which the region was asked to make its hash.
    asked: Option<(Term, ReplyTo)>,
}

impl Replica {
    /// Has every member make a hash of what it holds, but for what stores may have collected up to
    /// `horizon`.
    pub(crate) fn check_replicas(
        &mut self,
        request: RegionRequest,
        horizon: Bytes,
        out: &mut Outbox,
    ) {
        let RegionRequest { header, reply } = request;
        self.wake();
        let busy = |reason: &str| {
            let reason = format!("region {}: {reason}", self.region.id);
            RegionError::ServerIsBusy { reason }
        };
        let term = self.node.term();
        let checked = self.check_leader(&header).and_then(|()| match &self.comparison.asked {
            Some((of, _)) if *of == term => Err(busy("its replicas are being compared already")),
            _ if !self.serves_reads() => Err(busy("its leader has just begun")),
            _ if self.is_merging() => Err(busy("it is about to become part of another")),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            out.replies.push((reply, Err(error)));
            return;
        }
        match self.node.propose(command::encode_compute_hash(self.region.epoch, horizon)) {
            Ok((term, index)) => {
                self.drop_comparison(out);
                self.comparison.asked = Some((term, reply));
                self.wait(Waiting { index, term, replies: Vec::new() }, out);
            }
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    /// Our hash is there; or there is none, because this store has collected beyond the horizon of
    /// the comparison. A leader tells the others, whoever asked for it.
    pub(crate) fn hash_computed(&mut self, hash: Option<RegionHash>, out: &mut Outbox) {
        let Some(hash) = hash else {
            if let Some((_, reply)) = self.comparison.asked.take() {
                let what =
                    "how far garbage is collected is not known, or was not the same throughout";
                let reason = format!("region {}: {what}", self.region.id);
                out.replies.push((reply, Err(RegionError::ServerIsBusy { reason })));
            }
            return;
        };
        let old = self.comparison.ours.map_or(0, |ours| ours.index);
        if hash.index <= old {
            return;
        }
        self.comparison.ours = Some(hash);
        self.compare(out);
        if !self.node.is_leader() {
            return;
        }
        if self.is_merging() {
            return self.drop_comparison(out);
        }
        let term = self.node.term();
        let asked = self.comparison.asked.take();
        let replies: Vec<ReplyTo> = asked.into_iter().map(|(_, reply)| reply).collect();
        match self.node.propose(command::encode_verify_hash(self.region.epoch, &hash)) {
            Ok((at, index)) => {
                assert_eq!(at, term, "region {}: proposed in its own term", self.region.id);
                self.wait(Waiting { index, term, replies }, out);
            }
            Err(error) => self.refuse(replies, &error, out),
        }
    }

    /// The leader's hash came by the log.
    pub(super) fn verify(&mut self, leaders: Option<RegionHash>, out: &mut Outbox) {
        if leaders.is_some() {
            self.comparison.leaders = leaders;
            self.compare(out);
        }
    }

    fn compare(&mut self, out: &mut Outbox) {
        let Comparison { ours: Some(ours), leaders: Some(leaders), .. } = self.comparison else {
            return;
        };
        let id = self.region.id;
        if ours.index != leaders.index {
            return;
        }
        if ours != leaders {
            out.fatal = Some(Fatal::diverged(id, ours.index, (&ours, &leaders)));
            return;
        }
        tracing::info!(region = %id, index = ours.index, hash = %ours, "as the leader's replica");
        self.comparison.agreed = Some(ours);
    }

    /// Whoever asked learns that nothing came of it.
    pub(super) fn drop_comparison(&mut self, out: &mut Outbox) {
        if let Some((_, reply)) = self.comparison.asked.take() {
            out.replies.push((reply, Err(RegionError::StaleCommand(self.region.id))));
        }
    }

    pub(super) fn check_status(&self) -> Option<CheckStatus> {
        let hash = self.comparison.ours?;
        Some(CheckStatus { hash, agreed: self.comparison.agreed == Some(hash) })
    }
}
