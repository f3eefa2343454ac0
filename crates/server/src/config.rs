//! What a node can be told, with its defaults. One struct, one file, flags on top.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use txn::ApiVersion;

mod split;

pub use split::{ByteSize, CoprocessorConfig, Interval, LoadConfig, RaftstoreConfig};

/// Everything a node can be told. Absent keys of the file have the defaults given here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Folder of everything the node keeps. Default `pontoon-data`.
    pub data_dir: PathBuf,
    /// Address that carries all services. Port 0: any free one. Default `127.0.0.1:2379`.
    pub listen: SocketAddr,
    /// `host:port` at which clients reach this node. Default: the listen address.
    pub advertise: Option<String>,
    /// `host:port` of nodes of a cluster that an empty data folder joins; without any it founds a
    /// cluster of its own. A store that has joined does not need them again. Default: none.
    pub join: Vec<String>,
    /// Seconds after which a node gives up to join, 1 to 86,400. Default 60.
    pub join_timeout_s: u32,
    /// Storage settings.
    pub storage: StorageConfig,
    /// Raft settings.
    pub raft: RaftConfig,
    /// Size of regions.
    pub coprocessor: CoprocessorConfig,
    /// How often regions are looked at.
    pub raftstore: RaftstoreConfig,
    /// Regions that are asked much.
    pub split: LoadConfig,
    /// Settings of the placement driver, for the time in which it runs here.
    pub placement: PlacementConfig,
    /// Collection of old versions.
    pub gc: GcConfig,
    /// Limits of the server.
    pub server: ServerConfig,
}

/// What concerns data and disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StorageConfig {
    /// Mode of raw data: `1` (plain), `1ttl` (values can expire) or `2` (keyspaces). Chosen at the
    /// first start and kept in the store; a later start with another one is refused. Default `1`.
    pub api_version: ApiVersionName,
    /// Memory for blocks of table files, in MiB, 1 to 1,048,576. Default 64.
    pub block_cache_mib: u32,
    /// Memory in which writes are collected before they become a table file, in MiB, 1 to 4,096.
    /// Default 32.
    pub write_buffer_mib: u32,
    /// Threads that flush and compact, 1 to 64. Default: as many as there are cores, at least 2.
    pub background_jobs: u32,
    /// Free space on the disk below which writes are refused, in MiB. Default 256, but never more
    /// than a tenth of the disk and never less than two write buffers.
    pub reserve_mib: u32,
}

/// How the API version is written in files and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersionName {
    /// Plain keys and values.
    #[serde(rename = "1")]
    V1,
    /// Plain keys, values with a time to live.
    #[serde(rename = "1ttl")]
    V1Ttl,
    /// Keyspaces, values with a time to live.
    #[serde(rename = "2")]
    V2,
}

/// What concerns the groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RaftConfig {
    /// Length of a tick in milliseconds, 10 to 10,000. Default 50.
    pub tick_ms: u32,
    /// Ticks without a leader before an election, 5 to 1,000. Default 10.
    pub election_ticks: u32,
    /// Ticks between heartbeats; at most a fifth of `election-ticks`. Default 2.
    pub heartbeat_ticks: u32,
    /// A region's log is compacted when it holds so many applied entries. Default 200,000.
    pub log_entries_max: u64,
    /// ... or so many MiB. Default 32.
    pub log_mib_max: u64,
    /// MiB that the logs of all regions of the store may hold, 4 to 1,048,576; the files take up to
    /// twice as much. From half of it on, regions forget what all living members have; beyond it,
    /// also what some lack, who then get a snapshot. Default 1,024.
    pub log_store_mib_max: u64,
    /// Time between two steps of the timestamp up to which followers answer reads of the past,
    /// `100ms` to `1h`. Default `20s`.
    pub safe_ts_interval: Interval,
}

/// What concerns the placement of replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PlacementConfig {
    /// Replicas on a store that was silent for so many seconds are replaced, 10 to 8,640,000.
    /// Default 1,800.
    pub max_store_down_s: u32,
}

