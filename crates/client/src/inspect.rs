//! Looking at locks and versions: for people, not for programs.

use base::TimeStamp;
use bytes::Bytes;
use proto::kvrpcpb::{self, LockInfo, MvccInfo};

use crate::calls::{StoreReply, StoreRequest};
use crate::core::{Side, other_kind};
use crate::db::Db;
use crate::error::ClientError;
use crate::key_error;
use crate::keys::Keys;
use crate::link::Link;
use crate::pages::Pages;
use crate::region_cache::CachedRegion;

/// Locks asked for at once.
const LOCKS_A_PAGE: usize = 256;

impl<L: Link> Db<L> {
    /// The first `limit` locks of transactions up to `max_ts` on keys of `[start, end)`, as they
    /// are now.
    pub async fn locks(
        &self,
        start: &[u8],
        end: &[u8],
        max_ts: TimeStamp,
        limit: usize,
    ) -> Result<Vec<LockInfo>, ClientError> {
        let keys = Keys::of_transactions(self.core().version);
        let mut pages = Pages::new(keys, keys.data_range(start, end), false);
        let mut locks: Vec<LockInfo> = Vec::new();
        while locks.len() < limit && !pages.is_done() {
            let count = (limit - locks.len()).min(LOCKS_A_PAGE);
            let build = |region: &CachedRegion| {
                let (start_key, end_key) = pages.bounds(&region.range);
                StoreRequest::KvScanLock(kvrpcpb::ScanLockRequest {
                    max_version: max_ts.0,
                    start_key,
                    end_key,
                    limit: u32::try_from(count).expect("a page has few locks"),
                    ..Default::default()
                })
            };
            let (key, side) = pages.next();
            let (reply, region) = self.core().run(keys, key, side, build).await?;
            let StoreReply::KvScanLock(reply) = reply else { return Err(other_kind("KvScanLock")) };
            if let Some(error) = reply.error {
                return Err(key_error::typed("KvScanLock", error));
            }
            let last = reply.locks.last().map(|lock| &lock.key);
            pages.advance(&region.range, last.filter(|_| reply.locks.len() >= count));
            let user = |lock: LockInfo| LockInfo { key: keys.user_key(&lock.key), ..lock };
            locks.extend(reply.locks.into_iter().map(user));
        }
        Ok(locks)
    }

    /// Everything that is stored about a key: its lock and all its versions, the newest first.
    pub async fn versions(&self, key: &[u8]) -> Result<MvccInfo, ClientError> {
        let keys = Keys::of_transactions(self.core().version);
        let key: Bytes = keys.data_key(key);
        let request = kvrpcpb::MvccGetByKeyRequest { key: key.clone(), ..Default::default() };
        let build = |_: &CachedRegion| StoreRequest::MvccGetByKey(request.clone());
        let (reply, _) = self.core().run(keys, &key, Side::Holding, build).await?;
        match reply {
            StoreReply::MvccGetByKey(reply) => Ok(reply.info.unwrap_or_default()),
            _ => Err(other_kind("MvccGetByKey")),
        }
    }
}
