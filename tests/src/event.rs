//! The events of the tests: numbered, with values in them that must not travel.

use serde_json::{Value, json};

/// Parts of every value that `redact` must remove, found nowhere else.
pub const SECRETS: [&str; 2] = ["@secret.example", "+49-555-"];

/// The keys of those values.
pub const SECRET_KEYS: [&str; 2] = ["email", "phone"];

/// What `redact` puts in their place.
pub const REDACTED: &str = "***";

/// The body of the `n`-th event of a source, as a device would send it.
#[must_use]
pub fn body(source: &str, n: u64) -> String {
    format!(
        "{{\"source\":\"{source}\",\"n\":{n},\"device\":\"press-{}\",\"temperature\":{}.{},\
         \"email\":\"user{n}@secret.example\",\"phone\":\"+49-555-{n:07}\",\"state\":\"ok\"}}",
        n % 40,
        20 + n % 9,
        n % 10
    )
}

/// Which event a delivered body is: its source and number.
///
/// # Errors
/// What is wrong with it: not JSON, not redacted, or changed in another way.
pub fn identify(delivered: &str) -> Result<(String, u64), String> {
    let value: Value =
        serde_json::from_str(delivered).map_err(|error| format!("no JSON: {error}"))?;
    let source = value["source"].as_str().ok_or("no source")?;
    let n = value["n"].as_u64().ok_or("no number")?;
    let sent: Value = serde_json::from_str(&body(source, n)).map_err(|error| error.to_string())?;
    let mut expected = sent;
    for key in SECRET_KEYS {
        expected[key] = json!(REDACTED);
    }
    if value != expected {
        return Err(format!("event {n} of `{source}` was changed: {delivered}"));
    }
    Ok((source.to_owned(), n))
}
