//! What a request says beside its path: the query, numbers in the path, a body of JSON.
//!
//! Keys are bytes, so a query is decoded to bytes; axum's own decoding wants text.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::error::HttpError;
use super::text;

/// The decoded query.
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Query {
    fn parse(query: &str) -> Result<Self, HttpError> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((unescape(name)?, unescape(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value with this name.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let mut pairs = self.0.iter();
        pairs.find(|(of, _)| of == name.as_bytes()).map(|(_, value)| &value[..])
    }

    /// The value as text; empty if it is not there.
    pub(super) fn text(&self, name: &str) -> Result<&str, HttpError> {
        std::str::from_utf8(self.get(name).unwrap_or_default())
            .map_err(|_| HttpError::bad_request(format!("{name} is not UTF-8")))
    }

    /// The value as a number; `None` if it is empty or not there.
    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, HttpError> {
        match self.text(name)? {
            "" => Ok(None),
            text => number(name, text).map(Some),
        }
    }

    /// The value as a key: in hex if the query says `format=hex`. Empty if it is not there.
    pub(super) fn key(&self, name: &str) -> Result<Bytes, HttpError> {
        self.decode_key(self.get(name).unwrap_or_default())
    }

    /// The same for a key from elsewhere.
    pub(super) fn decode_key(&self, key: &[u8]) -> Result<Bytes, HttpError> {
        if self.get("format") != Some(b"hex") {
            return Ok(Bytes::copy_from_slice(key));
        }
        let key = text::unhex(key).ok_or_else(|| HttpError::bad_request("a key is not hex"))?;
        Ok(key.into())
    }
}

/// Undoes the escapes of a URL; `+` is a space.
pub(super) fn unescape(escaped: &str) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let byte = rest.get(..2).and_then(text::unhex);
                let bad = || HttpError::bad_request(format!("bad escape in {escaped}"));
                bytes.extend(byte.ok_or_else(bad)?);
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    Ok(bytes)
}

/// Reads a number; `name` is what the complaint calls it.
pub(super) fn number<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, HttpError> {
    text.parse().map_err(|_| HttpError::bad_request(format!("{name}: {text:?} is no such number")))
}

/// Reads a body.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body).map_err(|error| HttpError::bad_request(format!("body: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bytes() {
        let query = Query::parse("key=a%00%ff+b&end_key=&flag&key=other&%6e=7").expect("valid");
        assert_eq!(query.key("key").expect("valid"), &b"a\0\xff b"[..]);
        assert_eq!(query.get("end_key"), Some(&b""[..]));
        assert_eq!(query.get("flag"), Some(&b""[..]));
        assert_eq!(query.get("none"), None);
        assert_eq!(query.number::<u32>("n").expect("a number"), Some(7));
        assert_eq!(query.number::<u32>("none").expect("absent"), None);
        assert!(query.number::<u32>("key").is_err() && query.text("key").is_err());
        let query = Query::parse("format=hex&key=00fF&bad=0").expect("valid");
        assert_eq!(query.key("key").expect("hex"), &b"\0\xff"[..]);
        assert!(query.key("bad").is_err());
    }

    #[test]
    fn bad_escapes_are_refused() {
        for escaped in ["%", "%0", "a%0g", "%%%"] {
            assert!(unescape(escaped).is_err(), "{escaped}");
        }
        assert!(Query::parse("a=%").is_err() && Query::parse("%=a").is_err());
        assert!(Query::parse("&&=&a").is_ok());
    }
}
