//! Two Levadas and a SIGKILL in mid-stream (F31): between them every event arrives exactly once.

use std::{net::SocketAddr, os::unix::process::ExitStatusExt, path::Path, time::Duration};

use anyhow::{Result, bail};
use levada_core::Chance;
use levada_tests::{agent::Agent, numbers, place, wait};

const WITHIN: Duration = Duration::from_secs(90);

/// Events of the run.
const TOTAL: u64 = 60_000;

/// How often an agent is killed in all.
const KILLS: u64 = 16;

/// Where an agent ends itself: the agent that passes the point, and the point.
const POINTS: [(usize, &str); 5] = [
    (0, "sink-after-send-before-ack"),
    (1, "store-before-commit"),
    (1, "store-after-commit"),
    (1, "source-after-commit-before-ack"),
    (0, "store-before-commit"),
];

/// SIGABRT: how a process ends itself at a named point.
const ABORTED: i32 = 6;

fn edge(to: SocketAddr) -> String {
    format!(
        "[sources.numbers]\ntype = \"seq\"\ntotal = {TOTAL}\nrate = 6000\nbatch-size = 50\n\
         channels = [\"main\"]\n\n[channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
         [sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{to}\"\n\
         batch = {{ events = 70, wait = \"1ms\" }}\n"
    )
}

fn aggregator(at: SocketAddr, output: &Path) -> String {
    format!(
        "[sources.edges]\ntype = \"avro\"\nlisten = \"{at}\"\ntrust-plaintext = true\n\
         channels = [\"main\"]\n\n[channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
         [sinks.files]\ntype = \"file-roll\"\nchannel = \"main\"\ndirectory = {:?}\n\
         format = \"json\"\n",
        output.display().to_string()
    )
}

/// Kills an agent at a point, or wherever it is.
async fn kill(agent: &mut Agent, point: Option<&str>, chance: &Chance) -> Result<()> {
    tokio::time::sleep(chance.jitter(Duration::from_millis(200))).await;
    agent.kill().await?;
    if let Some(point) = point {
        let n = 1 + chance.below(15);
        agent.start_with(&[("LEVADA_CRASH", &format!("{point}:{n}"))])?;
        let status = agent.wait_end(Duration::from_secs(30)).await?;
        if status.signal() != Some(ABORTED) {
            bail!(
                "`{}` ended with {status} before `{point}`:\n{}",
                agent.name,
                agent.tail()
            );
        }
    }
    agent.start()?;
    agent.ready().await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_agents_that_are_killed_every_event_arrives_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (at, output) = (place::free_address()?, folder.path().join("output"));
    let mut agents = [
        Agent::new(folder.path(), "edge", &edge(at))?,
        Agent::new(folder.path(), "aggregator", &aggregator(at, &output))?,
    ];
    for agent in &mut agents {
        agent.start()?;
        agent.ready().await?;
    }
    let chance = Chance::seeded(4);
    let mut kills = 0;
    while kills < KILLS {
        let made = agents[0].metric("levada_seq_next", "").await?;
        if made >= TOTAL as f64 {
            break;
        }
        let point = usize::try_from(kills / 2)?;
        let (who, point) = match kills % 2 {
            0 => (usize::try_from(chance.below(2))?, None),
            _ => {
                let (who, point) = POINTS[point % POINTS.len()];
                (who, Some(point))
            }
        };
        kill(&mut agents[who], point, &chance).await?;
        kills += 1;
        for agent in &agents {
            let audit = agent.audit().await?;
            assert!(audit.holds, "`{}`: {audit:#?}", agent.name);
        }
    }
    let arrived = wait::until("every number is in a file", WITHIN, || async {
        Ok((numbers::distinct(&output)? == TOTAL).then_some(()))
    });
    if let Err(error) = arrived.await {
        for agent in &agents {
            println!("{}", agent.tail());
        }
        return Err(error);
    }
    let repeats = agents[1]
        .metric("levada_hop_repeated_events_total", "")
        .await?;
    let baselines = agents[1].metric("levada_hop_baselines_total", "").await?;
    for agent in &mut agents {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        let audit = agent.audit().await?;
        assert!(audit.holds, "`{}`: {audit:#?}", agent.name);
    }
    // The identities of the aggregator say so, too: nothing was taken twice.
    let audit = agents[1].audit().await?;
    let accepted = audit.count("sources.edges", "accepted");
    let lines = numbers::lines(&output)?;
    println!(
        "{kills} kills: {TOTAL} made, {lines} delivered, {accepted:?} accepted; since the last \
         start {repeats} repeats were cut off and {baselines} lanes began anew"
    );
    assert_eq!(lines, TOTAL, "stored twice");
    assert_eq!(accepted, Some(TOTAL));
    Ok(())
}
