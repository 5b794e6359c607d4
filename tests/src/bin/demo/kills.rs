//! The kills and cuts in the middle of the producers' work.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{
    load::Load,
    tiers::{NAMES, Tiers},
};
use tokio::time;

use crate::show::Show;

/// How long a cable is cut.
const CUT: Duration = Duration::from_secs(2);

/// What is done to the agents, one after the other.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// SIGKILL, and a new start.
    Kill(usize),
    /// The way up of an agent: nothing passes any more, and nobody is told.
    Cut(usize),
}

/// Kills each agent so often and cuts each cable once, evenly spread over the middle of the load.
pub(crate) async fn harm_in_the_middle(
    each: u32,
    load: &Load,
    tiers: &mut Tiers,
    show: &Show,
) -> Result<()> {
    let all = in_turn(each);
    let count = all.len() as u64;
    for (n, harm) in (0..).zip(all) {
        // From a tenth to nine tenths of what will be produced.
        let after = load.total() / 10 + load.total() * 8 * n / (10 * count);
        while load.acknowledged() < after {
            load.check()?;
            show.update(load)?;
            time::sleep(Duration::from_millis(20)).await;
        }
        match harm {
            Harm::Kill(agent) => kill(agent, load, tiers, show).await?,
            Harm::Cut(cable) => cut(cable, load, tiers, show).await?,
        }
    }
    Ok(())
}

/// Every agent in turn; a cable is cut after each of the first rounds.
fn in_turn(each: u32) -> Vec<Harm> {
    let cables = NAMES.len() - 1;
    let rounds = (each as usize).max(cables);
    let mut all = Vec::new();
    for round in 0..rounds {
        if round < each as usize {
            all.extend((0..NAMES.len()).map(Harm::Kill));
        }
        if round < cables {
            all.push(Harm::Cut(round));
        }
    }
    all
}

async fn kill(agent: usize, load: &Load, tiers: &mut Tiers, show: &Show) -> Result<()> {
    let agent = &mut tiers.agents[agent];
    agent.kill().await?;
    let at = load.acknowledged();
    agent.start()?;
    let took = agent.ready().await?;
    show.killed(&agent.name, at, took);
    Ok(())
}

async fn cut(cable: usize, load: &Load, tiers: &Tiers, show: &Show) -> Result<()> {
    let at = load.acknowledged();
    tiers.cables[cable].cut();
    let mended = time::Instant::now() + CUT;
    while time::Instant::now() < mended {
        show.update(load)?;
        time::sleep(Duration::from_millis(20)).await;
    }
    tiers.cables[cable].mend();
    show.cut((NAMES[cable], at), CUT);
    Ok(())
}
