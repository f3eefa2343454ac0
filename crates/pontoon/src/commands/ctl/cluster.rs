//! The cluster as `pontoon ctl` reaches it: by any address that answers, from there to all others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::commands::CommandError;
use crate::remote::http::{Answer, HttpFailure, request};

/// An answer from memory is there in this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(150);

/// Redirects that one request follows.
const REDIRECTS_MAX: usize = 4;

/// The way to a cluster, and until when.
pub(super) struct Cluster {
    /// Nodes to ask, the one that answered last first.
    addresses: Vec<String>,
    deadline: Instant,
    timeout: Duration,
}

/// Whether a request may be sent again when its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Yes,
    No,
}

impl Cluster {
    /// Finds the members by one that answers.
    pub(super) async fn find(given: &[String], timeout: Duration) -> Result<Self, CommandError> {
        let addresses: Vec<String> = given.iter().map(|address| host_of(address)).collect();
        let deadline = Instant::now() + timeout;
        let mut cluster = Self { addresses, deadline, timeout };
        let members = cluster.get("/pd/api/v1/members").await?;
        for member in list(&members["members"]) {
            for url in list(&member["client_urls"]).iter().filter_map(Value::as_str) {
                let address = host_of(url);
                if !cluster.addresses.contains(&address) {
                    cluster.addresses.push(address);
                }
            }
        }
        Ok(cluster)
    }

    /// Time that is left; an error if none is. `what` was waited for.
    pub(super) fn check_time(&self, what: impl FnOnce() -> String) -> Result<(), CommandError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        let text = format!("not done within {} s: {}", self.timeout.as_secs(), what());
        Err(CommandError::new(text))
    }

    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(super) async fn pause(&self) {
        tokio::time::sleep(LOOK_INTERVAL.min(self.time_left())).await;
    }

    /// What the placement driver says.
    pub(super) async fn get(&mut self, path: &str) -> Result<Value, CommandError> {
        self.ask("GET", path, None, Repeat::Yes).await
    }

    /// What the placement driver says, or that there is no such thing.
    pub(super) async fn find_one(&mut self, path: &str) -> Result<Option<Value>, CommandError> {
        let answer = self.answer("GET", path, None, Repeat::Yes).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        accept(path, answer).map(Some)
    }

    /// Asks the placement driver for something, at any node: those that do not lead it lead there.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        repeat: Repeat,
    ) -> Result<Value, CommandError> {
        let answer = self.answer(method, path, body, repeat).await?;
        accept(path, answer)
    }

    async fn answer(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        repeat: Repeat,
    ) -> Result<Answer, CommandError> {
        loop {
            let mut last = String::new();
            for at in 0..self.addresses.len() {
                let address = self.addresses[at].clone();
                match self.follow(&address, method, path, body).await {
                    Ok(answer) if answer.status == 503 => last = refusal(&address, &answer),
                    Ok(answer) => {
                        self.addresses.swap(0, at);
                        return Ok(answer);
                    }
                    Err(error @ HttpFailure::Lost { .. }) if repeat == Repeat::No => {
                        let text = format!("{error}; it may have been taken: ctl operators shows");
                        return Err(CommandError::new(text));
                    }
                    Err(error) => last = error.to_string(),
                }
            }
            let nobody = self.addresses.len() == 1 && last.starts_with("cannot reach");
            if nobody && self.time_left() + Duration::from_secs(3) < self.timeout {
                return Err(CommandError::new(last));
            }
            self.check_time(|| last)?;
            self.pause().await;
        }
    }

    async fn follow(
        &self,
        address: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, HttpFailure> {
        let mut address = address.to_owned();
        let timeout = ANSWER_TIMEOUT.min(self.time_left().max(Duration::from_millis(100)));
        for _ in 0..REDIRECTS_MAX {
            let answer = request(&address, method, path, body, timeout).await?;
            match &answer.location {
                Some(location) if answer.status == 307 => address = host_of(location),
                _ => return Ok(answer),
            }
        }
        let cause = "the nodes do not agree who leads".to_owned();
        Err(HttpFailure::Unreachable { address, cause })
    }

    /// Asks one node, once.
    pub(super) async fn node(
        &self,
        address: &str,
        method: &str,
        path: &str,
    ) -> Result<Answer, HttpFailure> {
        let timeout = match method {
            "GET" => ANSWER_TIMEOUT.min(self.time_left()),
            _ => self.time_left(),
        };
        request(address, method, path, None, timeout.max(Duration::from_millis(100))).await
    }

    /// Where each store is reached.
    pub(super) async fn addresses(&mut self) -> Result<BTreeMap<u64, String>, CommandError> {
        let stores = self.get("/pd/api/v1/stores").await?;
        let stores = list(&stores["stores"]).iter();
        let address =
            |store: &Value| Some((number(&store["store"]["id"]), text(&store["store"]["address"])));
        Ok(stores.filter_map(address).collect())
    }

    /// A region as its leader last reported it. A placement driver that has just moved to another
    /// node is waited for: it does not know all of them yet.
    pub(super) async fn region(&mut self, id: u64) -> Result<Value, CommandError> {
        let path = format!("/pd/api/v1/region/id/{id}");
        let missing = || format!("there is no region {}", name_of(id));
        let mut knows_all = false;
        loop {
            if let Some(region) = self.find_one(&path).await?.filter(|region| !region.is_null()) {
                return Ok(region);
            }
            if knows_all {
                return Err(CommandError::new(missing()));
            }
            self.check_time(missing)?;
            // If it does it may have heard of this one just now.
            knows_all = self.knows_all_regions().await?;
            if !knows_all {
                self.pause().await;
            }
        }
    }

    /// Whether every key has a region in the placement driver's map, whose leader has reported.
    async fn knows_all_regions(&mut self) -> Result<bool, CommandError> {
        let map = self.get("/pd/api/v1/regions").await?;
        if list(&map["regions"]).iter().any(|region| region["leader"].is_null()) {
            return Ok(false);
        }
        let key = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let bounds = |region: &Value| (key(&region["start_key"]), key(&region["end_key"]));
        let mut ranges: Vec<_> = list(&map["regions"]).iter().map(bounds).collect();
        ranges.sort_unstable();
        let ends = ranges.last().is_some_and(|(_, end)| end.is_empty());
        let begins = ranges.first().is_some_and(|(start, _)| start.is_empty());
        Ok(begins && ends && ranges.windows(2).all(|pair| pair[0].1 == pair[1].0))
    }
}

/// A region's number, or what the placement driver's is called.
pub(super) fn name_of(region: u64) -> String {
    if base::RegionId(region).is_system() { "system".to_owned() } else { region.to_string() }
}

/// What an answer of this status says.
fn accept(path: &str, answer: Answer) -> Result<Value, CommandError> {
    match answer.status {
        200..=299 => Ok(answer.body),
        status => Err(CommandError::new(match answer.body.as_str() {
            Some(why) => format!("refused: {why}"),
            None => format!("refused: {path} answers with status {status}"),
        })),
    }
}

/// Why a node does not answer now.
pub(super) fn refusal(address: &str, answer: &Answer) -> String {
    let why = answer.body.as_str().unwrap_or("it does not say why");
    format!("{address}: {why}")
}

fn host_of(url: &str) -> String {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    address.split('/').next().unwrap_or(address).to_owned()
}

/// The elements; none if it is no list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], |list| list)
}

/// The number; 0 if it is none.
pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// As people read it: `-` for nothing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