/// What concerns old versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct GcConfig {
    /// How often the store asks for the safe point. Versions below it are dropped one interval
    /// later, so an interval must be longer than a request takes. `100ms` to `1h`. Default `10s`.
    pub poll_interval: Interval,
}

/// What concerns connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ServerConfig {
    /// Connections that may be open at once; more are closed at once. Default 16,384.
    pub connections_max: usize,
    /// Calls that may be in progress on one connection. Default 1,024.
    pub streams_max: u32,
    /// A connection on which nothing came for so long is asked whether anybody is there, and closed
    /// if nobody says so within the same time again, `100ms` to `1h`. Default `10s`.
    pub grpc_keepalive_time: Interval,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("pontoon-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 2379)),
            advertise: None,
            join: Vec::new(),
            join_timeout_s: 60,
            storage: StorageConfig::default(),
            raft: RaftConfig::default(),
            coprocessor: CoprocessorConfig::default(),
            raftstore: RaftstoreConfig::default(),
            split: LoadConfig::default(),
            placement: PlacementConfig::default(),
            gc: GcConfig::default(),
            server: ServerConfig::default(),
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        Self {
            api_version: ApiVersionName::V1,
            block_cache_mib: 64,
            write_buffer_mib: 32,
            background_jobs: u32::try_from(cores.clamp(2, 64)).expect("at most 64"),
            reserve_mib: 256,
        }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            tick_ms: 50,
            election_ticks: 10,
            heartbeat_ticks: 2,
            log_entries_max: 200_000,
            log_mib_max: 32,
            log_store_mib_max: 1_024,
            safe_ts_interval: Interval(Duration::from_secs(20)),
        }
    }
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self { max_store_down_s: 1_800 }
    }
}

