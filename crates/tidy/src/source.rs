//! A Rust file taken apart: code, comments, tests, functions.
//!
//! Not a parser: a scanner that knows strings, characters, comments and braces, which is all that
//! the limits need. What it yields has the same lines as the file, so that line numbers need no
//! mapping.
//!
//! ```text
//!   let a = "x // y"; // why     code:     let a = "      ";
//!                                comments:                     why
//! ```

use std::ops::RangeInclusive;

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Lines from the one with `fn` to the closing brace, counted from 1.
    pub lines: RangeInclusive<usize>,
}

/// A Rust file, scanned.
#[derive(Clone, Debug)]
pub struct Source {
    /// The code alone, a line each: comments gone, what stands in strings and characters blank.
    pub code: Vec<String>,
    /// The comments alone, a line each, without their marks.
    pub comments: Vec<String>,
    /// For each line, whether it belongs to an item under `#[cfg(test)]`, or the whole file is
    /// tests.
    pub in_tests: Vec<bool>,
}

impl Source {
    /// Scans `text`, which lies at `path` (that tells whether the whole file is tests).
    pub fn scan(path: &str, text: &str) -> Source {
        let (code, comments) = separate(text);
        let lines = |text: &str| text.split('\n').map(str::to_owned).collect::<Vec<_>>();
        let in_tests = test_lines(&code, is_test_file(path));
        let source = Source { code: lines(&code), comments: lines(&comments), in_tests };
        assert_eq!(source.code.len(), source.in_tests.len(), "{path}: a line was lost");
        assert_eq!(source.code.len(), source.comments.len(), "{path}: a line was lost");
        source
    }

    /// Lines of code outside tests, with their numbers from 1; blank ones left out.
    pub fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code_where(false)
    }

    /// Lines of code in tests, with their numbers from 1; blank ones left out.
    pub fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code_where(true)
    }

    fn code_where(&self, in_tests: bool) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.in_tests).enumerate();
        lines
            .filter(move |(_, (line, test))| **test == in_tests && !line.trim().is_empty())
            .map(|(i, (line, _))| (i + 1, line.as_str()))
    }

    /// The modules that are tests and lie in files of their own: `#[cfg(test)] mod NAME;`.
    pub fn test_modules(&self) -> impl Iterator<Item = &str> {
        self.tests().filter_map(|(_, line)| {
            let line = line.trim().trim_start_matches("#[cfg(test)]").trim_start();
            line.trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';')
        })
    }

    /// The functions outside tests.
    pub fn functions(&self) -> Vec<Function> {
        let text: Vec<char> = self.code.join("\n").chars().collect();
        let mut found = Vec::new();
        let mut line = 1;
        for at in 0..text.len() {
            line += usize::from(text[at] == '\n');
            if let Some(function) = function_at(&text, at, line)
                && !self.in_tests[line - 1]
            {
                found.push(function);
            }
        }
        found
    }

    /// The paths that the program's `use` declarations name, with their lines: `use std::{fs,
    /// io::Read}` is `std::fs` and `std::io::Read`.
    pub fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut pending: Option<(usize, String)> = None;
        for (number, line) in self.program() {
            let trimmed = line.trim_start();
            let start = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
                .iter()
                .find_map(|prefix| trimmed.strip_prefix(prefix));
            let (first, mut text) = match (pending.take(), start) {
                (Some(open), _) => open,
                (None, Some(_)) => (number, String::new()),
                (None, None) => continue,
            };
            text.push_str(if text.is_empty() { start.unwrap_or(trimmed) } else { trimmed });
            if text.contains(';') {
                expand_use("", text.trim_end_matches(';'), &mut |path| found.push((first, path)));
            } else {
                pending = Some((first, text));
            }
        }
        found
    }
}

