//! Inserts events into a table of ClickHouse, over HTTP as `JSONEachRow`
//! (<https://clickhouse.com/docs/interfaces/http>).
//!
//! **Duplicates.** Every insert has an `insert_deduplication_token` of its own events: the server
//! takes it once, however often it is sent (replicated tables; others where
//! `non_replicated_deduplication_window` is set). After a kill events may come again in other
//! company, and then under another token; a column `id-field` and a `ReplacingMergeTree` ordered by
//! it remove those, too.
//!
//! **What the server says.** Whatever the status: an error `at row N` blames that row, which is tried
//! alone and rejected with the server's words; nothing of such an insert is stored, and the other
//! rows are sent again. 413 is sent again in smaller inserts. 408, 429 and 5xx (too many parts, no
//! memory) come again; anything else, such as a table or a column that is not there, stops the sink
//! until a human has looked. A member that is no column is left out by default; where that is not
//! wanted, the parameter `input_format_skip_unknown_fields = "0"` makes it an error of its row.
//!
//! Settings: `url`, `headers`, `timeout-ms`; `table`, `parameters`; `document`, `time-field`,
//! `id-field`. User and password belong into `credentials`.

use std::sync::OnceLock;

use endpoint::{Documents, Endpoint, Part, Reply};
use levada_sdk::{Batch, Event, Failure, Outcomes, http::Response, settings, sink};

struct ClickHouse {
    endpoint: Endpoint,
    table: String,
    parameters: Vec<(String, String)>,
    documents: Documents,
}

#[sink(batch)]
fn clickhouse(batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
    static SINK: OnceLock<Result<ClickHouse, Failure>> = OnceLock::new();
    let sink = SINK.get_or_init(ClickHouse::read).as_ref();
    sink.map_err(Clone::clone)?.deliver(batch, outcomes)
}

impl ClickHouse {
    fn read() -> Result<Self, Failure> {
        Ok(Self {
            endpoint: Endpoint::read()?,
            table: endpoint::needed("table", "where rows go")?,
            parameters: endpoint::table("parameters")?,
            documents: Documents {
                id_field: settings::get("id-field").unwrap_or_default(),
                ..Documents::read("timestamp")?
            },
        })
    }

    fn deliver(&self, batch: &Batch<'_>, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let write = |_, event: &Event<'_>| self.documents.write(event);
        endpoint::deliver(batch, outcomes, write, |part| self.send(part))
    }

    fn send(&self, part: &Part<'_, String>) -> Result<Reply, Failure> {
        let insert = format!("INSERT INTO {} FORMAT JSONEachRow", self.table);
        let token = part.key();
        let own = [("query", &*insert), ("insert_deduplication_token", &*token)];
        let more = self.parameters.iter();
        let more = more.map(|(name, value)| (&**name, &**value));
        let path = format!("/{}", endpoint::query(own.into_iter().chain(more)));
        let kind = [("content-type", "application/x-ndjson")];
        let body = part.items.join("\n") + "\n";
        reply(&self.endpoint.send("POST", &path, &kind, body)?)
    }
}

fn reply(response: &Response) -> Result<Reply, Failure> {
    let code = response.header("x-clickhouse-exception-code");
    match response.status {
        200 if code.is_some() => Err(Failure::retry(response.reason())),
        status if status >= 400 && blamed(response).is_some() => Ok(Reply::Refused {
            reason: response.reason(),
            at: blamed(response),
        }),
        // A query that the server does not understand is no row's fault.
        400 => Err(Failure::fatal(response.reason())),
        _ => Reply::of(response),
    }
}

/// The row that an error is about, counted from 0: the server counts from 1, as in
/// `Cannot parse input: ... (at row 3)`.
fn blamed(response: &Response) -> Option<usize> {
    let (_, rest) = response.text()?.split_once("at row ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests;
