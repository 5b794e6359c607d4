//! The kills in the middle of the producers' work.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{agent::Agent, load::Load, path::EndToEnd};

use crate::show::Show;

/// Kills the agents in turn, evenly spread over the middle of the load, and starts each again.
pub(crate) async fn kill_in_the_middle(
    each: u32,
    load: &Load,
    path: &mut EndToEnd,
    show: &Show,
) -> Result<()> {
    let kills = u64::from(each) * 2;
    for n in 0..kills {
        // From a tenth to nine tenths of what will be produced.
        let after = load.total() / 10 + load.total() * 8 * n / (10 * kills.max(1));
        while load.acknowledged() < after {
            load.check()?;
            show.update(load)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let agent = if n % 2 == 0 {
            &mut path.edge
        } else {
            &mut path.aggregator
        };
        kill(agent, load, show).await?;
    }
    Ok(())
}

async fn kill(agent: &mut Agent, load: &Load, show: &Show) -> Result<()> {
    agent.kill().await?;
    let at = load.acknowledged();
    agent.start()?;
    let took = agent.ready().await?;
    show.killed(&agent.name, at, took);
    Ok(())
}
