//! Elasticsearch's bulk API, as far as documents are created
//! (<https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>); and the way to a
//! real server.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Protocol,
    request::{Answer, Request, only},
};
use crate::http::Connection;

/// One index whose field `n` is a number.
#[derive(Debug, Default)]
pub struct Elasticsearch {
    /// What was created, by index and id.
    pub documents: BTreeMap<(String, String), Value>,
    /// How many were there already.
    pub conflicts: usize,
    /// The largest body that is taken; any if it is 0.
    pub most_bytes: usize,
    /// Documents with this `n` are told to come again, once.
    pub busy_at: Option<u64>,
}

/// Hands every request on to a real server.
#[derive(Debug)]
pub struct Forward {
    pub to: SocketAddr,
}

#[async_trait]
impl Protocol for Elasticsearch {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        request.posts("/_bulk", "application/x-ndjson")?;
        if self.most_bytes > 0 && request.body.len() > self.most_bytes {
            return Ok(Answer::new(413));
        }
        let lines = request.lines()?;
        ensure!(lines.len() % 2 == 0, "an action without its document");
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let action: Value = serde_json::from_str(pair[0]).context("an action is no JSON")?;
            only(&action, &["create"])?;
            only(&action["create"], &["_index", "_id"])?;
            let member = |name| action["create"][name].as_str().map(str::to_owned);
            let index = member("_index").context("an action without an index")?;
            let id = member("_id").context("an action without an id")?;
            let item = self.create(&index, &id, pair[1]);
            items.push(json!({ "create": item }));
        }
        let errors = items.iter().any(|item| item["create"]["error"].is_object());
        let body = json!({ "took": 1, "errors": errors, "items": items });
        Ok(Answer::json(200, &body))
    }
}

impl Elasticsearch {
    fn create(&mut self, index: &str, id: &str, document: &str) -> Value {
        let error = |status: u16, kind: &str, reason: &str| {
            let error = json!({ "type": kind, "reason": reason });
            json!({ "_index": index, "_id": id, "status": status, "error": error })
        };
        let parsed: Result<Value, _> = serde_json::from_str(document);
        let number = parsed.as_ref().ok().and_then(|value| value["n"].as_u64());
        let Some(number) = number else {
            return error(
                400,
                "mapper_parsing_exception",
                "failed to parse field [n] of type [long]",
            );
        };
        if self.busy_at == Some(number) {
            self.busy_at = None;
            return error(429, "es_rejected_execution_exception", "queue is full");
        }
        let key = (index.to_owned(), id.to_owned());
        if self.documents.contains_key(&key) {
            self.conflicts += 1;
            let reason = "version conflict, document already exists";
            return error(409, "version_conflict_engine_exception", reason);
        }
        let answer = json!({ "_index": index, "_id": id, "_version": 1, "result": "created", "status": 201 });
        self.documents.insert(key, parsed.unwrap_or_default());
        answer
    }
}

#[async_trait]
impl Protocol for Forward {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        let mut connection = Connection::open(self.to).await?;
        let kind = [("content-type", request.header("content-type"))];
        let (method, path) = (request.method.as_str(), request.path.as_str());
        let body = request.body.clone();
        let answer = connection.send(method, path, &kind, body).await?;
        let headers = Answer::new(answer.status).with_body(answer.text());
        Ok(headers.with_header(
            "content-type",
            answer.header("content-type").unwrap_or_default(),
        ))
    }
}
