//! Carries out commands and writes what they yield.

use std::io::{self, Write};

use bytes::Bytes;
use client::{ApiVersion, Db, Keys, Pair, Txn};
use proto::metapb;

use super::command::{COMMANDS, Command, Group, Usage, find};
use super::escape::{quote, to_hex};
use crate::commands::CommandError;
use crate::remote::{GrpcLink, RegionInfo};

/// A connected shell without its input.
pub(super) struct Session<'a> {
    pub(super) db: &'a Db<GrpcLink>,
    /// The transaction in progress.
    pub(super) txn: Option<Txn<GrpcLink>>,
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
            Command::Put(key, value, ttl_s) => self.put(&key, value, ttl_s).await?,
            Command::Delete(keys) => self.delete(&keys).await?,
            Command::Scan { start, end, limit, reverse } => {
                let pairs = self.scan(&start, &end, limit, reverse).await?;
                self.pairs(&pairs)?;
            }
            Command::DeleteRange(start, end) => {
                self.refuse_in_txn("delete-range")?;
                self.db.raw().delete_range(&start, &end).await?;
                self.line("ok")?;
            }
            Command::Cas(key, expected, new) => {
                self.refuse_in_txn("cas")?;
                let outcome = self.db.raw().compare_and_swap(&key, expected, new).await?;
                let found = outcome.found.map_or("none".to_owned(), |value| self.show(&value));
                let verb = if outcome.swapped { "swapped, was" } else { "not swapped, is" };
                self.line(&format!("{verb} {found}"))?;
            }
            Command::Ttl(key) => self.ttl(&key).await?,
            Command::Begin(pessimistic) => self.begin(pessimistic).await?,
            Command::Commit => self.commit().await?,
            Command::Rollback => self.rollback().await?,
            Command::Lock(keys) => self.lock(&keys).await?,
            Command::Mvcc(key) => self.mvcc(&key).await?,
            Command::Locks(start, end, limit) => self.locks(&start, &end, limit).await?,
            Command::Regions(key, limit) => self.regions(&key, limit).await?,
            Command::Stores => self.stores().await?,
            Command::Status => self.status().await?,
            Command::Members => self.members().await?,
            Command::Help(name) => self.help(name.as_deref())?,
            Command::Quit => return Ok(Next::End),
        }
        Ok(Next::Line)
    }

    async fn scan(
        &mut self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, CommandError> {
        let raw = self.db.raw();
        Ok(match (&self.txn, reverse) {
            (Some(txn), false) => txn.scan(start, end, limit).await?,
            (Some(txn), true) => txn.scan_reverse(start, end, limit).await?,
            (None, false) => raw.scan(start, end, limit).await?,
            (None, true) => raw.scan_reverse(start, end, limit).await?,
        })
    }

    async fn get(&mut self, keys: &[Bytes]) -> Result<(), CommandError> {
        for key in keys {
            let value = match &self.txn {
                Some(txn) => txn.get(key).await?,
                None => self.db.raw().get(key).await?,
            };
            let value = value.map_or("(not found)".to_owned(), |value| self.show(&value));
            match keys.len() {
                1 => self.line(&value)?,
                _ => self.line(&format!("{}  {value}", self.show(key)))?,
            }
        }
        Ok(())
    }

    async fn put(&mut self, key: &[u8], value: Bytes, ttl_s: u64) -> Result<(), CommandError> {
        match &mut self.txn {
            Some(_) if ttl_s > 0 => {
                return Err(CommandError::new("what a transaction writes does not expire"));
            }
            Some(txn) => txn.put(key, value).await?,
            None => self.db.raw().put(key, value, ttl_s).await?,
        }
        self.line("ok")
    }

    async fn delete(&mut self, keys: &[Bytes]) -> Result<(), CommandError> {
        for key in keys {
            match &mut self.txn {
                Some(txn) => txn.delete(key).await?,
                None => self.db.raw().delete(key).await?,
            }
        }
        self.line("ok")
    }

    async fn ttl(&mut self, key: &[u8]) -> Result<(), CommandError> {
        self.refuse_in_txn("ttl")?;
        let text = match self.db.raw().ttl(key).await? {
            None => "(not found)".to_owned(),
            Some(0) => "never expires".to_owned(),
            Some(seconds) => format!("{seconds} s"),
        };
        self.line(&text)
    }

    async fn regions(&mut self, key: &[u8], limit: usize) -> Result<(), CommandError> {
        let api = Keys::raw(self.api_version);
        let start =
            if key.is_empty() { Bytes::new() } else { api.placement_key(&api.data_key(key)) };
        for info in self.db.link().placement().regions(&start, limit).await? {
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
        for store in self.db.link().placement().stores().await? {
            self.line(&store_line(&store))?;
        }
        Ok(())
    }

    async fn status(&mut self) -> Result<(), CommandError> {
        let placement = self.db.link().placement();
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
        let reply = self.db.link().placement().members().await?;
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
            for (group, title) in Group::ALL {
                self.line(title)?;
                for row in COMMANDS.iter().filter(|row| row.group == group) {
                    self.line(&format!("  {}", help_line(row)))?;
                }
            }
            return self.line(
                "\nKeys and values: words, or \"in quotes\"; \\xNN \\n \\t \\\\ \\\" are bytes.\n\
                 \"\" as TO means: to the last key.",
            );
        };
        let row = find(name).ok_or_else(|| {
            CommandError::new(format!("'{name}' is not a command: help lists them"))
        })?;
        self.line(&help_line(row))
    }

    pub(super) fn pairs(&mut self, pairs: &[Pair]) -> Result<(), CommandError> {
        for pair in pairs {
            self.line(&format!("{}  {}", self.show(&pair.key), self.show(&pair.value)))?;
        }
        Ok(())
    }

    pub(super) fn show(&self, bytes: &[u8]) -> String {
        if self.hex { to_hex(bytes) } else { quote(bytes) }
    }

    pub(super) fn line(&mut self, line: &str) -> Result<(), CommandError> {
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
