//! Transactions by hand, and a look at what they leave behind.

use base::TimeStamp;
use bytes::Bytes;
use client::TxnOptions;
use proto::kvrpcpb::{LockInfo, MvccInfo, Op};

use super::execute::Session;
use crate::commands::CommandError;
use crate::commands::table::Table;

impl Session<'_> {
    /// What stands before the cursor: whose keys are meant.
    pub(super) fn prompt(&self) -> String {
        match &self.txn {
            Some(txn) => format!("pontoon, transaction {}> ", txn.start_ts().0),
            None => "pontoon> ".to_owned(),
        }
    }

    /// A raw call within a transaction is most likely a mistake.
    pub(super) fn refuse_in_txn(&self, name: &str) -> Result<(), CommandError> {
        match &self.txn {
            Some(_) => Err(CommandError::new(format!(
                "{name} is for raw keys: commit or rollback the transaction first"
            ))),
            None => Ok(()),
        }
    }

    pub(super) async fn begin(&mut self, pessimistic: bool) -> Result<(), CommandError> {
        if self.txn.is_some() {
            return Err(CommandError::new("a transaction is in progress: commit or rollback"));
        }
        let options = match pessimistic {
            true => TxnOptions::pessimistic(),
            false => TxnOptions::optimistic(),
        };
        let txn = self.db.begin(options).await?;
        let start_ts = txn.start_ts().0;
        self.txn = Some(txn);
        self.line(&format!("began at {start_ts}"))
    }

    pub(super) async fn commit(&mut self) -> Result<(), CommandError> {
        let committed = self.take_txn()?.commit().await?;
        match committed {
            Some(at) => self.line(&format!("committed at {}", at.0)),
            None => self.line("committed: nothing was written"),
        }
    }

    pub(super) async fn rollback(&mut self) -> Result<(), CommandError> {
        self.take_txn()?.rollback().await?;
        self.line("rolled back")
    }

    /// The end of the shell is the end of its transaction.
    pub(super) async fn end(&mut self) -> Result<(), CommandError> {
        if self.txn.is_none() {
            return Ok(());
        }
        self.line("the transaction in progress is given up")?;
        self.rollback().await
    }

    pub(super) async fn lock(&mut self, keys: &[Bytes]) -> Result<(), CommandError> {
        let txn = self.txn.as_mut().ok_or_else(none_begun)?;
        let found = txn.lock_for_update(keys).await?;
        for key in keys {
            let value = found.get(key).map_or("(not found)".to_owned(), |value| self.show(value));
            self.line(&format!("{}  {value}", self.show(key)))?;
        }
        Ok(())
    }

    pub(super) async fn locks(
        &mut self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<(), CommandError> {
        let now = self.db.timestamp().await?;
        let locks = self.db.locks(start, end, now, limit).await?;
        if locks.is_empty() {
            return self.line("no locks");
        }
        let headings = ["key", "kind", "start_ts", "lives (ms)", "primary", "min_commit_ts"];
        let mut table = Table::new(&headings);
        for lock in &locks {
            let kind = if lock.use_async_commit { "async " } else { "" };
            table.row(vec![
                self.show(&lock.key),
                format!("{kind}{}", lock_kind(lock.lock_type())),
                lock.lock_version.to_string(),
                lives_ms(lock, now),
                self.show(&lock.primary_lock),
                lock.min_commit_ts.to_string(),
            ]);
        }
        self.line(table.text().trim_end())
    }

    pub(super) async fn mvcc(&mut self, key: &[u8]) -> Result<(), CommandError> {
        let info = self.db.versions(key).await?;
        if info.lock.is_none() && info.writes.is_empty() && info.values.is_empty() {
            return self.line("nothing is stored");
        }
        let text = self.mvcc_table(&info);
        self.line(text.trim_end())
    }

    fn mvcc_table(&self, info: &MvccInfo) -> String {
        let long = |start_ts: u64| {
            let value = info.values.iter().find(|value| value.start_ts == start_ts);
            value.map(|value| self.show(&value.value))
        };
        let value = |short: &Bytes, kind: Op, start_ts: u64| match kind {
            Op::Put if short.is_empty() => long(start_ts).unwrap_or_else(|| self.show(short)),
            Op::Put => self.show(short),
            _ => String::new(),
        };
        let mut table = Table::new(&["kind", "commit_ts", "start_ts", "value"]);
        if let Some(lock) = &info.lock {
            let kind = lock.r#type();
            let about = format!("locked, {}", lock_kind(kind));
            let value = value(&lock.short_value, kind, lock.start_ts);
            let primary = format!("{value}  (primary {})", self.show(&lock.primary));
            table.row(vec![about, "-".to_owned(), lock.start_ts.to_string(), primary]);
        }
        for write in &info.writes {
            let kind = write.r#type();
            let value = value(&write.short_value, kind, write.start_ts);
            let (commit_ts, start_ts) = (write.commit_ts.to_string(), write.start_ts.to_string());
            table.row(vec![lock_kind(kind).to_owned(), commit_ts, start_ts, value]);
        }
        table.text()
    }

    fn take_txn(&mut self) -> Result<client::Txn<crate::remote::GrpcLink>, CommandError> {
        self.txn.take().ok_or_else(none_begun)
    }
}

fn none_begun() -> CommandError {
    CommandError::new("no transaction is in progress: begin")
}

/// How long a lock is good for, as its store judges it: heart beats of its primary aside.
fn lives_ms(lock: &LockInfo, now: TimeStamp) -> String {
    let ends = TimeStamp(lock.lock_version).physical_ms().saturating_add(lock.lock_ttl);
    match ends.checked_sub(now.physical_ms()) {
        Some(left) => left.to_string(),
        None => "out of date".to_owned(),
    }
}

fn lock_kind(kind: Op) -> &'static str {
    match kind {
        Op::Put | Op::Insert => "put",
        Op::Del => "delete",
        Op::Lock => "lock",
        Op::Rollback => "rollback",
        Op::PessimisticLock => "pessimistic",
        Op::CheckNotExists => "check",
        Op::SharedLock | Op::SharedPessimisticLock => "shared",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lives_from_its_start_on() {
        let lock = LockInfo { lock_version: 1_000 << 18, lock_ttl: 50, ..Default::default() };
        assert_eq!(lives_ms(&lock, TimeStamp::compose(1_010, 0)), "40");
        assert_eq!(lives_ms(&lock, TimeStamp::compose(1_051, 0)), "out of date");
    }
}
