//! Timestamps for many callers over one stream: whoever asks while a request is under way is served
//! by the next one.

use std::sync::Mutex;

use client::LinkError;
use proto::pdpb::{self, pd_client::PdClient};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::CALL_TIMEOUT;
use super::placement::Placement;

/// Callers of one request at most.
const CALLERS_MAX: usize = 1024;

type Caller = oneshot::Sender<pdpb::TsoResponse>;

/// The stream, if one is open.
#[derive(Debug, Default)]
pub(super) struct Timestamps {
    open: Mutex<Option<mpsc::Sender<Caller>>>,
}

impl Timestamps {
    /// One timestamp.
    pub(super) async fn next(
        &self,
        placement: &Placement,
        request: pdpb::TsoRequest,
    ) -> Result<pdpb::TsoResponse, LinkError> {
        assert_eq!(request.count, 1, "callers are joined here, not before");
        let stream = self.stream(placement, request);
        let (caller, answer) = oneshot::channel();
        let broken = || LinkError::Lost("the stream of timestamps ended".to_owned());
        let answered = async {
            stream.send(caller).await.map_err(|_| broken())?;
            answer.await.map_err(|_| broken())
        };
        let timeout = tokio::time::timeout(CALL_TIMEOUT, answered).await;
        let outcome =
            timeout.unwrap_or_else(|_| Err(LinkError::Lost("no timestamp in time".to_owned())));
        if outcome.is_err() {
            self.forget(&stream);
            placement.find_leader().await;
        }
        outcome
    }

    fn stream(&self, placement: &Placement, request: pdpb::TsoRequest) -> mpsc::Sender<Caller> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        let open = open.get_or_insert_with(|| {
            let (sender, callers) = mpsc::channel(CALLERS_MAX);
            tokio::spawn(serve(placement.leader(), request, callers));
            sender
        });
        open.clone()
    }

    fn forget(&self, stream: &mpsc::Sender<Caller>) {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        if open.as_ref().is_some_and(|open| open.same_channel(stream)) {
            *open = None;
        }
    }
}

/// Serves callers until the stream breaks; those who wait then learn of it by their dropped
/// channel.
async fn serve(
    mut leader: PdClient<Channel>,
    request: pdpb::TsoRequest,
    mut callers: mpsc::Receiver<Caller>,
) {
    let (requests, outbound) = mpsc::channel(1);
    let mut waiting = Vec::with_capacity(CALLERS_MAX);
    let mut outbound = Some(ReceiverStream::new(outbound));
    let mut stream = None;
    while callers.recv_many(&mut waiting, CALLERS_MAX).await > 0 {
        let count = u32::try_from(waiting.len()).expect("they are bounded");
        if requests.send(pdpb::TsoRequest { count, ..request.clone() }).await.is_err() {
            return;
        }
        // The stream is opened with the first request in it: some servers say nothing before.
        if let Some(outbound) = outbound.take() {
            match leader.tso(outbound).await {
                Ok(answers) => stream = Some(answers.into_inner()),
                Err(_) => return,
            }
        }
        let stream = stream.as_mut().expect("opened by the first request");
        let Ok(Some(answer)) = stream.message().await else { return };
        hand_out(&answer, &mut waiting);
    }
}

/// To each caller one of the timestamps of an answer, which names the last of them.
fn hand_out(answer: &pdpb::TsoResponse, callers: &mut Vec<Caller>) {
    let count = callers.len() as i64;
    for (i, caller) in callers.drain(..).enumerate() {
        let own = answer.timestamp.map(|last| {
            let logical = last.logical - (count - 1 - i as i64);
            pdpb::Timestamp { logical, ..last }
        });
        let answer = pdpb::TsoResponse { timestamp: own, count: 1, ..answer.clone() };
        // A caller that has stopped waiting needs none.
        let _ = caller.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_share_an_answer_in_their_order() {
        let last = pdpb::Timestamp { physical: 5, logical: 9, ..Default::default() };
        let answer = pdpb::TsoResponse { count: 3, timestamp: Some(last), ..Default::default() };
        let (mut callers, mut receivers): (Vec<_>, Vec<_>) =
            (0..3).map(|_| oneshot::channel()).unzip();
        hand_out(&answer, &mut callers);
        let logical = |receiver: &mut oneshot::Receiver<pdpb::TsoResponse>| {
            receiver.try_recv().expect("answered").timestamp.expect("with one").logical
        };
        assert_eq!(receivers.iter_mut().map(logical).collect::<Vec<_>>(), [7, 8, 9]);
    }
}
