//! `levada handler tap`: events before and after a handler, as they pass.

use std::{fmt::Write, ops::ControlFlow};

use anyhow::{Context, Result};
use clap::Args;
use levada_admin::TapOrder;
use serde_json::Value;

use crate::{
    ask::data_of,
    cli::PlaceArgs,
    exit::Exit,
    output::{clean, complain, say},
    run::runtime,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Shows each event as it came, what the handler said of it, and what goes on instead. Asks the running
agent through admin.sock in its data folder; the agent's log says who looked.

CAUTION: events are shown as they are, with the personal data and the secrets that are in them,
before a handler that takes those out and after it. Nothing is masked.

The flow never waits for this: what comes faster than it can be shown is counted and left out.
Of a body the first 2 KiB are shown, of what came out of one event the first three. Events that the
handler's own `when` leaves out are not its events. A reload that replaces the handler ends this.

Examples:
  levada handler tap redact --conf edge.toml
  levada handler tap redact --conf edge.toml --count 10 --filter 'header(\"type\") == \"log\"'
  levada handler tap redact --data /var/lib/levada --json | jq .verdict")]
pub(crate) struct TapArgs {
    /// The handler's name in the agent's configuration
    #[arg(value_name = "NAME")]
    handler: String,
    /// Ends after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Only events for which this condition holds before the handler; written as `when` is
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Shows what passes until there is enough, or the agent ends it.
pub(super) fn run(args: &TapArgs) -> Result<Exit> {
    let data = match data_of(&args.place) {
        Ok((data, _)) => data,
        Err(exit) => return Ok(exit),
    };
    let order = TapOrder {
        handler: args.handler.clone(),
        filter: args.filter.clone(),
    };
    let mut left = args.count;
    let mut said = Ok(());
    let each = |line: &str| {
        if left == Some(0) {
            return ControlFlow::Break(());
        }
        let sight: Value = serde_json::from_str(line).unwrap_or_default();
        said = match args.place.json {
            true => say(&format!("{line}\n")),
            false => say(&shown(&sight)),
        };
        if sight["verdict"].is_string() {
            left = left.map(|left| left - 1);
        }
        match said.is_err() || left == Some(0) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let (status, body) = runtime()?.block_on(levada_admin::watch(&data, &order.path(), each))?;
    said?;
    if status == 200 {
        if left != Some(0) {
            complain("the handler was replaced, or the agent stops\n");
        }
        return Ok(Exit::Ok);
    }
    let answer: Value = serde_json::from_slice(&body).context("the agent's answer is no JSON")?;
    let error = answer["error"]
        .as_str()
        .unwrap_or("the agent does not know taps");
    complain(&format!("error: {}\n", clean(error)));
    Ok(Exit::Failed)
}

/// A sight for people.
fn shown(sight: &Value) -> String {
    let text = |key: &str| sight[key].as_str().map(clean);
    if let Some(missed) = sight["missed"].as_u64() {
        return format!("... {missed} more came and could not be shown\n");
    }
    let on = text("on").unwrap_or_default();
    if let Some(why) = text("unhandled") {
        let events = sight["events"].as_u64().unwrap_or_default();
        return format!("{on}: {events} events not handled: {why}\n");
    }
    let mut out = format!("{on}: {}", text("verdict").unwrap_or_default());
    if let Some(why) = text("reason") {
        let _written = write!(out, ": {why}");
    }
    out.push('\n');
    let _written = writeln!(out, "  before  {}", event(&sight["before"]));
    for after in sight["after"].as_array().into_iter().flatten() {
        let _written = writeln!(out, "  after   {}", event(after));
    }
    if let Some(more) = sight["more"].as_u64() {
        let _written = writeln!(out, "  after   ... and {more} more");
    }
    for line in sight["backtrace"].as_str().into_iter().flat_map(str::lines) {
        let _written = writeln!(out, "  {}", clean(line));
    }
    out
}

/// An event on one line.
fn event(event: &Value) -> String {
    let headers = event["headers"].as_object().into_iter().flatten();
    let headers = headers.map(|(name, value)| format!("{}={value}", clean(name)));
    let headers: Vec<_> = headers.collect();
    let body = match (&event["body"], &event["body64"]) {
        (Value::String(text), _) => clean(text),
        (_, Value::String(text)) => format!("base64 {text}"),
        _ => String::new(),
    };
    format!("{{{}}} {body}", clean(&headers.join(" ")))
}
