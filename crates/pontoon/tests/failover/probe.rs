//! Callers that never give up: each notes when its calls began and when they were answered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use proto::tikvpb::tikv_client::TikvClient;
use proto::{errorpb, kvrpcpb, metapb, pdpb};
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::Channel;

use crate::cluster;

/// One call may take so long before the next member is asked.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two rounds of tries when nobody could answer, and between two timestamps.
const PAUSE: Duration = Duration::from_millis(5);

/// A call that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// When the try that was answered began.
    pub began: Instant,
    /// When the answer was there.
    pub ended: Instant,
}

/// Tells the probes to end.
pub(crate) type Stop = Arc<AtomicBool>;

/// What is known of the region and of where its replicas are.
#[derive(Clone)]
pub(crate) struct Route {
    /// The descriptor; changes of members make it a new one.
    pub region: Arc<Mutex<metapb::Region>>,
    /// The nodes, by their stores.
    pub stores: Vec<u64>,
    /// And where they listen.
    pub addresses: Vec<String>,
}

/// Writes its numbers one after the other, each until it is acknowledged.
pub(crate) async fn write(
    writer: usize,
    mut route: Route,
    written: Arc<AtomicU64>,
    stop: Stop,
    answers: UnboundedSender<Answer>,
) {
    let mut clients: Vec<Option<TikvClient<Channel>>> = vec![None; route.addresses.len()];
    let mut target = 0;
    let mut pause = tokio::time::interval(PAUSE);
    for number in 0.. {
        let ended = loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let began = Instant::now();
            match put(&mut route, &mut clients, target, &key(writer, number)).await {
                Ok(()) => break Answer { began, ended: Instant::now() },
                Err(next) => target = next.unwrap_or((target + 1) % clients.len()),
            }
            if target == 0 {
                pause.tick().await;
            }
        };
        written.store(number + 1, Ordering::Relaxed);
        let _ = answers.send(ended);
    }
}

/// What a writer's number is written to; the value is the same.
pub(crate) fn key(writer: usize, number: u64) -> String {
    format!("failover/{writer:02}/{number:010}")
}

/// Puts at the replica in place `target`; if that is not the one, says who is, as far as known.
async fn put(
    route: &mut Route,
    clients: &mut [Option<TikvClient<Channel>>],
    target: usize,
    key: &str,
) -> Result<(), Option<usize>> {
    let region = route.region.lock().expect("nobody panics with it").clone();
    let store = route.stores[target];
    let peer = region.peers.iter().find(|peer| peer.store_id == store).ok_or(None)?;
    let client = match &mut clients[target] {
        Some(client) => client,
        none => {
            let connected = TikvClient::connect(format!("http://{}", route.addresses[target]));
            none.insert(connected.await.map_err(|_| None)?)
        }
    };
    let context = kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: Some(*peer),
        ..Default::default()
    };
    let (key, value) = (key.to_owned().into(), key.to_owned().into());
    let request =
        kvrpcpb::RawPutRequest { context: Some(context), key, value, ..Default::default() };
    let answer = match tokio::time::timeout(CALL_TIMEOUT, client.raw_put(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        _ => {
            clients[target] = None;
            return Err(None);
        }
    };
    match answer.region_error {
        None if answer.error.is_empty() => Ok(()),
        None => panic!("{}", answer.error),
        Some(error) => Err(learn(route, error)),
    }
}

/// What a region error says of where the leader is.
fn learn(route: &Route, error: errorpb::Error) -> Option<usize> {
    if let Some(epoch) = error.epoch_not_match {
        let mut region = route.region.lock().expect("nobody panics with it");
        let newer = epoch.current_regions.into_iter().find(|current| current.id == region.id);
        if let Some(newer) = newer {
            *region = newer;
        }
    }
    let leader = error.not_leader?.leader?;
    route.stores.iter().position(|store| *store == leader.store_id)
}

/// Asks for one timestamp after the other. Each must be above all before it.
pub(crate) async fn timestamps(
    cluster_id: u64,
    addresses: Vec<String>,
    stop: Stop,
    answers: UnboundedSender<Answer>,
) {
    let mut last = 0;
    let mut target = 0;
    let mut pause = tokio::time::interval(PAUSE);
    while !stop.load(Ordering::Relaxed) {
        stream_of_timestamps(cluster_id, &addresses[target], &stop, &mut last, &answers).await;
        target = (target + 1) % addresses.len();
        if target == 0 {
            pause.tick().await;
        }
    }
}

/// As many timestamps as the member at `address` gives.
async fn stream_of_timestamps(
    cluster_id: u64,
    address: &str,
    stop: &Stop,
    last: &mut u64,
    answers: &UnboundedSender<Answer>,
) {
    let Some(mut client) = cluster::connect(address).await else { return };
    let header = Some(pdpb::RequestHeader { cluster_id, ..Default::default() });
    let request = pdpb::TsoRequest { header, count: 1, ..Default::default() };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let requests = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|request| (request, receiver))
    });
    let opened = tokio::time::timeout(CALL_TIMEOUT, client.tso(Box::pin(requests))).await;
    let Ok(Ok(stream)) = opened else { return };
    let mut stream = stream.into_inner();
    let mut pause = tokio::time::interval(PAUSE);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        if sender.send(request.clone()).await.is_err() {
            return;
        }
        let answer = tokio::time::timeout(CALL_TIMEOUT, stream.next()).await;
        let Ok(Some(Ok(answer))) = answer else { return };
        let Some(ts) = answer.timestamp else { return };
        let ts = ((ts.physical as u64) << 18) + ts.logical as u64;
        assert!(ts > *last, "timestamp {ts} after {last}");
        *last = ts;
        let _ = answers.send(Answer { began, ended: Instant::now() });
        pause.tick().await;
    }
}
