//! The words before and the balance after.

use std::{
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use levada_tests::{
    agent::Audit,
    event,
    ledger::{Balance, Ledger},
    load::Load,
    outputs,
    path::{self, EndToEnd},
};

use crate::Options;

/// Says what is about to happen.
pub(crate) fn introduce(options: &Options, folder: &Path, path: &EndToEnd) {
    println!("\n  devices  --MQTT, QoS 1-->  edge  --Avro RPC-->  aggregator  -->  files");
    println!("  clients  --HTTP, JSON-->   redact on every event; channels on disk\n");
    println!("  broker      {} (in this process)", path.broker.v5);
    println!(
        "  edge        http {}, health and metrics {}",
        path.http, path.edge.admin
    );
    println!(
        "  aggregator  avro {}, health and metrics {}",
        path.avro, path.aggregator.admin
    );
    println!("  folder      {}", folder.display());
    println!(
        "  kills       {} of each agent, with SIGKILL, under load\n",
        options.kills
    );
}

/// Prints the balance; whether everything arrived and nothing travelled that should not.
pub(crate) async fn print(path: &EndToEnd, load: &Load, took: Duration) -> Result<bool> {
    let mut ledger = Ledger::default();
    load.book(&mut ledger);
    let audit = path.edge.audit().await?;
    for source in [path::PLANT, path::WEB] {
        if let Some(accepted) = audit.count(&format!("sources.{source}"), "accepted") {
            ledger.accepted(source, accepted);
        }
    }
    let complete_files = outputs::read_into(&path.output, &mut ledger)?;
    let open = outputs::open_files(&path.output)?;
    let balances = ledger.balance();
    table(&balances);
    if ledger.damaged_count > 0 {
        println!(
            "  damaged lines: {}, such as {:?}",
            ledger.damaged_count, ledger.damaged
        );
    }
    for line in balances.iter().filter(|line| line.missing > 0) {
        println!("  missing from `{}`: {:?} ...", line.source, line.examples);
    }
    println!(
        "  speed       {} events/s through both agents, kills included ({:.1} s)",
        thousands(per_second(ledger.distinct(), took)),
        took.as_secs_f64()
    );
    println!(
        "  restarts    {} of edge, {} of aggregator; ready again in at most {} and {} ms",
        path.edge.kills,
        path.aggregator.kills,
        path.edge.slowest_restart.as_millis(),
        path.aggregator.slowest_restart.as_millis()
    );
    println!(
        "  repeats     {} posts were sent again because nobody answered",
        load.repeated()
    );
    println!(
        "  files       {complete_files} in {}",
        path.output.display()
    );
    for file in &open {
        println!("  not closed  {}", file.display());
    }
    let balanced = audits(path, &audit).await?;
    let secret = secrets(path)?;
    let complete = ledger.is_complete() && load.is_done() && open.is_empty() && balanced && !secret;
    let (word, color) = if complete {
        ("nothing is missing", "\x1b[1;32m")
    } else {
        ("NOT COMPLETE", "\x1b[1;31m")
    };
    if io::stdout().is_terminal() {
        println!("\n  {color}{word}\x1b[0m\n");
    } else {
        println!("\n  {word}\n");
    }
    Ok(complete)
}

fn table(balances: &[Balance]) {
    println!();
    println!(
        "  {:<8} {:>10} {:>10} {:>10} {:>9} {:>11}",
        "source", "produced", "accepted", "delivered", "missing", "duplicates"
    );
    println!("  {}", "─".repeat(63));
    for line in balances {
        println!(
            "  {:<8} {:>10} {:>10} {:>10} {:>9} {:>11}",
            line.source,
            thousands(line.produced),
            line.accepted.map_or_else(|| "-".to_owned(), thousands),
            thousands(line.delivered),
            thousands(line.missing),
            thousands(line.duplicates)
        );
    }
    println!();
}

/// Whether both agents' own books balance.
async fn audits(path: &EndToEnd, edge: &Audit) -> Result<bool> {
    let holds = edge.holds && path.aggregator.audit().await?.holds;
    let word = if holds {
        "balance"
    } else {
        "DO NOT BALANCE: see `levada audit`"
    };
    println!("  audit       the durable counters of both agents {word}");
    Ok(holds)
}

/// Looks for values that `redact` should have removed: on the wire between the agents, in both
/// stores, and in the output.
fn secrets(path: &EndToEnd) -> Result<bool> {
    let mut leaks = Vec::new();
    for folder in [
        path.edge.data(),
        path.aggregator.data(),
        path.output.clone(),
    ] {
        leaks.extend(outputs::files_with(&folder, &event::SECRETS)?);
    }
    let wire = path.wiretap.found();
    println!(
        "  redacted    {} of {} KiB between the agents held an email or phone number; {} files do",
        if wire == 0 {
            "nothing".to_owned()
        } else {
            format!("{wire} pieces")
        },
        thousands(path.wiretap.bytes() >> 10),
        if leaks.is_empty() {
            "no".to_owned()
        } else {
            leaks.len().to_string()
        }
    );
    for leak in &leaks {
        println!("  LEAKED      {}", leak.display());
    }
    Ok(wire > 0 || !leaks.is_empty())
}

fn per_second(events: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    events * 1000 / millis
}

/// `12,345`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
