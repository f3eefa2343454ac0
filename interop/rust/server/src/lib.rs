//! Starts the release binary, kills it and starts it again, for those who load it through a client.
//!
//! ```text
//!   Server::start ── pontoon start --data-dir TMP --listen 127.0.0.1:0 ──▶ `ready listen=...`
//!      kill  = SIGKILL: nothing is said, nothing is flushed
//!      start_again: same folder, same address
//! ```
//!
//! The server ends with its [`Server`], and then its folder goes too.
//!
//! With `PONTOON_NODES=3` in the environment it is a cluster of so many nodes, `pontoon dev`, whose
//! first one is spoken to; all of them stop and start together, and in order. `PONTOON_CONFIG`
//! names the file that every node reads.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far more than a start takes: a server that is slow to start is not what is tested here.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no server.
#[derive(Debug)]
pub enum ServerError {
    /// The variable `PONTOON`, which names the binary, is not set.
    NoBinary,
    /// The operating system refuses.
    Io(io::Error),
    /// It ended, or did not say in time that it can serve. Holds what it logged.
    NotReady(String),
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBinary => write!(f, "PONTOON names no binary: run this through ./x"),
            Self::Io(error) => write!(f, "the server cannot be run: {error}"),
            Self::NotReady(log) => write!(f, "the server did not get ready; its log:\n{log}"),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A running binary on a folder of its own.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
    setup: Setup,
    address: String,
}

/// How a server is run.
#[derive(Clone, Debug)]
struct Setup {
    api_version: String,
    /// How many nodes, if it is a cluster.
    nodes: Option<String>,
    config: Option<PathBuf>,
}

impl Server {
    /// A server on an empty folder and a free port. `api_version` is `1`, `1ttl` or `2`.
    pub fn start(api_version: &str) -> Result<Self, ServerError> {
        let folder = new_folder()?;
        let nodes = std::env::var("PONTOON_NODES").ok();
        let config = std::env::var_os("PONTOON_CONFIG").map(PathBuf::from);
        Self::launch(folder, Setup { api_version: api_version.to_owned(), nodes, config })
    }

    /// A cluster of `nodes` nodes of API version 1 whose configuration file has this text.
    pub fn start_cluster(nodes: u16, config: &str) -> Result<Self, ServerError> {
        let folder = new_folder()?;
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config)?;
        let (api_version, nodes) = ("1".to_owned(), Some(nodes.to_string()));
        Self::launch(folder, Setup { api_version, nodes, config: Some(file) })
    }

    fn launch(folder: TempDir, setup: Setup) -> Result<Self, ServerError> {
        let (child, address) = launch(folder.path(), "127.0.0.1:0", &setup)?;
        Ok(Self { child, folder, setup, address })
    }

    /// `host:port` of everything it serves. It stays the same over a restart.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL, and returns once it is gone. Several nodes end in order.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        match self.setup.nodes {
            Some(_) => drop(Command::new("kill").arg(self.child.id().to_string()).status()?),
            None => self.child.kill()?,
        }
        self.child.wait()?;
        Ok(())
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> u16 {
        let nodes = self.setup.nodes.as_ref().map(|nodes| nodes.parse().expect("a number"));
        nodes.unwrap_or(1)
    }

    /// Ends one node of a cluster with SIGKILL, by its place among those that run. The cluster
    /// starts it again by itself.
    pub fn kill_node(&self, place: usize) -> Result<(), ServerError> {
        let nodes = self.running_nodes()?;
        let node = nodes[place % nodes.len()].to_string();
        Command::new("kill").args(["-KILL", &node]).status()?;
        Ok(())
    }

    /// Returns once the cluster has started again who was killed.
    pub fn until_all_nodes_run(&self) -> Result<(), ServerError> {
        let began = Instant::now();
        while self.running_nodes()?.len() < usize::from(self.nodes()) {
            if began.elapsed() > START_TIMEOUT {
                return Err(ServerError::NotReady(self.log()));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Process ids of the nodes of a cluster.
    fn running_nodes(&self) -> Result<Vec<u32>, ServerError> {
        let pid = self.child.id();
        let mut nodes = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            nodes.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        nodes.sort_unstable();
        Ok(nodes)
    }

    /// Runs it again on what it left. Call [`Server::kill`] first.
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        assert!(self.child.try_wait()?.is_some(), "the server is still running");
        let (child, address) = launch(self.folder.path(), &self.address, &self.setup)?;
        assert_eq!(address, self.address, "a server takes the address it is given");
        self.child = child;
        Ok(())
    }

    /// What it logged since its first start.
    pub fn log(&self) -> String {
        read_log(self.folder.path())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn read_log(folder: &Path) -> String {
    std::fs::read_to_string(log_path(folder)).unwrap_or_else(|error| error.to_string())
}

/// Returns once the server has said that it can serve, with the address it said.
fn launch(folder: &Path, listen: &str, setup: &Setup) -> Result<(Child, String), ServerError> {
    let binary = std::env::var_os("PONTOON").ok_or(ServerError::NoBinary)?;
    let log = File::options().create(true).append(true).open(log_path(folder))?;
    let mut command = command(&binary);
    match &setup.nodes {
        // It remembers its ports in its folder.
        Some(nodes) => command.args(["dev", "--listen", "127.0.0.1:0", "--nodes", nodes]),
        None => command.args(["start", "--listen", listen]),
    };
    if let Some(config) = &setup.config {
        command.arg("--config").arg(config);
    }
    let mut child = command
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--api-version", &setup.api_version])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let out = child.stdout.take().expect("stdout is piped");
    let (sender, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        // An error is an empty line to the one who waits.
        let _ = BufReader::new(out).read_line(&mut text);
        let _ = sender.send(text);
    });
    let line = line.recv_timeout(START_TIMEOUT).unwrap_or_default();
    match listen_address(&line) {
        Some(address) => Ok((child, address.to_owned())),
        None => {
            child.kill()?;
            child.wait()?;
            Err(ServerError::NotReady(read_log(folder)))
        }
    }
}

fn new_folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("pontoon-").tempdir()
}

/// Runs the binary so that it ends with this process, even if this process is aborted, where there
/// is a program that asks the kernel for that.
fn command(binary: &OsStr) -> Command {
    const SETPRIV: &str = "/usr/bin/setpriv";
    if !Path::new(SETPRIV).exists() {
        return Command::new(binary);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
    command
}

/// The address in `ready listen=... store=... cluster=...`, of several nodes that of the first.
fn listen_address(line: &str) -> Option<&str> {
    let fields = line.trim_end().strip_prefix("ready ")?;
    let addresses = fields.split(' ').find_map(|field| field.strip_prefix("listen="))?;
    addresses.split(',').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_ready_line() {
        let line = "ready listen=127.0.0.1:2379 store=1 cluster=7\n";
        assert_eq!(listen_address(line), Some("127.0.0.1:2379"));
        let line = "ready nodes=2 listen=127.0.0.1:1,127.0.0.1:2 cluster=7\n";
        assert_eq!(listen_address(line), Some("127.0.0.1:1"));
        assert_eq!(listen_address("ready\n"), None);
        assert_eq!(listen_address("error: listen=x"), None);
    }
}