impl Default for GcConfig {
    fn default() -> Self {
        Self { poll_interval: Interval(Duration::from_secs(10)) }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        let grpc_keepalive_time = Interval(Duration::from_secs(10));
        Self { connections_max: 16_384, streams_max: 1_024, grpc_keepalive_time }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config file {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// It is not TOML, or a value has the wrong type.
    #[error("config file {path}: {cause}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: String,
    },
    /// A value is out of range.
    #[error("config: {key} = {value}: {rule}")]
    Range {
        /// The key, with its sections.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

impl Config {
    /// Reads a file. Returns the keys in it that nobody knows, to warn about: they may be of a TiKV
    /// file.
    pub fn from_file(path: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::from_text(&text)
            .map_err(|cause| ConfigError::Parse { path: path.to_owned(), cause: cause.to_string() })
    }

    fn from_text(text: &str) -> Result<(Self, Vec<String>), toml::de::Error> {
        let config: Self = toml::from_str(text)?;
        let given: toml::Table = toml::from_str(text)?;
        let complete = Self {
            advertise: Some(String::new()),
            coprocessor: CoprocessorConfig::complete(),
            ..Self::default()
        };
        let known = toml::Table::try_from(complete).expect("a config is a table");
        let mut unknown = Vec::new();
        unknown_keys(&given, &known, "", &mut unknown);
        Ok((config, unknown))
    }

    fn check_join(&self) -> Result<(), ConfigError> {
        match self.join.iter().find(|target| !is_host_and_port(target)) {
            None => Ok(()),
            Some(target) => {
                let rule = "HOST:PORT is needed";
                Err(ConfigError::Range { key: "join", value: target.clone(), rule })
            }
        }
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        let second = Duration::from_secs(1);
        let (range, rule) = (Interval(second / 10)..=Interval(3_600 * second), "100ms to 1h");
        in_range("raft.safe-ts-interval", self.raft.safe_ts_interval, range.clone(), rule)?;
        in_range("gc.poll-interval", self.gc.poll_interval, range.clone(), rule)?;
        let keepalive = self.server.grpc_keepalive_time;
        in_range("server.grpc-keepalive-time", keepalive, range, rule)
    }

    /// Whether every value is in its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (storage, raft) = (&self.storage, &self.raft);
        in_range("storage.block-cache-mib", storage.block_cache_mib, 1..=1 << 20, "1 to 1048576")?;
        in_range("storage.write-buffer-mib", storage.write_buffer_mib, 1..=4096, "1 to 4096")?;
        in_range("storage.background-jobs", storage.background_jobs, 1..=64, "1 to 64")?;
        in_range("raft.tick-ms", raft.tick_ms, 10..=10_000, "10 to 10000")?;
        in_range("raft.election-ticks", raft.election_ticks, 5..=1000, "5 to 1000")?;
        let heartbeats = 1..=raft.election_ticks / 5;
        let rule = "1 to a fifth of raft.election-ticks";
        in_range("raft.heartbeat-ticks", raft.heartbeat_ticks, heartbeats, rule)?;
        in_range("raft.log-entries-max", raft.log_entries_max, 10..=u64::MAX, "at least 10")?;
        in_range("join-timeout-s", self.join_timeout_s, 1..=86_400, "1 to 86400")?;
        let max_store_down_s = self.placement.max_store_down_s;
        let rule = "10 to 8640000";
        in_range("placement.max-store-down-s", max_store_down_s, 10..=8_640_000, rule)?;
        self.check_join()?;
        self.check_split()?;
        in_range("raft.log-mib-max", raft.log_mib_max, 1..=1 << 20, "1 to 1048576")?;
        let (log_store, rule) = (raft.log_store_mib_max, "4 to 1048576");
        in_range("raft.log-store-mib-max", log_store, 4..=1 << 20, rule)?;
        self.check_times()?;
        in_range(
            "server.connections-max",
            self.server.connections_max,
            1..=1 << 20,
            "1 to 1048576",
        )?;
        in_range("server.streams-max", self.server.streams_max, 1..=1 << 20, "1 to 1048576")
    }
}

fn is_host_and_port(text: &str) -> bool {
    let port = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    !text.contains("://") && text.rsplit_once(':').is_some_and(port)
}

fn in_range<T: PartialOrd + ToString>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Range { key, value: value.to_string(), rule })
}

fn unknown_keys(given: &toml::Table, known: &toml::Table, path: &str, unknown: &mut Vec<String>) {
    for (key, value) in given {
        let name = format!("{path}{key}");
        match (value, known.get(key)) {
            (_, None) => unknown.push(name),
            (toml::Value::Table(given), Some(toml::Value::Table(known))) => {
                unknown_keys(given, known, &format!("{name}."), unknown);
            }
            (_, Some(_)) => {}
        }
    }
}

impl ApiVersionName {
    /// What it means.
    pub fn version(self) -> ApiVersion {
        match self {
            Self::V1 => ApiVersion::V1,
            Self::V1Ttl => ApiVersion::V1Ttl,
            Self::V2 => ApiVersion::V2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_unknown_keys_are_named() {
        let (config, unknown) = Config::from_text("").expect("valid");
        assert_eq!((config, unknown), (Config::default(), vec![]));
        let text = "listen = '127.0.0.1:1'\nadvertise = 'x:1'\nlog-level = 'info'\n\
                    [storage]\napi-version = '2'\nscheduler-concurrency = 7\n[raftdb]\nx = 1";
        let (config, unknown) = Config::from_text(text).expect("valid");
        assert_eq!(config.storage.api_version, ApiVersionName::V2);
        assert_eq!(unknown, ["log-level", "raftdb", "storage.scheduler-concurrency"]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        Config::default().check().expect("the defaults are in range");
        let mut config = Config::default();
        config.raft.heartbeat_ticks = 3;
        let error = config.check().expect_err("3 is more than a fifth of 10");
        assert!(error.to_string().contains("raft.heartbeat-ticks = 3"), "{error}");
    }
}
