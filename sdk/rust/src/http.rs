//! Requests to the servers that the operator has granted.
//!
//! ```
//! use std::time::Duration;
//! use levada_sdk::http;
//!
//! # levada_sdk::testing::answer_requests(|_| Ok(http::Response::new(200)));
//! let answer = http::post("https://api.example/v1/events")
//!     .header("content-type", "application/json")
//!     .timeout(Duration::from_secs(5))
//!     .body("{}")
//!     .send();
//! assert!(answer.is_ok_and(|answer| answer.is_success()));
//! ```
//!
//! The host makes the connection and adds the credentials that are bound to the server. A request
//! is sent once; redirections are answers like any other. While a request is on its way the host
//! goes on with other work, and this instance waits.

use std::{fmt, time::Duration};

use crate::{Failure, Outcome, host};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How long the whole exchange may take; nothing leaves it to the host.
    pub timeout: Option<Duration>,
}

/// The answer of a server, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names are in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The host did not do it; the text says what would change that. No byte was sent.
    Denied(String),
    /// There was no whole answer in time. The request may have been done.
    Timeout,
    /// There was no connection. No byte was sent.
    Connect(String),
    /// The answer is larger than the host takes. The request may have been done.
    TooLarge,
    /// There was no whole answer in HTTP. The request may have been done.
    Protocol(String),
}

/// A request with a method in capital letters.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
    }
}

/// A `GET` request.
pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

/// A `POST` request.
pub fn post(url: impl Into<String>) -> Request {
    request("POST", url)
}

impl Request {
    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long the whole exchange may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Errors
    /// [`Problem`]
    pub fn send(self) -> Result<Response, Problem> {
        host::send(&self)
    }
}

impl Response {
    /// An answer without headers and body, for tests.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Whether the status is one of 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same request may succeed later: 408, 425, 429, and 500 and above but 501 and
    /// 505.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500 | 502..=504 | 506..)
    }

    /// The value of a header, by its name in small letters; the first if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(found, _)| found == name)?;
        Some(value)
    }

    /// How long the server asks to wait, by its `retry-after` in seconds. A date is not read: a
    /// handler's clock stands still.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The body as text, or nothing if it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        str::from_utf8(&self.body).ok()
    }

    /// What the status says of an event: done, to be tried again (as [`is_temporary`] says, and
    /// not before the server asks for it), or rejected, with the status and the beginning of the
    /// body.
    ///
    /// [`is_temporary`]: Self::is_temporary
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.is_success() {
            Outcome::Done
        } else if self.is_temporary() {
            self.failure().into()
        } else {
            Outcome::reject(self.reason())
        }
    }

    /// What a status that is no success says of a batch, where it is no event's fault: it comes
    /// again (as [`is_temporary`] says, and not before the server asks for it), or a human is
    /// needed: no leave to write, an address that is wrong.
    ///
    /// [`is_temporary`]: Self::is_temporary
    #[must_use]
    pub fn failure(&self) -> Failure {
        let reason = self.reason();
        match (self.is_temporary(), self.retry_after()) {
            (true, Some(wait)) => Failure::retry(reason).after(wait),
            (true, None) => Failure::retry(reason),
            (false, _) => Failure::fatal(reason),
        }
    }

    /// The status and the beginning of the body, for a log or a reason.
    #[must_use]
    pub fn reason(&self) -> String {
        const SHOWN: usize = 120;
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.trim().chars().take(SHOWN).collect();
        match &text[..] {
            "" => format!("status {}", self.status),
            text => format!("status {}: {text}", self.status),
        }
    }
}

impl Problem {
    /// What it says of a batch: nothing was delivered, or nobody knows, so it comes again. What is
    /// denied needs a human.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Denied(_) => Failure::fatal(self.to_string()),
            Self::Timeout | Self::Connect(_) | Self::TooLarge | Self::Protocol(_) => {
                Failure::retry(self.to_string())
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "request denied: {why}"),
            Self::Timeout => f.write_str("no whole answer in time"),
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::TooLarge => f.write_str("the answer is too large"),
            Self::Protocol(why) => write!(f, "no whole answer: {why}"),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests;
