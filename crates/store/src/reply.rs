//! The answer that a proposal or read owes its caller, as a value that cannot be forgotten.

use crate::RegionError;

/// What becomes of a write: applied, or refused. [`RegionError::Undetermined`] alone leaves open
/// which.
pub type WriteResult = Result<(), RegionError>;

/// The duty to answer one caller, exactly once. It moves from the caller through the shard to the
/// applier; whoever drops it unanswered (a node that stops) answers [`RegionError::Undetermined`].
#[must_use]
pub struct ReplyTo(Option<Box<dyn FnOnce(WriteResult) + Send>>);

impl ReplyTo {
    /// `deliver` is called once, from the thread that answers: it must be quick and must not block.
    pub fn new(deliver: impl FnOnce(WriteResult) + Send + 'static) -> Self {
        Self(Some(Box::new(deliver)))
    }

    /// Answers.
    pub fn answer(mut self, result: WriteResult) {
        let deliver = self.0.take().expect("answered at most once, as `self` is consumed");
        deliver(result);
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if let Some(deliver) = self.0.take() {
            deliver(Err(RegionError::Undetermined));
        }
    }
}

impl std::fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplyTo")
    }
}
