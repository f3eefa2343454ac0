//! The binary in a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use proto::pdpb::pd_client::PdClient;
use proto::tikvpb::tikv_client::TikvClient;
use proto::{kvrpcpb, metapb, pdpb};
use tonic::transport::{Channel, Endpoint};

/// The binary under test.
pub const PONTOON: &str = env!("CARGO_BIN_EXE_pontoon");

/// A running server. It is killed when this is dropped.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts on a free port and returns when the server says that it can serve.
    pub fn start(folder: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(PONTOON)
            .args(["start", "--listen", "127.0.0.1:0", "--log-level", "warn", "--data-dir"])
            .arg(folder)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the pipe can be read");
        let address = line.split(' ').find_map(|field| field.strip_prefix("listen="));
        let Some(address) = address else {
            // It was told to say why on standard error, which is that of the test.
            child.wait().expect("it is our child");
            panic!("the server did not start: {line:?}");
        };
        Self { address: address.to_owned(), child }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Resident memory in MiB.
    pub fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.expect("Linux says so").trim().trim_end_matches(" kB");
        kib.parse::<u64>().expect("a number") / 1024
    }

    /// Connects to the store and the region of the key `k`, with any size of answer allowed.
    pub async fn connect(&self) -> Store {
        self.connect_to(b"k").await
    }

    /// Connects to the store and the region that holds `region_key`, in the form of split keys.
    pub async fn connect_to(&self, region_key: &[u8]) -> Store {
        let channel = self.channel().await;
        let mut placement = PdClient::new(channel.clone());
        let members = placement.get_members(pdpb::GetMembersRequest::default()).await;
        let cluster_id = members.expect("it serves").into_inner().header.expect("set").cluster_id;
        let request = pdpb::GetRegionRequest {
            header: Some(pdpb::RequestHeader { cluster_id, ..Default::default() }),
            region_key: region_key.to_vec().into(),
            ..Default::default()
        };
        let region = placement.get_region(request).await.expect("it serves").into_inner();
        let client = TikvClient::new(channel).max_decoding_message_size(usize::MAX);
        Store {
            client,
            cluster_id,
            region: region.region.expect("the first region is there"),
            leader: region.leader.expect("it has a leader"),
        }
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("a URL");
        endpoint.connect().await.expect("it serves")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}

/// A store, and one of its regions.
pub struct Store {
    /// For calls that are not here.
    pub client: TikvClient<Channel>,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The region.
    pub region: metapb::Region,
    /// Its leader.
    pub leader: metapb::Peer,
}

impl Store {
    /// A context that is right.
    pub fn context(&self) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: self.region.id,
            region_epoch: self.region.region_epoch,
            peer: Some(self.leader),
            ..Default::default()
        }
    }

    /// Puts and returns the answer.
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> kvrpcpb::RawPutResponse {
        let request = kvrpcpb::RawPutRequest {
            context: Some(self.context()),
            key: key.to_vec().into(),
            value: value.to_vec().into(),
            ..Default::default()
        };
        self.client.raw_put(request).await.expect("it answers").into_inner()
    }

    /// Puts; panics with what the server says if it refuses.
    pub async fn must_put(&mut self, key: &[u8], value: &[u8]) {
        let answer = self.put(key, value).await;
        assert_eq!(answer, kvrpcpb::RawPutResponse::default());
    }

    /// Gets a value that must be there.
    pub async fn must_get(&mut self, key: &[u8]) -> Vec<u8> {
        let request = kvrpcpb::RawGetRequest {
            context: Some(self.context()),
            key: key.to_vec().into(),
            ..Default::default()
        };
        let answer = self.client.raw_get(request).await.expect("it answers").into_inner();
        assert_eq!((answer.region_error, answer.error.as_str()), (None, ""));
        assert!(!answer.not_found, "{key:?} is not there");
        answer.value.to_vec()
    }
}

/// Starts a server that must refuse: exit code 1, nothing on standard output, and one line on
/// standard error, which is returned.
pub fn refused(args: &[&str]) -> String {
    let output = run(args);
    let error = String::from_utf8(output.stderr).expect("it prints text");
    assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
    assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    assert!(error.starts_with("pontoon: "), "{args:?}: {error}");
    error
}

/// Refused on a folder. Logging is set to errors: what is refused is said once, not also logged.
pub fn refused_on(folder: &Path, flags: &[&str]) -> String {
    let folder = folder.to_str().expect("a folder of the test");
    let mut args = vec!["start", "--listen", "127.0.0.1:0", "--data-dir", folder];
    args.extend(flags);
    let line = refused(&args);
    assert!(line.contains(folder) || line.contains("data folder"), "{line}");
    line
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(PONTOON);
    command.args(args).stdin(Stdio::null());
    command.output().expect("the binary was built for this test")
}

/// All files under a folder with what they hold, to see that nothing was touched.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("it can be read");
            files.insert(path, bytes);
        }
    }
    files
}
