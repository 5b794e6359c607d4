//! Sends events to Splunk's HTTP Event Collector, at `/services/collector/event`
//! (<https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/format-events-for-http-event-collector>,
//! error codes: `.../troubleshoot-http-event-collector`).
//!
//! **Duplicates.** The collector knows no key: what was taken and not answered is there twice. With
//! `id-field` both have the event's origin id, and a search can leave one out. Indexer
//! acknowledgement is not asked for: 200 is done, so the token must not demand a channel.
//!
//! **What the collector says.** Codes 6, 12, 13 and 15 blame one event, by its number: it is tried
//! alone and rejected with the collector's words; the others are sent again, also those before it,
//! which some versions have taken. 413 is sent again in smaller requests. 429, 5xx and 404 (what
//! Splunk Cloud answers while it is maintained) come again; any other code, such as a token or an
//! index that is wrong, stops the sink until a human has looked.
//!
//! Settings: `url`, `headers`, `timeout-ms`; `event`, `index`, `sourcetype`, `source`,
//! `host-header`, `fields`, `id-field`. The token belongs into `credentials`:
//! `header = "authorization"`, `value = "Splunk ..."`.

use std::sync::OnceLock;

use endpoint::{Endpoint, Part, Reply, millis};
use levada_sdk::{Batch, Event, Failure, Outcomes, http::Response, json, settings, sink};

struct SplunkHec {
    endpoint: Endpoint,
    /// Members that are the same for every event, each with a comma behind it.
    same: String,
    body_is_json: bool,
    host_header: String,
    fields: Vec<String>,
    /// The field with the event's id; none if it is empty.
    id_field: String,
}

#[sink(batch)]
fn splunk_hec(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static SINK: OnceLock<Result<SplunkHec, Failure>> = OnceLock::new();
    let sink = SINK.get_or_init(SplunkHec::read).as_ref();
    sink.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl SplunkHec {
    fn read() -> Result<Self, Failure> {
        let mut same = String::new();
        for name in ["index", "sourcetype", "source"] {
            if let Some(value) = settings::get(name) {
                write_member(name, &value, &mut same);
                same.push(',');
            }
        }
        Ok(Self {
            endpoint: Endpoint::read()?,
            same,
            body_is_json: endpoint::word("event", &[("text", false), ("json", true)])?,
            host_header: settings::get("host-header").unwrap_or_else(|| "host".into()),
            fields: settings::texts("fields")?.unwrap_or_default(),
            id_field: settings::get("id-field").unwrap_or_default(),
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let write = |_, event: &Event<'_>| self.write(event);
        endpoint::deliver(batch, outcomes, write, |part| self.send(part))
    }

    /// One JSON object; several of them are a request.
    fn write(&self, event: &Event<'_>) -> Result<String, String> {
        let text = event.text().ok_or("the body is not text")?;
        let (seconds, millis) = (millis(event) / 1000, millis(event) % 1000);
        let mut out = format!("{{\"time\":{seconds}.{millis:03},{}", self.same);
        if let Some(host) = event.header(&self.host_header) {
            write_member("host", host, &mut out);
            out.push(',');
        }
        out.push_str("\"fields\":");
        let id = event.id().map(|id| id.to_string());
        let id = id.as_deref().filter(|_| !self.id_field.is_empty());
        let fields = self.fields.iter();
        let fields = fields.filter_map(|name| Some((name.as_str(), event.header(name)?)));
        let id = id.map(|id| (self.id_field.as_str(), id));
        json::write_pairs(fields.chain(id), &mut out);
        out.push_str(",\"event\":");
        match self.body_is_json {
            true if json::values_of(text, |_| false).is_err() => {
                return Err("the body is not JSON".into());
            }
            true => out.push_str(text),
            false => json::quote(text, &mut out),
        }
        out.push('}');
        Ok(out)
    }

    fn send(&self, part: &Part<'_, String>) -> Result<Reply, Failure> {
        let kind = [("content-type", "application/json")];
        let body = part.items.concat();
        let path = "/services/collector/event";
        reply(&self.endpoint.send("POST", path, &kind, body)?)
    }
}

fn reply(response: &Response) -> Result<Reply, Failure> {
    match response.status {
        400 => blamed(response).ok_or_else(|| Failure::fatal(response.reason())),
        404 => Err(Failure::retry(response.reason())),
        _ => Reply::of(response),
    }
}

/// Which event the collector blames, counted from 0:
/// `{"text":"Invalid data format","code":6,"invalid-event-number":3}`.
fn blamed(response: &Response) -> Option<Reply> {
    let text = response.text()?;
    let member = |name| json::member(text, name);
    if !matches!(member("code")?, "6" | "12" | "13" | "15") {
        return None;
    }
    Some(Reply::Refused {
        reason: response.reason(),
        at: member("invalid-event-number").and_then(|number| number.parse().ok()),
    })
}

fn write_member(name: &str, value: &str, out: &mut String) {
    json::quote(name, out);
    out.push(':');
    json::quote(value, out);
}

#[cfg(test)]
mod tests;
