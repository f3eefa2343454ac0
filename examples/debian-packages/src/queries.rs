//! Three questions, each one prefix scan, and each answer compared with the source's own.

use tikv_client::RawClient;

use crate::Failure;
use crate::index::{Records, field};
use crate::load::scan;

/// What is asked, and the prefix that answers it.
const QUESTIONS: [(&str, &str); 3] = [
    ("Which versions of bash are there?", "bash "),
    ("How many Python 3 modules for Django?", "python3-django"),
    ("Which packages begin with linux-image-amd64?", "linux-image-amd64"),
];

/// Answers to print of each question.
const SHOWN: usize = 3;

/// Asks them all.
pub async fn ask(client: &RawClient, records: &Records) -> Result<(), Failure> {
    for (question, prefix) in QUESTIONS {
        let prefix = prefix.as_bytes();
        let answer = scan(client, prefix, |key| key.starts_with(prefix)).await?;
        let known = records.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let known: Vec<_> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
        if answer != known {
            let (found, there) = (answer.len(), known.len());
            return Err(format!("{question} {found} answers differ from the {there} known").into());
        }
        println!("{question} {}: the source says the same.", known.len());
        for (key, stanza) in known.iter().take(SHOWN) {
            let line = field(stanza, b"Description: ").unwrap_or_default();
            println!("  {}: {}", String::from_utf8_lossy(key), String::from_utf8_lossy(line));
        }
    }
    Ok(())
}
