//! Sends events to any server over HTTP: each by itself, or a batch at a time.
//!
//! What the server answers decides: 2xx is done; 408, 425, 429 and 5xx come again, not before the
//! server's `retry-after`; anything else cannot be taken and is rejected. Without an answer the
//! events come again. Every attempt at the same events carries the same `idempotency-key`, made from
//! their origin ids, for servers that know such keys.
//!
//! Settings: `url`, `method`, `headers`, `timeout-ms`; `send`, `event` (default: one request for
//! each event, its body as it is) or `batch` (a JSON array of `{"headers", "body"}`, whose bodies
//! must be text); `key-header`, empty for none.

use std::sync::OnceLock;

use endpoint::Endpoint;
use levada_sdk::{Batch, Event, Failure, Outcome, Outcomes, http::Response, settings, sink};

struct Webhook {
    endpoint: Endpoint,
    method: String,
    send: Send,
    /// The name of the header with the key; none if it is empty.
    key_header: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Send {
    Event,
    Batch,
}

#[sink(batch)]
fn webhook(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static WEBHOOK: OnceLock<Result<Webhook, Failure>> = OnceLock::new();
    let webhook = WEBHOOK.get_or_init(Webhook::read).as_ref();
    webhook.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl Webhook {
    fn read() -> Result<Self, Failure> {
        Ok(Self {
            endpoint: Endpoint::read()?,
            method: settings::get("method").unwrap_or_else(|| "POST".into()),
            send: endpoint::word("send", &[("event", Send::Event), ("batch", Send::Batch)])?,
            key_header: settings::get("key-header").unwrap_or_else(|| "idempotency-key".into()),
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        match self.send {
            Send::Event => self.each(batch, outcomes),
            Send::Batch => self.whole(batch, outcomes),
        }
    }

    /// One request after the other. A server that is not there, or asks to wait, is not asked again
    /// for the events that follow: they come again with this one.
    fn each(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        for (n, event) in batch.iter().enumerate() {
            let outcome = match self.one(&event, n) {
                Ok(response) => response.outcome(),
                Err(failure) if n == 0 => return Err(failure),
                Err(failure) => failure.into(),
            };
            let again = matches!(outcome, Outcome::Retry { .. });
            outcomes.push(outcome.clone());
            if again {
                (n + 1..batch.len()).for_each(|_| outcomes.push(outcome.clone()));
                return Ok(());
            }
        }
        Ok(())
    }

    fn one(&self, event: &Event<'_>, n: usize) -> Result<Response, Failure> {
        let key = match event.id() {
            Some(id) => id.to_string(),
            None => format!("{}-{n}", endpoint::batch_key()),
        };
        self.send(&key, "application/octet-stream", event.body())
    }

    /// All events that are text in one request.
    fn whole(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let mut body = String::from("[");
        for event in batch {
            let Some(text) = event.text() else {
                continue;
            };
            if body.len() > 1 {
                body.push(',');
            }
            endpoint::write_event(&event, text, &mut body);
        }
        body.push(']');
        let outcome = match body.len() {
            2 => Outcome::Done,
            _ => {
                let response = self.send(&endpoint::batch_key(), "application/json", body)?;
                response.outcome()
            }
        };
        for event in batch {
            match event.text() {
                Some(_) => outcomes.push(outcome.clone()),
                None => outcomes.reject("the body is not text: send it with `send = \"event\"`"),
            }
        }
        Ok(())
    }

    fn send(&self, key: &str, kind: &str, body: impl Into<Vec<u8>>) -> Result<Response, Failure> {
        let mut headers = vec![("content-type", kind)];
        if !self.key_header.is_empty() {
            headers.push((&self.key_header, key));
        }
        self.endpoint.send(&self.method, "", &headers, body)
    }
}

#[cfg(test)]
mod tests;
