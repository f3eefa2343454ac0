//! What can be typed into the shell: the table of commands, and a line read into one of them.

use bytes::Bytes;
use client::{Expected, NewValue};

use super::escape::{Word, parse_hex, split};

/// Rows or regions shown when the line names no limit.
const LIMIT_DEFAULT: usize = 100;

/// A command, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Values of keys.
    Get(Vec<Bytes>),
    /// Writes a value, to expire after so many seconds; 0 is never.
    Put(Bytes, Bytes, u64),
    /// Deletes keys.
    Delete(Vec<Bytes>),
    /// Pairs of a range, from one end.
    Scan {
        /// First key.
        start: Bytes,
        /// First key outside again; empty for none.
        end: Bytes,
        /// Rows at most.
        limit: usize,
        /// From the end on, backwards.
        reverse: bool,
    },
    /// Deletes a range.
    DeleteRange(Bytes, Bytes),
    /// Compares and swaps.
    Cas(Bytes, Expected, NewValue),
    /// Seconds that a value has left.
    Ttl(Bytes),
    /// Begins a transaction, a pessimistic one or not.
    Begin(bool),
    /// Commits it.
    Commit,
    /// Gives it up.
    Rollback,
    /// Locks keys in it, and shows their values.
    Lock(Vec<Bytes>),
    /// Everything that is stored about a key of transactions.
    Mvcc(Bytes),
    /// Locks of transactions in a range, so many at most.
    Locks(Bytes, Bytes, usize),
    /// So many regions from the one of a key on.
    Regions(Bytes, usize),
    /// All stores.
    Stores,
    /// The cluster in short.
    Status,
    /// Members of the placement driver.
    Members,
    /// The table of commands, or one of them.
    Help(Option<String>),
    /// Ends the shell.
    Quit,
}

/// Where a command belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// On raw keys, or on those of the transaction between `begin` and its end.
    Both,
    /// On raw keys, and so not within a transaction.
    Raw,
    /// On transactions.
    Transactions,
    /// On the cluster and the shell, at any time.
    Any,
}

impl Group {
    /// In the order of the table, with what is written above each.
    pub const ALL: [(Group, &str); 4] = [
        (Group::Both, "Raw keys; between begin and commit or rollback, the transaction's keys:"),
        (Group::Raw, "Raw keys only:"),
        (Group::Transactions, "Transactions:"),
        (Group::Any, "The cluster:"),
    ];
}

/// A row of the table: name, arguments, what it does.
pub struct Usage {
    /// Where it belongs.
    pub group: Group,
    /// The name that is typed.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    read: fn(&Arguments<'_>) -> Result<Command, String>,
}

/// Every command there is.
pub const COMMANDS: [Usage; 20] = [
    both("get", "KEY...", "show the value of each key", |a| a.keys().map(Command::Get)),
    both("put", "KEY VALUE [ttl SECONDS]", "write a value; with ttl it expires (raw)", put),
    both("delete", "KEY...", "delete keys; missing ones are no error", |a| {
        a.keys().map(Command::Delete)
    }),
    both("scan", "FROM [TO] [LIMIT]", "show pairs from FROM on, TO not included", |a| {
        scan(a, false)
    }),
    both("rscan", "FROM [TO] [LIMIT]", "the same range, the last pair first", |a| scan(a, true)),
    raw("delete-range", "FROM TO", "delete all keys from FROM on, TO not included", |a| {
        a.between(2, 2)?;
        Ok(Command::DeleteRange(a.bytes(0)?, a.bytes(1)?))
    }),
    raw("cas", "KEY OLD|none NEW|none [ttl SECONDS]", "change KEY if it is OLD", cas),
    raw("ttl", "KEY", "seconds until the value expires", |a| {
        a.between(1, 1)?;
        a.bytes(0).map(Command::Ttl)
    }),
    txn("begin", "[pessimistic]", "begin a transaction; pessimistic: writes lock at once", begin),
    txn("commit", "", "make its writes visible, all of them or none", |a| a.alone(Command::Commit)),
    txn("rollback", "", "give it up", |a| a.alone(Command::Rollback)),
    txn("lock", "KEY...", "lock keys in it, and show their newest values", |a| {
        a.keys().map(Command::Lock)
    }),
    txn("mvcc", "KEY", "a key's lock and all its versions, at any time", |a| {
        a.between(1, 1)?;
        a.bytes(0).map(Command::Mvcc)
    }),
    txn("locks", "[FROM] [TO] [LIMIT]", "locks of all transactions, at any time", locks),
    any("regions", "[KEY] [LIMIT]", "regions from the one that holds the raw KEY on", regions),
    any("stores", "", "stores, their addresses and states", |a| a.alone(Command::Stores)),
    any("status", "", "the cluster in short", |a| a.alone(Command::Status)),
    any("members", "", "members of the placement driver", |a| a.alone(Command::Members)),
    any("help", "[COMMAND]", "this table, or one row of it", |a| {
        a.between(0, 1)?;
        let name = a.words.first().map(|word| String::from_utf8_lossy(&word.bytes).into_owned());
        Ok(Command::Help(name))
    }),
    any("quit", "", "leave (also exit, Ctrl-D)", |a| a.alone(Command::Quit)),
];

