//! Carries out commands and writes what they yield.

use std::io::{self, Write};

use bytes::Bytes;
use proto::metapb;

use super::command::{COMMANDS, Command, Usage, find};
use super::escape::{quote, to_hex};
use crate::client::{Api, ApiVersion, ClientError, Pair, RawClient, RegionInfo};
use crate::commands::CommandError;

/// A connected shell without its input.
pub(super) struct Session<'a> {
    pub(super) client: &'a RawClient,
    pub(super) api_version: ApiVersion,
    pub(super) hex: bool,
    pub(super) out: &'a mut dyn Write,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Line,
    End,
}

impl Session<'_> {
    /// Carries out one command.
    pub(super) async fn execute(&mut self, command: Command) -> Result<Next, CommandError> {
        match command {
            Command::Get(keys) => self.get(&keys).await?,
            Command::Put(key, value, ttl_s) => {
                self.client.put(&key, value, ttl_s).await?;
                self.line("ok")?;
            }
            Command::Delete(keys) => {
                for key in keys {
                    self.client.delete(&key).await?;
                }
                self.line("ok")?;
            }
            Command::Scan { start, end, limit, reverse: false } => {
                let pairs = self.client.scan(&start, &end, limit).await?;
                self.pairs(&pairs)?;
            }
            Command::Scan { start, end, limit, reverse: true } => {
                let pairs = self.client.reverse_scan(&start, &end, limit).await?;
                self.pairs(&pairs)?;
            }
            Command::DeleteRange(start, end) => {
                self.client.delete_range(&start, &end).await?;
                self.line("ok")?;
            }
            Command::Cas(key, expected, new) => {
                let outcome = self.client.compare_and_swap(&key, expected, new).await?;
                let found = outcome.found.map_or("none".to_owned(), |value| self.show(&value));
                let verb = if outcome.swapped { "swapped, was" } else { "not swapped, is" };
                self.line(&format!("{verb} {found}"))?;
            }
            Command::Ttl(key) => self.ttl(&key).await?,
            Command::Regions(key, limit) => self.regions(&key, limit).await?,
            Command::Stores => self.stores().await?,
            Command::Status => self.status().await?,
            Command::Members => self.members().await?,
            Command::Help(name) => self.help(name.as_deref())?,
            Command::Quit => return Ok(Next::End),
        }
        Ok(Next::Line)
    }

    async fn get(&mut self, keys: &[Bytes]) -> Result<(), CommandError> {
        for key in keys {
            let value = self.client.get(key).await?;
            let value = value.map_or("(not found)".to_owned(), |value| self.show(&value));
            match keys.len() {
                1 => self.line(&value)?,
                _ => self.line(&format!("{}  {value}", self.show(key)))?,
            }
        }
        Ok(())
    }

    async fn ttl(&mut self, key: &[u8]) -> Result<(), CommandError> {
        let text = match self.client.ttl(key).await? {
            None => "(not found)".to_owned(),
            Some(0) => "never expires".to_owned(),
            Some(seconds) => format!("{seconds} s"),
        };
        self.line(&text)
    }

    async fn regions(&mut self, key: &[u8], limit: usize) -> Result<(), CommandError> {
        let api = Api::new(self.api_version);
        let start =
            if key.is_empty() { Bytes::new() } else { api.placement_key(&api.data_key(key)) };
        for info in self.client.placement().regions(&start, limit).await? {
            self.line(&self.region_line(&info))?;
        }
        Ok(())
    }

    fn region_line(&self, info: &RegionInfo) -> String {
        let region = &info.region;
        let bound = |key: &Bytes, none: &str| match key.is_empty() {
            true => none.to_owned(),
            false => self.show(key),
        };
        let epoch = region.region_epoch.as_ref();
        let epoch = epoch.map_or("?".into(), |e| format!("{}/{}", e.conf_ver, e.version));
        let leader = info.leader.as_ref().filter(|peer| peer.id != 0);
        let leader = leader.map_or("none".into(), |peer| format!("store {}", peer.store_id));
        let stores: Vec<_> = region.peers.iter().map(|peer| peer.store_id.to_string()).collect();
        format!(
            "region {}  [{}, {})  epoch {epoch}  leader {leader}  on stores {}",
            region.id,
            bound(&region.start_key, "first"),
            bound(&region.end_key, "last"),
            stores.join(", ")
        )
    }

    async fn stores(&mut self) -> Result<(), CommandError> {
        for store in self.client.placement().stores().await? {
            self.line(&store_line(&store))?;
        }
        Ok(())
    }

    async fn status(&mut self) -> Result<(), CommandError> {
        let placement = self.client.placement();
        let members = placement.members().await?;
        let stores = placement.stores().await?;
        let regions = placement.regions(b"", usize::MAX).await?;
        let led = regions.iter().filter(|r| r.leader.as_ref().is_some_and(|peer| peer.id != 0));
        let leader = members.leader.as_ref().and_then(|leader| leader.client_urls.first());
        let up = stores.iter().filter(|store| store.state() == metapb::StoreState::Up).count();
        let leader = leader.map_or("none", String::as_str);
        let lines = [
            format!("cluster    {}", placement.cluster_id()),
            format!("placement  {leader} leads {} members", members.members.len()),
            format!("stores     {up} up of {}", stores.len()),
            format!("regions    {}, {} with a leader", regions.len(), led.count()),
        ];
        self.line(&lines.join("\n"))
    }

    async fn members(&mut self) -> Result<(), CommandError> {
        let reply = self.client.placement().members().await?;
        let leader = reply.leader.as_ref().map_or(0, |leader| leader.member_id);
        for member in &reply.members {
            let mark = if member.member_id == leader { "  leader" } else { "" };
            let urls = member.client_urls.join(" ");
            self.line(&format!("{}  {}  {urls}{mark}", member.member_id, member.name))?;
        }
        Ok(())
    }

    fn help(&mut self, name: Option<&str>) -> Result<(), CommandError> {
        let Some(name) = name else {
            for row in &COMMANDS {
                self.line(&help_line(row))?;
            }
            return self.line(
                "\nKeys and values: words, or \"in quotes\"; \\xNN \\n \\t \\\\ \\\" are bytes.\n\
                 \"\" as END means: to the last key.",
            );
        };
        let row = find(name).ok_or_else(|| {
            CommandError::new(format!("'{name}' is not a command: help lists them"))
        })?;
        self.line(&help_line(row))
    }

    fn pairs(&mut self, pairs: &[Pair]) -> Result<(), CommandError> {
        for pair in pairs {
            self.line(&format!("{}  {}", self.show(&pair.key), self.show(&pair.value)))?;
        }
        Ok(())
    }

    fn show(&self, bytes: &[u8]) -> String {
        if self.hex { to_hex(bytes) } else { quote(bytes) }
    }

    fn line(&mut self, line: &str) -> Result<(), CommandError> {
        writeln!(self.out, "{line}").map_err(|e| output_error(&e))
    }
}

fn help_line(row: &Usage) -> String {
    format!("{:<42}{}", format!("{} {}", row.name, row.arguments), row.about)
}

fn store_line(store: &metapb::Store) -> String {
    format!("store {}  {}  {:?}  version {}", store.id, store.address, store.state(), store.version)
}

/// What nobody reads any more cannot be written.
pub(super) fn output_error(error: &io::Error) -> CommandError {
    CommandError::new(format!("cannot write: {error}"))
}

impl From<&ClientError> for CommandError {
    fn from(error: &ClientError) -> CommandError {
        CommandError::new(error)
    }
}
