//! Sends events as log records of OpenTelemetry, over OTLP/HTTP in its JSON encoding, to `/v1/logs`
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! **Duplicates.** The protocol knows no key. Every record has the event's origin id as its attribute
//! `log.record.uid`, by which the conventions let others remove what came twice.
//!
//! **What the server says**, as the protocol wants it heard: 429, 502, 503 and 504 come again, not
//! before the server's `retry-after`. 400 and 413 are never sent again as they were: smaller requests
//! show which record is wrong, and that one is rejected with the server's words. 401, 403 and 404
//! stop the sink until a human has looked. Everything else is rejected. Where the server took a part
//! of a request and does not say which, nothing is sent again; the setting `partial` says what
//! becomes of the events.
//!
//! Settings: `url`, `headers`, `timeout-ms`; `resource`, `severity-header`, `partial`.

use std::sync::OnceLock;

use endpoint::{Endpoint, Part, Reply, millis};
use levada_sdk::{
    Batch, Event, Failure, Outcome, Outcomes, call, http::Response, json, log, settings, sink,
};

mod record;

struct OtlpHttp {
    endpoint: Endpoint,
    /// Attributes, as the elements of a JSON array.
    resource: String,
    severity_header: String,
    partial: Partial,
}

/// What becomes of events of which the server took some.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Partial {
    Reject,
    Accept,
}

#[sink(batch)]
fn otlp_http(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static SINK: OnceLock<Result<OtlpHttp, Failure>> = OnceLock::new();
    let sink = SINK.get_or_init(OtlpHttp::read).as_ref();
    sink.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl OtlpHttp {
    fn read() -> Result<Self, Failure> {
        let mut resource = endpoint::table("resource")?;
        if resource.is_empty() {
            resource.push(("service.name".into(), "levada".into()));
        }
        let pairs = resource.iter().map(|(name, value)| (&**name, &**value));
        let partial = [("reject", Partial::Reject), ("accept", Partial::Accept)];
        Ok(Self {
            endpoint: Endpoint::read()?,
            resource: record::attributes(pairs),
            severity_header: settings::get("severity-header").unwrap_or_else(|| "level".into()),
            partial: endpoint::word("partial", &partial)?,
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let received_ms = call::received_ms() as u64;
        let write = |_, event: &Event<'_>| {
            let severity = event.header(&self.severity_header);
            Ok(record::write(event, millis(event), received_ms, severity))
        };
        endpoint::deliver(batch, outcomes, write, |part| self.send(part))
    }

    fn send(&self, part: &Part<'_, String>) -> Result<Reply, Failure> {
        let body = format!(
            "{{\"resourceLogs\":[{{\"resource\":{{\"attributes\":[{}]}},\"scopeLogs\":[{{\"scope\":\
             {{\"name\":\"levada\"}},\"logRecords\":[{}]}}]}}]}}",
            self.resource,
            part.items.join(",")
        );
        let kind = [("content-type", "application/json")];
        let response = self.endpoint.send("POST", "/v1/logs", &kind, body)?;
        self.reply(&response, part.items.len())
    }

    fn reply(&self, response: &Response, sent: usize) -> Result<Reply, Failure> {
        match response.status {
            200..=299 => Ok(self.taken(response, sent)),
            400 | 413 => Ok(Reply::refused(response.reason())),
            401 | 403 | 404 | 429 | 502..=504 => Err(response.failure()),
            _ => Ok(Reply::Each(vec![Outcome::reject(response.reason()); sent])),
        }
    }

    /// Looks how many of the records were taken:
    /// `{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "..."}}`.
    fn taken(&self, response: &Response, sent: usize) -> Reply {
        let text = response.text().unwrap_or_default();
        let partial = json::member(text, "partialSuccess").unwrap_or("{}");
        let rejected = json::member(partial, "rejectedLogRecords").unwrap_or("0");
        let rejected: usize = rejected.trim_matches('"').parse().unwrap_or(0);
        let message = json::member(partial, "errorMessage").and_then(json::unquote);
        let message = message.unwrap_or_default();
        if rejected == 0 && message.is_empty() {
            return Reply::Done;
        }
        let why = match rejected {
            n if n < sent => format!("{n} of {sent} rejected, not said which: {message}"),
            _ => format!("rejected: {message}"),
        };
        if rejected >= sent || (rejected > 0 && self.partial == Partial::Reject) {
            return Reply::Each(vec![Outcome::reject(why); sent]);
        }
        log::warn(&why);
        Reply::Done
    }
}

#[cfg(test)]
mod tests;
