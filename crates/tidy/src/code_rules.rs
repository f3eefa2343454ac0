//! Limits on Rust files: their length, their functions, what core crates must not touch, what tests
//! must not do.

use std::path::Path;

use crate::Finding;
use crate::source::Source;
use crate::text_rules::contains_word;
use crate::tree::File;

/// Lines of a file without its tests.
pub const FILE_LINES_MAX: usize = 600;

/// Lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 60;

/// Crates that decide, and so must run the same on a simulated clock, disk and network.
const CORE: [&str; 6] = ["base", "raft", "storage", "store", "placement", "txn"];

/// Core crates whose state must not depend on how a hash map was seeded.
const ORDERED: [&str; 4] = ["raft", "store", "placement", "txn"];

/// Crates whose functions check what they rely on, and the lines of code for which there is at
/// least one assertion. The goal is [`CODE_LINES_PER_ASSERTION`]; a number above it may only fall.
const ASSERTING: [(&str, usize); 5] =
    [("raft", 80), ("storage", 60), ("store", 85), ("placement", 70), ("txn", 105)];

/// Lines of code for which a core crate should have an assertion.
pub const CODE_LINES_PER_ASSERTION: usize = 25;

/// The two places of the core that do touch files.
const FILE_PLACES: [&str; 2] = ["crates/storage/src/disk", "crates/storage/src/engine"];

/// A Rust file and its scan.
pub struct Scanned<'a> {
    /// The file.
    pub file: &'a File,
    /// What the scanner made of it.
    pub source: Source,
}

/// Scans all Rust files. A module that is declared under `#[cfg(test)]` is tests throughout.
pub fn scan(files: &[File]) -> Vec<Scanned<'_>> {
    let rust = files.iter().filter(|file| file.is_rust());
    let scan = |file| Scanned { file, source: Source::scan(&file.path, &file.text) };
    let mut scanned: Vec<_> = rust.map(scan).collect();
    let of_tests: Vec<String> = scanned
        .iter()
        .flat_map(|file| file.source.test_modules().map(|name| module_path(&file.file.path, name)))
        .collect();
    for file in &mut scanned {
        let path = file.file.path.trim_end_matches(".rs");
        if of_tests.iter().any(|module| Path::new(path).starts_with(module)) {
            file.source.in_tests.fill(true);
        }
    }
    scanned
}

/// Where the module `name`, declared in the file at `path`, lies: without `.rs`.
fn module_path(path: &str, name: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "lib.rs" | "main.rs" | "mod.rs" => format!("{folder}/{name}"),
        _ => format!("{}/{name}", path.trim_end_matches(".rs")),
    }
}

impl Scanned<'_> {
    fn finding(&self, line: usize, rule: &'static str, why: String) -> Finding {
        Finding { path: self.file.path.clone(), line, rule, why }
    }
}

