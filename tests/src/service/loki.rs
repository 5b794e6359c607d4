//! Grafana Loki's push API in JSON
//! (<https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs>).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{
    Protocol,
    request::{Answer, Request, only},
};

/// A Loki with one tenant.
#[derive(Debug, Default)]
pub struct Loki {
    pub tenant: String,
    /// The longest line that is taken, in bytes.
    pub longest: usize,
    /// What was taken: labels, time, line.
    pub lines: BTreeSet<(String, u64, String)>,
    /// How many lines came that were there.
    pub repeated: usize,
}

#[async_trait]
impl Protocol for Loki {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        request.posts("/loki/api/v1/push", "application/json")?;
        if request.header("x-scope-orgid") != self.tenant {
            return Ok(Answer::new(401).with_body("no org id\n"));
        }
        let body: Value = serde_json::from_str(request.text()?)?;
        only(&body, &["streams"])?;
        let streams = body["streams"].as_array().context("no streams")?;
        ensure!(!streams.is_empty(), "no streams");
        let mut fault = None;
        let mut labels = BTreeSet::new();
        for stream in streams {
            only(stream, &["stream", "values"])?;
            let own = self.push(stream)?;
            ensure!(labels.insert(own.0), "a stream is there twice");
            fault = own.1.or(fault);
        }
        // What is sound was taken nevertheless.
        Ok(match fault {
            None => Answer::new(204),
            Some(fault) => Answer::new(400).with_body(fault),
        })
    }
}

impl Loki {
    /// Takes the lines of a stream; gives its labels, and what was wrong with a line.
    fn push(&mut self, stream: &Value) -> Result<(String, Option<String>)> {
        let labels = stream["stream"].as_object().context("no labels")?;
        ensure!(!labels.is_empty(), "a stream without a label");
        for (name, value) in labels {
            ensure!(is_name(name), "`{name}` is no name of a label");
            ensure!(value.is_string(), "`{name}` is no text");
        }
        let labels = stream["stream"].to_string();
        let values = stream["values"].as_array().context("no values")?;
        ensure!(!values.is_empty(), "a stream without a line");
        let mut fault = None;
        for value in values {
            let value = value.as_array().context("a line is no array")?;
            ensure!(
                (2..=3).contains(&value.len()),
                "a line of {} parts",
                value.len()
            );
            // The time is a text: a number is refused.
            let time: u64 = value[0].as_str().context("the time is no text")?.parse()?;
            let line = value[1].as_str().context("the line is no text")?;
            let none = Map::new();
            let metadata = value.get(2).map_or(Some(&none), Value::as_object);
            let metadata = metadata.context("the metadata is no object")?;
            ensure!(metadata.values().all(Value::is_string), "metadata: no text");
            let (bytes, most) = (line.len(), self.longest);
            if bytes > most {
                fault = Some(format!(
                    "Max entry size '{most}' bytes exceeded for stream '{labels}' while adding an \
                     entry with length '{bytes}' bytes"
                ));
            } else if !self.lines.insert((labels.clone(), time, line.to_owned())) {
                self.repeated += 1;
            }
        }
        Ok((labels, fault))
    }
}

fn is_name(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
