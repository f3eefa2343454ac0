//! The checker of lists to which transactions append.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Circle, Graph, Point, Why};
use super::{Act, Anomaly, Kind, ListId, Outcome, Style, Txn};

/// A transaction, by its place in the history.
type Id = usize;

/// How much a history told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Transactions.
    pub txns: u64,
    /// ... that are committed, as their clients know or as somebody saw.
    pub committed: u64,
    /// Reads of lists.
    pub reads: u64,
    /// Versions whose place is known.
    pub versions: u64,
}

/// Who appended a number.
#[derive(Clone, Copy)]
struct Writer {
    id: Id,
    /// The last one of its transaction to this list.
    is_last: bool,
}

/// A list as a transaction found it, without what it appended itself.
struct Found<'a> {
    id: Id,
    list: ListId,
    values: &'a [u64],
}

struct Checker<'a> {
    txns: &'a [Txn],
    writers: BTreeMap<(ListId, u64), Writer>,
    found: Vec<Found<'a>>,
    /// The longest version of each list.
    orders: BTreeMap<ListId, &'a [u64]>,
    /// What anybody found of whom.
    observed: BTreeSet<Id>,
}

/// Looks at a whole history. The error is the simplest anomaly that it has.
pub fn check(txns: &[Txn]) -> Result<Figures, Anomaly> {
    let mut checker = Checker {
        txns,
        writers: writers(txns),
        found: Vec::new(),
        orders: BTreeMap::new(),
        observed: BTreeSet::new(),
    };
    checker.look_inside()?;
    checker.look_at_versions()?;
    checker.find_orders()?;
    checker.lost_updates()?;
    checker.circles()?;
    let committed = (0..txns.len()).filter(|id| checker.is_committed(*id)).count();
    Ok(Figures {
        txns: txns.len() as u64,
        committed: committed as u64,
        reads: checker.found.len() as u64,
        versions: checker.orders.values().map(|order| order.len() as u64).sum(),
    })
}

fn writers(txns: &[Txn]) -> BTreeMap<(ListId, u64), Writer> {
    let mut writers: BTreeMap<(ListId, u64), Writer> = BTreeMap::new();
    for (id, txn) in txns.iter().enumerate() {
        let mut last: BTreeMap<ListId, u64> = BTreeMap::new();
        for act in &txn.acts {
            let Act::Append(list, value) = *act else { continue };
            let before = writers.insert((list, value), Writer { id, is_last: true });
            assert!(before.is_none(), "the workload appends {value} to {list} twice");
            if let Some(earlier) = last.insert(list, value) {
                writers.get_mut(&(list, earlier)).expect("just put there").is_last = false;
            }
        }
    }
    writers
}

impl<'a> Checker<'a> {
    /// A transaction sees what it did, and what it saw before.
    fn look_inside(&mut self) -> Result<(), Anomaly> {
        for (id, txn) in self.txns.iter().enumerate() {
            let mut own: BTreeMap<ListId, Vec<u64>> = BTreeMap::new();
            let mut seen: BTreeMap<ListId, &[u64]> = BTreeMap::new();
            for act in &txn.acts {
                let (list, values) = match act {
                    Act::Append(list, value) => {
                        own.entry(*list).or_default().push(*value);
                        continue;
                    }
                    Act::Read(list, values) => (*list, &values[..]),
                };
                let mine = own.get(&list).map_or(&[][..], |mine| mine);
                let Some(outside) = values.strip_suffix(mine) else {
                    let why = format!("its reads of list {list} miss what it appended");
                    return Err(self.anomaly(Kind::Internal, why, [id]));
                };
                match seen.insert(list, outside) {
                    None => self.found.push(Found { id, list, values: outside }),
                    Some(before) if before == outside => {}
                    Some(_) => {
                        let why = format!("list {list} changes between its reads");
                        return Err(self.anomaly(Kind::Internal, why, [id]));
                    }
                }
            }
        }
        Ok(())
    }

