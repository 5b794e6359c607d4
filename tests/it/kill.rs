//! Kills under load (F01, F02): at random, and at named points between a commit and its
//! acknowledgement. After each the books balance; at the end nothing is missing.

use std::{env, os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result, bail};
use levada_core::Chance;
use levada_tests::{
    agent::Agent,
    ledger::Ledger,
    load::{Amount, Load},
    outputs,
    path::EndToEnd,
    wait,
};

/// How often an agent is killed; `LEVADA_KILLS` says otherwise.
const KILLS: u32 = 50;

/// Always the same kills; the moments they hit are the machine's.
const SEED: u64 = 1;

/// The named points, with the agent whose part passes them.
const POINTS: [(Who, &str); 7] = [
    (Who::Edge, "store-before-commit"),
    (Who::Edge, "store-after-commit"),
    (Who::Edge, "sink-after-send-before-ack"),
    (Who::Edge, "source-after-commit-before-ack"),
    (Who::Aggregator, "store-before-commit"),
    (Who::Aggregator, "store-after-commit"),
    (Who::Aggregator, "source-after-commit-before-ack"),
];

/// SIGABRT: how a process ends itself at a named point.
const ABORTED: i32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Edge,
    Aggregator,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_agents_lose_nothing() -> Result<()> {
    let kills = match env::var("LEVADA_KILLS") {
        Ok(text) => text.parse().context("LEVADA_KILLS is no number")?,
        Err(_) => KILLS,
    };
    let folder = tempfile::Builder::new().prefix("levada-kill-").tempdir()?;
    let ended = kill_often(folder.path(), kills).await;
    if ended.is_err() {
        println!(
            "the folder of this run is kept: {}",
            folder.keep().display()
        );
    }
    ended
}

async fn kill_often(folder: &std::path::Path, kills: u32) -> Result<()> {
    let mut path = EndToEnd::lay(folder).await?;
    path.start().await?;
    let pauses = (Duration::from_millis(60), Duration::from_millis(30));
    let mut load = Load::start(
        Amount {
            mqtt: u64::MAX,
            http: u64::MAX,
            pauses,
        },
        path.entrances(),
    );
    let chance = Chance::seeded(SEED);
    let (mut killed, mut at_points) = (0, 0);
    let mut round = 0;
    while killed < kills {
        load.check()?;
        // Every second kill is at a named point, in turn.
        if round % 2 == 0 {
            let who = if chance.below(3) == 0 {
                Who::Aggregator
            } else {
                Who::Edge
            };
            kill_at_random(agent(&mut path, who), &chance).await?;
        } else {
            let (who, point) = POINTS[(round / 2) % POINTS.len()];
            kill_at(agent(&mut path, who), point, 1 + chance.below(20)).await?;
            at_points += 1;
        }
        killed += 1;
        round += 1;
        check_books(&path).await?;
    }
    finish(&mut path, &mut load).await?;
    let slowest = path
        .edge
        .slowest_restart
        .max(path.aggregator.slowest_restart);
    println!(
        "{killed} kills, {at_points} of them at named points; ready again in {slowest:?} at most"
    );
    balance(&path, &load)
}

fn agent(path: &mut EndToEnd, who: Who) -> &mut Agent {
    match who {
        Who::Edge => &mut path.edge,
        Who::Aggregator => &mut path.aggregator,
    }
}

async fn kill_at_random(agent: &mut Agent, chance: &Chance) -> Result<()> {
    tokio::time::sleep(chance.jitter(Duration::from_millis(150))).await;
    agent.kill().await?;
    agent.start()?;
    agent.ready().await.map(|_| ())
}

/// Starts the agent so that it ends itself when it passes a point for the `n`-th time.
async fn kill_at(agent: &mut Agent, point: &str, n: u64) -> Result<()> {
    agent.kill().await?;
    agent.start_with(&[("LEVADA_CRASH", &format!("{point}:{n}"))])?;
    let status = agent
        .wait_end(Duration::from_secs(30))
        .await
        .with_context(|| {
            format!("`{point}` was not passed {n} times; is `levada` built with `failpoints`?")
        })?;
    if status.signal() != Some(ABORTED) {
        bail!(
            "agent `{}` ended with {status} before `{point}`:\n{}",
            agent.name,
            agent.tail()
        );
    }
    agent.start()?;
    agent.ready().await.map(|_| ())
}

async fn check_books(path: &EndToEnd) -> Result<()> {
    for agent in [&path.edge, &path.aggregator] {
        let audit = agent.audit().await?;
        if !audit.holds {
            bail!("the books of `{}` do not balance: {audit:#?}", agent.name);
        }
    }
    Ok(())
}

/// Stops the load, waits until everything is in files, and stops both agents.
async fn finish(path: &mut EndToEnd, load: &mut Load) -> Result<()> {
    load.finish().await?;
    let done = load.acknowledged();
    let shown: &EndToEnd = path;
    wait::until(
        "everything is in the files",
        Duration::from_secs(120),
        || async move { Ok(shown.has_delivered(done).await?.then_some(())) },
    )
    .await?;
    for agent in [&mut path.edge, &mut path.aggregator] {
        let status = agent.stop().await?;
        if !status.success() {
            bail!(
                "agent `{}` ended with {status}:\n{}",
                agent.name,
                agent.tail()
            );
        }
    }
    Ok(())
}

fn balance(path: &EndToEnd, load: &Load) -> Result<()> {
    let mut ledger = Ledger::default();
    load.book(&mut ledger);
    outputs::read_into(&path.output, &mut ledger)?;
    for line in ledger.balance() {
        println!("{line:?}");
    }
    if !ledger.is_complete() {
        bail!("not complete; damaged: {:?}", ledger.damaged);
    }
    Ok(())
}
