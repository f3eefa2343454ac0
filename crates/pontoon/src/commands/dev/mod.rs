//! `pontoon dev`: a cluster of several nodes on this machine, each a process of its own, from one
//! command.
//!
//! ```text
//!   pontoon dev ──┬─ pontoon start                    node 1 founds the cluster
//!                 ├─ pontoon start --join ...         node 2
//!                 └─ pontoon start --join ...         node 3
//!   DIR/node-N  its data     DIR/node-N.log  what it says     DIR/ports  which ports were free
//! ```
//!
//! One line goes to standard output, when all nodes serve and everything has its replicas. A node
//! that dies is started again. SIGINT and SIGTERM end all nodes at once; should this process be
//! killed, they end by themselves.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Args;
use client::ClientError;
use proto::metapb;
use server::ApiVersionName;
use tokio::signal::unix::{SignalKind, signal};

use self::child::{Event, Node, NodeArgs};
use super::CommandError;
use super::start::api_version;
use crate::remote::Placement;

mod child;

/// Regions have so many replicas, where there are so many nodes.
const REPLICAS: usize = 3;

/// All replicas must be there within this time; then the cluster counts as ready without.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(60);

/// How often they are looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Flags of `pontoon dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = node_count())]
    nodes: u16,
    /// Folder of everything the nodes keep
    #[arg(long, value_name = "DIR", default_value = "pontoon-dev")]
    data_dir: PathBuf,
    /// Address of the first node, the others have the next ports; port 0 takes free ones
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2379")]
    listen: SocketAddr,
    /// Mode of raw data, chosen at the first start [default: 1]
    #[arg(long, value_name = "VERSION", value_parser = api_version)]
    api_version: Option<ApiVersionName>,
    /// Configuration file (TOML) of all nodes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the nodes log: a level, or a filter such as `info,store=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
}

/// Runs the cluster until SIGTERM or SIGINT, or until a node cannot be started.
pub fn run(args: &DevArgs) -> Result<(), CommandError> {
    let at = |path: &Path, error: std::io::Error| {
        CommandError::new(format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(&args.data_dir).map_err(|error| at(&args.data_dir, error))?;
    let addresses = addresses(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(format!("threads: {error}")))?;
    runtime.block_on(supervise(args, &addresses))
}

fn node_count() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=9)
}

