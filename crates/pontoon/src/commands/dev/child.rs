//! One node of the cluster: a process, and the thread that starts it again.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A node that died is started again after this time.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);

/// A node that is told to end has so long to do it.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How a node is started.
pub(super) struct NodeArgs {
    /// From 1 on.
    pub(super) number: usize,
    pub(super) folder: PathBuf,
    /// Where its standard error goes.
    pub(super) log: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) config: Option<PathBuf>,
    /// Of `pontoon start`.
    pub(super) flags: Vec<String>,
}

/// What happens to a node.
pub(super) enum Event {
    /// It serves.
    Ready {
        cluster_id: String,
        /// It has not served before.
        first: bool,
    },
    /// It ended before it served for the first time.
    Failed { number: usize, cause: String },
    /// It ended and is started again.
    Died { number: usize, status: ExitStatus },
}

/// What the thread and whoever stops it share.
#[derive(Default)]
struct Shared {
    /// While it runs.
    pid: Option<Pid>,
    /// It ends when this closes.
    stdin: Option<ChildStdin>,
    stopping: bool,
}

/// A node that is kept running.
pub(super) struct Node {
    shared: Arc<Mutex<Shared>>,
    /// Closes when the thread ends.
    ended: Receiver<()>,
    /// Wakes the thread out of its pause.
    wake: Sender<()>,
}

impl Node {
    pub(super) fn start(program: &Path, args: NodeArgs, events: Sender<Event>) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (end, ended) = channel();
        let (wake, pause) = channel();
        let keeper =
            Keeper { program: program.to_owned(), args, events, shared: shared.clone(), pause };
        thread::spawn(move || {
            keeper.run();
            drop(end);
        });
        Self { shared, ended, wake }
    }

    /// Tells the node to end with all the others: it hands nothing over to them.
    pub(super) fn end(&self) {
        let stdin = {
            let mut shared = lock(&self.shared);
            shared.stopping = true;
            shared.stdin.take()
        };
        drop(stdin);
        // The thread may have ended.
        let _ = self.wake.send(());
    }

    /// Waits until a node that was told to end has, or kills it if that takes too long.
    pub(super) fn ended(self) {
        if self.ended.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            if let Some(pid) = lock(&self.shared).pid {
                // It may have ended in this moment.
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = self.ended.recv();
        }
    }
}

/// The thread of a node.
struct Keeper {
    program: PathBuf,
    args: NodeArgs,
    events: Sender<Event>,
    shared: Arc<Mutex<Shared>>,
    pause: Receiver<()>,
}

impl Keeper {
    fn run(&self) {
        let number = self.args.number;
        let mut has_served = false;
        loop {
            let ended = self.run_once(&mut has_served);
            if lock(&self.shared).stopping {
                return;
            }
            let event = match ended {
                Ok(status) if has_served => Event::Died { number, status },
                Ok(status) => Event::Failed { number, cause: self.last_words(status) },
                Err(error) => Event::Failed { number, cause: error.to_string() },
            };
            let gives_up = matches!(event, Event::Failed { .. });
            if self.events.send(event).is_err() || gives_up {
                return;
            }
            // A wake-up means that it is over.
            if self.pause.recv_timeout(RESTART_INTERVAL).is_ok() {
                return;
            }
        }
    }

    fn run_once(&self, has_served: &mut bool) -> io::Result<ExitStatus> {
        let mut child = {
            let mut shared = lock(&self.shared);
            if shared.stopping {
                return Ok(ExitStatus::default());
            }
            let mut child = self.spawn()?;
            shared.pid = Some(pid(&child));
            shared.stdin = child.stdin.take();
            child
        };
        let stdout = child.stdout.take().expect("it is piped");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let is_ready = line.starts_with("ready ");
            let cluster = line.split(' ').find_map(|word| word.strip_prefix("cluster="));
            if let Some(cluster) = cluster.filter(|_| is_ready) {
                let (cluster_id, first) = (cluster.to_owned(), !*has_served);
                *has_served = true;
                // Whoever listened may have gone.
                let _ = self.events.send(Event::Ready { cluster_id, first });
            }
        }
        let status = child.wait();
        let mut shared = lock(&self.shared);
        (shared.pid, shared.stdin) = (None, None);
        status
    }

    fn spawn(&self) -> io::Result<Child> {
        let NodeArgs { folder, log, listen, config, flags, .. } = &self.args;
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.program);
        command.arg("start").arg("--until-stdin-closes").arg("--data-dir").arg(folder);
        command.arg("--listen").arg(listen.to_string()).args(flags);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        // In a group of its own: an interrupt of the terminal is for the one who started it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0);
        command.spawn()
    }

    fn last_words(&self, status: ExitStatus) -> String {
        let text = fs::read_to_string(&self.args.log).unwrap_or_default();
        let last = text.lines().rev().find_map(|line| line.strip_prefix("pontoon: "));
        last.map_or_else(|| format!("it ended ({status})"), str::to_owned)
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
