//! `pontoon start`: a node in this process, until a signal ends it.
//!
//! One line goes to standard output, when the node serves; everything else goes to standard error.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;

use clap::{Args, ValueEnum};
use server::{ApiVersionName, Config, Node};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::CommandError;

/// Flags of `pontoon start`. What is not given comes from the file, and from the defaults where the
/// file is silent.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// Folder of everything the node keeps [default: pontoon-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address that carries all services; port 0 takes a free one [default: 127.0.0.1:2379]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where clients reach this node [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Nodes of a cluster that an empty data folder joins; without it, it founds one
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<String>,
    /// Mode of raw data, chosen at the first start [default: 1]
    #[arg(long, value_name = "VERSION", value_parser = api_version)]
    api_version: Option<ApiVersionName>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What to log: a level, or a filter such as `info,store=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: EnvFilterArg,
    /// End when standard input does: whoever started this node is gone
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A filter that was parsed once to see whether it can be: the filter itself is no `Clone`.
#[derive(Clone, Debug)]
struct EnvFilterArg(String);

impl std::str::FromStr for EnvFilterArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

pub(super) fn api_version(text: &str) -> Result<ApiVersionName, String> {
    match text {
        "1" => Ok(ApiVersionName::V1),
        "1ttl" => Ok(ApiVersionName::V1Ttl),
        "2" => Ok(ApiVersionName::V2),
        _ => Err("1, 1ttl or 2".to_owned()),
    }
}

/// Runs the node until SIGTERM or SIGINT, or until it fails.
pub fn run(args: &StartArgs) -> Result<(), CommandError> {
    init_log(args);
    abort_on_panic();
    raise_file_limit();
    let config = config(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("edge")
        .build()
        .map_err(|error| CommandError::new(format!("threads: {error}")))?;
    let result = runtime.block_on(serve(config, args.until_stdin_closes));
    // Streams that clients hold open do not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, until_stdin_closes: bool) -> Result<(), CommandError> {
    let stop = |kind| signal(kind).map_err(|error| CommandError::new(format!("signals: {error}")));
    let (mut terminate, mut interrupt) =
        (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    let mut orphaned = watch_stdin(until_stdin_closes);
    let node = tokio::select! {
        node = Box::pin(Node::open(config)) => node.map_err(CommandError::new)?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        () = &mut orphaned => return Ok(()),
    };
    println!(
        "ready listen={} store={} cluster={}",
        node.address(),
        node.store_id(),
        node.cluster_id()
    );
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        // The others end, too: there is nobody to hand over to.
        () = &mut orphaned => {
            node.halt().await;
            return Ok(());
        }
        failure = node.failed() => Some(failure),
    };
    node.stop().await;
    failure.map_or(Ok(()), |failure| Err(CommandError::new(failure)))
}

/// Ends when standard input does, or never.
fn watch_stdin(watches: bool) -> Pin<Box<dyn Future<Output = ()>>> {
    if !watches {
        return Box::pin(std::future::pending());
    }
    let (closed, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end, too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = closed.send(());
    });
    Box::pin(async move { drop(receiver.await) })
}

fn config(args: &StartArgs) -> Result<Config, CommandError> {
    let mut config = Config::default();
    if let Some(path) = &args.config {
        let (from_file, unknown) = Config::from_file(path).map_err(CommandError::new)?;
        for key in unknown {
            tracing::warn!(file = %path.display(), key, "unknown key, ignored");
        }
        config = from_file;
    }
    let args = args.clone();
    config.data_dir = args.data_dir.unwrap_or(config.data_dir);
    config.listen = args.listen.unwrap_or(config.listen);
    config.advertise = args.advertise.or(config.advertise);
    if !args.join.is_empty() {
        config.join = args.join;
    }
    config.storage.api_version = args.api_version.unwrap_or(config.storage.api_version);
    Ok(config)
}

fn init_log(args: &StartArgs) {
    let filter = EnvFilter::new(&args.log_level.0);
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match args.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// A panic is a broken invariant: the process ends before anything more is written.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Every connection is a file. The soft limit is often 1,024, and raising it to the hard one needs
/// no rights.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
