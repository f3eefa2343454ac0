//! Points in time of which some must come before others, and circles among them.
//!
//! A transaction that reads a snapshot has two points: where it reads and where it commits. That is
//! all there is to snapshot isolation: a circle through points is an anomaly, and write skew is no
//! circle, because each of its two transactions reads before the other commits.

use std::collections::{BTreeSet, VecDeque};

/// Why one point is before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It reads before it commits.
    Within,
    /// The next version was written by.
    Write,
    /// Its version was read by.
    Read,
    /// The version it read was overwritten by.
    Overwritten,
    /// It was acknowledged before the other one began.
    Time,
}

/// A point, by number.
pub(crate) type Point = usize;

#[derive(Default)]
pub(crate) struct Graph {
    next: Vec<Vec<(Point, Why)>>,
}

/// A circle: each point with the reason why it is before the next one.
pub(crate) type Circle = Vec<(Point, Why)>;

/// Points from which a shortest circle is looked for.
const STARTS_MAX: usize = 300;

impl Graph {
    pub(crate) fn add_point(&mut self) -> Point {
        self.next.push(Vec::new());
        self.next.len() - 1
    }

    pub(crate) fn before(&mut self, one: Point, other: Point, why: Why) {
        self.next[one].push((other, why));
    }

    /// A short circle of edges of these kinds, if there is one.
    pub(crate) fn circle(&self, kinds: &[Why]) -> Option<Circle> {
        let left = self.in_circles(kinds);
        let mut best: Option<Circle> = None;
        for start in left.iter().copied().take(STARTS_MAX) {
            let Some(found) = self.way_back(start, kinds, &left) else { continue };
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        best
    }

    /// What is left when points that nothing comes before, or after, are taken away, and so on.
    fn in_circles(&self, kinds: &[Why]) -> BTreeSet<Point> {
        let forward = |point: Point| {
            self.next[point].iter().filter(|(_, why)| kinds.contains(why)).map(|(to, _)| *to)
        };
        let count = self.next.len();
        let mut before = vec![Vec::new(); count];
        for point in 0..count {
            forward(point).for_each(|to| before[to].push(point));
        }
        let mut left = vec![true; count];
        let next: Vec<Vec<Point>> = (0..count).map(|point| forward(point).collect()).collect();
        peel(&before, &next, &mut left);
        peel(&next, &before, &mut left);
        (0..count).filter(|point| left[*point]).collect()
    }

    /// The shortest way from a point to itself.
    fn way_back(&self, start: Point, kinds: &[Why], among: &BTreeSet<Point>) -> Option<Circle> {
        let mut came: Vec<Option<(Point, Why)>> = vec![None; self.next.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(point) = queue.pop_front() {
            for (to, why) in self.next[point].iter().copied() {
                if !kinds.contains(&why) || !among.contains(&to) || came[to].is_some() {
                    continue;
                }
                came[to] = Some((point, why));
                if to == start {
                    return Some(unwind(&came, start));
                }
                queue.push_back(to);
            }
        }
        None
    }
}

/// Takes away points without any `inward` neighbour left.
fn peel(inward: &[Vec<Point>], outward: &[Vec<Point>], left: &mut [bool]) {
    let alive = |point: Point, left: &[bool]| inward[point].iter().filter(|p| left[**p]).count();
    let mut counts: Vec<usize> = (0..left.len()).map(|point| alive(point, left)).collect();
    let mut free: Vec<Point> = (0..left.len()).filter(|p| left[*p] && counts[*p] == 0).collect();
    while let Some(point) = free.pop() {
        left[point] = false;
        for to in outward[point].iter().copied().filter(|to| left[*to]) {
            counts[to] -= 1;
            if counts[to] == 0 {
                free.push(to);
            }
        }
    }
}

fn unwind(came: &[Option<(Point, Why)>], start: Point) -> Circle {
    let mut circle = Vec::new();
    let mut at = start;
    while circle.is_empty() || at != start {
        let (from, why) = came[at].expect("the way led here");
        circle.push((from, why));
        at = from;
    }
    circle.reverse();
    circle
}
