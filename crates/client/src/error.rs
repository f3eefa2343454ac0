//! What can go wrong with a call, by who must act.

use base::TimeStamp;
use bytes::Bytes;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The address is not one: mend the flag.
    #[error("'{address}' is not an address: HOST:PORT is one")]
    Address {
        /// As given.
        address: String,
    },
    /// Nobody answers there: start the server, or mend the address.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Where the connection was to go.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// The server refuses the request itself: change the request.
    #[error("{call} was refused: {message}")]
    Refused {
        /// The name of the call.
        call: &'static str,
        /// The server's words.
        message: String,
    },
    /// Region errors or broken connections went on until patience ended. Nothing took effect.
    #[error("{call} gave up after {tries} tries: {last}")]
    GaveUp {
        /// The name of the call.
        call: &'static str,
        /// How often it was sent.
        tries: u32,
        /// What stood in the way the last time.
        last: String,
    },
    /// The answer was lost, and sending the write again could apply it twice, or its fate could
    /// not be found out: read to see what holds.
    #[error("{call} may or may not have taken effect: {cause}")]
    Undetermined {
        /// The name of the call.
        call: &'static str,
        /// How the answer was lost.
        cause: String,
    },
    /// The answer lacks what it must have: the server breaks the protocol.
    #[error("the answer of {call} has no {what}")]
    Malformed {
        /// The name of the call.
        call: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// Somebody else wrote the key after this transaction began: run it again.
    #[error("write conflict on {}: written at {conflict_commit_ts} by another transaction",
        key.escape_ascii())]
    Conflict {
        /// The key.
        key: Bytes,
        /// When the other one committed; 0 where that is not known.
        conflict_commit_ts: TimeStamp,
    },
    /// A key that was to be inserted has a value.
    #[error("{} exists already", key.escape_ascii())]
    AlreadyExists {
        /// The key.
        key: Bytes,
    },
    /// The key stayed locked by a transaction that lives, for as long as this one was ready to
    /// wait.
    #[error("{} is locked by the transaction that began at {holder}", key.escape_ascii())]
    Locked {
        /// The key.
        key: Bytes,
        /// When the holder began.
        holder: TimeStamp,
    },
    /// Waiting for the key would never have ended: those who hold locks wait for this transaction.
    /// Its locks of before are still held: roll it back, and run it again.
    #[error("deadlock: waiting for {} would close a circle", key.escape_ascii())]
    Deadlock {
        /// The key.
        key: Bytes,
    },
    /// Others found the transaction's lock out of date and rolled it back: run it again.
    #[error("the transaction was rolled back by others: {message}")]
    RolledBack {
        /// The server's words.
        message: String,
    },
    /// The transaction cannot go on: run it again.
    #[error("the transaction was aborted: {message}")]
    Aborted {
        /// The server's words.
        message: String,
    },
}

impl ClientError {
    /// Whether the same transaction, run anew from its begin, may succeed. Nothing of it has taken
    /// effect then.
    pub fn may_be_run_again(&self) -> bool {
        matches!(
            self,
            ClientError::Conflict { .. }
                | ClientError::Locked { .. }
                | ClientError::Deadlock { .. }
                | ClientError::RolledBack { .. }
                | ClientError::Aborted { .. }
                | ClientError::GaveUp { .. }
        )
    }

    /// Whether it is not known if the write took effect.
    pub fn is_undetermined(&self) -> bool {
        matches!(self, ClientError::Undetermined { .. })
    }
}
