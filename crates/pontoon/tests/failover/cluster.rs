//! Three nodes, each a process of its own, that are killed and come back.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::pdpb::pd_client::PdClient;
use proto::{metapb, pdpb};
use tempfile::TempDir;
use tonic::transport::Channel;

/// What a cluster has to do is done within this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

struct Process {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Process {
    /// Starts a node on what is in `folder`, and waits until it says that it serves.
    fn launch(folder: &Path, listen: &str, join: Option<&str>) -> (Child, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.args(["start", "--log-level", "error", "--listen", listen, "--data-dir"]);
        command.arg(folder.join("data")).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(join) = join {
            command.args(["--join", join]);
        }
        let mut child = command.spawn().expect("the binary was built for this test");
        let stdout = child.stdout.take().expect("it is a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("the pipe can be read");
        let address = line.strip_prefix("ready listen=").and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("the node did not start: {line:?}"));
        (child, address.to_owned())
    }
}

/// Where everything is just now.
pub(crate) struct Placed {
    /// The first region.
    pub region: metapb::Region,
    /// Which node is which store.
    pub stores: Vec<u64>,
    /// Which node leads it.
    pub leads_region: usize,
    /// Which node leads the placement driver.
    pub leads_placement: usize,
}

/// Nodes of one cluster. Dropping it kills them.
pub(crate) struct Cluster {
    nodes: Vec<Process>,
}

impl Cluster {
    pub(crate) fn start(count: usize) -> Self {
        let mut nodes: Vec<Process> = Vec::new();
        for _ in 0..count {
            let folder = tempfile::tempdir().expect("a folder can be made");
            let join = nodes.first().map(|node| node.address.as_str());
            let (child, address) = Process::launch(folder.path(), "127.0.0.1:0", join);
            nodes.push(Process { child, address, folder });
        }
        Self { nodes }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// SIGKILL. Returns when it was sent, once the process is gone.
    pub(crate) fn kill(&mut self, node: usize) -> Instant {
        let began = Instant::now();
        self.nodes[node].child.kill().expect("it runs");
        self.nodes[node].child.wait().expect("it is our child");
        began
    }

    /// The node comes back at its address, with what it had.
    pub(crate) fn start_again(&mut self, node: usize) {
        let Process { child, address, folder } = &mut self.nodes[node];
        (*child, _) = Process::launch(folder.path(), address, None);
    }

    /// The node comes back at its address, with an empty disk, and joins anew.
    pub(crate) fn wipe(&mut self, node: usize, join: &str) {
        let Process { child, address, folder } = &mut self.nodes[node];
        std::fs::remove_dir_all(folder.path().join("data")).expect("nobody uses it");
        (*child, _) = Process::launch(folder.path(), address, Some(join));
    }

    /// Until everybody who should be there is, and nobody lags.
    pub(crate) async fn wait_until_whole(&self) -> Placed {
        let began = Instant::now();
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        loop {
            if let Some(placed) = self.look().await {
                return placed;
            }
            assert!(began.elapsed() < PATIENCE, "the cluster is not whole again");
            tries.tick().await;
        }
    }

    async fn look(&self) -> Option<Placed> {
        for node in &self.nodes {
            let Some(mut client) = connect(&node.address).await else { continue };
            let Ok(members) = client.get_members(pdpb::GetMembersRequest::default()).await else {
                continue;
            };
            let members = members.into_inner();
            let leader = members.leader?;
            let leads_placement = self.node_at(leader.client_urls.first()?)?;
            let mut client = connect(&self.nodes[leads_placement].address).await?;
            let header = members.header.map(|header| pdpb::RequestHeader {
                cluster_id: header.cluster_id,
                ..Default::default()
            });
            let request = pdpb::GetRegionRequest { header: header.clone(), ..Default::default() };
            let answer = client.get_region(request).await.ok()?.into_inner();
            let region = answer.region?;
            let is_voter = |peer: &&metapb::Peer| peer.role() == metapb::PeerRole::Voter;
            let voters = region.peers.iter().filter(is_voter).count();
            let lagging = answer.pending_peers.len() + answer.down_peers.len();
            if voters < self.nodes.len() || lagging > 0 || members.members.len() < voters {
                return None;
            }
            let request = pdpb::GetAllStoresRequest { header, exclude_tombstone_stores: true };
            let known = client.get_all_stores(request).await.ok()?.into_inner().stores;
            let mut stores = vec![0; self.nodes.len()];
            for store in known {
                stores[self.node_at(&store.address)?] = store.id;
            }
            let has_voter =
                |store: &u64| region.peers.iter().any(|p| p.store_id == *store && is_voter(&p));
            if !stores.iter().all(has_voter) {
                return None;
            }
            let leader = answer.leader?.store_id;
            let leads_region = stores.iter().position(|store| *store == leader)?;
            return Some(Placed { region, stores, leads_region, leads_placement });
        }
        None
    }

    fn node_at(&self, url: &str) -> Option<usize> {
        self.nodes.iter().position(|node| url.ends_with(&node.address))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may be dead already.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

/// A client of the placement driver there, if anybody answers.
pub(crate) async fn connect(address: &str) -> Option<PdClient<Channel>> {
    PdClient::connect(format!("http://{address}")).await.ok()
}
