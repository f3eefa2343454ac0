//! Verbs that only read.

use base::KeyRange;
use bytes::Bytes;
use pontoon_txn as txn;
use txn::actions::{BufferBatchGet, MvccInfo, mvcc_by_key, mvcc_by_start_ts, scan_lock};
use txn::concurrency::ReadRefused;
use txn::mvcc::{ReadOptions, Row, Scan};
use txn::{KeyError, TxnError};

use super::bench::Bench;
use super::parse::{Args, Fallible};
use super::show;

impl Bench {
    /// `None`: not a verb of this file.
    pub fn read_verb(&mut self, name: &str, args: &mut Args<'_>) -> Fallible<Option<String>> {
        Ok(Some(match name {
            "get" => self.get(args)?,
            "scan" => self.scan(args)?,
            "buffer" => {
                let start_ts = args.ts("start")?;
                let get = BufferBatchGet { keys: args.keys(), start_ts };
                let pair = |(key, value): &(Bytes, Bytes)| {
                    format!("{} = {}", show::text(key), show::text(value))
                };
                self.node
                    .read(|reader| answer(get.run(reader), |pairs| list(pairs.iter().map(pair))))
            }
            "scan-lock" => self.scan_lock(args)?,
            "mvcc" => {
                let key = args.key()?;
                self.node.read(|reader| answer(mvcc_by_key(reader, &key), info))
            }
            "by-start" => {
                let start_ts = args.ts("start")?;
                let found = |found: &Option<_>| match found {
                    Some((key, all)) => format!("{key:?}\n{}", info(all)),
                    None => "nothing".to_owned(),
                };
                self.node.read(|reader| answer(mvcc_by_start_ts(reader, start_ts), found))
            }
            _ => return Ok(None),
        }))
    }

    fn get(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let read = args.read_options()?;
        let keys = args.keys();
        if let Err(refused) = self.node.concurrency.begin_read(&keys, &read) {
            return Ok(show_refused(&refused));
        }
        if let [key] = &keys[..] {
            let found = self.node.read(|reader| reader.get(key, &read));
            return Ok(answer(found, |found| match found {
                Some(value) if value.commit_ts.0 == 0 => {
                    format!("{} from its lock", show::text(&value.value))
                }
                Some(value) => show::text(&value.value),
                None => "not found".to_owned(),
            }));
        }
        let rows = self.node.read(|reader| reader.batch_get(&keys, &read));
        Ok(answer(rows, |rows| list(rows.iter().map(show::row))))
    }

    fn scan(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let read = args.read_options()?;
        let bound = |text: Option<&str>| Bytes::copy_from_slice(text.unwrap_or("").as_bytes());
        let mut scan = Scan {
            limit: args.text("limit").map_or(Ok(100), str::parse)?,
            reverse: args.flag("reverse"),
            key_only: args.flag("keys"),
            sample_step: args.number("step")? as usize,
            ..Scan::default()
        };
        (scan.start, scan.end) = (bound(args.next()), bound(args.next()));
        let bounds = match self.node.read(|reader| reader.scan_bounds(&scan)) {
            Ok(bounds) => bounds,
            Err(error) => return Ok(show::error(&error)),
        };
        if let Err(refused) = self.node.concurrency.begin_read_range(&bounds, &read) {
            return Ok(show_refused(&refused));
        }
        let rows = self.node.read(|reader| reader.scan(&scan, &read));
        Ok(answer(rows, |rows: &Vec<Row>| list(rows.iter().map(show::row))))
    }

    fn scan_lock(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let (max, limit) = (args.ts("max")?, args.number("limit")? as usize);
        let mut bound = || Bytes::copy_from_slice(args.next().unwrap_or("").as_bytes());
        let (start, end) = (bound(), bound());
        let read = ReadOptions::at(max);
        if let Err(refused) = self.node.concurrency.begin_read_range(&KeyRange::all(), &read) {
            return Ok(show_refused(&refused));
        }
        let found = self.node.read(|reader| scan_lock(reader, (&start, &end), max, limit));
        Ok(answer(found, |locks| list(locks.iter().map(show::lock_info))))
    }
}

fn show_refused(refused: &ReadRefused) -> String {
    match refused {
        ReadRefused::Ts(error) => format!("refused: {error}"),
        ReadRefused::Key(error) => {
            assert!(matches!(**error, KeyError::Locked(_) | KeyError::Conflict(_)));
            format!("in memory, {}", show::key_error(error))
        }
    }
}

fn answer<T>(found: Result<T, TxnError>, show: impl FnOnce(&T) -> String) -> String {
    match found {
        Ok(found) => show(&found),
        Err(error) => show::error(&error),
    }
}

fn list(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

fn info(info: &MvccInfo) -> String {
    let wire = txn::wire::mvcc_info(info);
    assert_eq!(wire.writes.len(), info.writes.len());
    let lock = info.lock.iter().map(|lock| format!("lock = {}", show::lock(lock)));
    let writes = info.writes.iter();
    let writes =
        writes.map(|(at, write)| format!("write @{} = {}", show::ts(*at), show::write(write)));
    let values = info.values.iter();
    let values =
        values.map(|(at, value)| format!("value @{} = {}", show::ts(*at), show::text(value)));
    list(lock.chain(writes).chain(values))
}