    /// What is found was appended once, by somebody who committed, and is all that he appended.
    fn look_at_versions(&mut self) -> Result<(), Anomaly> {
        for Found { id, list, values } in &self.found {
            let mut seen = BTreeSet::new();
            for (place, value) in values.iter().enumerate() {
                let Some(writer) = self.writers.get(&(*list, *value)).copied() else {
                    let why = format!("nobody appended {value} to list {list}");
                    return Err(self.anomaly(Kind::FromNowhere, why, [*id]));
                };
                if !seen.insert(*value) {
                    let why = format!("{value} is in list {list} twice");
                    return Err(self.anomaly(Kind::Twice, why, [*id, writer.id]));
                }
                if writer.id == *id {
                    let why = format!("it finds its own {value} before it appends it");
                    return Err(self.anomaly(Kind::Internal, why, [*id]));
                }
                if self.txns[writer.id].outcome == Outcome::Failed {
                    let why = format!("{value} of list {list} was rolled back");
                    return Err(self.anomaly(Kind::AbortedRead, why, [*id, writer.id]));
                }
                if place + 1 == values.len() && !writer.is_last {
                    let why = format!("list {list} ends with {value}, and more was appended");
                    return Err(self.anomaly(Kind::IntermediateRead, why, [*id, writer.id]));
                }
                self.observed.insert(writer.id);
            }
        }
        Ok(())
    }

    /// All versions of a list are beginnings of the longest one.
    fn find_orders(&mut self) -> Result<(), Anomaly> {
        let mut longest: BTreeMap<ListId, &Found<'a>> = BTreeMap::new();
        for found in &self.found {
            let longest = longest.entry(found.list).or_insert(found);
            if found.values.len() > longest.values.len() {
                *longest = found;
            }
        }
        for found in &self.found {
            let longest = longest[&found.list];
            if !longest.values.starts_with(found.values) {
                let why = format!("no order of list {} explains both", found.list);
                return Err(self.anomaly(Kind::NoOrder, why, [found.id, longest.id]));
            }
        }
        self.orders = longest.iter().map(|(list, found)| (*list, found.values)).collect();
        Ok(())
    }

    fn is_committed(&self, id: Id) -> bool {
        match self.txns[id].outcome {
            Outcome::Committed => true,
            Outcome::Failed => false,
            Outcome::Unknown => self.observed.contains(&id),
        }
    }

    fn appends_to(&self, id: Id, wanted: ListId) -> bool {
        let acts = &self.txns[id].acts;
        acts.iter().any(|act| matches!(act, Act::Append(list, _) if *list == wanted))
    }

    fn lost_updates(&self) -> Result<(), Anomaly> {
        let mut by_version: BTreeMap<(ListId, usize), Id> = BTreeMap::new();
        for found in &self.found {
            if !self.is_committed(found.id) || !self.appends_to(found.id, found.list) {
                continue;
            }
            let version = (found.list, found.values.len());
            if let Some(other) = by_version.insert(version, found.id) {
                let why = format!("both append to the same version of list {}", found.list);
                return Err(self.anomaly(Kind::LostUpdate, why, [found.id, other]));
            }
        }
        Ok(())
    }

    fn circles(&self) -> Result<(), Anomaly> {
        let points = Points::new(self);
        let kinds = [Why::Within, Why::Write, Why::Read, Why::Overwritten, Why::Time];
        let named = [
            (2, Kind::DirtyWrite),
            (3, Kind::CircularInformation),
            (4, Kind::ReadSkew),
            (5, Kind::RealTime),
        ];
        for (count, kind) in named {
            let Some(circle) = points.graph.circle(&kinds[..count]) else { continue };
            let overwritten = circle.iter().filter(|(_, why)| *why == Why::Overwritten).count();
            let kind = match kind {
                Kind::ReadSkew if overwritten > 1 => Kind::NonAdjacent,
                other => other,
            };
            return Err(self.tell_circle(kind, &points, &circle));
        }
        Ok(())
    }

