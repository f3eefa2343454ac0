//! What transactional clients do all day, with the real client: they append to lists, move money,
//! and look at all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Instant, Prng, TimeStamp};
use bytes::Bytes;
use client::{ClientError, Db, Link, Txn, TxnOptions};
use proto::kvrpcpb::{self, LockInfo};

use super::Wishes;
use super::executor::Route;
use super::link::SimLink;
use super::recorder::{BALANCE, NoteId, Recorder, TxnId};
use crate::check::bank::{Balances, Bank};
use crate::check::{Act, ListId, Outcome, Style};

/// Lists that are in use at once.
pub(crate) const PLACES: u64 = 4;

pub(crate) fn list_key(list: ListId) -> String {
    format!("xl{list:04}")
}

pub(crate) fn account_key(account: u64) -> String {
    format!("xb{account:02}")
}

/// What the index says of an account: its balance once more. Whoever writes it has locked the
/// account, and it is the first key of whoever locks nothing before the commit.
fn index_key(account: u64) -> String {
    format!("xa{account:02}")
}

/// A key that is written without a look at what is there.
fn note_key(place: u64) -> String {
    format!("xn{place}")
}

fn receipt_key(transfer: u64) -> String {
    format!("xr{transfer:05}")
}

/// A key at which a region may be cut.
pub(crate) fn some_key(prng: &mut Prng) -> Bytes {
    match prng.below(5) {
        0 => list_key(prng.below(40)),
        1 => account_key(prng.below(8)),
        2 => index_key(prng.below(8)),
        3 => note_key(prng.below(4)),
        _ => receipt_key(prng.below(200)),
    }
    .into()
}

fn numbers(value: Option<&Bytes>) -> Vec<u64> {
    let text = value.map(|value| std::str::from_utf8(value).expect("lists are text"));
    let parts = text.iter().flat_map(|text| text.split_whitespace());
    parts.map(|part| part.parse().expect("lists hold numbers")).collect()
}

fn list_value(numbers: &[u64], long: bool) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    // Long values lie in a family of their own.
    let padding = if long { " ".repeat(300) } else { String::new() };
    words.join(" ") + &padding
}

fn balance(value: &Bytes) -> i64 {
    let text = std::str::from_utf8(value).expect("balances are text");
    text.parse().expect("balances are numbers")
}

/// A client at work.
pub(crate) struct Worker {
    pub(crate) db: Db<SimLink>,
    pub(crate) recorder: Recorder,
    pub(crate) prng: Prng,
    pub(crate) think: Duration,
    /// How long its locks live.
    pub(crate) lock_ttl: Duration,
    /// How long versions live; for ever if zero.
    pub(crate) version_life: Duration,
    /// One transaction in so many reads at any replica; none if zero.
    pub(crate) anywhere: u64,
    /// What it does how often.
    pub(crate) wishes: Wishes,
}

impl Worker {
    /// One thing after the other, until all end.
    pub(crate) async fn live(mut self) {
        while !self.recorder.opened() {
            if self.db.link().port().client() == 0 {
                self.open().await;
            }
            self.rest().await;
        }
        while !self.recorder.ends() {
            self.next().await;
            self.rest().await;
        }
    }

    async fn next(&mut self) {
        let Wishes { lists, transfers, notes, looks } = self.wishes;
        match self.prng.below(lists + transfers + notes + looks) {
            wish if wish < lists => self.lists().await,
            wish if wish < lists + transfers => self.transfer().await,
            wish if wish < lists + transfers + notes => self.note().await,
            _ if self.prng.one_in(3) => self.look_back().await,
            _ => self.look().await,
        }
    }

    async fn rest(&mut self) {
        let think = self.think.as_micros() as u64;
        let pause = think / 2 + self.prng.below(think + 1);
        self.db.link().wait(Duration::from_micros(pause)).await;
    }

