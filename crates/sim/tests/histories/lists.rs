//! Histories of lists, each written by hand to show one thing.

use base::Instant;
use pontoon_sim::check::lists::check;
use pontoon_sim::check::{Act, Anomaly, Kind, Outcome, Style, Txn};

/// A committed transaction: `r1[2 3]` reads list 1, `a1(4)` appends 4 to it; from second to second.
pub fn txn(text: &str, begun: u64, ended: u64) -> Txn {
    let acts = acts(text);
    let at = |seconds: u64| Instant(seconds * 1_000_000_000);
    Txn {
        client: 0,
        style: Style::Snapshot,
        acts,
        begun: at(begun),
        ended: Some(at(ended)),
        outcome: Outcome::Committed,
    }
}

/// All at the same time: nothing is known of their order but what they saw.
fn together(texts: &[&str]) -> Vec<Txn> {
    texts.iter().map(|text| txn(text, 1, 2)).collect()
}

fn acts(text: &str) -> Vec<Act> {
    let number = |text: &str| text.parse().expect("a number");
    let act = |word: &str| {
        let (head, rest) = word.split_at(2);
        let list = number(&head[1..]);
        let inside = rest[1..rest.len() - 1].split(',').filter(|part| !part.is_empty());
        match &head[..1] {
            "a" => Act::Append(list, number(&rest[1..rest.len() - 1])),
            _ => Act::Read(list, inside.map(number).collect()),
        }
    };
    text.split_whitespace().map(act).collect()
}

fn kind(history: &[Txn]) -> Option<Kind> {
    check(history).err().map(|anomaly: Anomaly| anomaly.kind)
}

#[test]
fn good_ones_pass() {
    assert_eq!(kind(&[]), None);
    assert_eq!(kind(&together(&["r1[] a1(1)", "r1[1] a1(2) r1[1,2]", "r1[1,2] r2[]"])), None);
    // A read of an old version, by somebody who began early.
    assert_eq!(kind(&together(&["a1(1)", "a1(2)", "r1[1]", "r1[1,2]"])), None);
    let figures = check(&together(&["a1(1)", "r1[1]"])).unwrap();
    assert_eq!((figures.committed, figures.reads, figures.versions), (2, 1, 1));
}

/// Write skew is what snapshot isolation allows (G2).
#[test]
fn write_skew_passes() {
    assert_eq!(kind(&together(&["r1[] a2(1)", "r2[] a1(2)", "r1[2] r2[1]"])), None);
    // Two readers that see two writers in different orders are a longer one, and not allowed.
    assert_eq!(
        kind(&together(&["a1(1)", "a2(2)", "r1[1] r2[]", "r1[] r2[2]"])),
        Some(Kind::NonAdjacent)
    );
}

#[test]
fn dirty_writes() {
    let history = together(&["a1(1) a2(1)", "a1(2) a2(2)", "r1[1,2] r2[2,1]"]);
    assert_eq!(kind(&history), Some(Kind::DirtyWrite));
    // What one transaction appends stays together.
    let history = together(&["a1(1) a1(3)", "a1(2)", "r1[1,2,3]"]);
    assert_eq!(kind(&history), Some(Kind::DirtyWrite));
}

#[test]
fn aborted_reads() {
    let mut history = together(&["a1(1)", "r1[1]"]);
    history[0].outcome = Outcome::Failed;
    assert_eq!(kind(&history), Some(Kind::AbortedRead));
    // Nobody knows how it ended, until somebody sees it.
    history[0].outcome = Outcome::Unknown;
    assert_eq!(kind(&history), None);
}

#[test]
fn intermediate_reads() {
    let history = together(&["a1(1) a1(2)", "r1[1]"]);
    assert_eq!(kind(&history), Some(Kind::IntermediateRead));
}

#[test]
fn circular_information() {
    let history = together(&["a1(1) r2[2]", "a2(2) r1[1]"]);
    assert_eq!(kind(&history), Some(Kind::CircularInformation));
}

#[test]
fn read_skew() {
    let history = together(&["a1(1) a2(2)", "r1[1] r2[]", "r2[2]"]);
    assert_eq!(kind(&history), Some(Kind::ReadSkew));
    // The missing write need not have been seen by anybody, if its client was told.
    let history = together(&["a1(1) a2(2)", "r1[1] r2[]"]);
    assert_eq!(kind(&history), Some(Kind::ReadSkew));
    let mut history = together(&["a1(1)", "a2(2)", "r1[1] r2[]"]);
    history[1].outcome = Outcome::Unknown;
    assert_eq!(kind(&history), None);
}

#[test]
fn lost_updates() {
    // A list that is written whole: one append is gone.
    let history = together(&["r1[] a1(1)", "r1[] a1(2)", "r1[2]"]);
    assert_eq!(kind(&history), Some(Kind::LostUpdate));
    let history = together(&["a1(1)", "a1(2)", "r1[1]", "r1[2]"]);
    assert_eq!(kind(&history), Some(Kind::NoOrder));
    let history = together(&["r1[] a1(1)", "r1[] a1(2)", "r1[1,2]"]);
    assert_eq!(kind(&history), Some(Kind::LostUpdate));
}

