//! One test a limit. A failure lists every place as `file:line: [rule] why`.

use pontoon_tidy::{Finding, code_rules, crate_rules, exceptions, text_rules, tree};

fn expect_none(rule: &'static str, found: Vec<Finding>) {
    assert!(found.iter().all(|finding| finding.rule == rule), "{rule} found something else");
    let left = exceptions::unexpected(rule, found);
    let lines: Vec<_> = left.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} places break a limit:\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn files_have_one_subject() {
    expect_none("file-length", code_rules::long_files(&code_rules::scan(&tree::read())));
}

#[test]
fn functions_fit_a_page() {
    expect_none("function-length", code_rules::long_functions(&code_rules::scan(&tree::read())));
}

#[test]
fn lines_are_narrow() {
    expect_none("line-width", text_rules::wide_lines(&tree::read()));
}

#[test]
fn nothing_is_marked_unfinished() {
    expect_none("unfinished-mark", text_rules::unfinished_marks(&tree::read()));
}

#[test]
fn words_mean_something_to_a_reader() {
    expect_none("banned-word", text_rules::banned_words(&tree::read()));
}

#[test]
fn tests_do_not_sleep() {
    expect_none("sleeping-test", code_rules::sleeping_tests(&code_rules::scan(&tree::read())));
}

#[test]
fn ignored_tests_say_why() {
    expect_none("silent-ignore", code_rules::silent_ignores(&code_rules::scan(&tree::read())));
}

#[test]
fn core_crates_are_pure() {
    expect_none("impure-core", code_rules::impure_core(&code_rules::scan(&tree::read())));
}

#[test]
fn core_crates_assert_what_they_rely_on() {
    expect_none(
        "assertion-density",
        code_rules::sparse_assertions(&code_rules::scan(&tree::read())),
    );
}

#[test]
fn crates_know_only_those_below() {
    expect_none("crate-layers", crate_rules::layers(&tree::read()));
}

#[test]
fn crates_take_the_common_lints() {
    expect_none("lints", crate_rules::lints(&tree::read()));
}

#[test]
fn dependencies_are_few() {
    expect_none("dependency-count", crate_rules::dependency_counts(&tree::read()));
}

#[test]
fn dependencies_have_reasons() {
    expect_none("dependency-reason", crate_rules::dependency_reasons(&tree::read()));
}
