//! Why a call is refused, in etcd's words: clients compare them.

/// The class of a refusal, as gRPC has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdCode {
    /// The request makes no sense.
    InvalidArgument,
    /// A number in it is beyond what there is.
    OutOfRange,
    /// What it names is not there.
    NotFound,
    /// It does not fit what is there.
    FailedPrecondition,
    /// There is no room.
    ResourceExhausted,
}

/// Why a call is refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// A key is empty.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// What is to be kept of a key that is not there; or an operation that is none.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value, and the wish to keep the old one.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease, and the wish to keep the old one.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// See [`TXN_OPS_MAX`](super::TXN_OPS_MAX).
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A key is put twice, or put and deleted.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// An order of results that does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSort,
    /// History before the revision was given up, or is to be given up twice.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// No write has this revision yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// See [`SPACE_BYTES_MAX`](super::SPACE_BYTES_MAX).
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// See [`WRITE_BYTES_MAX`](super::WRITE_BYTES_MAX).
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// It ended, or never was.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// The id is taken.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// See [`LEASE_TTL_MAX`](super::LEASE_TTL_MAX).
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
}

impl EtcdError {
    /// How it travels.
    pub fn code(self) -> EtcdCode {
        match self {
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => EtcdCode::OutOfRange,
            Self::LeaseNotFound => EtcdCode::NotFound,
            Self::LeaseExists => EtcdCode::FailedPrecondition,
            Self::NoSpace => EtcdCode::ResourceExhausted,
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOps
            | Self::DuplicateKey
            | Self::InvalidSort
            | Self::TooLarge => EtcdCode::InvalidArgument,
        }
    }
}
