//! A failing run made small: kinds of faults, admin traffic and clients are taken away while it
//! goes on failing in the same way.

use std::time::Duration;

use super::{Options, run_caught};
use crate::Broken;

/// The smallest run that was found, and how it fails.
#[derive(Clone, Debug)]
pub struct Minimal {
    /// With these options.
    pub options: Options,
    /// It fails so.
    pub broken: Broken,
    /// Runs that it took.
    pub runs: u32,
}

/// Takes away what `seed` does not need to fail under `options`. `None`: it does not fail.
pub fn minimise(seed: u64, options: &Options) -> Option<Minimal> {
    let broken = run_caught(seed, options).err()?;
    let mut found = Minimal { options: options.clone(), broken, runs: 1 };
    for fault in options.faults.iter().copied() {
        found.try_without(seed, |options| options.faults.retain(|other| *other != fault));
    }
    found.try_without(seed, |options| options.admin.clear());
    found.try_without(seed, |options| options.transactions = Some(false));
    for clients in [1, 2, 4, 8] {
        if found.try_without(seed, |options| options.clients = Some(clients)) {
            break;
        }
    }
    for seconds in [5, 10, 20, 40] {
        let shorter = Duration::from_secs(seconds);
        if shorter < found.options.duration
            && found.try_without(seed, |options| options.duration = shorter)
        {
            break;
        }
    }
    Some(found)
}

impl Minimal {
    fn try_without(&mut self, seed: u64, change: impl FnOnce(&mut Options)) -> bool {
        let mut options = self.options.clone();
        change(&mut options);
        self.runs += 1;
        match run_caught(seed, &options) {
            Err(broken) if broken.rule() == self.broken.rule() => {
                (self.options, self.broken) = (options, broken);
                true
            }
            _ => false,
        }
    }
}
