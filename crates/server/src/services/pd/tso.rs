//! The stream of timestamps: one answer for each request, in order.
//!
//! ```text
//!   requests that wait   [3] [1] [10]  ──> 14 timestamps taken at once, the largest is L
//!   answers              L-11  L-10  L     each the largest of its own
//! ```
//!
//! A wrong request (a count of zero, another cluster) fails the stream, after those before it are
//! answered: clients count on the order. When the client ends its side, so does the stream, with
//! OK.

use std::collections::VecDeque;

use base::TimeStamp;
use futures_util::{Stream, stream};
use placement::{BATCH_MAX, header};
use proto::pdpb;
use tonic::Status;

use super::answer::status;
use super::streams::Inbound;
use crate::placement_host::PlacementHost;

/// The answers to `requests`.
pub(super) fn serve(
    host: PlacementHost,
    requests: Inbound<pdpb::TsoRequest>,
) -> impl Stream<Item = Result<pdpb::TsoResponse, Status>> + Send {
    let stream = TsoStream {
        host,
        requests,
        counts: VecDeque::new(),
        answers: VecDeque::new(),
        failure: None,
        failed: false,
    };
    stream::unfold(stream, |mut stream| async move {
        let answer = stream.next().await?;
        stream.failed = answer.is_err();
        Some((answer, stream))
    })
}

struct TsoStream {
    host: PlacementHost,
    requests: Inbound<pdpb::TsoRequest>,
    /// Counts of the requests that were read and have no timestamps yet.
    counts: VecDeque<u32>,
    /// Answers that have not left yet.
    answers: VecDeque<pdpb::TsoResponse>,
    /// What comes after the answers to all requests before it.
    failure: Option<Status>,
    /// An error has left: nothing follows.
    failed: bool,
}

impl TsoStream {
    async fn next(&mut self) -> Option<Result<pdpb::TsoResponse, Status>> {
        loop {
            if self.failed {
                return None;
            }
            if let Some(answer) = self.answers.pop_front() {
                return Some(Ok(answer));
            }
            if self.counts.is_empty() {
                if let Some(failure) = self.failure.take() {
                    return Some(Err(failure));
                }
                let request = self.requests.next().await?;
                self.read(request);
                continue;
            }
            if let Err(failure) = self.take_batch().await {
                return Some(Err(failure));
            }
        }
    }

    /// Reads a request, or learns that the stream must fail.
    fn read(&mut self, request: Result<pdpb::TsoRequest, Status>) {
        match request.and_then(|request| self.checked_count(&request)) {
            Ok(count) => self.counts.push_back(count),
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn checked_count(&self, request: &pdpb::TsoRequest) -> Result<u32, Status> {
        header::check(self.host.cluster_id(), request.header.as_ref())
            .map_err(|error| status(&error.into()))?;
        match request.count {
            0 => Err(Status::unknown("tso count should be positive")),
            count => Ok(count),
        }
    }

    /// Takes timestamps for the requests that wait, as many as one batch can hold.
    async fn take_batch(&mut self) -> Result<(), Status> {
        let mut total = *self.counts.front().expect("the caller looked");
        let mut served = 1;
        loop {
            if served == self.counts.len() && self.failure.is_none() {
                match self.requests.next_waiting() {
                    Some(request) => self.read(request),
                    None => break,
                }
            }
            // One that does not fit waits for the next batch; so may one larger than any batch.
            match self.counts.get(served).and_then(|count| total.checked_add(*count)) {
                Some(sum) if sum <= BATCH_MAX => (total, served) = (sum, served + 1),
                _ => break,
            }
        }
        let largest = self.host.timestamps(total).await.map_err(|error| status(&error))?;
        let mut last = largest.0 - u64::from(total);
        for count in self.counts.drain(..served) {
            last += u64::from(count);
            self.answers.push_back(pdpb::TsoResponse {
                header: Some(header::success(self.host.cluster_id())),
                count,
                timestamp: Some(header::timestamp(TimeStamp(last))),
            });
        }
        assert_eq!(last, largest.0, "all timestamps of the batch are given out");
        Ok(())
    }
}
