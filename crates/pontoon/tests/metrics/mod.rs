//! What a node counts.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A counter of those that the node at `host:port` shows under `/metrics`.
pub async fn counter(address: &str, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).await.expect("it serves");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("it is taken");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it answers");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}
