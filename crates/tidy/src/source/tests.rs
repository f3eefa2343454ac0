//! What the scanner must tell apart.

use super::*;

fn code(text: &str) -> String {
    Source::scan("src/a.rs", text).code.join("\n")
}

#[test]
fn strings_and_comments_are_not_code() {
    assert_eq!(code("let a = \"x // y\"; // why"), "let a = \"      \"; ");
    assert_eq!(code("a /* b /* c */ d */ e").replace(' ', ""), "ae");
    assert_eq!(code(r##"f(r#"say "fn x() {""#);"##).matches("fn").count(), 0);
    assert_eq!(code(r#"f("a \" fn");"#).matches("fn").count(), 0);
    assert_eq!(code("f(br\"x\\\", b\"\\\"\", 1);").matches('1').count(), 1);
}

#[test]
fn characters_and_lifetimes_differ() {
    assert_eq!(code("let q = '\"'; let b = '{';"), "let q = ' '; let b = ' ';");
    assert_eq!(code(r"let n = '\n'; let q = '\''; x"), "let n = '  '; let q = '  '; x");
    assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
}

#[test]
fn lines_stay_where_they_are() {
    let text = "a\n\"b\nc\\\nd\" e\n/* f\ng */ h\n";
    let source = Source::scan("src/a.rs", text);
    assert_eq!(source.code.len(), 7);
    assert_eq!(source.code[3].trim(), "\" e");
    assert_eq!(source.code[5].trim(), "h");
}

#[test]
fn tests_end_with_their_item() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    let source = Source::scan("src/a.rs", text);
    assert_eq!(source.in_tests, [false, true, true, true, true, false, false]);
    let source = Source::scan("src/a.rs", "#[cfg(test)]\nmod tests;\nfn c() {}");
    assert_eq!(source.in_tests, [true, true, false]);
    assert!(Source::scan("crates/a/tests/b.rs", "fn a() {}").in_tests[0]);
}

#[test]
fn functions_have_their_lines() {
    let text = "trait T {\n    fn a(&self);\n    fn b(x: [u8; 2]) -> u8 {\n        1\n    }\n}\n\
                type F = fn (u8);\nfn c<const N: usize>() where\n    u8: Copy,\n{\n\
                fn d() {}\n}\n";
    let found: Vec<_> =
        Source::scan("src/a.rs", text).functions().into_iter().map(|f| (f.name, f.lines)).collect();
    let expected = [("b", 3..=5), ("c", 8..=12), ("d", 11..=11)];
    assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
}

#[test]
fn imports_are_spelled_out() {
    let text =
        "use a::b;\nuse std::{\n    fs,\n    io::{Read, Write},\n};\npub use c::{d, e::{f}};\n";
    let found = Source::scan("src/a.rs", text).imports();
    let expected = [
        (1, "a::b"),
        (2, "std::fs"),
        (2, "std::io::Read"),
        (2, "std::io::Write"),
        (6, "c::d"),
        (6, "c::e::f"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}
