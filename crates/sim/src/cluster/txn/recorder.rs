//! What transactional clients did and saw, for the checkers; and what they agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use base::Instant;

use crate::check::bank::{self, Balances, Bank, Transfer};
use crate::check::{Act, Anomaly, ListId, Outcome, Style, Txn, lists};

/// Numbers after which a list is long enough and another one takes its place.
const LIST_MAX: usize = 30;

/// What everybody has at the begin.
pub(crate) const BALANCE: i64 = 100;

/// A number of a transaction in the history of lists.
pub(crate) type TxnId = usize;

/// A number of a transfer.
pub(crate) type TransferId = u64;

/// A number of a note.
pub(crate) type NoteId = u64;

#[derive(Debug, Default)]
struct Inner {
    lists: Vec<Txn>,
    /// Lists that are in use.
    active: Vec<ListId>,
    last_list: ListId,
    last_number: u64,
    accounts: u64,
    transfers: BTreeMap<TransferId, Transfer>,
    last_transfer: TransferId,
    /// How the transaction of each note ended, the first one's first.
    notes: Vec<Outcome>,
    /// Notes that somebody found.
    found_notes: BTreeSet<NoteId>,
    /// The accounts are there.
    opened: bool,
    /// Clients are to end.
    ends: bool,
    sums: u64,
    /// Reads below the safe point.
    late: u64,
}

/// Shared by all clients of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Inner>>);

impl Recorder {
    pub(crate) fn new(lists: u64, accounts: u64) -> Self {
        let active = (0..lists).collect();
        let inner = Inner { active, last_list: lists, accounts, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("one thread")
    }

    pub(crate) fn accounts(&self) -> u64 {
        self.inner().accounts
    }

    pub(crate) fn end_all(&self) {
        self.inner().ends = true;
    }

    pub(crate) fn ends(&self) -> bool {
        self.inner().ends
    }

    pub(crate) fn opened(&self) -> bool {
        self.inner().opened
    }

    /// The accounts are there, each with [`BALANCE`].
    pub(crate) fn open(&self) {
        self.inner().opened = true;
    }

    /// The list in this place.
    pub(crate) fn list(&self, place: u64) -> ListId {
        let inner = self.inner();
        inner.active[place as usize % inner.active.len()]
    }

    /// A number that was never appended.
    pub(crate) fn number(&self) -> u64 {
        let mut inner = self.inner();
        inner.last_number += 1;
        inner.last_number
    }

    /// A transaction on lists begins.
    pub(crate) fn begin(&self, client: usize, style: Style, begun: Instant) -> TxnId {
        let txn =
            Txn { client, style, acts: Vec::new(), begun, ended: None, outcome: Outcome::Unknown };
        let mut inner = self.inner();
        inner.lists.push(txn);
        inner.lists.len() - 1
    }

    pub(crate) fn act(&self, id: TxnId, act: Act) {
        let mut inner = self.inner();
        if let Act::Read(list, found) = &act
            && found.len() >= LIST_MAX
            && let Some(place) = inner.active.iter().position(|active| active == list)
        {
            inner.active[place] = inner.last_list;
            inner.last_list += 1;
        }
        inner.lists[id].acts.push(act);
    }

    /// A transaction on lists has ended, as its client knows.
    pub(crate) fn end(&self, id: TxnId, now: Instant, outcome: Outcome) {
        let txn = &mut self.inner().lists[id];
        txn.outcome = outcome;
        txn.ended = (outcome != Outcome::Unknown).then_some(now);
    }

    /// All lists that anybody ever used.
    pub(crate) fn all_lists(&self) -> Vec<ListId> {
        (0..self.inner().last_list).collect()
    }

    /// A transfer is about to be tried. Until somebody knows better nobody knows how it ends.
    pub(crate) fn transfer(&self, from: u64, to: u64, amount: i64) -> TransferId {
        let mut inner = self.inner();
        inner.last_transfer += 1;
        let id = inner.last_transfer;
        let outcome = Outcome::Unknown;
        inner.transfers.insert(id, Transfer { id, from, to, amount, outcome });
        id
    }

    pub(crate) fn transferred(&self, id: TransferId, outcome: Outcome) {
        self.inner().transfers.get_mut(&id).expect("it was begun").outcome = outcome;
    }

    /// A note is about to be written.
    pub(crate) fn note(&self) -> NoteId {
        let mut inner = self.inner();
        inner.notes.push(Outcome::Unknown);
        inner.notes.len() as NoteId - 1
    }

    pub(crate) fn noted(&self, id: NoteId, outcome: Outcome) {
        self.inner().notes[id as usize] = outcome;
    }

    /// Somebody found these.
    pub(crate) fn found_notes(&self, found: impl IntoIterator<Item = NoteId>) {
        self.inner().found_notes.extend(found);
    }

    /// A snapshot of all accounts. Panics if money is missing, or the index tells another story.
    pub(crate) fn saw(&self, found: &Bank, how: &str) {
        let mut inner = self.inner();
        inner.sums += 1;
        let total = inner.accounts as i64 * BALANCE;
        let sound = bank::check_sum(&found.accounts, inner.accounts, total);
        if let Err(anomaly) = sound.and_then(|()| bank::check_index(found)) {
            panic!("snapshot isolation: {how}: {anomaly}");
        }
    }

    /// A read came too late: what it wanted to see may be collected.
    pub(crate) fn came_late(&self) {
        self.inner().late += 1;
    }

    /// The last snapshot, with all receipts. Panics if it is not what the transfers come to.
    pub(crate) fn closed(&self, last: &Bank, receipts: &BTreeSet<TransferId>) {
        let inner = self.inner();
        let first: Balances = (0..inner.accounts).map(|account| (account, BALANCE)).collect();
        let transfers: Vec<Transfer> = inner.transfers.values().cloned().collect();
        let sound = bank::check_end(&first, &last.accounts, receipts, &transfers);
        if let Err(anomaly) = sound.and_then(|()| bank::check_index(last)) {
            panic!("atomic transactions: {anomaly}");
        }
    }

    /// Judges the history of lists. Panics with what it shows.
    pub(crate) fn check(&self) -> Figures {
        let inner = self.inner();
        let lists = lists::check(&inner.lists)
            .unwrap_or_else(|anomaly: Anomaly| panic!("snapshot isolation: {anomaly}"));
        let refused = |note: &&NoteId| inner.notes[**note as usize] == Outcome::Failed;
        if let Some(note) = inner.found_notes.iter().find(refused) {
            panic!("atomic transactions: note {note} is there, and its client was told it is not");
        }
        let ended = |wanted| {
            let of_lists = inner.lists.iter().filter(|txn| txn.outcome == wanted).count();
            let of_bank = inner.transfers.values().filter(|t| t.outcome == wanted).count();
            let of_notes = inner.notes.iter().filter(|outcome| **outcome == wanted).count();
            (of_lists + of_bank + of_notes) as u64
        };
        Figures {
            committed: ended(Outcome::Committed),
            failed: ended(Outcome::Failed),
            unknown: ended(Outcome::Unknown),
            reads: lists.reads,
            versions: lists.versions,
            sums: inner.sums,
            late: inner.late,
        }
    }
}

/// What the histories came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) committed: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
    pub(crate) versions: u64,
    pub(crate) sums: u64,
    pub(crate) late: u64,
}