type Read = fn(&Arguments<'_>) -> Result<Command, String>;
type Text = &'static str;

const fn both(name: Text, arguments: Text, about: Text, read: Read) -> Usage {
    Usage { group: Group::Both, name, arguments, about, read }
}

const fn raw(name: Text, arguments: Text, about: Text, read: Read) -> Usage {
    Usage { group: Group::Raw, name, arguments, about, read }
}

const fn txn(name: Text, arguments: Text, about: Text, read: Read) -> Usage {
    Usage { group: Group::Transactions, name, arguments, about, read }
}

const fn any(name: Text, arguments: Text, about: Text, read: Read) -> Usage {
    Usage { group: Group::Any, name, arguments, about, read }
}

/// The row of a command by its name, in any case.
pub fn find(name: &str) -> Option<&'static Usage> {
    let name = if name.eq_ignore_ascii_case("exit") { "quit" } else { name };
    COMMANDS.iter().find(|usage| usage.name.eq_ignore_ascii_case(name))
}

/// Reads a line: none if it is blank or a comment. With `hex`, keys and values are hex digits.
pub fn read(line: &str, hex: bool) -> Result<Option<Command>, String> {
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let words = split(line)?;
    let Some((name, words)) = words.split_first() else { return Ok(None) };
    let name = String::from_utf8_lossy(&name.bytes).into_owned();
    let usage = find(&name).ok_or_else(|| format!("'{name}' is not a command: help lists them"))?;
    let arguments = Arguments { words, hex };
    (usage.read)(&arguments).map(Some).map_err(|why| {
        let space = if usage.arguments.is_empty() { "" } else { " " };
        format!("{why}: {}{space}{}", usage.name, usage.arguments)
    })
}

/// The words after the name.
struct Arguments<'a> {
    words: &'a [Word],
    hex: bool,
}

impl Arguments<'_> {
    fn between(&self, least: usize, most: usize) -> Result<(), String> {
        match self.words.len() {
            n if n < least => Err("too few arguments".to_owned()),
            n if n > most => Err("too many arguments".to_owned()),
            _ => Ok(()),
        }
    }

    fn alone(&self, command: Command) -> Result<Command, String> {
        self.between(0, 0).map(|()| command)
    }

    /// A key or a value.
    fn bytes(&self, at: usize) -> Result<Bytes, String> {
        let word = self.words.get(at).ok_or("too few arguments")?;
        if !self.hex {
            return Ok(word.bytes.clone().into());
        }
        let text = String::from_utf8_lossy(&word.bytes);
        parse_hex(&text).map(Bytes::from).ok_or_else(|| format!("'{text}' is not hex"))
    }

    fn keys(&self) -> Result<Vec<Bytes>, String> {
        self.between(1, usize::MAX)?;
        (0..self.words.len()).map(|at| self.bytes(at)).collect()
    }

    fn number<T: std::str::FromStr>(&self, at: usize) -> Result<T, String> {
        let text = String::from_utf8_lossy(&self.words[at].bytes);
        text.parse().map_err(|_| format!("'{text}' is not a number"))
    }

    /// The seconds of `ttl SECONDS` that may follow the first `at` words.
    fn ttl(&self, at: usize) -> Result<u64, String> {
        match self.words.get(at) {
            None => Ok(0),
            Some(word) if word.is("ttl") && self.words.len() == at + 2 => self.number(at + 1),
            Some(word) => Err(format!("'{}' is too much", String::from_utf8_lossy(&word.bytes))),
        }
    }
}

fn put(arguments: &Arguments<'_>) -> Result<Command, String> {
    arguments.between(2, 4)?;
    Ok(Command::Put(arguments.bytes(0)?, arguments.bytes(1)?, arguments.ttl(2)?))
}

fn scan(arguments: &Arguments<'_>, reverse: bool) -> Result<Command, String> {
    arguments.between(1, 3)?;
    let start = arguments.bytes(0)?;
    let end = if arguments.words.len() > 1 { arguments.bytes(1)? } else { Bytes::new() };
    let limit = if arguments.words.len() > 2 { arguments.number(2)? } else { LIMIT_DEFAULT };
    Ok(Command::Scan { start, end, limit, reverse })
}

fn cas(arguments: &Arguments<'_>) -> Result<Command, String> {
    arguments.between(3, 5)?;
    let ttl = arguments.ttl(3)?;
    let expected = match &arguments.words[1] {
        word if word.is("none") => Expected::Absent,
        _ => Expected::Value(arguments.bytes(1)?),
    };
    let new = match &arguments.words[2] {
        word if word.is("none") && ttl > 0 => return Err("what is deleted has no ttl".to_owned()),
        word if word.is("none") => NewValue::Absent,
        _ => NewValue::Value(arguments.bytes(2)?, ttl),
    };
    Ok(Command::Cas(arguments.bytes(0)?, expected, new))
}

