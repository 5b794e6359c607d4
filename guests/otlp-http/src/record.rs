//! One event as a log record
//! (<https://opentelemetry.io/docs/specs/otel/logs/data-model/>).

use levada_sdk::{Event, json};

/// The attribute by which records that came twice are found.
const UID: &str = "log.record.uid";

/// A record as JSON. Numbers of 64 bits are texts there, and enumerations numbers.
pub(crate) fn write(
    event: &Event<'_>,
    time_ms: u64,
    received_ms: u64,
    severity: Option<&str>,
) -> String {
    let nanos = |millis: u64| millis.saturating_mul(1_000_000);
    let mut out = format!(
        "{{\"timeUnixNano\":\"{}\",\"observedTimeUnixNano\":\"{}\",",
        nanos(time_ms),
        nanos(received_ms)
    );
    if let Some(word) = severity {
        let number = severity_number(word);
        out.push_str(&format!("\"severityNumber\":{number},\"severityText\":"));
        json::quote(word, &mut out);
        out.push(',');
    }
    out.push_str("\"body\":{");
    match event.text() {
        Some(text) => {
            out.push_str("\"stringValue\":");
            json::quote(text, &mut out);
        }
        None => {
            out.push_str("\"bytesValue\":\"");
            base64(event.body(), &mut out);
            out.push('"');
        }
    }
    let id = event.id().map(|id| id.to_string());
    let id = id.as_deref().map(|id| (UID, id));
    out.push_str("},\"attributes\":[");
    out.push_str(&attributes(event.headers().chain(id)));
    out.push_str("]}");
    out
}

/// Attributes as the elements of a JSON array.
pub(crate) fn attributes<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str("{\"key\":");
        json::quote(name, &mut out);
        out.push_str(",\"value\":{\"stringValue\":");
        json::quote(value, &mut out);
        out.push_str("}}");
    }
    out
}

/// The number of a severity; 0 for a word that says none.
fn severity_number(word: &str) -> u8 {
    match word.to_ascii_lowercase().as_str() {
        "trace" => 1,
        "debug" => 5,
        "info" | "information" | "informational" => 9,
        "notice" => 10,
        "warn" | "warning" => 13,
        "error" | "err" => 17,
        "critical" | "crit" => 18,
        "fatal" | "alert" => 21,
        "panic" | "emergency" | "emerg" => 24,
        _ => 0,
    }
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = group >> (18 - 6 * n) & 63;
            out.push(match n <= chunk.len() {
                true => DIGITS[digit as usize].into(),
                false => '=',
            });
        }
    }
}

#[cfg(test)]
mod tests;
