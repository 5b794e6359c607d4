//! Three tiers, on real input, with every agent killed and every cable cut in the middle: devices
//! and web clients -> two edge agents (handler `redact`) -> a relay -> an aggregator -> files, with
//! durable channels and mutual TLS. Ends with the balance of every source; fails if anything is
//! missing, or was stored twice between agents. Then a second act: handlers as interceptor and as
//! sink, and a web service in trouble.
#![expect(clippy::print_stdout, reason = "the report is its purpose")]

mod kills;
mod report;
mod second;
mod show;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use levada_tests::{
    load::{Amount, Load},
    place,
    tiers::Tiers,
};

use crate::show::Show;

/// Shows four agents in three tiers that are killed, and cut off, in the middle of their work.
#[derive(Debug, Clone, Parser)]
#[command(name = "demo", max_term_width = 100)]
struct Options {
    /// How many messages the devices publish over MQTT, at QoS 1.
    #[arg(long, default_value_t = 30_000)]
    mqtt: u64,
    /// How many events are posted over HTTP, in batches of 100.
    #[arg(long, default_value_t = 120_000)]
    http: u64,
    /// How often each agent is killed.
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// How many messages the devices of the second act publish; none leaves it out.
    #[arg(long, default_value_t = 2_000)]
    second: u64,
    /// Where configurations, logs, stores and output go; emptied first.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// How often to look whether everything has arrived.
const LOOK: Duration = Duration::from_millis(100);

/// How long nothing may arrive before the demo gives up.
const STALLED: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    println!("\ndemo failed: {error:#}");
    ExitCode::FAILURE
}

/// Whether everything arrived.
async fn run(options: &Options) -> Result<bool> {
    let folder = empty_folder(options)?;
    let mut tiers = Tiers::lay(&folder).await?;
    report::introduce(options, &folder, &tiers);
    tiers.start().await?;
    let show = Show::new(options.mqtt + options.http, &tiers.output);
    let start = Instant::now();
    let pauses = (Duration::from_millis(10), Duration::from_millis(5));
    let load = Load::start(
        Amount {
            mqtt: options.mqtt,
            http: options.http,
            pauses,
        },
        tiers.entrances(),
    );
    kills::harm_in_the_middle(options.kills, &load, &mut tiers, &show).await?;
    let ended = wait_until_delivered(&load, &mut tiers, &show).await;
    let took = start.elapsed();
    show.finish();
    if let Err(error) = ended {
        println!("\n{error:#}");
    }
    let stopped = stop(&mut tiers).await;
    let complete = report::print(&tiers, &load, took).await?;
    stopped?;
    if options.second == 0 {
        return Ok(complete);
    }
    Ok(second::play(&folder, options.second).await? && complete)
}

fn empty_folder(options: &Options) -> Result<PathBuf> {
    let folder = options
        .folder
        .clone()
        .unwrap_or_else(|| place::root().join("target/demo"));
    if folder.join("output").is_dir() || folder.join("pki").is_dir() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty the folder `{}`", folder.display()))?;
    }
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
    Ok(folder)
}

/// Waits until as many events arrived as were made, and nothing is on the way any more.
async fn wait_until_delivered(load: &Load, tiers: &mut Tiers, show: &Show) -> Result<()> {
    let mut last = (0, Instant::now());
    loop {
        load.check()?;
        let delivered = show.update(load)?;
        if load.is_done() && delivered >= load.total() && tiers.has_delivered(load.total()).await? {
            return Ok(());
        }
        if delivered > last.0 {
            last = (delivered, Instant::now());
        }
        if last.1.elapsed() > STALLED {
            bail!(
                "nothing arrived for {STALLED:?}: {delivered} of {} events",
                load.total()
            );
        }
        for agent in &mut tiers.agents {
            if let Some(status) = agent.ended()? {
                let (name, tail) = (&agent.name, agent.tail());
                bail!("agent `{name}` ended by itself ({status}):\n{tail}");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Stops all agents in order: senders first.
async fn stop(tiers: &mut Tiers) -> Result<()> {
    for agent in &mut tiers.agents {
        let status = agent.stop().await?;
        if !status.success() {
            bail!(
                "agent `{}` ended with {status} when asked to stop:\n{}",
                agent.name,
                agent.tail()
            );
        }
    }
    Ok(())
}
