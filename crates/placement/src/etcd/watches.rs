//! The watches of one stream: where each stands, and what it is told next.
//!
//! ```text
//!   take(request)  ──> created, canceled ──────────────┐
//!   next(placement) ── events from where a watch stands ┼──> one answer, or nothing for now
//!                   ── progress, when it is asked for  ─┘
//! ```
//!
//! A watch stands at a revision: all events before it were told or are not its own. It is told the
//! events of a revision in one answer (in pieces, if it takes pieces), so whoever comes back later
//! with the revision after the last answer misses nothing and hears nothing twice.
//!
//! A stream is read from only as fast as its client takes the answers, so nothing piles up here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::Instant;
use bytes::Bytes;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use proto::mvccpb;

use super::span::Span;
use super::store::{EtcdStore, Revision};
use crate::Placement;

/// A watch that wants to hear of progress does so when it heard nothing for so long.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// An answer holds events of further revisions up to this size, ...
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// ... and so many events are looked at for one, be they its own or not.
const LOOK_EVENTS_MAX: usize = 16_384;

/// In an answer that is about no watch.
const NO_WATCH: i64 = -1;

/// The watches of a stream.
#[derive(Debug, Default)]
pub struct Watches {
    watches: BTreeMap<i64, Watch>,
    /// The lowest id that was never made up.
    next_id: i64,
    /// What was told last: others are told first.
    last_told: i64,
    answers: VecDeque<WatchResponse>,
    /// The client asked how far all of its watches are.
    progress_asked: bool,
}

#[derive(Debug)]
struct Watch {
    span: Span,
    /// Everything before this revision is told.
    stands_at: i64,
    filters: Vec<FilterType>,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    told_at: Instant,
}

impl Watches {
    /// Takes a message of the client.
    pub fn take(&mut self, placement: &Placement, request: WatchRequest, now: Instant) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(placement, &request, now),
            Some(RequestUnion::CancelRequest(request)) => {
                let watch_id = request.watch_id;
                if self.watches.remove(&watch_id).is_some() {
                    let answer = about(placement, watch_id);
                    self.answers.push_back(WatchResponse { canceled: true, ..answer });
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => self.progress_asked = true,
            None => {}
        }
    }

