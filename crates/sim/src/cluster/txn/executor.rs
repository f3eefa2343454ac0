//! Clients that are written as futures, on simulated time.
//!
//! A future waits for two things alone: the answer to a call, and the end of a sleep. Both are
//! *leaves*: asked for through the [`Port`], fetched from there by the world, and answered by it
//! when their time comes. Whoever is woken is polled a little later, in an order that the seed
//! decides. A client that is killed is its tasks dropped, wherever they were.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use base::{Instant, StoreId};
use client::StoreRequest;

use crate::cluster::event::{Reply, Request, Slot};

/// A task, by number.
pub(crate) type TaskId = u64;

/// Something that a task waits for, by number.
pub(crate) type LeafId = u64;

/// Where a request to a store goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the leader, as the client knows it.
    Leader,
    /// To any replica, which asks its leader.
    Replica,
    /// To any replica that knows the past up to then; now and then to the leader.
    Past,
}

/// What a task wants of the world.
#[derive(Debug)]
pub(crate) enum Ask {
    Call {
        to: Slot,
        request: Box<Request>,
        patience: Duration,
    },
    /// Of the store with this name, wherever it is; or of another one, by its route.
    Store {
        store: StoreId,
        request: Box<StoreRequest>,
        route: Route,
        patience: Duration,
    },
    Sleep(Duration),
}

/// A future of a client.
pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct Leaves {
    now: Instant,
    next: LeafId,
    /// Not fetched by the world yet.
    asks: Vec<(LeafId, usize, Ask)>,
    answers: BTreeMap<LeafId, Option<Reply>>,
    wakers: BTreeMap<LeafId, Waker>,
    spawned: Vec<(usize, TaskFuture)>,
}

/// A client's way to the world.
#[derive(Clone)]
pub(crate) struct Port {
    client: usize,
    leaves: Arc<Mutex<Leaves>>,
}

impl Port {
    fn leaves(&self) -> MutexGuard<'_, Leaves> {
        self.leaves.lock().expect("one thread")
    }

    pub(crate) fn client(&self) -> usize {
        self.client
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Instant {
        self.leaves().now
    }

    fn ask(&self, ask: Ask) -> Leaf {
        let mut leaves = self.leaves();
        leaves.next += 1;
        let id = leaves.next;
        leaves.asks.push((id, self.client, ask));
        Leaf { id, port: self.clone() }
    }

    /// Calls a node. `None`: nobody answered in time.
    pub(crate) async fn call(
        &self,
        to: Slot,
        request: Request,
        patience: Duration,
    ) -> Option<Reply> {
        self.ask(Ask::Call { to, request: Box::new(request), patience }).await
    }

    pub(crate) async fn call_store(
        &self,
        store: StoreId,
        request: StoreRequest,
        route: Route,
        patience: Duration,
    ) -> Option<Reply> {
        self.ask(Ask::Store { store, request: Box::new(request), route, patience }).await
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.ask(Ask::Sleep(time)).await;
    }

    /// Another task of this client.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.leaves().spawned.push((self.client, Box::pin(future)));
    }
}

struct Leaf {
    id: LeafId,
    port: Port,
}

impl Future for Leaf {
    type Output = Option<Reply>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        let mut leaves = self.port.leaves();
        match leaves.answers.remove(&self.id) {
            Some(reply) => Poll::Ready(reply),
            None => {
                leaves.wakers.insert(self.id, context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let mut leaves = self.port.leaves();
        leaves.answers.remove(&self.id);
        leaves.wakers.remove(&self.id);
        leaves.asks.retain(|(id, ..)| *id != self.id);
    }
}

struct Awake {
    task: TaskId,
    woken: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.woken.lock().expect("one thread").push(self.task);
    }
}

struct Task {
    client: usize,
    /// Not there while it is polled.
    future: Option<TaskFuture>,
    waker: Waker,
    /// It will be polled.
    due: bool,
}

/// All tasks of all clients.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: BTreeMap<TaskId, Task>,
    last: TaskId,
    leaves: Arc<Mutex<Leaves>>,
    woken: Arc<Mutex<Vec<TaskId>>>,
}

impl Executor {
    /// The way to the world for a client.
    pub(crate) fn port(&self, client: usize) -> Port {
        Port { client, leaves: self.leaves.clone() }
    }

    /// A task of a client begins.
    pub(crate) fn spawn(&mut self, client: usize, future: TaskFuture) {
        self.last += 1;
        let id = self.last;
        let waker = Waker::from(Arc::new(Awake { task: id, woken: self.woken.clone() }));
        waker.wake_by_ref();
        self.tasks.insert(id, Task { client, future: Some(future), waker, due: false });
    }

    /// The client's process ends, whatever it was doing.
    pub(crate) fn kill(&mut self, client: usize) {
        // Dropping a task takes its leaves back, which needs their lock.
        let dead = self.tasks.extract_if(.., |_, task| task.client == client);
        let dead: Vec<_> = dead.collect();
        drop(dead);
    }

    /// Whether a client has anything left to do.
    pub(crate) fn is_idle(&self, client: usize) -> bool {
        self.tasks.values().all(|task| task.client != client)
    }

    /// Tasks that are to be polled, and were not told so before.
    pub(crate) fn take_woken(&mut self) -> Vec<TaskId> {
        if self.tasks.is_empty() {
            return Vec::new();
        }
        let woken = std::mem::take(&mut *self.woken.lock().expect("one thread"));
        let mut due = Vec::new();
        for id in woken {
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| !task.due) {
                task.due = true;
                due.push(id);
            }
        }
        due
    }

    /// Lets a task go on. What it asks for is to be fetched.
    pub(crate) fn poll(&mut self, id: TaskId, now: Instant) {
        self.leaves.lock().expect("one thread").now = now;
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.due = false;
        let mut future = task.future.take().expect("polled by nobody else");
        let waker = task.waker.clone();
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => drop(self.tasks.remove(&id)),
            Poll::Pending => {
                self.tasks.get_mut(&id).expect("it is not done").future = Some(future);
            }
        }
        let spawned = std::mem::take(&mut self.leaves.lock().expect("one thread").spawned);
        for (client, future) in spawned {
            self.spawn(client, future);
        }
    }

    /// What the tasks want of the world.
    pub(crate) fn take_asks(&mut self) -> Vec<(LeafId, usize, Ask)> {
        std::mem::take(&mut self.leaves.lock().expect("one thread").asks)
    }

    /// The answer, or the end of the sleep or of the patience.
    pub(crate) fn answer(&mut self, leaf: LeafId, reply: Option<Reply>) {
        let mut leaves = self.leaves.lock().expect("one thread");
        // Whoever asked may be dead.
        let Some(waker) = leaves.wakers.remove(&leaf) else { return };
        leaves.answers.insert(leaf, reply);
        waker.wake();
    }
}
