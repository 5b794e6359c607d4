//! Writes events as points to InfluxDB, with the write API of version 2
//! (<https://docs.influxdata.com/influxdb/v2/api/v2/#operation/PostWrite>,
//! <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>).
//!
//! **Duplicates.** A point with the same measurement, tags and time replaces the one that is there.
//! So every point has a time of its own: the header `timestamp`, and below the millisecond the
//! event's own number. An event that comes again is the same point; two events never are. Without
//! that header (the interceptor `timestamp` sets it) the time is the one of reception, and what comes
//! again after a kill may be there twice. Of `format = "line"` the times are the sender's own.
//!
//! **What the server says.** 2xx is done. 400, 413 and 422: a point is wrong, or there are too many;
//! smaller requests show which, and those are rejected with the server's words. The others are
//! written again over themselves, where the server has taken them already. 429 and 5xx come again,
//! not before the server's `retry-after`; anything else, such as a bucket that is not there, stops
//! the sink until a human has looked.
//!
//! Settings: `url`, `headers`, `timeout-ms`; `org`, `bucket`; `format`, `measurement`,
//! `measurement-header`, `tags`. The token belongs into `credentials`: `header = "authorization"`,
//! `value = "Token ..."`.

use std::sync::OnceLock;

use endpoint::{Endpoint, Part, Reply, nanos};
use levada_sdk::{Batch, Event, Failure, Outcomes, settings, sink};

mod line;

struct Influx {
    endpoint: Endpoint,
    /// The path with its query.
    path: String,
    format: Format,
    measurement: String,
    /// The header whose value is the measurement.
    measurement_header: Option<String>,
    tags: Vec<String>,
}

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Line,
}

#[sink(batch)]
fn influx(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static SINK: OnceLock<Result<Influx, Failure>> = OnceLock::new();
    let sink = SINK.get_or_init(Influx::read).as_ref();
    sink.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl Influx {
    fn read() -> Result<Self, Failure> {
        let org = endpoint::needed("org", "whose bucket it is")?;
        let bucket = endpoint::needed("bucket", "where points go")?;
        let query = [("org", &*org), ("bucket", &*bucket), ("precision", "ns")];
        Ok(Self {
            endpoint: Endpoint::read()?,
            path: format!("/api/v2/write{}", endpoint::query(query)),
            format: endpoint::word("format", &[("json", Format::Json), ("line", Format::Line)])?,
            measurement: settings::get("measurement").unwrap_or_else(|| "events".into()),
            measurement_header: settings::get("measurement-header"),
            tags: settings::texts("tags")?.unwrap_or_default(),
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let write = |place, event: &Event<'_>| self.write(place, event);
        endpoint::deliver(batch, outcomes, write, |part| self.send(part))
    }

    fn write(&self, place: usize, event: &Event<'_>) -> Result<String, String> {
        let text = event.text().ok_or("the body is not text")?;
        match self.format {
            Format::Line if text.trim().is_empty() => Err("the body is empty".into()),
            Format::Line => Ok(text.trim_end().to_owned()),
            Format::Json => {
                let header = self.measurement_header.as_deref();
                let measurement = header.and_then(|name| event.header(name));
                let tags = self.tags.iter();
                let tags = tags.filter_map(|name| Some((name.as_str(), event.header(name)?)));
                let measurement = measurement.unwrap_or(&self.measurement);
                line::write(measurement, tags, text, nanos(place, event))
            }
        }
    }

    fn send(&self, part: &Part<'_, String>) -> Result<Reply, Failure> {
        let kind = [("content-type", "text/plain; charset=utf-8")];
        let body = part.items.join("\n") + "\n";
        Reply::of(&self.endpoint.send("POST", &self.path, &kind, body)?)
    }
}

#[cfg(test)]
mod tests;
