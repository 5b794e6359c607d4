//! The second act: handlers at both ends of a channel, and a web service in trouble behind it.

use std::{path::Path, time::Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use levada_tests::trouble::{TROUBLES, Trouble};

use crate::report::thousands;

/// Plays it; whether nothing is missing, and only what the service refused is in the dead letters.
pub(crate) async fn play(folder: &Path, events: u64) -> Result<bool> {
    let mut trouble = Trouble::lay(folder, events).await?;
    println!("  second act\n");
    println!("  devices  --MQTT, QoS 1-->  gateway  --HTTP-->  a web service in trouble\n");
    println!("  `redact` before the channel, `webhook` behind it; both in the sandbox");
    println!("  gateway     health and metrics {}", trouble.agent.admin);
    println!("  service     {}", trouble.service.at);
    let names: Vec<_> = TROUBLES.iter().map(|(name, _)| *name).collect();
    println!(
        "  answers     {}; some events it never takes",
        names.join(", ")
    );
    println!("  kills       1, with SIGKILL\n");
    let style = ProgressStyle::with_template("  requests  {bar:44.green/238} {human_pos:>7}");
    let bar = ProgressBar::new(events);
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━━╌"),
    );
    let began = Instant::now();
    let became = trouble
        .run(|requests| bar.set_position(requests.min(events)))
        .await;
    bar.finish_and_clear();
    let became = became?;
    println!(
        "  {:>10} {:>10} {:>10} {:>10} {:>22}",
        "produced", "taken", "refused", "missing", "again, by the same key"
    );
    println!("  {}", "─".repeat(66));
    println!(
        "  {:>10} {:>10} {:>10} {:>10} {:>22}",
        thousands(became.produced),
        thousands(became.taken),
        thousands(became.refused),
        thousands(became.missing),
        thousands(became.again)
    );
    println!(
        "\n  refused     all of them in the dead letters: levada dlq ls --conf {}",
        trouble.agent.config.display()
    );
    println!(
        "  published   {} events came twice from the broker, under two keys",
        became.twice
    );
    println!(
        "  requests    {} in {:.1} s",
        thousands(became.requests),
        began.elapsed().as_secs_f64()
    );
    let complete = became.missing == 0;
    println!(
        "\n  {}\n",
        if complete {
            "nothing is missing"
        } else {
            "NOT COMPLETE"
        }
    );
    Ok(complete)
}
