//! Golden scripts: what each command answers and what it writes.
//!
//! A timestamp is a number, `5ms` (that many milliseconds, for what depends on physical time),
//! `5ms.3`, or `max`. A key is its text. A value of the form `xN` is N letters x.
//!
//! ```text
//!   version put/k=v start=50 commit=52      what is there before: also delete/k, lock/k,
//!                                           rollback/k (with protected=true), fence=, last=
//!   prewrite put/k=v delete/k lock/k insert/k=v check/k   a key may go on with @locked (it has a
//!       start= primary= [ttl=] [fut=] ...   pessimistic lock), @lazy, @exist, @absent, @fut.N
//!   commit KEY... start= at=      rollback KEY... start=     cleanup KEY start= now=
//!   lock KEY... start= fut=       unlock KEY... start= fut=  heart-beat KEY start= ttl=
//!   status KEY start= caller= now=                           secondaries KEY... start=
//!   resolve [KEY...] START=COMMIT...                         scan-lock [FROM TO] max= limit=
//!   get KEY... at=                scan [FROM] [TO] at= limit= buffer KEY... start=
//!   flush put/k=v ... start= gen=  mvcc KEY                   by-start start=
//!   gc safe= [step=records] [compact=true]
//!   delete-range FROM TO          flashback-prepare FROM TO start= to=
//!   flashback FROM TO start= to= at=
//!   VERB hold=NAME ...            the command runs; its writes wait for `apply NAME`, `fail NAME`
//!   region FROM TO | memory on | hand-over | restart at= | max-ts | limit at= | state
//! ```
//!
//! Below a command stand its answer, then what it writes, one line a change: `+` put, `-` removed,
//! `~` held in memory, and `released` locks.

mod bench;
mod parse;
mod reads;
mod show;
mod writes;

use std::path::PathBuf;

use bench::Bench;

#[test]
fn scripts_say_what_they_said() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testscripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 30, "only {} scripts", paths.len());
    let mut failed = Vec::new();
    for path in paths {
        let mut bench = Bench::default();
        let run = std::panic::AssertUnwindSafe(|| goldenscript::run(&mut bench, &path));
        let name = path.file_name().expect("a file").to_owned();
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{}: {error}", name.display())),
            Err(_) => failed.push(format!("{}: says something else", name.display())),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
