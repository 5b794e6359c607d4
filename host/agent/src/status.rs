//! `levada status`: the parts of an agent, its channels, and what waits for what.

use std::fmt::Write;

use anyhow::Result;
use levada_core::{Clock, SystemClock};
use serde_json::Value;

use crate::{
    ask::Place,
    channel,
    cli::PlaceArgs,
    exit::Exit,
    output::{clean, say, say_json, warned},
    run::runtime,
    table::{Table, number, seconds, size},
};

/// Shows an agent, running or not.
pub(crate) fn status(args: &PlaceArgs) -> Result<Exit> {
    let status = runtime()?.block_on(async {
        match Place::find(args).await? {
            Ok(place) => place.status().await.map(Ok),
            Err(exit) => Ok(Err(exit)),
        }
    });
    let status = match status? {
        Ok(status) => status,
        Err(exit) => return Ok(exit),
    };
    if args.json {
        say_json(&status)?;
    } else {
        say(&shown(&status, SystemClock.wall_ms()))?;
    }
    Ok(Exit::Ok)
}

/// The status for people; ages are as of `now_ms`.
pub(crate) fn shown(status: &Value, now_ms: u64) -> String {
    let mut out = String::new();
    head(status, now_ms, &mut out);
    if status["parts"]
        .as_array()
        .is_some_and(|parts| !parts.is_empty())
    {
        out.push('\n');
        out.push_str(&parts(&status["parts"], now_ms));
    }
    if status["channels"]
        .as_array()
        .is_some_and(|channels| !channels.is_empty())
    {
        out.push('\n');
        out.push_str(&channel::table(&status["channels"], now_ms));
    }
    if !status["store"].is_null() {
        out.push('\n');
        store(&status["store"], &mut out);
    }
    out
}

fn head(status: &Value, now_ms: u64, out: &mut String) {
    let agent = clean(status["agent"].as_str().unwrap_or("agent"));
    if !status["running"].as_bool().unwrap_or_default() {
        let _written = writeln!(out, "{agent} does not run; this is what its store holds");
        return;
    }
    let health = status["health"]["status"].as_str().unwrap_or_default();
    let up = now_ms.saturating_sub(status["started-ms"].as_u64().unwrap_or(now_ms)) / 1000;
    let _written = writeln!(
        out,
        "{agent} is {health}: levada {}, pid {}, up {}",
        status["version"].as_str().unwrap_or_default(),
        status["pid"],
        seconds(up)
    );
    for reason in status["health"]["reasons"].as_array().into_iter().flatten() {
        let _written = writeln!(
            out,
            "  {health}: {}",
            clean(reason.as_str().unwrap_or_default())
        );
    }
    for risk in status["risks"].as_array().into_iter().flatten() {
        let line = format!("  risk: {}", clean(risk.as_str().unwrap_or_default()));
        let _written = writeln!(out, "{}", warned(line));
    }
    for listening in status["listening"].as_array().into_iter().flatten() {
        let text = |key: &str| clean(listening[key].as_str().unwrap_or_default());
        let _written = writeln!(out, "  {} listens on {}", text("part"), text("at"));
    }
}

fn parts(parts: &Value, now_ms: u64) -> String {
    let mut table = Table::new(&[
        "PART",
        "STATE",
        "FOR",
        "WAITS FOR",
        "RESTARTS",
        "LAST ERROR",
    ]);
    for part in parts.as_array().into_iter().flatten() {
        let text = |key: &str| part[key].as_str().unwrap_or_default().to_owned();
        let since = |at: &Value| {
            at.as_u64()
                .map(|at| seconds(now_ms.saturating_sub(at) / 1000))
                .unwrap_or_default()
        };
        let error = &part["last-error"];
        let error = match error["text"].as_str() {
            Some(text) => format!("{text} ({} ago)", since(&error["at-ms"])),
            None => "-".into(),
        };
        table.row([
            text("part"),
            text("state"),
            since(&part["since-ms"]),
            text("waits-for"),
            part["restarts"].to_string(),
            error,
        ]);
    }
    table.to_string()
}

fn store(store: &Value, out: &mut String) {
    let count = |key: &str| store[key].as_u64().unwrap_or_default();
    let text = |key: &str| clean(store[key].as_str().unwrap_or_default());
    let letters = count("dead-letters");
    let hint = if letters > 0 {
        "; levada dlq ls shows them"
    } else {
        ""
    };
    let _written = writeln!(
        out,
        "dead letters: {} ({}){hint}",
        number(letters),
        size(count("dead-letter-bytes"))
    );
    let _written = write!(
        out,
        "store: {}, {}",
        text("path"),
        size(count("file-bytes"))
    );
    if count("commits") > 0 {
        let _written = write!(
            out,
            ", {} commits, sync {:.1} ms (99 %: {:.1} ms)",
            number(count("commits")),
            count("sync-p50-us") as f64 / 1000.0,
            count("sync-p99-us") as f64 / 1000.0
        );
    }
    if store["probe-is-implausible"].as_bool().unwrap_or_default() {
        let _written = write!(
            out,
            "; its disk syncs in {} us, which is too fast to be true: what is acknowledged may not \
             survive a loss of power",
            count("probe-sync-us")
        );
    }
    if count("quarantined") > 0 {
        let _written = write!(
            out,
            "; {} events were damaged",
            number(count("quarantined"))
        );
    }
    for aside in store["set-aside"].as_array().into_iter().flatten() {
        let aside = clean(aside.as_str().unwrap_or_default());
        let _written = write!(
            out,
            "; a damaged file is at {aside}: levada channel salvage reads it"
        );
    }
    match text("state").as_str() {
        "ok" | "not running" => out.push('\n'),
        state => {
            let _written = writeln!(out, ", STATE: {state}");
        }
    }
}
