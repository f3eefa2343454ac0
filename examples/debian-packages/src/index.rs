//! The index as apt keeps it: stanzas of `Field: value` lines, parted by empty lines.

use std::collections::BTreeMap;
use std::process::Command;

use crate::Failure;

/// Key to stanza, in the order of the store.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Prints a list, whatever it is compressed with. It comes with apt.
const CAT: &str = "/usr/lib/apt/apt-helper";

/// Reads lists. Of two stanzas with the same key the later one stays.
pub fn read(lists: &[String]) -> Result<Records, Failure> {
    let mut records = Records::new();
    for list in lists {
        let output = Command::new(CAT).args(["cat-file", list]).output()?;
        if !output.status.success() {
            return Err(format!("{list}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        records.extend(parse(&output.stdout));
    }
    if records.is_empty() {
        return Err("no package in the lists: run apt-get update".into());
    }
    Ok(records)
}

/// The records of a list. Stanzas without a name or a version are no packages.
fn parse(list: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    stanzas(list).filter_map(|stanza| {
        let key = key(field(stanza, b"Package: ")?, field(stanza, b"Version: ")?);
        Some((key, stanza.to_vec()))
    })
}

/// A name has no blank in it, so a prefix of `name` and a blank is that package alone.
pub fn key(name: &[u8], version: &[u8]) -> Vec<u8> {
    [name, b" ", version].concat()
}

fn stanzas(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        while let [b'\n', left @ ..] = rest {
            rest = left;
        }
        let end = rest.windows(2).position(|two| two == b"\n\n").unwrap_or(rest.len());
        let stanza;
        (stanza, rest) = rest.split_at(end);
        (!stanza.is_empty()).then_some(stanza)
    })
}

/// What stands behind a field's name.
pub fn field<'a>(stanza: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    stanza.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_parted_into_its_packages() {
        let list =
            b"Package: a\nVersion: 1\nDescription: x\n\nNo: package\n\n\nPackage: b\nVersion: 2\n";
        let records: Vec<_> = parse(list).collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].0, b"a 1");
        assert_eq!(records[0].1, b"Package: a\nVersion: 1\nDescription: x");
        assert_eq!(records[1].0, b"b 2");
    }
}