    fn create(&mut self, placement: &Placement, request: &WatchCreateRequest, now: Instant) {
        // No key means all keys, from the lowest one on.
        let lowest = Bytes::from_static(&[0]);
        let key = if request.key.is_empty() { &lowest } else { &request.key };
        let span = Span::new(key, &request.range_end);
        let refusal = if span == Span::Nothing {
            Some("mvcc: watcher range is empty")
        } else if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        };
        if let Some(reason) = refusal {
            let (created, canceled, cancel_reason) = (true, true, reason.to_owned());
            let answer = about(placement, NO_WATCH);
            self.answers.push_back(WatchResponse { created, canceled, cancel_reason, ..answer });
            return;
        }
        let id = if request.watch_id == 0 { self.new_id() } else { request.watch_id };
        let stands_at = match request.start_revision {
            i64::MIN..=0 => placement.etcd.revision + 1,
            revision => revision,
        };
        let watch = Watch {
            span,
            stands_at,
            filters: request.filters().collect(),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            told_at: now,
        };
        self.watches.insert(id, watch);
        self.answers.push_back(WatchResponse { created: true, ..about(placement, id) });
    }

    fn new_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// The next answer, if there is one now.
    pub fn next(&mut self, placement: &Placement, now: Instant) -> Option<WatchResponse> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let store = &placement.etcd;
        while let Some(id) = self.next_behind(store.revision) {
            self.last_told = id;
            self.look(placement, id, now);
            if let Some(answer) = self.answers.pop_front() {
                return Some(answer);
            }
        }
        if std::mem::take(&mut self.progress_asked) {
            return Some(about(placement, NO_WATCH));
        }
        let is_due =
            |watch: &Watch| watch.progress_notify && now.since(watch.told_at) >= PROGRESS_INTERVAL;
        let (id, watch) = self.watches.iter_mut().find(|(_, watch)| is_due(watch))?;
        watch.told_at = now;
        Some(about(placement, *id))
    }

    /// A watch that has not seen all up to the revision; by turns, so that none waits for ever.
    fn next_behind(&self, revision: i64) -> Option<i64> {
        let behind = |watch: &(&i64, &Watch)| watch.1.stands_at <= revision;
        let later = self.watches.range(self.last_told.saturating_add(1)..).find(behind);
        later.or_else(|| self.watches.iter().find(behind)).map(|(id, _)| *id)
    }

    /// Lets a watch see what comes next, and tells it what is its own.
    fn look(&mut self, placement: &Placement, id: i64, now: Instant) {
        let store = &placement.etcd;
        let watch = self.watches.get_mut(&id).expect("the caller found it");
        if watch.stands_at < store.compacted {
            let (compact_revision, canceled) = (store.compacted, true);
            let answer = about(placement, id);
            self.answers.push_back(WatchResponse { compact_revision, canceled, ..answer });
            self.watches.remove(&id);
            return;
        }
        let events = watch.see(store);
        if events.is_empty() {
            return;
        }
        watch.told_at = now;
        let mut answer = about(placement, id);
        if watch.stands_at <= store.revision {
            // More is to come: the client has not heard all up to the store's revision.
            let header = answer.header.as_mut().expect("it was just made");
            header.revision = watch.stands_at - 1;
        }
        let pieces = if watch.fragment { in_pieces(events) } else { vec![events] };
        let last = pieces.len() - 1;
        for (number, events) in pieces.into_iter().enumerate() {
            let fragment = number < last;
            self.answers.push_back(WatchResponse { events, fragment, ..answer.clone() });
        }
    }
}

impl Watch {
    /// The watch's own among the next events, whole revisions. It stands behind them then.
    fn see(&mut self, store: &EtcdStore) -> Vec<mvccpb::Event> {
        let (mut found, mut bytes, mut revision) = (Vec::new(), 0, 0);
        let begun_at = self.stands_at;
        self.stands_at = store.revision + 1;
        let events = store.events.range(Revision::first(begun_at)..);
        for (looked_at, (at, event)) in events.enumerate() {
            let is_full = bytes >= ANSWER_BYTES_MAX || looked_at >= LOOK_EVENTS_MAX;
            if is_full && at.main > revision {
                self.stands_at = at.main;
                break;
            }
            revision = at.main;
            if !self.span.contains(&event.kv.key) || self.filters_out(event.deleted) {
                continue;
            }
            let mut event = event.to_wire();
            // What was there before the last compaction may be swept or not.
            if self.prev_kv && at.main > store.compacted {
                let key = event.kv.as_ref().map(|kv| &kv.key).expect("an event is of a key");
                event.prev_kv = store.at(key, at.main - 1).cloned();
            }
            bytes += prost::Message::encoded_len(&event);
            found.push(event);
        }
        assert!(self.stands_at > begun_at, "no progress at {begun_at}");
        found
    }

    fn filters_out(&self, deleted: bool) -> bool {
        let filter = if deleted { FilterType::Nodelete } else { FilterType::Noput };
        self.filters.contains(&filter)
    }
}

/// Pieces of about the size of an answer.
fn in_pieces(events: Vec<mvccpb::Event>) -> Vec<Vec<mvccpb::Event>> {
    let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
    for event in events {
        let more = prost::Message::encoded_len(&event);
        if bytes > 0 && bytes + more > ANSWER_BYTES_MAX {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        pieces.last_mut().expect("there is one from the start").push(event);
    }
    pieces
}

fn about(placement: &Placement, watch_id: i64) -> WatchResponse {
    let header = Some(placement.etcd_header(placement.etcd.revision));
    WatchResponse { header, watch_id, ..Default::default() }
}
