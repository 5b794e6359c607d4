//! Pushes events to Grafana Loki as log lines, at `/loki/api/v1/push`
//! (<https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs>).
//!
//! **Duplicates.** Loki knows no key, but does not store a line twice that has the same labels, time
//! and text. So every line has a time of its own: the header `timestamp`, and below the millisecond
//! the event's own number. An event that comes again is the same line; two events never are. Without
//! that header (the interceptor `timestamp` sets it) the time is the one of reception, and what comes
//! again after a kill may be there twice.
//!
//! **What the server says.** 2xx is done. 400 and 413: some lines are wrong (too old, too long), or
//! there are too many; smaller requests show which, and those are rejected with the server's words.
//! The others it has taken already, and does not take twice. 429 and 5xx come again; anything else
//! stops the sink until a human has looked.
//!
//! Settings: `url`, `headers` (such as `x-scope-orgid`), `timeout-ms`; `labels`, `label-headers`,
//! `metadata-headers`.

use std::{collections::BTreeMap, sync::OnceLock};

use endpoint::{Endpoint, Part, Reply, nanos};
use levada_sdk::{Batch, Event, Failure, Outcomes, json, settings, sink};

struct Loki {
    endpoint: Endpoint,
    labels: Vec<(String, String)>,
    /// Names of headers, with the labels that they become.
    label_headers: Vec<(String, String)>,
    metadata_headers: Vec<(String, String)>,
}

/// A line, and the stream that it belongs to, both as JSON.
struct Line {
    stream: String,
    entry: String,
}

#[sink(batch)]
fn loki(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static SINK: OnceLock<Result<Loki, Failure>> = OnceLock::new();
    let sink = SINK.get_or_init(Loki::read).as_ref();
    sink.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl Loki {
    fn read() -> Result<Self, Failure> {
        let mut labels = endpoint::table("labels")?;
        if labels.is_empty() {
            // A stream has one label at least.
            labels.push(("job".into(), "levada".into()));
        }
        Ok(Self {
            endpoint: Endpoint::read()?,
            labels,
            label_headers: named(settings::texts("label-headers")?),
            metadata_headers: named(settings::texts("metadata-headers")?),
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let write = |place, event: &Event<'_>| self.write(place, event);
        endpoint::deliver(batch, outcomes, write, |part| self.send(part))
    }

    fn write(&self, place: usize, event: &Event<'_>) -> Result<Line, String> {
        let text = event.text().ok_or("the body is not text")?;
        let mut stream = String::new();
        let same = self.labels.iter().map(|(name, value)| (&**name, &**value));
        json::write_pairs(same.chain(headers(event, &self.label_headers)), &mut stream);
        let mut entry = format!("[\"{}\",", nanos(place, event));
        json::quote(text, &mut entry);
        if !self.metadata_headers.is_empty() {
            entry.push(',');
            json::write_pairs(headers(event, &self.metadata_headers), &mut entry);
        }
        entry.push(']');
        Ok(Line { stream, entry })
    }

    fn send(&self, part: &Part<'_, Line>) -> Result<Reply, Failure> {
        let mut streams: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Line { stream, entry } in part.items {
            streams.entry(stream).or_default().push(entry);
        }
        let stream = |(labels, entries): (&str, Vec<&str>)| {
            format!("{{\"stream\":{labels},\"values\":[{}]}}", entries.join(","))
        };
        let streams: Vec<_> = streams.into_iter().map(stream).collect();
        let body = format!("{{\"streams\":[{}]}}", streams.join(","));
        let kind = [("content-type", "application/json")];
        Reply::of(
            &self
                .endpoint
                .send("POST", "/loki/api/v1/push", &kind, body)?,
        )
    }
}

/// Headers, each with a name that a label may have: letters, digits and `_`, no digit first.
fn named(headers: Option<Vec<String>>) -> Vec<(String, String)> {
    let label = |header: &str| {
        let first = header.starts_with(|c: char| c.is_ascii_digit());
        let rest = header.chars().map(|c| match c {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        });
        first.then_some('_').into_iter().chain(rest).collect()
    };
    let headers = headers.unwrap_or_default().into_iter();
    headers.map(|header| (label(&header), header)).collect()
}

/// What an event says under these names.
fn headers<'a>(
    event: &Event<'a>,
    names: &'a [(String, String)],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let event = *event;
    names
        .iter()
        .filter_map(move |(name, header)| Some((name.as_str(), event.header(header)?)))
}

#[cfg(test)]
mod tests;
