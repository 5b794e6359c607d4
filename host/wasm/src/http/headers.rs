//! Headers: what a guest may set, what the host sets, and how much of them there is.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of all names and values of a request, and of an answer.
pub(crate) const MOST_BYTES: usize = 16 << 10;

/// Headers that belong to the connection, and so to the host.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A header that the host adds to requests to one server.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) name: HeaderName,
    pub(crate) value: HeaderValue,
}

impl Bound {
    /// Reads a header whose value is secret; the end of a file's last line is no part of it.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub(crate) fn read(name: &str, value: &str) -> Result<Self, &'static str> {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err("not a name of a header");
        };
        if is_reserved(&name) {
            return Err("a header of the connection");
        }
        let Ok(mut value) = HeaderValue::from_str(value.trim_end_matches(['\r', '\n'])) else {
            return Err("the value cannot stand in a header");
        };
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

/// Checks a guest's headers, and adds those that are bound to the server.
///
/// # Errors
/// Why not, in words for the guest and the log.
pub(crate) fn of_request(
    theirs: &[(String, String)],
    bound: &[&Bound],
) -> Result<HeaderMap, String> {
    let bytes: usize = theirs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MOST_BYTES {
        return Err(format!(
            "{bytes} bytes of headers; {MOST_BYTES} are allowed"
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in theirs {
        let shown = crate::guest::escape(name);
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err(format!("`{shown}` is no name of a header"));
        };
        if is_reserved(&name) {
            return Err(format!("the header `{name}` belongs to the host"));
        }
        if bound.iter().any(|bound| bound.name == name) {
            return Err(format!("the header `{name}` is set by `credentials`"));
        }
        let Ok(value) = HeaderValue::from_str(value) else {
            return Err(format!(
                "the value of the header `{name}` cannot stand in a header"
            ));
        };
        headers.append(name, value);
    }
    for bound in bound {
        headers.append(bound.name.clone(), bound.value.clone());
    }
    Ok(headers)
}

/// The headers of an answer, if they are not too many.
pub(crate) fn of_response(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > MOST_BYTES {
        return None;
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)));
    Some(pairs.collect())
}

fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str())
}

#[cfg(test)]
mod tests;
