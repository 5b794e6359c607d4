//! One event as one line.

use base64::{Engine, engine::general_purpose::STANDARD};
use levada_core::{EventRef, OriginId};

levada_core::choice! {
    /// How an event is written.
    pub(crate) enum Format {
        /// The body as it is, and a newline; headers are left out, as with Flume's TEXT.
        Text = "text",
        /// A JSON object a line: `headers`, and `body` where it is UTF-8, else `body64`.
        Json = "json",
    }
}

impl Format {
    /// The extension of a file of this format.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Text => "log",
            Self::Json => "jsonl",
        }
    }

    /// Appends an event's line to `out`; a JSON line begins with the id, if there is one.
    pub(crate) fn write(self, event: EventRef<'_>, id: Option<OriginId>, out: &mut Vec<u8>) {
        match self {
            Self::Text => out.extend_from_slice(event.body()),
            Self::Json => write_json(event, id, out),
        }
        out.push(b'\n');
    }
}

fn write_json(event: EventRef<'_>, id: Option<OriginId>, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(format!("\"id\":\"{id}\",").as_bytes());
    }
    out.extend_from_slice(b"\"headers\":{");
    // A name that a foreign peer wrote twice is written once: the last value counts.
    let mut written: Vec<&str> = Vec::new();
    for (name, _) in event.headers() {
        if written.contains(&name) {
            continue;
        }
        if !written.is_empty() {
            out.push(b',');
        }
        written.push(name);
        write_text(name, out);
        out.push(b':');
        write_text(event.header(name).unwrap_or_default(), out);
    }
    match std::str::from_utf8(event.body()) {
        Ok(body) => {
            out.extend_from_slice(b"},\"body\":");
            write_text(body, out);
        }
        Err(_) => {
            out.extend_from_slice(b"},\"body64\":\"");
            out.extend_from_slice(STANDARD.encode(event.body()).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text into memory cannot fail");
}
