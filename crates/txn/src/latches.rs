//! Latches: commands that read a key and then write it take turns.
//!
//! A compare-and-swap reads, decides, proposes and waits until its write is applied. In between no
//! other such command may touch the key. Each takes a latch on every key it will touch before it
//! reads, and gives them back after its write was applied or failed.
//!
//! ```text
//!   hash(a): [ 7 ][ 9 ]         7 holds a and b, 8 waits for b,
//!   hash(b): [ 7 ][ 8 ][ 9 ]    9 waits for a and b
//! ```
//!
//! A command stands in the queues of all its keys from the moment it asks, and holds them once it
//! is the first in each.
//!
//! Invariants:
//! 1. Two holders share no key. (Keys are known by a 64-bit hash; two keys with one hash only wait
//!    for each other in vain.)
//! 2. First come, first served: of two commands with a common key the one that asked first gets it
//!    first.
//! 3. No deadlock: the longest waiting command is first in all its queues as soon as those before
//!    it have released.
//! 4. Memory is proportional to the commands that hold or wait.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use base::rule::{Rule, keep};

/// A command, numbered by whoever owns the latches. Not to be used again before it was released.
pub type CommandId = u64;

/// What [`Latches::acquire`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The command holds all its latches.
    Granted,
    /// Some are held by earlier commands. A later [`Latches::release`] names this one when its turn
    /// has come.
    Waiting,
}

/// The latches of one store.
#[derive(Debug, Default)]
pub struct Latches {
    /// Who stands for a key, by its hash.
    queues: BTreeMap<u64, Queue>,
    /// Which hashes a command stands for.
    commands: BTreeMap<CommandId, Hashes>,
}

/// Who stands for a key. Usually nobody waits.
#[derive(Debug)]
struct Queue {
    first: CommandId,
    others: VecDeque<CommandId>,
}

/// The hashes of a command's keys, sorted, each once. Usually few keys are one.
#[derive(Debug)]
enum Hashes {
    One(u64),
    Many(Box<[u64]>),
}

impl Hashes {
    fn of<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut keys = keys.into_iter();
        let (first, second) = (keys.next(), keys.next());
        if let (Some(only), None) = (first, second) {
            return Self::One(hash(only));
        }
        let all = first.into_iter().chain(second).chain(keys);
        let mut hashes: Vec<u64> = all.map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self::Many(hashes.into())
    }

    fn all(&self) -> &[u64] {
        match self {
            Self::One(hash) => std::slice::from_ref(hash),
            Self::Many(hashes) => hashes,
        }
    }
}

impl Latches {
    /// Nobody holds anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for latches on all `keys`. With no keys they are granted at once. Panics if the command
    /// asked already.
    pub fn acquire<'a>(
        &mut self,
        command: CommandId,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Acquired {
        let hashes = Hashes::of(keys);
        let mut first = true;
        for hash in hashes.all() {
            match self.queues.entry(*hash) {
                Entry::Vacant(free) => {
                    free.insert(Queue { first: command, others: VecDeque::new() });
                }
                Entry::Occupied(mut taken) => {
                    first = false;
                    taken.get_mut().others.push_back(command);
                }
            }
        }
        let before = self.commands.insert(command, hashes);
        assert!(before.is_none(), "command {command} asked for latches twice");
        if first || !keep(Rule::LatchUntilApplied) { Acquired::Granted } else { Acquired::Waiting }
    }

    /// Takes a command out, whether it holds its latches or still waits for them. Returns the
    /// commands whose turn has come by that, the smallest number first. Panics if the command is
    /// not there.
    #[must_use = "the commands that now hold their latches must be told"]
    pub fn release(&mut self, command: CommandId) -> Vec<CommandId> {
        let hashes = self.commands.remove(&command);
        let hashes = hashes.unwrap_or_else(|| panic!("command {command} has no latches"));
        let mut next = Vec::new();
        for hash in hashes.all() {
            let Entry::Occupied(mut queue) = self.queues.entry(*hash) else {
                unreachable!("a command stands in its queues")
            };
            let standing = queue.get_mut();
            if standing.first != command {
                let place = standing.others.iter().position(|id| *id == command);
                standing.others.remove(place.expect("it stands there once"));
                continue;
            }
            match standing.others.pop_front() {
                Some(first) => {
                    standing.first = first;
                    next.push(first);
                }
                None => drop(queue.remove()),
            }
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|id| self.is_first(*id, self.commands[id].all()));
        next
    }

