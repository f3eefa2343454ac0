//! The node that a script works on.

use std::collections::BTreeMap;

use base::{KeyRange, TimeStamp};
use bytes::Bytes;
use goldenscript::{Command, Context, Runner};
use pontoon_txn as txn;
use storage::engine::{Cf, IterOptions};
use storage::keys;
use txn::Mutation;
use txn::TxnError;
use txn::actions::{Op, Outcome};
use txn::concurrency::Concurrency;
use txn::mvcc::{Key, Reader, Write, WriteKind};

use super::parse::{Args, Fallible, key};
use super::show;
use crate::node::{Node, NotRun, Pending, region};

#[derive(Default)]
pub struct Bench {
    pub node: Node,
    /// Commands whose writes wait.
    held: BTreeMap<String, Pending>,
    /// The name under which the next one is to wait.
    hold: Option<String>,
}

impl Runner for Bench {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Fallible<String> {
        let mut args = Args::of(command);
        self.hold = args.text("hold").map(str::to_owned);
        let out = self.verb(&command.name, &mut args)?;
        args.end()?;
        Ok(out)
    }
}

impl Bench {
    fn verb(&mut self, name: &str, args: &mut Args<'_>) -> Fallible<String> {
        match name {
            "apply" | "fail" => return self.settle(name, args),
            "version" => return self.version(args),
            "region" => {
                let bound =
                    |name: &str| if name.is_empty() { Bytes::new() } else { key(name).region() };
                let (start, end) = (args.next().unwrap_or(""), args.next().unwrap_or(""));
                self.node.region = region(KeyRange::new(bound(start), bound(end)));
            }
            "memory" => self.node.in_memory = args.next() == Some("on"),
            "hand-over" => {
                let writes = self.node.memory.hand_over().ok_or("not open")?.writes;
                self.node.write(&writes);
                self.node.memory.resume(1, true);
                return Ok(self.state());
            }
            "restart" => self.node.restart(args.ts("at")?),
            "max-ts" => return Ok(show::ts(self.node.concurrency.max_ts())),
            "limit" => self.node.concurrency.set_limit(args.ts("at")?),
            "state" => return Ok(self.state()),
            _ => {
                return match self.read_verb(name, args)? {
                    Some(out) => Ok(out),
                    None => self.write_verb(name, args),
                };
            }
        }
        Ok(String::new())
    }

    fn settle(&mut self, how: &str, args: &mut Args<'_>) -> Fallible<String> {
        let pending = self.held.remove(args.next().ok_or("a name is missing")?);
        let pending = pending.ok_or("nothing of that name is held")?;
        if how == "fail" {
            self.node.abandon(pending);
            return Ok(String::new());
        }
        Ok(show::changes(&self.node.apply(pending)))
    }

    /// Puts a record where it is to be found.
    fn version(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let (start, mut commit) = (args.ts("start")?, args.ts("commit")?);
        let (protected, fence) = (args.flag("protected"), args.text("fence"));
        let name = args.next().map(str::to_owned);
        let items = match &name {
            Some(name) if name.starts_with("rollback/") => {
                commit = start;
                vec![(key(&name["rollback/".len()..]), Write::rollback(start, protected), None)]
            }
            Some(name) => vec![self.version_of(name, start)?],
            None => {
                let puts = args.mutations()?.into_iter().map(|item| {
                    assert!(item.op == Op::Put, "only puts have values");
                    let short = item.value.len() <= 255;
                    let value = item.value;
                    let write = Write::new(WriteKind::Put, start, short.then(|| value.clone()));
                    (item.key, write, (!short).then_some(value))
                });
                puts.collect()
            }
        };
        for (key, mut write, long) in items {
            write.gc_fence = fence.map(super::parse::parse_ts).transpose()?;
            let value = write.encode().into();
            let mut writes =
                vec![Mutation::Put { cf: Cf::Write, key: key.versioned_region(commit), value }];
            writes.extend(long.map(|value| Mutation::Put {
                cf: Cf::Default,
                key: key.versioned_region(start),
                value,
            }));
            self.node.write(&writes);
        }
        Ok(String::new())
    }

    fn version_of(&self, name: &str, start: TimeStamp) -> Fallible<(Key, Write, Option<Bytes>)> {
        let (op, name) = name.split_once('/').ok_or("a record is kind/key")?;
        let kind = match op {
            "delete" => WriteKind::Delete,
            "lock" => WriteKind::Lock,
            other => return Err(format!("no kind {other}").into()),
        };
        Ok((key(name), Write::new(kind, start, None), None))
    }

    /// Runs an action; prints its reply and its changes.
    pub fn act<R>(
        &mut self,
        latch_keys: Vec<Key>,
        reads_at: Option<TimeStamp>,
        reply: impl FnOnce(&R) -> String,
        action: impl FnOnce(&mut Reader<'_>, &mut Concurrency) -> Result<Outcome<R>, TxnError>,
    ) -> String {
        let (out, pending) = match self.node.run(&latch_keys, reads_at, action) {
            Ok((out, pending)) => (reply(&out), pending),
            Err(NotRun::Latched) => return "waits for a latch".to_owned(),
            Err(NotRun::MaxTs(message)) => return format!("refused: {message}"),
            Err(NotRun::Failed(error)) => return show::error(&error),
        };
        let changes = show::changes(&pending.changes);
        let changes = if let Some(name) = self.hold.take() {
            let shown = pending.changes.published.iter();
            let shown: Vec<_> = shown.map(|key| show::text(key.user())).collect();
            self.held.insert(name, pending);
            let list = shown.join(" ");
            if list.is_empty() { "held".into() } else { format!("held, shown to readers: {list}") }
        } else {
            // A lock that is held in memory is not among the changes any more.
            self.node.apply(pending);
            changes
        };
        let lines = [out, changes].into_iter().filter(|part| !part.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Everything that is stored.
    fn state(&self) -> String {
        let mut lines = Vec::new();
        let (start, end) = keys::data_range(self.node.region.id, &KeyRange::all());
        for cf in [Cf::Lock, Cf::Write, Cf::Default] {
            let options = IterOptions::within(KeyRange::new(start.clone(), end.clone()));
            let snapshot = self.node.snapshot();
            let mut cursor = snapshot.iter(cf, options).expect("memory does not fail");
            let mut valid = cursor.seek_to_first().expect("memory does not fail");
            while valid {
                let place = keys::origin_key(cursor.key()).expect("data");
                lines.push(show::record(cf, place, Some(cursor.value())));
                valid = cursor.next().expect("memory does not fail");
            }
        }
        for (key, lock) in self.node.memory.all() {
            lines.push(format!(
                "in memory: lock {} = {}",
                show::text(key.user()),
                show::lock(&lock)
            ));
        }
        for (key, lock) in self.node.concurrency.locks() {
            let (key, lock) = (show::text(key.user()), show::lock(lock));
            lines.push(format!("shown to readers: lock {key} = {lock}"));
        }
        if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
    }
}