fn begin(arguments: &Arguments<'_>) -> Result<Command, String> {
    arguments.between(0, 1)?;
    match arguments.words.first() {
        None => Ok(Command::Begin(false)),
        Some(word) if word.is("pessimistic") => Ok(Command::Begin(true)),
        Some(word) if word.is("optimistic") => Ok(Command::Begin(false)),
        Some(word) => Err(format!("'{}' is no kind", String::from_utf8_lossy(&word.bytes))),
    }
}

fn locks(arguments: &Arguments<'_>) -> Result<Command, String> {
    arguments.between(0, 3)?;
    let bound = |at| match arguments.words.len() > at {
        true => arguments.bytes(at),
        false => Ok(Bytes::new()),
    };
    let limit = if arguments.words.len() > 2 { arguments.number(2)? } else { LIMIT_DEFAULT };
    Ok(Command::Locks(bound(0)?, bound(1)?, limit))
}

fn regions(arguments: &Arguments<'_>) -> Result<Command, String> {
    arguments.between(0, 2)?;
    let key = if arguments.words.is_empty() { Bytes::new() } else { arguments.bytes(0)? };
    let limit = if arguments.words.len() > 1 { arguments.number(1)? } else { LIMIT_DEFAULT };
    Ok(Command::Regions(key, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        read(line, false).expect(line).expect("the line is not blank")
    }

    #[test]
    fn lines_become_commands() {
        assert_eq!(command("get a b"), Command::Get(vec!["a".into(), "b".into()]));
        assert_eq!(command("PUT k \"\""), Command::Put("k".into(), Bytes::new(), 0));
        assert_eq!(command("put k v ttl 60"), Command::Put("k".into(), "v".into(), 60));
        let scan = |end: &'static str, limit, reverse| Command::Scan {
            start: "a".into(),
            end: end.into(),
            limit,
            reverse,
        };
        assert_eq!(command("scan a"), scan("", LIMIT_DEFAULT, false));
        assert_eq!(command("rscan a \"\" 7"), scan("", 7, true));
        assert_eq!(command("regions"), Command::Regions(Bytes::new(), LIMIT_DEFAULT));
        assert_eq!(command("begin"), Command::Begin(false));
        assert_eq!(command("BEGIN pessimistic"), Command::Begin(true));
        assert_eq!(command("locks"), Command::Locks("".into(), "".into(), LIMIT_DEFAULT));
        assert_eq!(command("locks a b 3"), Command::Locks("a".into(), "b".into(), 3));
        assert_eq!(command("exit"), Command::Quit);
        assert_eq!(command("help put"), Command::Help(Some("put".into())));
        assert_eq!(read("  # a comment", false), Ok(None));
        assert_eq!(read("", false), Ok(None));
    }

    #[test]
    fn none_is_a_keyword_without_quotes() {
        let old = Expected::Absent;
        assert_eq!(
            command("cas k none v ttl 5"),
            Command::Cas("k".into(), old, NewValue::Value("v".into(), 5))
        );
        let old = Expected::Value("none".into());
        assert_eq!(command("cas k \"none\" none"), Command::Cas("k".into(), old, NewValue::Absent));
    }

    #[test]
    fn hex_is_for_keys_and_values() {
        let hex = |line| read(line, true);
        let put = Command::Put(b"\0\xff"[..].into(), Bytes::new(), 9);
        assert_eq!(hex("put 00ff \"\" ttl 9"), Ok(Some(put)));
        assert!(hex("get xyz").expect_err("not hex").contains("'xyz' is not hex"));
    }

    #[test]
    fn wrong_lines_show_the_usage() {
        for (line, why) in [
            ("get", "too few arguments: get KEY..."),
            ("put a", "too few arguments: put KEY VALUE [ttl SECONDS]"),
            ("put a b c", "'c' is too much"),
            ("put a b ttl", "'ttl' is too much"),
            ("put a b ttl x", "'x' is not a number"),
            ("scan a b -1", "'-1' is not a number"),
            ("cas a b none ttl 3", "what is deleted has no ttl"),
            ("begin slowly", "'slowly' is no kind: begin [pessimistic]"),
            ("quit now", "too many arguments: quit"),
            ("frob", "'frob' is not a command"),
        ] {
            let error = read(line, false).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn every_row_can_be_found() {
        assert!(COMMANDS.iter().all(|row| find(row.name).is_some_and(|r| r.about == row.about)));
        let shown =
            Group::ALL.map(|(group, _)| COMMANDS.iter().filter(|row| row.group == group).count());
        assert_eq!(shown.iter().sum::<usize>(), COMMANDS.len());
    }
}