    /// Makes the accounts; whether they are there already is seen first.
    async fn open(&mut self) {
        let Ok(mut txn) = self.db.begin(TxnOptions::optimistic()).await else { return };
        let keys: Vec<String> = (0..self.recorder.accounts()).map(account_key).collect();
        match txn.batch_get(&keys).await {
            Ok(found) if found.is_empty() => {
                for account in 0..self.recorder.accounts() {
                    let (key, balance) = (account_key(account), BALANCE.to_string());
                    txn.put_unlocked(index_key(account).as_bytes(), balance.clone());
                    txn.put(key.as_bytes(), balance).await.expect("not locked here");
                }
                // If nobody knows what came of it the next look tells.
                let _ = txn.commit().await;
            }
            Ok(found) => {
                assert_eq!(found.len(), keys.len(), "atomic transactions: some accounts are there");
                let _ = txn.rollback().await;
                self.recorder.open();
            }
            Err(_) => {}
        }
    }

    fn options(&mut self) -> (Style, TxnOptions) {
        let pessimistic = self.prng.one_in(2);
        let (style, options) = match pessimistic {
            true => (Style::Locking, TxnOptions::pessimistic()),
            false => (Style::Snapshot, TxnOptions::optimistic()),
        };
        let options = TxnOptions {
            async_commit: self.prng.one_in(2),
            one_pc: self.prng.one_in(2),
            causal: self.prng.one_in(2),
            lock_ttl: self.lock_ttl,
            lock_wait: Duration::from_millis([0, 300, 2_000][self.prng.below(3) as usize]),
            ..options
        };
        (style, options)
    }

    /// Whether a transaction has taken so long that what it needs may soon be collected.
    fn is_late(&self, begun: Instant) -> bool {
        let age = self.db.link().now().since(begun);
        !self.version_life.is_zero() && age > self.version_life / 3
    }

    /// From now on it reads at the leaders, or at any replica.
    fn read_somewhere(&mut self) {
        let anywhere = self.anywhere > 0 && self.prng.one_in(self.anywhere);
        self.db.link().read_from(if anywhere { Route::Replica } else { Route::Leader });
    }

    /// Reads lists and appends to some of them.
    async fn lists(&mut self) {
        let (style, options) = self.options();
        self.read_somewhere();
        let begun = self.db.link().now();
        let Ok(txn) = self.db.begin(options).await else { return };
        let id = self.recorder.begin(self.db.link().port().client(), style, begun);
        let outcome = self.work_on_lists(txn, (id, begun), style).await;
        self.recorder.end(id, self.db.link().now(), outcome);
    }

    async fn work_on_lists(
        &mut self,
        mut txn: Txn<SimLink>,
        (id, begun): (TxnId, Instant),
        style: Style,
    ) -> Outcome {
        for _ in 0..1 + self.prng.below(4) {
            let list = self.recorder.list(self.prng.below(PLACES));
            let appends = self.prng.below(3) > 0;
            if self.act_on_list(&mut txn, id, style, list, appends).await.is_err() {
                let _ = txn.rollback().await;
                return Outcome::Failed;
            }
            if self.prng.one_in(4) {
                self.rest().await;
            }
        }
        if self.prng.one_in(20) || self.is_late(begun) {
            // Whoever waits for its locks must find out.
            let _ = txn.rollback().await;
            return Outcome::Failed;
        }
        outcome_of(&txn.commit().await)
    }

    async fn act_on_list(
        &mut self,
        txn: &mut Txn<SimLink>,
        id: TxnId,
        style: Style,
        list: ListId,
        appends: bool,
    ) -> Result<(), ClientError> {
        let key = list_key(list);
        let value = match style {
            Style::Locking => txn.get_for_update(key.as_bytes()).await?,
            _ => txn.get(key.as_bytes()).await?,
        };
        let mut found = numbers(value.as_ref());
        self.recorder.act(id, Act::Read(list, found.clone()));
        if appends {
            let number = self.recorder.number();
            found.push(number);
            let long = self.prng.one_in(8);
            // Recorded first: once it is sent nobody knows.
            self.recorder.act(id, Act::Append(list, number));
            txn.put(key.as_bytes(), list_value(&found, long)).await?;
        }
        Ok(())
    }

