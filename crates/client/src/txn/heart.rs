//! Keeps a transaction's primary lock alive while its owner takes its time.

use std::sync::Arc;
use std::time::Duration;

use base::{Instant, TimeStamp};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, abortable};
use proto::kvrpcpb;

use crate::calls::{StoreReply, StoreRequest};
use crate::core::Core;
use crate::keys::Keys;
use crate::link::Link;

/// So many times to live, and no transaction lives longer: one that was forgotten must not hold its
/// locks for ever.
const LIVES_MAX: u32 = 180;

/// Heart beats in the time that a lock lives without any.
const BEATS_A_LIFE: u32 = 3;

/// A heart that beats until it is stopped or dropped.
pub(super) struct Heart {
    stop: AbortHandle,
}

/// Whose locks live how long.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) keys: Keys,
    pub(super) primary: Bytes,
    pub(super) start_ts: TimeStamp,
    /// When it began, by the client's clock: locks count their time from their start timestamp.
    pub(super) begun: Instant,
    pub(super) ttl: Duration,
}

impl Life {
    /// The time to live of a lock that is written at `now`, in milliseconds from its start on.
    pub(super) fn ttl_ms(&self, now: Instant) -> u64 {
        let ttl = now.since(self.begun) + self.ttl;
        u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Heart {
    pub(super) fn start<L: Link>(core: &Arc<Core<L>>, life: Life) -> Heart {
        let of = core.clone();
        let (beating, stop) = abortable(async move {
            for _ in 0..LIVES_MAX * BEATS_A_LIFE {
                of.link.wait(life.ttl / BEATS_A_LIFE).await;
                if !beat(&of, &life).await {
                    return;
                }
            }
        });
        core.link.spawn(Box::pin(beating.map(drop)));
        Heart { stop }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.abort();
    }
}

/// One beat; false when there is nothing left to keep alive.
async fn beat<L: Link>(core: &Arc<Core<L>>, life: &Life) -> bool {
    let request = StoreRequest::KvTxnHeartBeat(kvrpcpb::TxnHeartBeatRequest {
        primary_lock: life.primary.clone(),
        start_version: life.start_ts.0,
        advise_lock_ttl: life.ttl_ms(core.link.now()),
        ..Default::default()
    });
    match core.call_key(life.keys, &life.primary, request).await {
        Ok(StoreReply::KvTxnHeartBeat(reply)) => reply.error.is_none(),
        // Nobody could be reached: the next beat may be in time.
        Ok(_) | Err(_) => true,
    }
}
