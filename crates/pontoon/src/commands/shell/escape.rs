//! Keys and values as text, both ways.
//!
//! A line is cut into words at blanks. A word may stand in double quotes. Inside and outside of
//! them `\xNN`, `\n`, `\t`, `\r`, `\0`, `\\`, `\"` and `\ ` (a blank) stand for a byte. What the
//! shell prints can be typed in again.

use std::fmt::Write as _;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its bytes, escapes undone.
    pub bytes: Vec<u8>,
    /// Whether it stood in quotes: then it is data, never a keyword.
    pub quoted: bool,
}

impl Word {
    /// Whether this is the keyword `word`, in any case, without quotes.
    pub fn is(&self, word: &str) -> bool {
        !self.quoted && self.bytes.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Cuts a line into words, or says what is wrong with it.
pub fn split(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = take_word(rest)?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

fn take_word(text: &str) -> Result<(Word, &str), String> {
    let quoted = text.starts_with('"');
    let mut rest = if quoted { &text[1..] } else { text };
    let mut bytes = Vec::new();
    loop {
        let Some(c) = rest.chars().next() else {
            return match quoted {
                true => Err("the quotes are not closed".to_owned()),
                false => Ok((Word { bytes, quoted }, rest)),
            };
        };
        match c {
            '\\' => rest = take_escape(&rest[1..], &mut bytes)?,
            '"' if quoted => return end_quotes(bytes, &rest[1..]),
            '"' => return Err("quotes must begin a word: write \\\" for one within".to_owned()),
            c if c.is_whitespace() && !quoted => return Ok((Word { bytes, quoted }, rest)),
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[c.len_utf8()..];
            }
        }
    }
}

fn end_quotes(bytes: Vec<u8>, rest: &str) -> Result<(Word, &str), String> {
    if rest.chars().next().is_some_and(|c| !c.is_whitespace()) {
        return Err("a blank must follow closing quotes".to_owned());
    }
    Ok((Word { bytes, quoted: true }, rest))
}

/// Undoes one escape, given what follows its backslash; returns what follows the escape.
fn take_escape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let c = text.chars().next().ok_or("a backslash ends the line: write \\\\ for one")?;
    let byte = match c {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        '0' => 0,
        '\\' | '"' | ' ' => c as u8,
        'x' => {
            let digits = text.get(1..3).ok_or("two hex digits must follow \\x")?;
            let byte = parse_hex(digits).ok_or_else(|| format!("\\x{digits} is not a byte"))?;
            bytes.extend(byte);
            return Ok(&text[3..]);
        }
        c => return Err(format!("\\{c} is not an escape: write \\\\ for a backslash")),
    };
    bytes.push(byte);
    Ok(&text[c.len_utf8()..])
}

/// The bytes that hex digits stand for; none if they are odd in number or not hex.
pub fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Bytes as hex digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

/// Bytes in quotes, as [`split`] reads them: printable UTF-8 as it is, the rest escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                c if c.is_control() => {
                    escape_bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut text)
                }
                c => text.push(c),
            }
        }
        escape_bytes(chunk.invalid(), &mut text);
    }
    text.push('"');
    text
}

fn escape_bytes(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split(line).expect("the line is right").into_iter().map(|word| word.bytes).collect()
    }

    #[test]
    fn words_end_at_blanks() {
        assert_eq!(words("  put a\t b  "), [&b"put"[..], b"a", b"b"]);
        assert_eq!(words(r#"put "a b" "" c\ d"#), [&b"put"[..], b"a b", b"", b"c d"]);
        assert!(words("   ").is_empty());
    }

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(words(r#"\x00\xFf\n\t\r\0\\\""#), [b"\0\xff\n\t\r\0\\\""]);
        assert_eq!(words("\"\\x41 ü\""), ["A ü".as_bytes()]);
    }

    #[test]
    fn quotes_make_data_of_keywords() {
        let line = split(r#"none "none" NONE"#).expect("the line is right");
        let is_none: Vec<_> = line.iter().map(|word| word.is("none")).collect();
        assert_eq!(is_none, [true, false, true]);
    }

    #[test]
    fn wrong_lines_say_why() {
        for (line, why) in [
            ("\"a", "not closed"),
            ("a\\", "ends the line"),
            ("\\x4", "two hex digits"),
            ("\\xzz", "not a byte"),
            ("\\xé", "not a byte"),
            ("\\q", "not an escape"),
            ("a\"b", "must begin a word"),
            ("\"a\"b", "must follow"),
        ] {
            let error = split(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        let mut prng = base::Prng::new(5);
        for _ in 0..5_000 {
            let length = prng.below(12);
            let byte = |n: u64| b"a\"\\ \n\xc3\xbc\xff\0\x7f"[n as usize];
            let bytes: Vec<u8> = (0..length).map(|_| byte(prng.below(10))).collect();
            assert_eq!(words(&quote(&bytes)), std::slice::from_ref(&bytes), "{bytes:?}");
            assert_eq!(parse_hex(&to_hex(&bytes)), Some(bytes));
        }
        assert_eq!(quote("grün\u{1}".as_bytes()), "\"grün\\x01\"");
        assert_eq!((parse_hex("abc"), parse_hex("+1")), (None, None));
    }
}
