//! `levada channel salvage`: what can still be read of a store's file.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use levada_store::{SalvageReport, Salvaged, salvage};
use serde_json::{Map, Value, json};

use crate::{
    cli::SalvageArgs,
    exit::Exit,
    output::{clean, complain},
    table::number,
};

/// Writes every event that can be read as a line of JSON; says on standard error what was found.
pub(crate) fn run(args: &SalvageArgs) -> Result<Exit> {
    let mut out = Out::new(args.to.as_deref())?;
    let report = salvage(&args.file, |found| out.write(found))??;
    out.finish()?;
    let text = if args.json {
        let report = json!({
            "events": report.events,
            "damaged-events": report.damaged_events,
            "damaged-rows": report.damaged_rows,
            "without-index": report.without_index,
        });
        format!("{report}\n")
    } else {
        shown(&args.file, &report)
    };
    complain(&text);
    Ok(Exit::Ok)
}

/// Where the lines go: standard output, or a file for each channel.
struct Out {
    dir: Option<PathBuf>,
    files: BTreeMap<String, BufWriter<File>>,
    stdout: BufWriter<io::Stdout>,
}

impl Out {
    fn new(dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = dir {
            let made = fs::create_dir_all(dir);
            made.with_context(|| format!("cannot make the folder `{}`", dir.display()))?;
        }
        Ok(Self {
            dir: dir.map(Path::to_owned),
            files: BTreeMap::new(),
            stdout: BufWriter::new(io::stdout()),
        })
    }

    fn write(&mut self, found: &Salvaged<'_>) -> Result<()> {
        let mut line = line(found).to_string();
        line.push('\n');
        let Some(dir) = &self.dir else {
            self.stdout.write_all(line.as_bytes())?;
            return Ok(());
        };
        if !self.files.contains_key(found.channel) {
            let path = dir.join(format!("{}.jsonl", found.channel));
            // What is there already may be all that is left of something.
            let file = File::create_new(&path);
            let file = file.with_context(|| {
                format!("cannot make `{}`: name an empty folder", path.display())
            })?;
            let name = found.channel.to_owned();
            self.files.insert(name, BufWriter::new(file));
        }
        if let Some(file) = self.files.get_mut(found.channel) {
            file.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.stdout.flush()?;
        for file in self.files.values_mut() {
            file.flush()?;
            file.get_ref().sync_all()?;
        }
        Ok(())
    }
}

/// An event as file-roll writes it, with where it was.
fn line(found: &Salvaged<'_>) -> Value {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), Value::from(value));
    let headers: Map<String, Value> = found.event.headers().map(pair).collect();
    let mut line = json!({
        "channel": found.channel,
        "position": found.position,
        "received-ms": found.received_ms,
        "headers": headers,
    });
    if let Some(origin) = found.origin {
        line["origin"] = origin.to_string().into();
    }
    match std::str::from_utf8(found.event.body()) {
        Ok(body) => line["body"] = body.into(),
        Err(_) => line["body64"] = STANDARD.encode(found.event.body()).into(),
    }
    line
}

fn shown(file: &Path, report: &SalvageReport) -> String {
    let mut out = String::new();
    let file = clean(&file.display().to_string());
    let all: u64 = report.events.values().sum();
    let _written = writeln!(out, "{file}: {} events can be read", number(all));
    for (channel, events) in &report.events {
        let _written = writeln!(out, "  {}: {}", clean(channel), number(*events));
    }
    if report.damaged_events > 0 {
        let events = number(report.damaged_events);
        let _written = writeln!(out, "left out: {events} events whose checksum does not fit");
    }
    if report.damaged_rows > 0 {
        let rows = number(report.damaged_rows);
        let _written = writeln!(out, "left out: {rows} rows whose header does not fit");
    }
    if let Some(reason) = &report.without_index {
        let _written = writeln!(
            out,
            "The index cannot be read ({}): these are the events of all pages that still make \
             sense. Some of them may have been delivered before, and their order is that of the \
             pages.",
            clean(reason)
        );
    }
    out
}