    fn tell_circle(&self, kind: Kind, points: &Points, circle: &Circle) -> Anomaly {
        let mut lines = vec![format!("{} points in a circle", circle.len())];
        for (point, why) in circle {
            let Some(id) = points.owner(*point) else { continue };
            let then = match why {
                Why::Within => continue,
                Why::Write => "the next version is by",
                Why::Read => "is read by",
                Why::Overwritten => "what it read is overwritten by",
                Why::Time => "is acknowledged before the begin of",
            };
            lines.push(format!("    {}\n      {then}", self.txns[id]));
        }
        Anomaly { kind, story: lines.join("\n") }
    }

    fn anomaly(&self, kind: Kind, why: String, of: impl IntoIterator<Item = Id>) -> Anomaly {
        let mut lines = vec![why];
        lines.extend(of.into_iter().map(|id| format!("    {}", self.txns[id])));
        Anomaly { kind, story: lines.join("\n") }
    }
}

/// The points of all transactions.
struct Points {
    graph: Graph,
    /// Where each transaction begins to read and where it commits.
    of: Vec<(Point, Point)>,
    /// Where each list was found as it was.
    found: Vec<Point>,
    /// Whose each point is; those of the order of time are nobody's.
    owners: Vec<Id>,
}

impl Points {
    fn new(checker: &Checker<'_>) -> Self {
        let mut points =
            Self { graph: Graph::default(), of: Vec::new(), found: Vec::new(), owners: Vec::new() };
        for id in 0..checker.txns.len() {
            let of = (points.point_of(id), points.point_of(id));
            points.of.push(of);
        }
        points.add_insides(checker);
        points.add_versions(checker);
        points.add_reads(checker);
        points.add_time(checker);
        points
    }

    fn point_of(&mut self, id: Id) -> Point {
        self.owners.push(id);
        self.graph.add_point()
    }

    fn owner(&self, point: Point) -> Option<Id> {
        self.owners.get(point).copied()
    }

    /// Where a transaction that writes reads: with its locks held, that is where it commits.
    fn reading(&self, checker: &Checker<'_>, id: Id) -> Point {
        let (read, commit) = self.of[id];
        if checker.txns[id].style == Style::Locking { commit } else { read }
    }

    /// The points of a transaction in their order.
    ///
    /// One that locks has its locks for certain only when they were looked at again, which its
    /// commit does if it writes: a lock in memory is lost with its leader, and whoever lost one
    /// learns it there. If it writes nothing, or fails, each of its reads is promised by itself
    /// alone: as the list was at a timestamp that was given out during the call, and so after the
    /// timestamps of the reads before.
    fn add_insides(&mut self, checker: &Checker<'_>) {
        let mut last: Vec<Point> = self.of.iter().map(|(read, _)| *read).collect();
        for found in &checker.found {
            let txn = &checker.txns[found.id];
            let holds = checker.is_committed(found.id) && !reads_only(txn);
            let at = match txn.style {
                Style::Locking if !holds => {
                    let at = self.point_of(found.id);
                    self.graph.before(last[found.id], at, Why::Within);
                    last[found.id] = at;
                    at
                }
                _ => self.reading(checker, found.id),
            };
            self.found.push(at);
        }
        for (id, txn) in checker.txns.iter().enumerate() {
            if txn.style != Style::Stale {
                self.graph.before(last[id], self.of[id].1, Why::Within);
            }
        }
    }