    /// Moves money, with a receipt.
    async fn transfer(&mut self) {
        let accounts = self.recorder.accounts();
        let from = self.prng.below(accounts);
        let to = (from + 1 + self.prng.below(accounts - 1)) % accounts;
        let amount = self.prng.below(20) as i64;
        let (style, options) = self.options();
        self.read_somewhere();
        let Ok(txn) = self.db.begin(options).await else { return };
        let id = self.recorder.transfer(from, to, amount);
        let outcome = self.move_money(txn, style, (from, to, amount), id).await;
        self.recorder.transferred(id, outcome);
    }

    async fn move_money(
        &mut self,
        mut txn: Txn<SimLink>,
        style: Style,
        (from, to, amount): (u64, u64, i64),
        id: u64,
    ) -> Outcome {
        let begun = self.db.link().now();
        let keys = [from, to].map(account_key);
        let found = match style {
            Style::Locking => txn.lock_for_update(&keys).await,
            _ => txn.batch_get(&keys).await,
        };
        let Ok(found) = found else {
            let _ = txn.rollback().await;
            return Outcome::Failed;
        };
        for (account, change) in [(from, -amount), (to, amount)] {
            let key = account_key(account);
            let before = balance(found.get(key.as_bytes()).expect("accounts are there"));
            let after = (before + change).to_string();
            txn.put_unlocked(index_key(account).as_bytes(), after.clone());
            if txn.put(key.as_bytes(), after).await.is_err() {
                let _ = txn.rollback().await;
                return Outcome::Failed;
            }
        }
        let receipt = receipt_key(id);
        let inserted = match self.prng.below(3) {
            0 => txn.insert(receipt.as_bytes(), "paid").await,
            1 => txn.put(receipt.as_bytes(), "paid").await,
            _ => {
                txn.put_unlocked(receipt.as_bytes(), "paid");
                Ok(())
            }
        };
        if inserted.is_err() || self.is_late(begun) {
            let _ = txn.rollback().await;
            return Outcome::Failed;
        }
        outcome_of(&txn.commit().await)
    }

    /// Writes a note in two places (there are as many as accounts), whatever is there.
    async fn note(&mut self) {
        let places = self.recorder.accounts();
        let one = self.prng.below(places);
        let other = (one + 1 + self.prng.below(places - 1)) % places;
        let (_, options) = self.options();
        let Ok(txn) = self.db.begin(options).await else { return };
        let note = self.recorder.note();
        let outcome = self.write_note(txn, note, [one, other]).await;
        self.recorder.noted(note, outcome);
    }

    async fn write_note(
        &mut self,
        mut txn: Txn<SimLink>,
        note: NoteId,
        places: [u64; 2],
    ) -> Outcome {
        let begun = self.db.link().now();
        for place in places {
            if txn.put(note_key(place).as_bytes(), note.to_string()).await.is_err() {
                let _ = txn.rollback().await;
                return Outcome::Failed;
            }
            if self.prng.one_in(4) {
                self.rest().await;
            }
        }
        if self.is_late(begun) {
            let _ = txn.rollback().await;
            return Outcome::Failed;
        }
        outcome_of(&txn.commit().await)
    }

    /// All accounts, and what the index says of them.
    fn bank_keys(&self) -> Vec<String> {
        let accounts = 0..self.recorder.accounts();
        accounts.flat_map(|account| [index_key(account), account_key(account)]).collect()
    }

