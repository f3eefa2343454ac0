//! What was answered, and so must be there.

use std::collections::BTreeMap;

/// An acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To the key of a number.
    Key {
        /// Whose.
        writer: usize,
        /// Which.
        number: u64,
    },
    /// To the writer's head, which holds the last number.
    Head {
        /// Whose.
        writer: usize,
        /// Which it holds now.
        number: u64,
    },
}

/// Keys and values are made from the seed, so that only numbers need to be remembered.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    writers: Vec<Written>,
    acknowledged: u64,
}

/// What one writer was answered.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// Numbers below were answered; this one may be in flight.
    next: u64,
    /// The last number answered for its head.
    head: Option<u64>,
}

impl Ledger {
    /// Nothing is written yet.
    pub fn new(seed: u64, writers: usize) -> Self {
        Self { seed, writers: vec![Written::default(); writers], acknowledged: 0 }
    }

    /// What values are made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Writes that were answered since the first round.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The writers, each with the number it goes on with.
    pub fn writers(&self) -> impl Iterator<Item = (usize, u64)> {
        self.writers.iter().map(|written| written.next).enumerate()
    }

    /// Notes an answer.
    pub fn note(&mut self, answer: Answer) {
        self.acknowledged += 1;
        match answer {
            Answer::Key { writer, number } => {
                let written = &mut self.writers[writer];
                assert_eq!(number, written.next, "writer {writer} writes in order");
                written.next += 1;
            }
            Answer::Head { writer, number } => self.writers[writer].head = Some(number),
        }
    }

    /// Whether all that was answered is there, and nothing else but what was in flight. That counts
    /// as answered from now on: it was seen.
    pub fn check(&mut self, found: &[(Vec<u8>, Vec<u8>)]) -> Result<(), String> {
        let mut found: Found<'_> =
            found.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        let (seed, of) = (self.seed, self.acknowledged);
        for (writer, written) in self.writers.iter_mut().enumerate() {
            if found.contains_key(key(writer, written.next).as_slice()) {
                written.next += 1;
            }
            check_keys(&mut found, seed, writer, written.next, of)?;
            check_head(&mut found, writer, *written, of)?;
        }
        match found.first_key_value() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{}: is there, and was never written", text(key))),
        }
    }
}

type Found<'a> = BTreeMap<&'a [u8], &'a [u8]>;

fn check_keys(
    found: &mut Found<'_>,
    seed: u64,
    writer: usize,
    next: u64,
    of: u64,
) -> Result<(), String> {
    for number in 0..next {
        let key = key(writer, number);
        let there = found.remove(key.as_slice()).ok_or_else(|| lost(&key, of))?;
        if there != value(seed, writer, number) {
            return Err(format!("{}: not the value that was written", text(&key)));
        }
    }
    Ok(())
}

fn check_head(
    found: &mut Found<'_>,
    writer: usize,
    written: Written,
    of: u64,
) -> Result<(), String> {
    let key = head(writer);
    match (written.head, found.remove(key.as_slice())) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(lost(&key, of)),
        (answered, Some(there)) => {
            let holds = text(there).parse::<u64>().ok();
            if holds.is_some_and(|n| n >= answered.unwrap_or(0) && n < written.next) {
                return Ok(());
            }
            Err(format!("{}: holds {:?}, answered was {answered:?}", text(&key), text(there)))
        }
    }
}

fn lost(key: &[u8], of: u64) -> String {
    format!("{}: lost, one of {of} acknowledged writes", text(key))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The key of a number.
pub fn key(writer: usize, number: u64) -> Vec<u8> {
    format!("key/{writer:02}/{number:010}").into_bytes()
}

/// The key that a writer overwrites.
pub fn head(writer: usize) -> Vec<u8> {
    format!("head/{writer:02}").into_bytes()
}

/// The value of a number: 16 to about 2,000 bytes.
pub fn value(seed: u64, writer: usize, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ ((writer as u64) << 48) ^ number);
    let words = 2 + random.below(250);
    (0..words).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: u64) -> (Vec<u8>, Vec<u8>) {
        (key(0, number), value(7, 0, number))
    }

    #[test]
    fn what_was_answered_must_be_there_and_what_was_in_flight_may() {
        let mut ledger = Ledger::new(7, 1);
        ledger.note(Answer::Key { writer: 0, number: 0 });
        ledger.note(Answer::Head { writer: 0, number: 0 });
        let at = |number: u64| (head(0), number.to_string().into_bytes());
        assert!(ledger.check(&[pair(0)]).unwrap_err().contains("head/00: lost"));
        assert!(ledger.check(&[at(0)]).unwrap_err().contains("lost, one of 2"));
        assert!(ledger.check(&[pair(0), at(1)]).unwrap_err().contains("holds"));
        ledger.check(&[pair(0), at(0)]).unwrap();
        ledger.check(&[pair(0), pair(1), at(1)]).unwrap();
        assert!(ledger.check(&[pair(0), at(0)]).unwrap_err().contains("lost"));
        let wrong = (key(0, 1), value(7, 0, 2));
        assert!(ledger.check(&[pair(0), wrong, at(1)]).unwrap_err().contains("not the value"));
        let never = [pair(0), pair(1), pair(3), at(1)];
        assert!(ledger.check(&never).unwrap_err().contains("never written"));
    }
}