async fn supervise(args: &DevArgs, addresses: &[SocketAddr]) -> Result<(), CommandError> {
    let stop = |kind| signal(kind).map_err(|error| CommandError::new(format!("signals: {error}")));
    let (mut terminate, mut interrupt) =
        (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    let (events, inbox) = channel();
    let program = std::env::current_exe()
        .map_err(|error| CommandError::new(format!("this program is not found: {error}")))?;
    let start = |number: usize| {
        let node = node_args(args, addresses, number);
        Node::start(&program, node, events.clone())
    };
    let nodes: Vec<Node> = (1..=addresses.len()).map(start).collect();
    let result = tokio::select! {
        result = watch(inbox, addresses) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    nodes.iter().for_each(Node::end);
    nodes.into_iter().for_each(Node::ended);
    result
}

/// Prints the one line when it is time, and ends when a node cannot be started.
async fn watch(inbox: Receiver<Event>, addresses: &[SocketAddr]) -> Result<(), CommandError> {
    let mut waiting = addresses.len();
    loop {
        while let Ok(event) = inbox.try_recv() {
            match event {
                Event::Ready { cluster_id, first } => {
                    waiting -= usize::from(first);
                    if first && waiting == 0 {
                        await_replicas(addresses).await;
                        let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                        println!(
                            "ready nodes={} listen={} cluster={cluster_id}",
                            list.len(),
                            list.join(",")
                        );
                    }
                }
                Event::Failed { number, cause } => {
                    return Err(CommandError::new(format!("node {number}: {cause}")));
                }
                Event::Died { number, status } => {
                    eprintln!("pontoon dev: node {number} ended ({status}), it is started again");
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until every region, and the placement driver, has the replicas it should have.
async fn await_replicas(addresses: &[SocketAddr]) {
    let wanted = addresses.len().min(REPLICAS);
    let deadline = Instant::now() + REPLICAS_TIMEOUT;
    loop {
        let missing = match missing(&addresses[0].to_string(), wanted).await {
            Ok(0) => return,
            Ok(count) => format!("{count} replicas are missing"),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            eprintln!("pontoon dev: ready, but {missing}");
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn missing(address: &str, wanted: usize) -> Result<usize, ClientError> {
    let placement = Placement::connect(address).await?;
    let members = placement.members().await?.members.len();
    let regions = placement.regions(b"", usize::MAX).await?;
    // Of two copies one is a learner.
    let counts = |peer: &&metapb::Peer| wanted < REPLICAS || peer.role() == metapb::PeerRole::Voter;
    let of_region =
        |peers: &[metapb::Peer]| wanted.saturating_sub(peers.iter().filter(counts).count());
    let missing: usize = regions.iter().map(|region| of_region(&region.region.peers)).sum();
    Ok(missing + wanted.saturating_sub(members))
}

fn node_args(args: &DevArgs, addresses: &[SocketAddr], number: usize) -> NodeArgs {
    let folder = |number: usize| args.data_dir.join(format!("node-{number}"));
    let is_empty = |number: usize| !folder(number).exists();
    // The first node founds the cluster, unless the others have one already.
    let founds = number == 1 && (2..=addresses.len()).all(is_empty);
    let others = addresses.iter().enumerate().filter(|(at, _)| at + 1 != number);
    let others: Vec<_> = others.map(|(_, address)| address.to_string()).collect();
    let mut flags = vec!["--log-level".to_owned(), args.log_level.clone()];
    if !founds && !others.is_empty() {
        flags.extend(["--join".to_owned(), others.join(",")]);
    }
    if let Some(version) = args.api_version {
        let version = match version {
            ApiVersionName::V1 => "1",
            ApiVersionName::V1Ttl => "1ttl",
            ApiVersionName::V2 => "2",
        };
        flags.extend(["--api-version".to_owned(), version.to_owned()]);
    }
    NodeArgs {
        number,
        folder: folder(number),
        log: args.data_dir.join(format!("node-{number}.log")),
        listen: addresses[number - 1],
        config: args.config.clone(),
        flags,
    }
}

/// Where the nodes listen. Free ports are chosen once: the nodes of a cluster must find each other
/// again.
fn addresses(args: &DevArgs) -> Result<Vec<SocketAddr>, CommandError> {
    let (ip, first, count) = (args.listen.ip(), args.listen.port(), args.nodes);
    if first != 0 {
        let Some(last) = first.checked_add(count - 1) else {
            return Err(CommandError::new(format!("no {count} ports from {first} on")));
        };
        return Ok((first..=last).map(|port| SocketAddr::new(ip, port)).collect());
    }
    let file = args.data_dir.join("ports");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let mut ports: Vec<u16> = text.lines().filter_map(|line| line.parse().ok()).collect();
    ports.extend(free_ports(ip, usize::from(count).saturating_sub(ports.len()))?);
    let text: String = ports.iter().map(|port| format!("{port}\n")).collect();
    std::fs::write(&file, text)
        .map_err(|error| CommandError::new(format!("{}: {error}", file.display())))?;
    ports.truncate(usize::from(count));
    Ok(ports.into_iter().map(|port| SocketAddr::new(ip, port)).collect())
}

fn free_ports(ip: IpAddr, count: usize) -> Result<Vec<u16>, CommandError> {
    // All are held until all are known, so that no two are the same.
    let bound: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind((ip, 0))).collect();
    let ports = bound
        .and_then(|bound| bound.iter().map(|listener| Ok(listener.local_addr()?.port())).collect());
    ports.map_err(|error| CommandError::new(format!("listen address {ip}: {error}")))
}
