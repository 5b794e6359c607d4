//! OTLP/HTTP for logs, in its JSON encoding
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Protocol,
    request::{Answer, Request, only},
};

/// A receiver of logs. A record whose body is `bad` is not taken.
#[derive(Debug, Default)]
pub struct Otlp {
    /// Whether it takes the neighbours of a bad record, and says how many it did not take.
    pub takes_parts: bool,
    /// The records that were taken, in order.
    pub records: Vec<Value>,
    /// Requests that must not come again.
    pub refused: BTreeSet<Bytes>,
}

#[async_trait]
impl Protocol for Otlp {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        request.posts("/v1/logs", "application/json")?;
        let again = self.refused.contains(&request.body);
        ensure!(!again, "what must not be sent again is sent again");
        let body: Value = serde_json::from_str(request.text()?)?;
        only(&body, &["resourceLogs"])?;
        let mut records = Vec::new();
        for resource in array(&body["resourceLogs"])? {
            only(resource, &["resource", "scopeLogs"])?;
            only(&resource["resource"], &["attributes"])?;
            attributes(&resource["resource"])?;
            for scope in array(&resource["scopeLogs"])? {
                only(scope, &["scope", "logRecords"])?;
                only(&scope["scope"], &["name", "version"])?;
                records.extend(array(&scope["logRecords"])?.iter().cloned());
            }
        }
        for record in &records {
            check(record).with_context(|| record.to_string())?;
        }
        Ok(self.take(request, records))
    }
}

impl Otlp {
    fn take(&mut self, request: &Request, records: Vec<Value>) -> Answer {
        let sent = records.len();
        let is_bad = |record: &Value| record["body"]["stringValue"] == "bad";
        let good: Vec<_> = records
            .into_iter()
            .filter(|record| !is_bad(record))
            .collect();
        let bad = sent - good.len();
        if bad == 0 {
            self.records.extend(good);
            return Answer::json(200, &json!({}));
        }
        self.refused.insert(request.body.clone());
        if self.takes_parts {
            self.records.extend(good);
            let partial =
                json!({ "rejectedLogRecords": bad.to_string(), "errorMessage": "it is bad" });
            return Answer::json(200, &json!({ "partialSuccess": partial }));
        }
        Answer::json(400, &json!({ "code": 3, "message": "it is bad" }))
    }
}

fn check(record: &Value) -> Result<()> {
    let members = [
        "timeUnixNano",
        "observedTimeUnixNano",
        "severityNumber",
        "severityText",
        "body",
        "attributes",
    ];
    only(record, &members)?;
    for time in ["timeUnixNano", "observedTimeUnixNano"] {
        let text = record[time].as_str().context("a time is no text")?;
        ensure!(text.parse::<u64>()? > 0, "a time is none");
    }
    if let Some(number) = record.get("severityNumber") {
        let number = number.as_u64().context("a severity is no number")?;
        ensure!(number <= 24, "a severity of {number}");
        ensure!(record["severityText"].is_string(), "a severity is no text");
    }
    only(&record["body"], &["stringValue", "bytesValue"])?;
    match (
        &record["body"]["stringValue"],
        &record["body"]["bytesValue"],
    ) {
        (Value::String(_), Value::Null) => {}
        (Value::Null, Value::String(text)) => {
            BASE64_STANDARD.decode(text).context("not base64")?;
        }
        _ => anyhow::bail!("not one value"),
    }
    attributes(record)
}

fn attributes(of: &Value) -> Result<()> {
    let mut keys = BTreeSet::new();
    for attribute in array(&of["attributes"])? {
        only(attribute, &["key", "value"])?;
        only(&attribute["value"], &["stringValue"])?;
        let key = attribute["key"].as_str().context("a key is no text")?;
        ensure!(keys.insert(key), "the attribute `{key}` is there twice");
        ensure!(attribute["value"]["stringValue"].is_string(), "not a text");
    }
    Ok(())
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("not an array")
}
