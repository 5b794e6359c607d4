//! `levada dlq ls`, `levada dlq show` and `levada dlq replay`.

use std::fmt::Write;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    ask::Place,
    cli::{DlqArgs, DlqLsArgs, DlqShowArgs, DlqVerb},
    exit::Exit,
    order,
    output::{clean, complain, say, say_json},
    run::runtime,
    table::{Table, number, size},
};

/// A reason or a body in a list is cut to so many characters.
const EXCERPT: usize = 60;

/// Shows dead letters.
pub(crate) fn dlq(args: &DlqArgs) -> Result<Exit> {
    match &args.verb {
        DlqVerb::Ls(args) => list(args),
        DlqVerb::Show(args) => show(args),
        DlqVerb::Replay(args) => order::replay(args),
    }
}

fn list(args: &DlqLsArgs) -> Result<Exit> {
    let found = runtime()?.block_on(async {
        match Place::find(&args.place).await? {
            Ok(place) => place.letters(args.after, args.limit).await.map(Ok),
            Err(exit) => Ok(Err(exit)),
        }
    });
    let letters = match found? {
        Ok(letters) => letters,
        Err(exit) => return Ok(exit),
    };
    if args.place.json {
        say_json(&letters)?;
    } else {
        say(&listed(&letters, args.limit))?;
    }
    Ok(Exit::Ok)
}

/// Dead letters in columns.
pub(crate) fn listed(letters: &Value, limit: u64) -> String {
    let letters: Vec<_> = letters.as_array().into_iter().flatten().collect();
    let Some(last) = letters.last() else {
        return "There are no dead letters.\n".into();
    };
    let heads = [
        "ID", "WHEN", "PART", "ON", "TRIES", "SIZE", "REASON", "BODY",
    ];
    let mut table = Table::new(&heads);
    for letter in &letters {
        let text = |key: &str| letter[key].as_str().unwrap_or_default().to_owned();
        let count = |key: &str| letter[key].as_u64().unwrap_or_default();
        table.row([
            count("id").to_string(),
            when(count("at-ms")),
            text("part"),
            text("flow"),
            count("attempts").to_string(),
            size(count("bytes")),
            excerpt(&text("reason")),
            excerpt(&text("body")),
        ]);
    }
    let mut out = table.to_string();
    let id = last["id"].as_u64().unwrap_or_default();
    let next = if letters.len() as u64 == limit {
        format!("more, perhaps: levada dlq ls --after {id}\n")
    } else {
        String::new()
    };
    let _written = write!(out, "\n{next}everything about one: levada dlq show {id}\n");
    out
}

fn show(args: &DlqShowArgs) -> Result<Exit> {
    let found = runtime()?.block_on(async {
        match Place::find(&args.place).await? {
            Ok(place) => place.letter(args.id).await.map(Ok),
            Err(exit) => Ok(Err(exit)),
        }
    });
    let letter = match found? {
        Ok(Some(letter)) => letter,
        Ok(None) => {
            let id = args.id;
            complain(&format!(
                "error: there is no dead letter {id}; levada dlq ls lists them\n"
            ));
            return Ok(Exit::Failed);
        }
        Err(exit) => return Ok(exit),
    };
    if args.place.json {
        say_json(&letter)?;
    } else {
        say(&shown(&letter).context("the agent's answer is no dead letter")?)?;
    }
    Ok(Exit::Ok)
}

/// One dead letter, with everything that is known.
pub(crate) fn shown(letter: &Value) -> Option<String> {
    let mut table = Table::new(&["DEAD LETTER", ""]);
    let id = letter["id"].as_u64()?;
    table.row(["id".into(), id.to_string()]);
    table.row(["when".into(), when(letter["at-ms"].as_u64()?)]);
    for (key, name) in [
        ("part", "rejected by"),
        ("flow", "on"),
        ("reason", "reason"),
        ("limit", "limit"),
        ("handler", "handler"),
        ("recording", "recorded in"),
        ("origin", "origin id"),
    ] {
        if let Some(text) = letter[key].as_str() {
            table.row([name.into(), text.to_owned()]);
        }
    }
    table.row(["tries".into(), letter["attempts"].as_u64()?.to_string()]);
    table.row([
        "size".into(),
        format!("{} bytes", number(letter["bytes"].as_u64()?)),
    ]);
    for header in letter["headers"].as_array().into_iter().flatten() {
        let (name, value) = (header[0].as_str()?, header[1].as_str()?);
        table.row([format!("header {name}"), value.to_owned()]);
    }
    let mut out = table.to_string();
    if let Some(backtrace) = letter["backtrace"].as_str() {
        out.push_str("\nBACKTRACE\n");
        lines(backtrace, &mut out);
    }
    match letter["body"].as_str() {
        Some(body) if !body.is_empty() => {
            out.push_str("\nBODY\n");
            lines(body, &mut out);
        }
        _ => {
            out.push_str("\nEVENT AS HEX (Avro binary)\n");
            let hex: Vec<char> = letter["event-hex"].as_str()?.chars().collect();
            for line in hex.chunks(64) {
                out.extend(line);
                out.push('\n');
            }
        }
    }
    Some(out)
}

fn lines(text: &str, out: &mut String) {
    for line in text.lines() {
        out.push_str(&clean(line));
        out.push('\n');
    }
}

fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(EXCERPT).collect();
    if chars.next().is_some() {
        format!("{start}...")
    } else {
        start
    }
}

/// Wall time for people and programs: RFC 3339 in UTC, to the second.
fn when(ms: u64) -> String {
    let time = i64::try_from(ms / 1000)
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_string())
}