/// Files that hold more than one subject.
pub fn long_files(files: &[Scanned<'_>]) -> Vec<Finding> {
    let lines = |file: &Scanned<'_>| file.source.in_tests.iter().filter(|test| !**test).count();
    let long = files.iter().filter(|file| lines(file) > FILE_LINES_MAX);
    long.map(|file| {
        let lines = lines(file);
        let why =
            format!("{lines} lines without tests, at most {FILE_LINES_MAX}: part its subjects");
        file.finding(0, "file-length", why)
    })
    .collect()
}

/// Functions that do not fit a page.
pub fn long_functions(files: &[Scanned<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for function in file.source.functions() {
            let lines = function.lines.end() - function.lines.start() + 1;
            if lines > FUNCTION_LINES_MAX {
                let why = format!(
                    "`{}` has {lines} lines, at most {FUNCTION_LINES_MAX}: let it decide, and move \
                     what it computes into functions of their own",
                    function.name
                );
                found.push(file.finding(*function.lines.start(), "function-length", why));
            }
        }
    }
    found
}

/// Tests that wait for time to pass and not for what they wait for.
pub fn sleeping_tests(files: &[Scanned<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for (line, code) in file.source.tests() {
            if contains_word(code, "sleep") || contains_word(code, "sleep_until") {
                let why = "a test sleeps: wait for the state that it needs".to_owned();
                found.push(file.finding(line, "sleeping-test", why));
            }
        }
    }
    found
}

/// Tests that are switched off without a word.
pub fn silent_ignores(files: &[Scanned<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for (i, code) in file.source.code.iter().enumerate() {
            if code.replace(' ', "").contains("#[ignore]") {
                let why = "say why, and how to run it: #[ignore = \"...\"]".to_owned();
                found.push(file.finding(i + 1, "silent-ignore", why));
            }
        }
    }
    found
}

/// Clocks, threads, sockets, files and unordered maps in the crates that decide.
pub fn impure_core(files: &[Scanned<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.file.is_source_of(&CORE)) {
        let banned = banned_in(file.file);
        for (line, code) in file.source.program() {
            for (word, why) in banned.iter().filter(|(word, _)| contains_word(code, word)) {
                found.push(file.finding(line, "impure-core", format!("`{word}`: {why}")));
            }
        }
        for (line, path) in file.source.imports() {
            let written = contains_word(&file.source.code[line - 1], &path);
            for (word, why) in banned.iter().filter(|(word, _)| is_within(&path, word) && !written)
            {
                found.push(file.finding(line, "impure-core", format!("`{word}`: {why}")));
            }
        }
    }
    found
}

fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What this file must not name, and why.
fn banned_in(file: &File) -> Vec<(&'static str, &'static str)> {
    let mut banned = vec![
        ("Instant::now", "time is given to a core crate: take a base::Instant"),
        ("SystemTime", "time is given to a core crate: take a base::Instant"),
        ("std::thread", "a core crate is driven, it starts nothing"),
        ("std::net", "a core crate hands out messages and sends none"),
        ("tokio", "async runtimes live in the server"),
        ("async fn", "async functions live in the server"),
    ];
    if !FILE_PLACES.iter().any(|place| file.path.starts_with(place)) {
        banned.push(("std::fs", "files are reached through storage::disk or the engine"));
    }
    if file.is_source_of(&ORDERED) {
        banned.push(("HashMap", "its order differs from run to run: take a BTreeMap"));
        banned.push(("HashSet", "its order differs from run to run: take a BTreeSet"));
    }
    banned
}

/// Crates that check too little of what they rely on: one finding a crate.
pub fn sparse_assertions(files: &[Scanned<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, lines_max) in ASSERTING {
        assert!(lines_max >= CODE_LINES_PER_ASSERTION, "{name} asks for more than the goal");
        let (mut lines, mut assertions) = (0, 0);
        for file in files.iter().filter(|file| file.file.is_source_of(&[name])) {
            for (_, code) in file.source.program() {
                lines += 1;
                assertions += count_assertions(code);
            }
        }
        let wanted = lines / lines_max;
        if assertions < wanted {
            let path = format!("crates/{name}");
            let why = format!(
                "{assertions} assertions in {lines} lines of code, at least {wanted}: say with \
                 assert! or expect(\"why\") what must hold"
            );
            found.push(Finding { path, line: 0, rule: "assertion-density", why });
        }
    }
    found
}

fn count_assertions(code: &str) -> usize {
    let checks = ["assert!(", "assert_eq!(", "assert_ne!(", ".expect(", "unreachable!("];
    let all: usize = checks.iter().map(|check| code.matches(check).count()).sum();
    // Those that a release build leaves out do not count.
    all - code.matches("debug_assert").count().min(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Vec<File> {
        vec![File { path: path.to_owned(), text: text.to_owned() }]
    }

    fn lines(found: &[Finding]) -> Vec<usize> {
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn length_leaves_tests_out() {
        let text =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "a\n".repeat(599), "b\n".repeat(500));
        assert!(long_files(&scan(&file("src/a.rs", &text))).is_empty());
        let text = format!("aa\naa\n{text}");
        assert_eq!(long_files(&scan(&file("src/a.rs", &text))).len(), 1);
        let body = "    x();\n".repeat(58);
        assert!(long_functions(&scan(&file("a.rs", &format!("fn a() {{\n{body}}}\n")))).is_empty());
        let long = format!("fn a() {{\n{body}    y();\n}}\n");
        assert_eq!(lines(&long_functions(&scan(&file("a.rs", &long)))), [1]);
    }

    #[test]
    fn the_core_is_pure() {
        let text = "use std::{fs, thread};\nfn a() { std::net::x(); }\n// tokio\n\
                    let a = \"tokio\";\n\
                    #[cfg(test)]\nmod tests { use std::fs; }\n";
        let in_core = file("crates/raft/src/a.rs", text);
        assert_eq!(lines(&impure_core(&scan(&in_core))), [2, 1, 1]);
        assert!(impure_core(&scan(&file("crates/server/src/a.rs", text))).is_empty());
        let disk =
            file("crates/storage/src/disk/real.rs", "use std::fs;\nuse std::collections::HashMap;");
        assert!(impure_core(&scan(&disk)).is_empty());
        let map = file("crates/txn/src/a.rs", "use std::collections::HashMap;\n");
        assert_eq!(lines(&impure_core(&scan(&map))), [1]);
    }

    #[test]
    fn a_module_for_tests_is_tests() {
        let files = [
            file("crates/raft/src/a/mod.rs", "#[cfg(test)]\nmod b;\nmod c;\n"),
            file("crates/raft/src/a/b.rs", "use std::fs;\n"),
            file("crates/raft/src/a/b/d.rs", "use std::fs;\n"),
            file("crates/raft/src/a/c.rs", "#[cfg(test)] mod e;\nuse std::fs;\n"),
            file("crates/raft/src/a/c/e.rs", "use std::fs;\n"),
        ];
        let found = impure_core(&scan(&files.concat()));
        let paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["crates/raft/src/a/c.rs"]);
    }

    #[test]
    fn tests_say_what_they_wait_for() {
        let text = "fn a() { sleep(1); }\n#[cfg(test)]\nmod tests {\n\
                    fn b() { thread::sleep(d); }\n\
                    #[ignore]\n#[ignore = \"slow: ./x test --ignored\"]\n}\n";
        let files = file("src/a.rs", text);
        assert_eq!(lines(&sleeping_tests(&scan(&files))), [4]);
        assert_eq!(lines(&silent_ignores(&scan(&files))), [5]);
    }

    #[test]
    fn assertions_are_counted_by_crate() {
        let text = format!("{}assert!(a);\ndebug_assert!(b);\n", "x();\n".repeat(208));
        let files = file("crates/txn/src/a.rs", &text);
        assert_eq!(sparse_assertions(&scan(&files)).len(), 1);
        let files = file("crates/txn/src/a.rs", &text.replace("debug_", ""));
        assert!(sparse_assertions(&scan(&files)).is_empty());
    }
}
