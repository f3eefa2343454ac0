//! Limits on every text file: unfinished marks, words that mean nothing to a reader, width of
//! lines.

use crate::Finding;
use crate::tree::File;

/// Columns of a line of Rust, code and comments alike.
pub const COLUMNS_MAX: usize = 100;

/// Marks of unfinished work, put together here so that this file does not hold them.
const MARKS: [&str; 8] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("HA", "CK"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("db", "g!"),
    concat!("DO NOT ", "MERGE"),
];

/// Words that point outside the repository, or say that something is not there yet.
const WORDS: [&str; 5] = [
    concat!("st", "ub"),
    concat!("st", "ubs"),
    concat!("../", "shared"),
    concat!("/work/", "shared"),
    concat!("/work/", "main"),
];

/// Work that is marked as unfinished. What is not done is not in the tree, or in an issue.
pub fn unfinished_marks(files: &[File]) -> Vec<Finding> {
    find_words(files, "unfinished-mark", &MARKS, "finish it or take it out")
}

/// Words of our own table that no reader of the repository can follow.
pub fn banned_words(files: &[File]) -> Vec<Finding> {
    find_words(
        files,
        "banned-word",
        &WORDS,
        "say what it is to a reader who has only this repository",
    )
}

fn find_words(files: &[File], rule: &'static str, words: &[&str], why: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for (i, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| contains_word(line, word)) {
                let why = format!("`{word}`: {why}");
                found.push(Finding { path: file.path.clone(), line: i + 1, rule, why });
            }
        }
    }
    found
}

/// Whether `word` stands in `line` by itself, not within a longer word.
pub fn contains_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// Lines of Rust wider than [`COLUMNS_MAX`].
pub fn wide_lines(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (i, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                let why = format!("{columns} columns, at most {COLUMNS_MAX}: break the line");
                found.push(Finding {
                    path: file.path.clone(),
                    line: i + 1,
                    rule: "line-width",
                    why,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<File> {
        vec![File { path: "a.rs".to_owned(), text: text.to_owned() }]
    }

    #[test]
    fn marks_are_whole_words() {
        let text = format!("a\n// {}: x\nmax{}y\n", MARKS[0], MARKS[2]);
        let found = unfinished_marks(&file(&text));
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [2]);
        assert_eq!(unfinished_marks(&file(&format!("{}()", MARKS[4]))).len(), 1);
        assert_eq!(banned_words(&file(&format!("a {} b, {}born", WORDS[0], WORDS[0]))).len(), 1);
    }

    #[test]
    fn width_counts_characters() {
        assert!(wide_lines(&file(&"é".repeat(100))).is_empty());
        assert_eq!(wide_lines(&file(&"é".repeat(101))).len(), 1);
    }
}
