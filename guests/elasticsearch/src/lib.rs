//! Indexes events in Elasticsearch or OpenSearch, with the bulk API
//! (<https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>,
//! <https://docs.opensearch.org/2.19/api-reference/document-apis/bulk/>).
//!
//! **Duplicates.** Every document is created under the event's origin id: 409 says that it is there
//! already, and counts as done. Events of a memory channel have no ids; the server makes one for
//! each attempt.
//!
//! **What the server says** of each document: 2xx and 409 are done; 429 and 5xx come again, and so
//! do 401, 403 and 404, which are no document's fault (an index that may not be written to, or is
//! not there); anything else is rejected with the server's reason. Of the whole request: 413 is sent
//! again in smaller ones.
//!
//! Settings: `url`, `headers`, `timeout-ms`; `index`, `index-header`; `document`, `time-field`.

use std::sync::OnceLock;

use endpoint::{Documents, Endpoint, Part, Reply};
use levada_sdk::{Batch, Event, Failure, Outcome, Outcomes, http::Response, json, settings, sink};

struct Elasticsearch {
    endpoint: Endpoint,
    index: String,
    /// The header whose value is the index.
    index_header: Option<String>,
    documents: Documents,
}

#[sink(batch)]
fn elasticsearch(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static SINK: OnceLock<Result<Elasticsearch, Failure>> = OnceLock::new();
    let sink = SINK.get_or_init(Elasticsearch::read).as_ref();
    sink.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl Elasticsearch {
    fn read() -> Result<Self, Failure> {
        Ok(Self {
            endpoint: Endpoint::read()?,
            index: endpoint::needed("index", "where documents go")?,
            index_header: settings::get("index-header"),
            documents: Documents::read("@timestamp")?,
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let write = |_, event: &Event<'_>| self.write(event);
        endpoint::deliver(batch, outcomes, write, |part| self.send(part))
    }

    /// Two lines: what to do, and the document.
    fn write(&self, event: &Event<'_>) -> Result<String, String> {
        let header = self.index_header.as_deref();
        let index = header.and_then(|name| event.header(name));
        let id = event.id().map(|id| id.to_string());
        let id = id.as_deref().map(|id| ("_id", id));
        let mut out = String::from("{\"create\":");
        let index = ("_index", index.unwrap_or(&self.index));
        json::write_pairs([index].into_iter().chain(id), &mut out);
        out.push_str("}\n");
        out.push_str(&self.documents.write(event)?);
        out.push('\n');
        Ok(out)
    }

    fn send(&self, part: &Part<'_, String>) -> Result<Reply, Failure> {
        let kind = [("content-type", "application/x-ndjson")];
        let body = part.items.concat();
        let response = self.endpoint.send("POST", "/_bulk", &kind, body)?;
        match Reply::of(&response)? {
            Reply::Done => each(&response),
            other => Ok(other),
        }
    }
}

/// What the server says of each document.
fn each(response: &Response) -> Result<Reply, Failure> {
    let text = response.text().unwrap_or_default();
    let member = |name| json::member(text, name);
    match (member("errors"), member("items")) {
        (Some("false"), Some(_)) => Ok(Reply::Done),
        (Some("true"), Some(items)) => {
            let created = json::values_of(items, |name| name == "create").unwrap_or_default();
            let created = created.into_iter().filter_map(|range| items.get(range));
            Ok(Reply::Each(created.map(outcome).collect()))
        }
        _ => Err(Failure::retry("the answer is none of the bulk API")),
    }
}

/// What becomes of one document: `{"status": 400, "error": {"type": "...", "reason": "..."}, ...}`.
fn outcome(item: &str) -> Outcome {
    let status = json::member(item, "status").and_then(|status| status.parse().ok());
    let error = json::member(item, "error").unwrap_or("{}");
    let word = |name| json::member(error, name).and_then(json::unquote);
    let (kind, why) = (word("type"), word("reason"));
    let why = [kind, why].into_iter().flatten().collect::<Vec<_>>();
    let answer = Response::new(status.unwrap_or(0)).with_body(why.join(": "));
    match answer.status {
        409 => Outcome::Done,
        // No status is no answer.
        0 | 401 | 403 | 404 => Outcome::retry(answer.reason()),
        _ => answer.outcome(),
    }
}

#[cfg(test)]
mod tests;
