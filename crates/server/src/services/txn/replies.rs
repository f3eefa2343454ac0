//! Responses that say no. Those that say yes are made where the simulator makes them too, in
//! [`txn::wire::replies`].

use proto::errorpb;
use proto::kvrpcpb::{self, KeyError, KvPair};
pub(super) use txn::wire::replies::*;

use crate::errors::Refusable;

fn abort(text: String) -> Option<KeyError> {
    (!text.is_empty()).then(|| KeyError { abort: text, ..Default::default() })
}

fn whole(error: Option<KeyError>) -> Vec<KvPair> {
    error.into_iter().map(|error| KvPair { error: Some(error), ..Default::default() }).collect()
}

/// What a response with a field for one error about a key says when it says no, and so on for the
/// other forms that responses have.
type No = Option<errorpb::Error>;

impl Refusable for kvrpcpb::GetResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::BatchGetResponse {
    fn refused(region_error: No, error: String) -> Self {
        let error = abort(error);
        Self { region_error, pairs: whole(error.clone()), error, ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { pairs: whole(Some(error.clone())), error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::ScanResponse {
    fn refused(region_error: No, error: String) -> Self {
        let error = abort(error);
        Self { region_error, pairs: whole(error.clone()), error }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { pairs: whole(Some(error.clone())), error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::ReadIndexResponse {
    fn refused(region_error: No, error: String) -> Self {
        let text = || errorpb::Error { message: error, ..Default::default() };
        Self { region_error: Some(region_error.unwrap_or_else(text)), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { locked: error.locked, ..Self::default() }
    }
}

impl Refusable for kvrpcpb::PrewriteResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, errors: abort(error).into_iter().collect(), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
}

impl Refusable for kvrpcpb::PessimisticLockResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, errors: abort(error).into_iter().collect(), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
}

impl Refusable for kvrpcpb::PessimisticRollbackResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, errors: abort(error).into_iter().collect(), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
}

impl Refusable for kvrpcpb::FlushResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, errors: abort(error).into_iter().collect(), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
}

impl Refusable for kvrpcpb::TxnHeartBeatResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::CheckTxnStatusResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::CheckSecondaryLocksResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::CommitResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::CleanupResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::BatchRollbackResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::ScanLockResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::ResolveLockResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::BufferBatchGetResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error: abort(error), ..Self::default() }
    }

    fn refused_key(error: KeyError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

impl Refusable for kvrpcpb::DeleteRangeResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::UnsafeDestroyRangeResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::PrepareFlashbackToVersionResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::FlashbackToVersionResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error }
    }
}

impl Refusable for kvrpcpb::MvccGetByKeyResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error, ..Self::default() }
    }
}

impl Refusable for kvrpcpb::MvccGetByStartTsResponse {
    fn refused(region_error: No, error: String) -> Self {
        Self { region_error, error, ..Self::default() }
    }
}