#[test]
fn a_transaction_sees_itself() {
    for bad in ["a1(2) r1[]", "r1[] a1(2) r1[2,2]", "r1[] r1[1]", "r1[] a1(2) r1[1,2]"] {
        assert_eq!(kind(&together(&["a1(1)", bad])), Some(Kind::Internal), "{bad}");
    }
    assert_eq!(kind(&together(&["r1[] a1(1) r1[1] a1(2) r1[1,2]"])), None);
}

#[test]
fn numbers_from_nowhere_and_twice() {
    assert_eq!(kind(&together(&["r1[1]"])), Some(Kind::FromNowhere));
    assert_eq!(kind(&together(&["a1(1)", "r1[1,1]"])), Some(Kind::Twice));
}

#[test]
fn time_counts() {
    // Who begins after an acknowledgement sees it, also in another list.
    let history = [txn("a1(1)", 1, 2), txn("r1[]", 3, 4)];
    assert_eq!(kind(&history), Some(Kind::RealTime));
    let history = [txn("a1(1)", 1, 3), txn("r1[]", 2, 4)];
    assert_eq!(kind(&history), None);
    // A snapshot that was read cannot be before one that ended earlier.
    let history = [txn("a1(1)", 1, 9), txn("r1[1]", 2, 3), txn("r1[]", 4, 5)];
    assert_eq!(kind(&history), Some(Kind::RealTime));
    // A stale read may; but not half of a transaction.
    let mut history = [txn("a1(1) a2(2)", 1, 2), txn("r1[] r2[]", 3, 4)];
    history[1].style = Style::Stale;
    assert_eq!(kind(&history), None);
    history[1].acts = acts("r1[1] r2[]");
    assert_eq!(kind(&history), Some(Kind::ReadSkew));
    // The acknowledged write is nowhere, not even at the end.
    let history = [txn("a1(1)", 1, 2), txn("a1(2)", 3, 4), txn("r1[2]", 5, 6)];
    assert_eq!(kind(&history), Some(Kind::RealTime));
}

/// Who reads the newest version of one list may miss what is being committed at a timestamp that
/// others have passed, but nothing that was acknowledged.
#[test]
fn the_newest_version_is_new_for_its_list_alone() {
    let history = |newest: Style| {
        let mut history = vec![
            txn("a1(1)", 1, 9),
            txn("r1[1] r2[]", 2, 10),
            txn("r2[] a2(2)", 3, 4),
            txn("r1[]", 6, 7),
        ];
        history[3].style = newest;
        history
    };
    assert_eq!(kind(&history(Style::Snapshot)), Some(Kind::RealTime));
    assert_eq!(kind(&history(Style::Newest)), None);
    let mut late = history(Style::Newest);
    late[0].ended = Some(Instant(5_000_000_000));
    assert_eq!(kind(&late), Some(Kind::RealTime), "its own list");
}

fn locking(txn: Txn) -> Txn {
    Txn { style: Style::Locking, ..txn }
}

/// Locks make more than snapshots: no write skew.
#[test]
fn transactions_that_lock_are_serial() {
    let skew = together(&["r1[] a2(1)", "r2[] a1(2)", "r1[2] r2[1]"]);
    let skew: Vec<Txn> = skew.into_iter().map(locking).collect();
    assert!(kind(&skew).is_some());
    // They read what was committed after they began.
    let history = [txn("r1[] a1(1)", 2, 3), locking(txn("r1[1] a1(2)", 1, 4))];
    assert_eq!(kind(&history), None);
}

/// A lock that guarded nothing that was written may have been lost, and nobody looked: each read is
/// of its own moment, one after the other.
#[test]
fn transactions_that_lock_and_write_nothing_may_lose_their_locks() {
    let others = ["a1(1)", "r1[1] r2[]", "a2(2)"];
    let with = |text: &str, outcome| {
        let mut history = together(&others);
        history.push(Txn { outcome, ..locking(txn(text, 1, 2)) });
        history
    };
    for outcome in [Outcome::Committed, Outcome::Failed, Outcome::Unknown] {
        assert_eq!(kind(&with("r1[] r2[2]", outcome)), None);
        // The later read must not be of an earlier moment.
        assert_eq!(kind(&with("r2[2] r1[]", outcome)), Some(Kind::NonAdjacent));
    }
    assert_eq!(kind(&with("r1[] r2[2] a3(1)", Outcome::Committed)), Some(Kind::NonAdjacent));
    assert_eq!(kind(&with("r1[] r2[2] a3(1)", Outcome::Failed)), None);
    // Each of them is after whatever was acknowledged before the transaction began.
    let history = [txn("a1(1)", 1, 2), locking(txn("r1[]", 3, 4))];
    assert_eq!(kind(&history), Some(Kind::RealTime));
}

#[test]
fn anomalies_name_their_transactions() {
    let anomaly = check(&together(&["a1(1) a2(2)", "r1[1] r2[]", "a3(1)"])).unwrap_err();
    let story = anomaly.to_string();
    assert!(story.contains("r1[1] r2[]") && story.contains("a1(1) a2(2)"), "{story}");
    assert!(!story.contains("a3"), "{story}");
}
