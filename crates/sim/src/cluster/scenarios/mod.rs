//! Directed scenarios: those of the teaching store's suite under their own names, the founding of a
//! cluster interrupted everywhere, and known bugs of the reference system.
//!
//! | kind | file |
//! | --- | --- |
//! | the generic test with all its flags (2B, 2C, 3B) | `generic` |
//! | single stories (a partition, a snapshot, members, a split) | `stories` |
//! | a node stops after each effect of the bootstrap, with its power or alone | `founding` |
//! | known bugs: weather in which each showed itself | `known_bugs`, `known_txn_bugs` |
//! | known bugs of merges and of sleep, step by step | `merges` |

mod founding;
mod generic;
mod known_bugs;
mod known_txn_bugs;
mod merges;
mod script;
mod stories;

use std::fmt;

use self::script::Script;
use super::Options;
use crate::Broken;

/// A scenario.
#[derive(Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    what: What,
}

#[derive(Clone)]
enum What {
    /// Seeds with options of their own.
    Seeds(Box<Options>, u64),
    /// A story, told step by step on so many nodes.
    Story(usize, fn(&mut Script)),
    /// The founder stops after each effect of its first start.
    Founding { power: bool },
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Scenario {
    /// Runs it.
    pub fn run(&self) -> Result<(), Broken> {
        match &self.what {
            What::Seeds(options, seeds) => {
                (0..*seeds).try_for_each(|seed| super::run_caught(seed, options).map(drop))
            }
            What::Story(nodes, tell) => (0..2).try_for_each(|seed| {
                crate::verdict::caught(seed, || {
                    let mut script = Script::new(seed, *nodes);
                    tell(&mut script);
                    script.end();
                })
            }),
            What::Founding { power } => founding::run(*power),
        }
    }
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let mut all = generic::all();
    all.extend(stories::all());
    all.extend(founding::all());
    all.extend(known_bugs::all());
    all.extend(merges::all());
    all.extend(known_txn_bugs::all());
    all
}
