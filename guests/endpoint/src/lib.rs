//! What guests that speak HTTP share: the settings of a server, its requests, and what its answers
//! say of the events in them.
//!
//! Settings of every such guest: `url`; `headers`, an object of texts; `timeout-ms`.

mod document;
mod parts;
mod query;
mod times;

use std::time::Duration;

use levada_sdk::{
    Failure, call,
    http::{self, Response},
    json, settings,
};

pub use document::{Documents, Form, write_event};
pub use parts::{Part, Reply, deliver};
pub use query::query;
pub use times::{millis, nanos};

/// A server, as the settings describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Without a slash at its end.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub timeout: Option<Duration>,
}

impl Endpoint {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`Failure::Fatal`] that names the setting which is missing or wrong.
    pub fn read() -> Result<Self, Failure> {
        let url = needed("url", "where to send")?;
        let headers = table("headers")?;
        let timeout: u64 = settings::parsed("timeout-ms", 0)?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            headers,
            timeout: (timeout > 0).then(|| Duration::from_millis(timeout)),
        })
    }

    /// Sends a body to the server; `path` begins with a slash or is empty, and `headers` are those
    /// of this request, which the settings' replace.
    ///
    /// # Errors
    /// There is no answer: nothing was delivered, or nobody knows.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Response, Failure> {
        let mut request = http::request(method, format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            if !self
                .headers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
            {
                request = request.header(*name, *value);
            }
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        request.send().map_err(|problem| problem.failure())
    }
}

/// A setting that is a table of texts; empty if it is not set.
///
/// # Errors
/// [`Failure::Fatal`] that names the setting.
pub fn table(key: &str) -> Result<Vec<(String, String)>, Failure> {
    let Some(text) = settings::get(key) else {
        return Ok(Vec::new());
    };
    json::pairs(&text).ok_or_else(|| {
        let like = "such as { x-team = \"a\" }";
        Failure::fatal(format!("setting `{key}`: not a table of texts, {like}"))
    })
}

/// A setting without which a sink cannot work.
///
/// # Errors
/// [`Failure::Fatal`] that names the setting if it is not set or empty.
pub fn needed(key: &str, what: &str) -> Result<String, Failure> {
    let value = settings::get(key).filter(|value| !value.is_empty());
    value.ok_or_else(|| Failure::fatal(format!("setting `{key}`: {what} is not set")))
}

/// The key of the batch that is delivered: the same for every attempt at the same events.
#[must_use]
pub fn batch_key() -> String {
    call::batch_key()
}

/// A word of a setting among those that are known; the first if it is not set.
///
/// # Errors
/// [`Failure::Fatal`] that names the setting and its words.
pub fn word<T: Copy>(key: &str, words: &[(&str, T)]) -> Result<T, Failure> {
    let set = settings::get(key);
    let wanted = set.as_deref().unwrap_or(words[0].0);
    let known = words.iter().find(|(word, _)| *word == wanted);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let known = known.join(", ");
        Failure::fatal(format!("setting `{key}`: `{wanted}` is none of {known}"))
    })
}

#[cfg(test)]
mod tests;
