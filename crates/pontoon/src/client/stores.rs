//! Connections to stores, by their ids.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proto::tikvpb::tikv_client::TikvClient;
use tonic::transport::Channel;

use super::error::root_cause;
use super::{ClientError, Placement, endpoint};

/// One open connection a store.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    open: Mutex<BTreeMap<u64, TikvClient<Channel>>>,
}

impl Stores {
    /// A connection to the store `id`, whose address the placement driver knows.
    pub(crate) async fn client(
        &self,
        placement: &Placement,
        id: u64,
    ) -> Result<TikvClient<Channel>, ClientError> {
        let known = self.open.lock().expect("no holder of this lock panics").get(&id).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let client = connect(&placement.store(id).await?.address).await?;
        self.open.lock().expect("no holder of this lock panics").insert(id, client.clone());
        Ok(client)
    }

    /// Opens a new connection next time: this one broke, or the store moved.
    pub(crate) fn forget(&self, id: u64) {
        self.open.lock().expect("no holder of this lock panics").remove(&id);
    }
}

/// A new connection to the store at `address`. Answers may be of any size.
pub(crate) async fn connect(address: &str) -> Result<TikvClient<Channel>, ClientError> {
    let channel = endpoint(address)?.connect().await.map_err(|error| ClientError::Unreachable {
        address: address.to_owned(),
        cause: root_cause(&error),
    })?;
    Ok(TikvClient::new(channel).max_decoding_message_size(usize::MAX))
}
