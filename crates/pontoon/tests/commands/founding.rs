//! The first moments of a cluster.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::pdpb;
use proto::pdpb::pd_client::PdClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::node::PONTOON;

/// A node founds its cluster within this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the test.
struct Founder(Child);

impl Drop for Founder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().expect("it is our child");
    }
}

/// What the placement driver there says of the region of the first key.
async fn first_region(address: &str) -> Result<pdpb::GetRegionResponse, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let away = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let mut placement: PdClient<Channel> = PdClient::new(endpoint.connect().await.map_err(away)?);
    let members = placement.get_members(pdpb::GetMembersRequest::default()).await?.into_inner();
    let cluster_id = members.header.expect("every answer has one").cluster_id;
    let header = Some(pdpb::RequestHeader { cluster_id, ..Default::default() });
    let request = pdpb::GetRegionRequest { header, ..Default::default() };
    Ok(placement.get_region(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_while_the_cluster_is_founded_waits_and_is_not_refused() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = port.local_addr().expect("it is bound").to_string();
    drop(port);
    let node = Command::new(PONTOON)
        .args(["start", "--log-level", "warn", "--listen", &address, "--data-dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn();
    let _founder = Founder(node.expect("the binary was built for this test"));
    let began = Instant::now();
    // Before it leads, the placement driver says so by a status, and clients come again at once.
    let answer = loop {
        match first_region(&address).await {
            Ok(answer) => break answer,
            Err(status) => assert!(began.elapsed() < PATIENCE, "nobody answers: {status}"),
        }
        tokio::task::yield_now().await;
    };
    let refusal = answer.header.expect("every answer has one").error;
    assert_eq!(refusal, None, "the first answer is one");
    assert!(answer.region.is_some(), "all keys are in the first region");
}