    fn add_versions(&mut self, checker: &Checker<'_>) {
        for (list, order) in &checker.orders {
            let writers: Vec<Id> =
                order.iter().map(|value| checker.writers[&(*list, *value)].id).collect();
            for pair in writers.windows(2).filter(|pair| pair[0] != pair[1]) {
                let (from, to) = (self.of[pair[0]].1, self.reading(checker, pair[1]));
                self.graph.before(from, to, Why::Write);
            }
            // What nobody found comes after everything that somebody found.
            let Some(last) = writers.last() else { continue };
            for id in unseen(checker, *list) {
                if id != *last {
                    let (from, to) = (self.of[*last].1, self.reading(checker, id));
                    self.graph.before(from, to, Why::Write);
                }
            }
        }
    }

    fn add_reads(&mut self, checker: &Checker<'_>) {
        for (found, at) in checker.found.iter().zip(&self.found) {
            let at = *at;
            if let Some(value) = found.values.last() {
                let from = self.of[checker.writers[&(found.list, *value)].id].1;
                self.graph.before(from, at, Why::Read);
            }
            let order = checker.orders[&found.list];
            let later: Vec<Id> = match order.get(found.values.len()) {
                Some(next) => vec![checker.writers[&(found.list, *next)].id],
                None => unseen(checker, found.list),
            };
            for id in later.into_iter().filter(|id| *id != found.id) {
                self.graph.before(at, self.of[id].1, Why::Overwritten);
            }
        }
    }

    /// A chain of the ends, in order: whoever begins hangs on the last end before.
    fn add_time(&mut self, checker: &Checker<'_>) {
        let mut ends: Vec<_> =
            (0..checker.txns.len()).filter_map(|id| Some((checker.txns[id].ended?, id))).collect();
        ends.sort_unstable();
        let chain: Vec<Point> = ends.iter().map(|_| self.graph.add_point()).collect();
        for pair in chain.windows(2) {
            self.graph.before(pair[0], pair[1], Why::Time);
        }
        for ((_, id), point) in ends.iter().zip(&chain) {
            let txn = &checker.txns[*id];
            let at = match (txn.style, checker.is_committed(*id)) {
                (Style::Stale, _) => continue,
                (Style::Locking, _) => self.of[*id].1,
                (Style::Newest, _) | (Style::Snapshot, false) => self.of[*id].0,
                (Style::Snapshot, true) if reads_only(txn) => self.of[*id].0,
                (Style::Snapshot, true) => self.of[*id].1,
            };
            self.graph.before(at, *point, Why::Time);
        }
        for (id, txn) in checker.txns.iter().enumerate() {
            let before = ends.partition_point(|(end, _)| *end < txn.begun);
            let hangs = !matches!(txn.style, Style::Stale | Style::Newest);
            if before > 0 && hangs {
                self.graph.before(chain[before - 1], self.of[id].0, Why::Time);
            }
        }
        self.add_newest(checker);
    }

    /// Who reads the newest version of a list hangs on those alone who appended to it.
    fn add_newest(&mut self, checker: &Checker<'_>) {
        for Found { id, list, .. } in &checker.found {
            let txn = &checker.txns[*id];
            if txn.style != Style::Newest {
                continue;
            }
            for writer in checker.writers.range((*list, 0)..=(*list, u64::MAX)) {
                let by = writer.1.id;
                let ended = checker.txns[by].ended.is_some_and(|end| end < txn.begun);
                if ended && checker.is_committed(by) {
                    self.graph.before(self.of[by].1, self.of[*id].0, Why::Time);
                }
            }
        }
    }
}

fn reads_only(txn: &Txn) -> bool {
    txn.acts.iter().all(|act| matches!(act, Act::Read(..)))
}

/// Who appended to a list, certainly, what nobody found.
fn unseen(checker: &Checker<'_>, list: ListId) -> Vec<Id> {
    let order = checker.orders[&list];
    let of_list = checker.writers.range((list, 0)..=(list, u64::MAX));
    let mut ids: Vec<Id> = of_list
        .filter(|((_, value), writer)| !order.contains(value) && checker.is_committed(writer.id))
        .map(|(_, writer)| writer.id)
        .collect();
    ids.dedup();
    ids
}
