//! The service `deadlock.Deadlock`: other stores report who waits for whom, and learn which wait
//! closed a cycle. Only the store that leads the region with the first key serves it; the others
//! end the stream, so that the caller looks for the right one.

use std::pin::Pin;
use std::time::Duration;

use base::ClusterId;
use futures_util::{Stream, stream};
use proto::deadlock::deadlock_server::{Deadlock, DeadlockServer};
use proto::deadlock::{
    DeadlockRequest, DeadlockResponse, WaitForEntriesRequest, WaitForEntriesResponse,
};
use tokio::sync::watch;
use tokio::time::{Interval, interval};
use tonic::{Request, Response, Status, Streaming};
use txn::wire;

use super::raft::check_cluster;
use super::txn::TxnService;
use super::txn::deadlocks::{NotHere, Report, answer, from_proto};

/// How often a quiet stream is looked at: whether the detector is still here.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The service.
pub(crate) struct DeadlockService {
    txn: TxnService,
    cluster: ClusterId,
    closed: watch::Receiver<bool>,
}

/// The service for a server. Streams end when `closed` turns true.
pub(crate) fn server(
    txn: TxnService,
    cluster: ClusterId,
    closed: watch::Receiver<bool>,
) -> DeadlockServer<DeadlockService> {
    DeadlockServer::new(DeadlockService { txn, cluster, closed })
}

type Answers = Pin<Box<dyn Stream<Item = Result<DeadlockResponse, Status>> + Send>>;

/// One stream of reports.
struct Reports {
    txn: TxnService,
    inbound: Streaming<DeadlockRequest>,
    closed: watch::Receiver<bool>,
    looks: Interval,
    /// Reports of the last message that were not looked at yet.
    left: std::vec::IntoIter<Report>,
}

impl Reports {
    /// The next cycle; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<DeadlockResponse>, Status> {
        loop {
            for report in self.left.by_ref() {
                let found = self.txn.detect(&report).map_err(|NotHere| elsewhere())?;
                if let (Report::Waits(wait), Some(found)) = (&report, found) {
                    return Ok(Some(answer(wait, &found)));
                }
            }
            tokio::select! {
                message = self.inbound.message() => match message? {
                    Some(message) => self.left = from_proto(message).into_iter(),
                    None => return Ok(None),
                },
                _ = self.looks.tick() => if !self.txn.detects() {
                    return Err(elsewhere());
                },
                _ = self.closed.wait_for(|closed| *closed) => return Ok(None),
            }
        }
    }
}

fn elsewhere() -> Status {
    Status::failed_precondition("the first region is not led here")
}

#[tonic::async_trait]
impl Deadlock for DeadlockService {
    async fn get_wait_for_entries(
        &self,
        _request: Request<WaitForEntriesRequest>,
    ) -> Result<Response<WaitForEntriesResponse>, Status> {
        let entries = self.txn.known_waits().iter().map(wire::wait_for_entry).collect();
        Ok(Response::new(WaitForEntriesResponse { entries }))
    }

    async fn detect(
        &self,
        request: Request<Streaming<DeadlockRequest>>,
    ) -> Result<Response<Answers>, Status> {
        check_cluster(self.cluster, request.metadata())?;
        if !self.txn.detects() {
            return Err(elsewhere());
        }
        let (txn, closed) = (self.txn.clone(), self.closed.clone());
        let (inbound, looks) = (request.into_inner(), interval(LOOK_INTERVAL));
        let reports = Reports { txn, inbound, closed, looks, left: Vec::new().into_iter() };
        let answers = stream::try_unfold(reports, |mut reports| async move {
            Ok(reports.next().await?.map(|answer| (answer, reports)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