/// Whether all of a file is tests, by its place or name.
pub fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Splits a `use` tree into its paths.
fn expand_use(prefix: &str, tree: &str, found: &mut dyn FnMut(String)) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        found(format!("{prefix}{tree}"));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let group = &group[..group.rfind('}').unwrap_or(group.len())];
    let (mut depth, mut start) = (0usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand_use(&prefix, &group[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        expand_use(&prefix, &group[start..], found);
    }
}

/// A function whose `fn` stands at `at`, if one does and it has a body.
fn function_at(text: &[char], at: usize, line: usize) -> Option<Function> {
    let word = at > 0 && is_word(text[at - 1]);
    if word || text.get(at..at + 3) != Some(&['f', 'n', ' ']) {
        return None;
    }
    let name: String = text[at + 3..].iter().take_while(|c| is_word(**c)).collect();
    if name.is_empty() {
        return None;
    }
    let end = item_end(text, at)?;
    if text[end] == ';' {
        return None;
    }
    let last = line + text[at..end].iter().filter(|c| **c == '\n').count();
    Some(Function { name, lines: line..=last })
}

/// Where the item that begins at `from` ends: at its `;`, or at the brace that closes its body.
fn item_end(text: &[char], from: usize) -> Option<usize> {
    let (mut round, mut curly) = (0usize, 0usize);
    for (at, c) in text.iter().enumerate().skip(from) {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round = round.saturating_sub(1),
            '{' => curly += 1,
            '}' => {
                curly = curly.saturating_sub(1);
                if curly == 0 && round == 0 {
                    return Some(at);
                }
            }
            ';' if round == 0 && curly == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// For each line, whether it lies in an item under `#[cfg(test)]`.
fn test_lines(code: &str, whole_file: bool) -> Vec<bool> {
    let text: Vec<char> = code.chars().collect();
    let mut in_tests = vec![whole_file; code.split('\n').count()];
    let mark: Vec<char> = "#[cfg(test)]".chars().collect();
    let mut line = 0;
    for at in 0..text.len() {
        line += usize::from(text[at] == '\n');
        if !text[at..].starts_with(&mark) {
            continue;
        }
        let end = item_end(&text, at + mark.len()).unwrap_or(text.len() - 1);
        let last = line + text[at..end].iter().filter(|c| **c == '\n').count();
        in_tests[line..=last].fill(true);
    }
    in_tests
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the scanner stands.
#[derive(Clone, Copy)]
enum Within {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { raw: bool, hashes: usize },
}

/// The code and the comments of `text`, each with all its line ends.
fn separate(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut within = Within::Code;
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        if rest[0] == '\n' {
            if matches!(within, Within::LineComment) {
                within = Within::Code;
            }
            code.push('\n');
            comments.push('\n');
            at += 1;
            continue;
        }
        let before = within;
        let taken = match within {
            Within::Code => take_code(&chars, at, &mut within),
            Within::LineComment => 1,
            Within::BlockComment { depth } => take_block(rest, depth, &mut within),
            Within::Text { raw, hashes } => take_text(rest, raw, hashes, &mut within),
        };
        let taken = taken.min(rest.len());
        keep(&rest[..taken], before, within, &mut code, &mut comments);
        at += taken;
    }
    (code, comments)
}

/// Writes what was taken to where it belongs, the inside of strings and characters as blanks; line
/// ends go to both sides.
fn keep(taken: &[char], before: Within, after: Within, code: &mut String, comments: &mut String) {
    let comment = |w| matches!(w, Within::LineComment | Within::BlockComment { .. });
    let in_text = matches!((before, after), (Within::Text { .. }, Within::Text { .. }));
    let literal = taken[0] == '\'' && taken.len() >= 3;
    for (i, c) in taken.iter().enumerate() {
        let blank = in_text || (literal && i > 0 && i + 1 < taken.len());
        match c {
            '\n' => {
                code.push('\n');
                comments.push('\n');
            }
            c if comment(before) || comment(after) => comments.push(*c),
            _ if blank => code.push(' '),
            c => code.push(*c),
        }
    }
}

/// How many characters of code to take at `at`; changes `within` where something else begins.
fn take_code(chars: &[char], at: usize, within: &mut Within) -> usize {
    let rest = &chars[at..];
    let after_word = at > 0 && is_word(chars[at - 1]);
    match rest {
        ['/', '/', ..] => *within = Within::LineComment,
        ['/', '*', ..] => {
            *within = Within::BlockComment { depth: 1 };
            return 2;
        }
        ['"', ..] => *within = Within::Text { raw: false, hashes: 0 },
        ['r' | 'b' | 'c', ..] if !after_word => {
            if let Some((taken, raw, hashes)) = text_start(rest) {
                *within = Within::Text { raw, hashes };
                return taken;
            }
        }
        ['\'', '\\', ..] => {
            let end = rest.iter().skip(3).position(|c| *c == '\'').map_or(rest.len(), |i| i + 4);
            return end;
        }
        ['\'', c, '\'', ..] if *c != '\'' => return 3,
        _ => {}
    }
    1
}

/// The opening of a string with a prefix: characters taken, whether it is raw, its number of
/// hashes.
fn text_start(rest: &[char]) -> Option<(usize, bool, usize)> {
    let letters = rest.iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let raw = rest[..letters].contains(&'r');
    let hashes = rest[letters..].iter().take_while(|c| **c == '#').count();
    let opens = letters <= 2 && rest.get(letters + hashes) == Some(&'"');
    (opens && (raw || hashes == 0)).then_some((letters + hashes + 1, raw, hashes))
}

fn take_block(rest: &[char], depth: usize, within: &mut Within) -> usize {
    match rest {
        ['*', '/', ..] if depth == 1 => *within = Within::Code,
        ['*', '/', ..] => *within = Within::BlockComment { depth: depth - 1 },
        ['/', '*', ..] => *within = Within::BlockComment { depth: depth + 1 },
        _ => return 1,
    }
    2
}

fn take_text(rest: &[char], raw: bool, hashes: usize, within: &mut Within) -> usize {
    let closes = rest[0] == '"' && rest.iter().skip(1).take_while(|c| **c == '#').count() >= hashes;
    match rest[0] {
        '\\' if !raw => 2,
        '"' if closes => {
            *within = Within::Code;
            1 + hashes
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
