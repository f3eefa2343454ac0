//! A broken promise as a value: for those that go on after it.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// What the panic of a run on this thread said; `None` outside of a run.
    static SAID: RefCell<Option<Broken>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// The rule and what broke it.
    pub what: String,
    /// Where that was found, as `file:line`.
    pub place: String,
}

impl Broken {
    /// The rule alone.
    pub fn rule(&self) -> &str {
        let line = self.what.lines().next().unwrap_or_default();
        match line.split_once(": ") {
            Some((rule, _)) if !self.is_of_core() => rule,
            _ => line,
        }
    }

    /// Whether the code under test noticed itself.
    pub fn is_of_core(&self) -> bool {
        !self.place.contains("sim/src")
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} broke a promise: {}\n  at {}", self.seed, self.what, self.place)
    }
}

/// Does `run`; a panic in it becomes an error and prints nothing.
pub(crate) fn caught<R>(seed: u64, run: impl FnOnce() -> R) -> Result<R, Broken> {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !note(info) {
                before(info);
            }
        }));
    });
    let blank = Broken { seed, what: String::new(), place: String::new() };
    SAID.with_borrow_mut(|said| *said = Some(blank));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let said = SAID.take().expect("put there before the run");
    result.map_err(|_| said)
}

/// Keeps what a panic says, if it is one of a run on this thread.
fn note(info: &PanicHookInfo<'_>) -> bool {
    SAID.with_borrow_mut(|said| {
        let Some(broken) = said else { return false };
        let what = info.payload_as_str().unwrap_or("a panic without words");
        // What `assert_eq` says comes before what we say.
        let equal = what.strip_prefix("assertion `left == right` failed: ");
        broken.what = equal.unwrap_or(what).to_owned();
        broken.place = info
            .location()
            .map_or_else(String::new, |place| format!("{}:{}", place.file(), place.line()));
        true
    })
}
