//! Who was heard, and when: for answers to those whom the region's descriptor does not know (yet,
//! or any more), and to tell the living from the dead.

use base::{Peer, PeerId};

/// The one heard longest ago is forgotten beyond this.
const CONTACTS_MAX: usize = 16;

/// The last that was heard of each peer, in ticks of the replica.
#[derive(Debug)]
pub(super) struct Contacts {
    heard: Vec<(Peer, u64)>,
    patience: u64,
}

impl Contacts {
    /// Whoever was heard within the last `patience` ticks is alive.
    pub(super) fn new(patience: u64) -> Self {
        Self { heard: Vec::new(), patience }
    }

    pub(super) fn heard(&mut self, peer: Peer, now: u64) {
        if let Some(known) = self.heard.iter_mut().find(|(known, _)| known.id == peer.id) {
            *known = (peer, now);
            return;
        }
        if self.heard.len() == CONTACTS_MAX {
            let oldest = self.heard.iter().enumerate().min_by_key(|(_, (_, at))| *at);
            let oldest = oldest.map_or(0, |(place, _)| place);
            self.heard.swap_remove(oldest);
        }
        self.heard.push((peer, now));
    }

    pub(super) fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers().find(|peer| peer.id == id)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.heard.iter().map(|(peer, _)| peer)
    }

    /// Ticks since the peer was heard; `None` if it never was.
    pub(super) fn silence(&self, id: PeerId, now: u64) -> Option<u64> {
        let known = self.heard.iter().find(|(peer, _)| peer.id == id);
        known.map(|(_, at)| now - at)
    }

    pub(super) fn is_alive(&self, id: PeerId, now: u64) -> bool {
        self.silence(id, now).is_some_and(|ticks| ticks <= self.patience)
    }
}
