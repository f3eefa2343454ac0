//! One HTTP request a connection: all that `pontoon ctl` needs of the protocol.
//!
//! The servers asked are our own, whose answers are JSON with a length or in chunks.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer: ten thousand regions take a few MiB.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and the like.
    pub status: u16,
    /// Where a redirect leads to.
    pub location: Option<String>,
    /// The body; null if it is no JSON.
    pub body: Value,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpFailure {
    /// Nothing was sent.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Where to.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// The request was sent; nobody knows what became of it.
    #[error("{address} gave no answer: {cause}")]
    Lost {
        /// Where to.
        address: String,
        /// What the system said.
        cause: String,
    },
}

/// Sends one request to `host:port` and waits for the answer for at most `timeout`.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
    timeout: Duration,
) -> Result<Answer, HttpFailure> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let unreachable =
        |cause: String| HttpFailure::Unreachable { address: address.to_owned(), cause };
    let stream = connecting.map_err(|_| unreachable("no answer in time".to_owned()))?;
    let mut stream = stream.map_err(|error| unreachable(error.to_string()))?;

    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let lost = |cause: String| HttpFailure::Lost { address: address.to_owned(), cause };
    let answered = tokio::time::timeout(timeout, exchange).await;
    let bytes = answered.map_err(|_| lost(format!("{} s have passed", timeout.as_secs())))?;
    let bytes = bytes.map_err(|error| lost(error.to_string()))?;
    read(&bytes).ok_or_else(|| lost("what came is no HTTP".to_owned()))
}

/// Takes an answer apart.
fn read(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let (mut location, mut length, mut chunked) = (None, None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match &name.to_ascii_lowercase()[..] {
            "location" => location = Some(value.to_owned()),
            "content-length" => length = Some(value.parse::<usize>().ok()?),
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let body = match (chunked, length) {
        (true, _) => unchunk(rest)?,
        (false, Some(length)) => rest.get(..length)?.to_vec(),
        (false, None) => rest.to_vec(),
    };
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Answer { status, location, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        let answer = read(plain).expect("it is HTTP");
        assert_eq!((answer.status, &answer.body["a"]), (200, &Value::from(1)));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                        3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(read(chunked).expect("it is HTTP").body["a"], 1);
        let moved = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://x:1/pd\r\n\r\n";
        assert_eq!(read(moved).expect("it is HTTP").location.as_deref(), Some("http://x:1/pd"));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert!((0..whole.len()).all(|cut| read(&whole[..cut]).is_none()));
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n0\r\n\r\n";
        assert!((0..chunked.len() - 2).all(|cut| read(&chunked[..cut]).is_none()));
    }
}