    /// Looks at all accounts, at all notes, or at all lists in use, at once.
    async fn look(&mut self) {
        self.read_somewhere();
        let begun = self.db.link().now();
        let Ok(snapshot) = self.db.snapshot().await else { return };
        if self.prng.one_in(6) {
            return self.look_at_newest(begun).await;
        }
        let what = self.prng.below(5);
        if what < 2 {
            let Ok(found) = snapshot.batch_get(&self.bank_keys()).await else { return };
            self.recorder.saw(&bank(&found), "a snapshot");
            return;
        }
        if what == 2 {
            let keys: Vec<String> = (0..self.recorder.accounts()).map(note_key).collect();
            let Ok(found) = snapshot.batch_get(&keys).await else { return };
            self.recorder.found_notes(found.values().flat_map(|value| numbers(Some(value))));
            return;
        }
        let lists: Vec<ListId> = (0..PLACES).map(|place| self.recorder.list(place)).collect();
        let keys: Vec<String> = lists.iter().copied().map(list_key).collect();
        let Ok(found) = snapshot.batch_get(&keys).await else { return };
        let id = self.recorder.begin(self.db.link().port().client(), Style::Snapshot, begun);
        for list in lists {
            let values = numbers(found.get(list_key(list).as_bytes()));
            self.recorder.act(id, Act::Read(list, values));
        }
        self.recorder.end(id, self.db.link().now(), Outcome::Committed);
    }

    /// Reads the newest version of a list, without a timestamp.
    async fn look_at_newest(&mut self, begun: Instant) {
        let list = self.recorder.list(self.prng.below(PLACES));
        let newest = self.db.snapshot_at(TimeStamp::MAX);
        let Ok(found) = newest.get(list_key(list).as_bytes()).await else { return };
        let id = self.recorder.begin(self.db.link().port().client(), Style::Newest, begun);
        self.recorder.act(id, Act::Read(list, numbers(found.as_ref())));
        self.recorder.end(id, self.db.link().now(), Outcome::Committed);
    }

    /// Moves the safe point on, until all end.
    pub(crate) async fn collect(mut self) {
        while !self.recorder.ends() {
            let pause = 2_000 + self.prng.below(5_000);
            self.db.link().wait(Duration::from_millis(pause)).await;
            let Ok(now) = self.db.timestamp().await else { continue };
            let life = self.version_life.as_millis() as u64;
            let safe_point = TimeStamp::compose(now.physical_ms() - life, 0);
            // Nothing is open below.
            if self.sweep(safe_point).await {
                self.db.link().move_safe_point(safe_point).await;
            }
        }
    }

    /// Looks at all accounts, or at all lists in use, as they were some time ago: at any replica,
    /// and once more at the leaders. Below the safe point it is told that this is too late.
    async fn look_back(&mut self) {
        let Ok(now) = self.db.timestamp().await else { return };
        let longest = if self.prng.one_in(4) { 60_000 } else { 4_000 };
        let ago = self.prng.below(longest);
        let then = TimeStamp::compose(now.physical_ms().saturating_sub(ago), now.logical());
        let lists: Vec<ListId> = (0..PLACES).map(|place| self.recorder.list(place)).collect();
        let of_bank = self.prng.one_in(2);
        let keys: Vec<String> = match of_bank {
            true => self.bank_keys(),
            false => lists.iter().copied().map(list_key).collect(),
        };
        let begun = self.db.link().now();
        self.db.link().read_from(Route::Past);
        let found = self.db.snapshot_at(then).batch_get(&keys).await;
        self.db.link().read_from(Route::Leader);
        let again = self.db.snapshot_at(then).batch_get(&keys).await;
        let (found, again) = match (found, again) {
            (Ok(found), Ok(again)) => (found, again),
            (Err(error), _) | (_, Err(error)) => {
                if is_collected(&error) {
                    self.recorder.came_late();
                }
                return;
            }
        };
        assert_eq!(found, again, "snapshot isolation: the past at {then} is not one everywhere");
        if of_bank {
            // Before they were made there are none.
            if !found.is_empty() {
                self.recorder.saw(&bank(&found), "the past");
            }
            return;
        }
        let id = self.recorder.begin(self.db.link().port().client(), Style::Stale, begun);
        for list in lists {
            let values = numbers(found.get(list_key(list).as_bytes()));
            self.recorder.act(id, Act::Read(list, values));
        }
        self.recorder.end(id, self.db.link().now(), Outcome::Committed);
    }

