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
    outputs, path,
    tiers::Tiers,
    wiretap::Wiretap,
};

use crate::Options;

/// Says what is about to happen.
pub(crate) fn introduce(options: &Options, folder: &Path, tiers: &Tiers) {
    println!("\n  devices  --MQTT, QoS 1-->  edge-1 --+");
    println!("                                      +-->  relay  -->  aggregator  -->  files");
    println!("  clients  --HTTP, JSON--->  edge-2 --+");
    println!("\n  `redact` on every event; channels on disk; mutual TLS between agents\n");
    println!("  broker      {} (in this process)", tiers.broker.v5);
    println!("  http        {}", tiers.http);
    for agent in &tiers.agents {
        println!("  {:<11} health and metrics {}", agent.name, agent.admin);
    }
    println!("  folder      {}", folder.display());
    println!(
        "  kills       {} of each agent, with SIGKILL, under load; each cable cut once\n",
        options.kills
    );
}

/// Prints the balance; whether everything arrived, once, and nothing travelled that should not.
pub(crate) async fn print(tiers: &Tiers, load: &Load, took: Duration) -> Result<bool> {
    let mut ledger = Ledger::default();
    load.book(&mut ledger);
    let audits = audits(tiers).await?;
    for (audit, source) in audits.iter().zip([path::PLANT, path::WEB]) {
        if let Some(accepted) = audit.count(&format!("sources.{source}"), "accepted") {
            ledger.accepted(source, accepted);
        }
    }
    let complete_files = outputs::read_into(&tiers.output, &mut ledger)?;
    let open = outputs::open_files(&tiers.output)?;
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
    let twice: u64 = balances.iter().map(|line| line.twice).sum();
    println!("  hops        {twice} events were stored twice between agents, by origin id");
    println!(
        "  speed       {} events/s through three tiers, kills and cuts included ({:.1} s)",
        thousands(per_second(ledger.distinct(), took)),
        took.as_secs_f64()
    );
    let restarts = tiers.agents.iter().map(|agent| agent.kills).sum::<u32>();
    let slowest = tiers.agents.iter().map(|agent| agent.slowest_restart).max();
    println!(
        "  restarts    {restarts}; ready again in at most {} ms",
        slowest.unwrap_or_default().as_millis()
    );
    println!(
        "  repeats     {} posts were sent again because nobody answered",
        load.repeated()
    );
    println!(
        "  files       {complete_files} in {}",
        tiers.output.display()
    );
    for file in &open {
        println!("  not closed  {}", file.display());
    }
    let balanced = balanced(&audits);
    let secret = secrets(tiers)?;
    let once = twice == 0;
    let whole = ledger.is_complete() && load.is_done() && open.is_empty();
    let complete = whole && once && balanced && !secret;
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

/// Repeats with another origin id were sent to an edge again: by the broker, or by a client.
fn table(balances: &[Balance]) {
    println!();
    println!(
        "  {:<8} {:>10} {:>10} {:>10} {:>9} {:>12} {:>13}",
        "source", "produced", "accepted", "delivered", "missing", "sent again", "stored twice"
    );
    println!("  {}", "─".repeat(78));
    for line in balances {
        println!(
            "  {:<8} {:>10} {:>10} {:>10} {:>9} {:>12} {:>13}",
            line.source,
            thousands(line.produced),
            line.accepted.map_or_else(|| "-".to_owned(), thousands),
            thousands(line.delivered),
            thousands(line.missing),
            thousands(line.duplicates - line.twice),
            thousands(line.twice)
        );
    }
    println!();
}

async fn audits(tiers: &Tiers) -> Result<Vec<Audit>> {
    let mut audits = Vec::new();
    for agent in &tiers.agents {
        audits.push(agent.audit().await?);
    }
    Ok(audits)
}

/// Whether all agents' own books balance.
fn balanced(audits: &[Audit]) -> bool {
    let holds = audits.iter().all(|audit| audit.holds);
    let word = if holds {
        "balance"
    } else {
        "DO NOT BALANCE: see `levada audit`"
    };
    println!("  audit       the durable counters of all agents {word}");
    holds
}

/// Looks for values that `redact` should have removed: in every store and in the output.
fn secrets(tiers: &Tiers) -> Result<bool> {
    let mut leaks = outputs::files_with(&tiers.output, &event::SECRETS)?;
    for agent in &tiers.agents {
        leaks.extend(outputs::files_with(&agent.data(), &event::SECRETS)?);
    }
    let bytes: u64 = tiers.cables.iter().map(Wiretap::bytes).sum();
    println!(
        "  redacted    {} KiB over mutual TLS; {} files hold an email or phone number",
        thousands(bytes >> 10),
        if leaks.is_empty() {
            "no".to_owned()
        } else {
            leaks.len().to_string()
        }
    );
    for leak in &leaks {
        println!("  LEAKED      {}", leak.display());
    }
    Ok(!leaks.is_empty())
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
