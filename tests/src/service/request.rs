//! Requests as services read them, and their answers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::http::request::Parts;
use serde_json::Value;

/// A request. Nothing is in it twice.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Request {
    pub(super) fn read(head: &Parts, body: Bytes) -> Result<Self> {
        let mut headers = BTreeMap::new();
        for (name, value) in &head.headers {
            let before = headers.insert(name.to_string(), value.to_str()?.to_owned());
            ensure!(before.is_none(), "the header `{name}` is there twice");
        }
        let mut query = BTreeMap::new();
        for pair in head.uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if pair.is_empty() {
                continue;
            }
            let before = query.insert(decoded(name)?, decoded(value)?);
            ensure!(before.is_none(), "`{name}` is in the query twice");
        }
        Ok(Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query,
            headers,
            body,
        })
    }

    /// Fails unless it is a `POST` to this path with a body of this kind.
    pub(super) fn posts(&self, path: &str, kind: &str) -> Result<()> {
        let to = (self.method.as_str(), self.path.as_str());
        ensure!(to == ("POST", path), "not `POST {path}`");
        let said = self.header("content-type");
        ensure!(said == kind, "the content type is `{said}`, not `{kind}`");
        Ok(())
    }

    /// The value of a header; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as text.
    pub(super) fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).context("the body is not UTF-8")
    }

    /// The lines of the body, each with its end.
    pub(super) fn lines(&self) -> Result<Vec<&str>> {
        let text = self.text()?;
        let text = text
            .strip_suffix('\n')
            .context("the last line has no end")?;
        let lines: Vec<_> = text.split('\n').collect();
        if lines.iter().any(|line| line.is_empty()) {
            bail!("a line is empty");
        }
        Ok(lines)
    }
}

/// A name or value of a query as it is meant. What should be escaped and is not is refused.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let pair = digit().zip(digit()).context("half an escape")?;
                bytes.push(u8::try_from(pair.0 * 16 + pair.1)?);
            }
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => bytes.push(byte),
            other => bail!("`{}` stands in the query as it is", char::from(other)),
        }
    }
    Ok(String::from_utf8(bytes)?)
}

impl Answer {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// An answer in JSON.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        let answer = Self::new(status).with_header("content-type", "application/json");
        answer.with_body(body.to_string())
    }
}

/// Fails if an object has a member that is not among these.
pub(super) fn only(object: &Value, names: &[&str]) -> Result<()> {
    let object = object.as_object().context("not an object")?;
    for name in object.keys() {
        ensure!(names.contains(&name.as_str()), "there is no `{name}`");
    }
    Ok(())
}