    /// Clears every lock away of transactions up to `max_ts`. False: all have ended before.
    pub(crate) async fn sweep(&self, max_ts: TimeStamp) -> bool {
        let ended = self.recorder.ends();
        while self.recorder.ends() == ended {
            match self.db.locks(b"x", b"y", max_ts, 1_000).await {
                Ok(locks) if locks.is_empty() => return true,
                Ok(locks) => self.clear(locks).await,
                Err(_) => {}
            }
            self.db.link().wait(Duration::from_millis(50)).await;
        }
        false
    }

    async fn clear(&self, locks: Vec<LockInfo>) {
        for lock in locks {
            // Reads pass by what changes nothing, and leave it there.
            if matches!(lock.lock_type(), kvrpcpb::Op::Put | kvrpcpb::Op::Del) {
                if let Ok(snapshot) = self.db.snapshot().await {
                    let _ = snapshot.get(&lock.key).await;
                }
                continue;
            }
            // Whoever wants to write it must wait for it, or remove it.
            if let Ok(mut txn) = self.db.begin(TxnOptions::pessimistic()).await {
                let _ = txn.get_for_update(&lock.key).await;
                let _ = txn.rollback().await;
            }
        }
    }

    /// All locks go, then the last look.
    pub(crate) async fn end(self) {
        if let Ok(ts) = self.db.timestamp().await {
            self.sweep(ts).await;
        }
        self.audit().await;
    }

    /// The last look: at all accounts, receipts and lists, however long it takes.
    async fn audit(self) {
        loop {
            if self.try_audit().await.is_ok() {
                return;
            }
            self.db.link().wait(Duration::from_millis(100)).await;
        }
    }

    async fn try_audit(&self) -> Result<(), ClientError> {
        let begun = self.db.link().now();
        let snapshot = self.db.snapshot().await?;
        let pairs = snapshot.scan(b"x", b"y", 100_000).await?;
        let found: BTreeMap<Bytes, Bytes> =
            pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        if self.recorder.opened() {
            self.recorder.closed(&bank(&found), &receipts(&found));
        }
        let notes = found.iter().filter(|(key, _)| key.starts_with(b"xn"));
        self.recorder.found_notes(notes.flat_map(|(_, value)| numbers(Some(value))));
        let id = self.recorder.begin(self.db.link().port().client(), Style::Snapshot, begun);
        for list in self.recorder.all_lists() {
            let values = numbers(found.get(list_key(list).as_bytes()));
            self.recorder.act(id, Act::Read(list, values));
        }
        self.recorder.end(id, self.db.link().now(), Outcome::Committed);
        Ok(())
    }
}

fn outcome_of<T>(result: &Result<T, ClientError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Committed,
        Err(error) if error.is_undetermined() => Outcome::Unknown,
        Err(_) => Outcome::Failed,
    }
}

/// What is to be read may not be there any more.
fn is_collected(error: &ClientError) -> bool {
    matches!(error, ClientError::Aborted { message } if message.contains("GC life time"))
}

/// The accounts of a snapshot, and its index.
fn bank(found: &BTreeMap<Bytes, Bytes>) -> Bank {
    Bank { accounts: balances(found, b"xb"), index: balances(found, b"xa") }
}

fn balances(found: &BTreeMap<Bytes, Bytes>, prefix: &[u8]) -> Balances {
    let account = |key: &Bytes| std::str::from_utf8(key.strip_prefix(prefix)?).ok()?.parse().ok();
    found.iter().filter_map(|(key, value)| Some((account(key)?, balance(value)))).collect()
}

fn receipts(found: &BTreeMap<Bytes, Bytes>) -> BTreeSet<u64> {
    let receipt = |key: &Bytes| std::str::from_utf8(key.strip_prefix(b"xr")?).ok()?.parse().ok();
    found.keys().filter_map(receipt).collect()
}
