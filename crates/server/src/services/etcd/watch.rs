//! `etcdserverpb.Watch`: a stream of watches, told of changes as they are committed.
//!
//! The stream ends with an error that clients come again after: when the placement driver leaves
//! this node, and when the node stops. They go on at the revision after the last that they heard.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use placement::etcd::Watches;
use proto::etcdserverpb::watch_server::Watch;
use proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::sync::watch;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Etcd;
use super::status::{leader_changed, stopped};

/// Watches that want to hear of progress are looked at this often.
const PROGRESS_LOOK: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl Watch for Etcd {
    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<BoxStream<WatchResponse>>, Status> {
        let watching = Watching {
            etcd: self.clone(),
            requests: request.into_inner(),
            watches: Watches::default(),
            changed: self.desk.changed(),
            leads: self.desk.host().leads(),
            closed: self.closed.clone(),
        };
        Ok(Response::new(Box::pin(watching.answers())))
    }
}

struct Watching {
    etcd: Etcd,
    requests: Streaming<WatchRequest>,
    watches: Watches,
    changed: watch::Receiver<()>,
    leads: watch::Receiver<bool>,
    closed: watch::Receiver<bool>,
}

impl Watching {
    fn answers(self) -> impl Stream<Item = Result<WatchResponse, Status>> + Send {
        // `None`: nothing follows.
        stream::unfold(Some(self), |state| async move {
            let mut watching = state?;
            let answer = watching.next().await?;
            let next = answer.is_ok().then_some(watching);
            Some((answer, next))
        })
    }

    /// The next answer; `None` when the client has ended its side.
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            self.changed.mark_unchanged();
            self.leads.mark_unchanged();
            let (host, watches) = (self.etcd.desk.host(), &mut self.watches);
            match host.read(|placement| watches.next(placement, host.now())) {
                Ok(Some(mut answer)) => {
                    self.etcd.complete(&mut answer.header);
                    return Some(Ok(answer));
                }
                Ok(None) => {}
                Err(_) => return Some(Err(leader_changed())),
            }
            tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => return Some(Err(stopped())),
                // The senders live as long as the node.
                _ = self.leads.changed() => {}
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(PROGRESS_LOOK) => {}
                request = self.requests.next() => {
                    let request = match request? {
                        Ok(request) => request,
                        Err(status) => return Some(Err(status)),
                    };
                    let (host, watches) = (self.etcd.desk.host(), &mut self.watches);
                    let taken = host.read(|placement| watches.take(placement, request, host.now()));
                    if taken.is_err() {
                        return Some(Err(leader_changed()));
                    }
                }
            }
        }
    }
}