    /// Whether nobody holds or waits for anything.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    fn is_first(&self, command: CommandId, hashes: &[u64]) -> bool {
        hashes.iter().all(|hash| self.queues[hash].first == command)
    }
}

/// FNV-1a: short, and the same on every machine, so that a simulated run repeats.
pub(crate) fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base::Prng;

    use super::*;

    fn acquire(latches: &mut Latches, id: CommandId, keys: &[&str]) -> Acquired {
        latches.acquire(id, keys.iter().map(|key| key.as_bytes()))
    }

    #[test]
    fn the_picture() {
        let mut latches = Latches::new();
        assert_eq!(acquire(&mut latches, 7, &["a", "b", "a"]), Acquired::Granted);
        assert_eq!(acquire(&mut latches, 8, &["b"]), Acquired::Waiting);
        assert_eq!(acquire(&mut latches, 9, &["b", "a"]), Acquired::Waiting);
        assert_eq!(acquire(&mut latches, 10, &["c"]), Acquired::Granted);
        assert_eq!(latches.release(7), [8]);
        assert!(latches.release(10).is_empty());
        assert_eq!(latches.release(8), [9]);
        assert!(latches.release(9).is_empty());
        assert!(latches.is_empty());
    }

    #[test]
    fn a_waiting_command_can_leave() {
        let mut latches = Latches::new();
        assert_eq!(acquire(&mut latches, 1, &["a"]), Acquired::Granted);
        assert_eq!(acquire(&mut latches, 2, &["a", "b"]), Acquired::Waiting);
        assert_eq!(acquire(&mut latches, 3, &["b"]), Acquired::Waiting);
        assert_eq!(latches.release(2), [3]);
        assert_eq!(acquire(&mut latches, 4, &[]), Acquired::Granted);
        for id in [1, 3, 4] {
            assert!(latches.release(id).is_empty());
        }
        assert!(latches.is_empty());
    }

    /// A command as the test knows it, and what it may expect.
    struct Command {
        keys: BTreeSet<u64>,
        holds: bool,
    }

    /// Checks the invariants 1 and 2 on the commands that are there; ids are in the order of
    /// asking.
    fn check(commands: &BTreeMap<CommandId, Command>) {
        for (id, command) in commands {
            let blocked =
                commands.range(..id).any(|(_, other)| !other.keys.is_disjoint(&command.keys));
            assert_eq!(command.holds, !blocked, "command {id}");
        }
    }

    #[test]
    fn random_commands_take_turns_and_all_end() {
        for seed in 0..200 {
            let mut prng = Prng::new(seed);
            let mut latches = Latches::new();
            let mut commands = BTreeMap::new();
            let mut next_id = 0;
            for step in 0..400 {
                if step < 200 && prng.below(5) < 3 {
                    let keys: BTreeSet<u64> = (0..prng.below(4)).map(|_| prng.below(8)).collect();
                    let bytes: Vec<[u8; 8]> = keys.iter().map(|key| key.to_be_bytes()).collect();
                    let got = latches.acquire(next_id, bytes.iter().map(|key| &key[..]));
                    commands.insert(next_id, Command { keys, holds: got == Acquired::Granted });
                    next_id += 1;
                } else if let Some(id) = pick(&mut prng, &commands) {
                    commands.remove(&id);
                    for granted in latches.release(id) {
                        let command = commands.get_mut(&granted).expect("only live ones");
                        assert!(!command.holds, "command {granted} was granted twice");
                        command.holds = true;
                    }
                }
                check(&commands);
            }
            assert!(commands.is_empty() && latches.is_empty(), "seed {seed}");
        }
    }

    /// Mostly a holder, now and then a waiting one that gives up.
    fn pick(prng: &mut Prng, commands: &BTreeMap<CommandId, Command>) -> Option<CommandId> {
        let any = prng.one_in(8);
        let ids: Vec<CommandId> = commands
            .iter()
            .filter(|(_, command)| any || command.holds)
            .map(|(id, _)| *id)
            .collect();
        (!ids.is_empty()).then(|| ids[prng.below(ids.len() as u64) as usize])
    }
}
