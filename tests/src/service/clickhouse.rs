//! ClickHouse's HTTP interface, as far as rows are inserted (<https://clickhouse.com/docs/interfaces/http>).

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use super::{
    Protocol,
    request::{Answer, Request},
};

/// A server with the table `events (id String, n UInt64, text String)`, which takes an insert with a
/// token that it knows for done.
#[derive(Debug, Default)]
pub struct ClickHouse {
    pub rows: Vec<Value>,
    /// Inserts by token.
    tokens: BTreeMap<String, Bytes>,
    /// How many inserts came whose token was known.
    pub repeated: usize,
}

const INSERT: &str = "INSERT INTO events FORMAT JSONEachRow";

#[async_trait]
impl Protocol for ClickHouse {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        request.posts("/", "application/x-ndjson")?;
        let user = (
            request.header("x-clickhouse-user"),
            request.header("x-clickhouse-key"),
        );
        if user != ("levada", "s3cret") {
            let why = "levada: Authentication failed: password is incorrect";
            return Ok(exception(403, 516, why));
        }
        let mut query = request.query.clone();
        let mut parameter = |name: &str| query.remove(name).with_context(|| format!("no `{name}`"));
        let insert = parameter("query")?;
        let token = parameter("insert_deduplication_token")?;
        ensure!(!token.is_empty(), "an empty token");
        ensure!(query.is_empty(), "unknown settings: {query:?}");
        if insert != INSERT {
            let why = format!("Syntax error: failed at position 1: {insert}");
            return Ok(exception(400, 62, &why));
        }
        let mut rows = Vec::new();
        for line in request.lines()? {
            let number = rows.len() + 1;
            match row(line) {
                Ok(row) => rows.push(row),
                Err((code, why)) => {
                    let why = format!("{why}: (at row {number})\n");
                    return Ok(exception(400, code, &why));
                }
            }
        }
        match self.tokens.get(&token) {
            Some(before) => {
                ensure!(*before == request.body, "a token for two inserts");
                self.repeated += 1;
            }
            None => {
                self.tokens.insert(token, request.body.clone());
                self.rows.extend(rows);
            }
        }
        Ok(Answer::new(200))
    }
}

/// A row of the table, or the code and the text of the exception.
fn row(line: &str) -> Result<Value, (u16, String)> {
    let cannot = |what: &str| (27, format!("Cannot parse input: expected {what}"));
    let row: Value = serde_json::from_str(line).map_err(|_| cannot("'{'"))?;
    for (name, value) in row.as_object().ok_or_else(|| cannot("'{'"))? {
        let is_sound = match name.as_str() {
            "id" | "text" => value.is_string(),
            "n" => value.is_u64(),
            _ => {
                let why = format!("Unknown field found while parsing JSONEachRow format: {name}");
                return Err((117, why));
            }
        };
        if !is_sound {
            return Err(cannot(&format!("another value before: '{value}'")));
        }
    }
    Ok(row)
}

fn exception(status: u16, code: u16, why: &str) -> Answer {
    let answer = Answer::new(status).with_header("x-clickhouse-exception-code", code.to_string());
    answer.with_body(format!("Code: {code}. DB::Exception: {why}"))
}
