//! What can go wrong with a call, by who must act.

use std::error::Error;

use tonic::Status;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
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
    /// Region errors or broken connections went on until the budget for retries was spent.
    #[error("{call} gave up after {tries} tries: {last}")]
    GaveUp {
        /// The name of the call.
        call: &'static str,
        /// How often it was sent.
        tries: u32,
        /// What stood in the way the last time.
        last: String,
    },
    /// The answer was lost, and sending the write again could apply it twice: read to see what
    /// holds.
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
}

/// The innermost cause of a failed connection: "tcp connect error" alone helps nobody.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A status as a short text.
pub(crate) fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}
