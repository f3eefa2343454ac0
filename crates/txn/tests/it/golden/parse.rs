//! Arguments of the verbs.

use std::error::Error;

use base::TimeStamp;
use bytes::Bytes;
use goldenscript::{Argument, ArgumentConsumer, Command};
use pontoon_txn as txn;
use txn::actions::{Assertion, AssertionLevel, Op, PessimisticAction, PrewriteKey};
use txn::mvcc::{Isolation, Key, ReadOptions};

pub type Fallible<T> = Result<T, Box<dyn Error>>;

/// The arguments of one command.
pub struct Args<'a>(ArgumentConsumer<'a>);

impl<'a> Args<'a> {
    pub fn of(command: &'a Command) -> Self {
        Self(command.consume_args())
    }

    pub fn text(&mut self, name: &str) -> Option<&'a str> {
        self.0.take_key(name)
    }

    pub fn flag(&mut self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub fn number(&mut self, name: &str) -> Fallible<u64> {
        self.text(name).map_or(Ok(0), |text| Ok(text.parse()?))
    }

    /// 0 if it is not there.
    pub fn ts(&mut self, name: &str) -> Fallible<TimeStamp> {
        self.text(name).map_or(Ok(TimeStamp(0)), parse_ts)
    }

    pub fn ts_list(&mut self, name: &str) -> Fallible<Vec<TimeStamp>> {
        self.text(name).into_iter().flat_map(|list| list.split(',')).map(parse_ts).collect()
    }

    pub fn bytes(&mut self, name: &str) -> Bytes {
        Bytes::copy_from_slice(self.text(name).unwrap_or_default().as_bytes())
    }

    pub fn next(&mut self) -> Option<&'a str> {
        self.0.next_pos()
    }

    pub fn key(&mut self) -> Fallible<Key> {
        Ok(key(self.next().ok_or("a key is missing")?))
    }

    pub fn keys(&mut self) -> Vec<Key> {
        std::iter::from_fn(|| self.next()).map(key).collect()
    }

    /// All that is left, as `op/key@flags` with a value where there is one.
    pub fn mutations(&mut self) -> Fallible<Vec<PrewriteKey>> {
        let mut all = Vec::new();
        for arg in &mut self.0 {
            let (name, value) = match arg {
                Argument::Positional(name) => (name.as_str(), ""),
                Argument::KeyValue(name, value) => (name.as_str(), value.as_str()),
                _ => return Err("no such argument".into()),
            };
            all.push(mutation(name, value)?);
        }
        Ok(all)
    }

    /// All that is left, as timestamps.
    pub fn ts_pairs(&mut self) -> Fallible<Vec<(TimeStamp, TimeStamp)>> {
        let mut all = Vec::new();
        while let Some((name, value)) = self.0.next_key() {
            all.push((parse_ts(name)?, parse_ts(value)?));
        }
        Ok(all)
    }

    pub fn read_options(&mut self) -> Fallible<ReadOptions> {
        Ok(ReadOptions {
            ts: self.ts("at")?,
            isolation: match self.text("level") {
                None => Isolation::Snapshot,
                Some("rc") => Isolation::ReadCommitted,
                Some("check") => Isolation::RcCheckTs,
                Some(other) => return Err(format!("no level {other}").into()),
            },
            bypass: self.ts_list("bypass")?.into_iter().collect(),
            access: self.ts_list("access")?.into_iter().collect(),
            is_replica_read: self.flag("replica"),
        })
    }

    pub fn assertion_level(&mut self) -> Fallible<AssertionLevel> {
        match self.text("assert") {
            None => Ok(AssertionLevel::Off),
            Some("fast") => Ok(AssertionLevel::Fast),
            Some("strict") => Ok(AssertionLevel::Strict),
            Some(other) => Err(format!("no level {other}").into()),
        }
    }

    pub fn end(self) -> Fallible<()> {
        self.0.reject_next()
    }
}

pub fn key(text: &str) -> Key {
    Key::new(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn parse_ts(text: &str) -> Fallible<TimeStamp> {
    if text == "max" {
        return Ok(TimeStamp::MAX);
    }
    let Some((physical, logical)) = text.split_once("ms") else {
        return Ok(TimeStamp(text.parse()?));
    };
    let logical = logical.trim_start_matches('.');
    let logical = if logical.is_empty() { 0 } else { logical.parse()? };
    Ok(TimeStamp::compose(physical.parse()?, logical))
}

/// `xN` is N letters.
pub fn value(text: &str) -> Bytes {
    match text.strip_prefix('x').and_then(|count| count.parse().ok()) {
        Some(count) => "x".repeat(count).into(),
        None => Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn mutation(name: &str, text: &str) -> Fallible<PrewriteKey> {
    let (op, name) = name.split_once('/').ok_or("a mutation is op/key")?;
    let op = match op {
        "put" => Op::Put,
        "delete" => Op::Delete,
        "lock" => Op::Lock,
        "insert" => Op::Insert,
        "check" => Op::CheckNotExists,
        other => Op::from_number(other.parse()?)?,
    };
    let mut parts = name.split('@');
    let name = parts.next().expect("a split has a first part");
    let mut item = PrewriteKey::new(op, key(name), value(text));
    for flag in parts {
        match flag {
            "locked" => item.action = PessimisticAction::Locked,
            "lazy" => item.action = PessimisticAction::CheckConstraint,
            "exist" => item.assertion = Assertion::Exist,
            "absent" => item.assertion = Assertion::NotExist,
            other => {
                let ts = other.strip_prefix("fut.").ok_or("no such flag")?;
                item.expected_for_update_ts = Some(parse_ts(ts)?);
            }
        }
    }
    Ok(item)
}
