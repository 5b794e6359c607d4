//! Flume's own clients against Levada: failover, load balancing, and the command line.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use levada_tests::{
    agent::Agent,
    flume::{Answer, Flume, SdkClient, Version, avro_client},
    peers::{self, Row},
    place,
    record::{Compared, Record, corpus},
};
use tempfile::TempDir;

use crate::flume::{arrived, flume, read_json, to_file};

const WITHIN: Duration = Duration::from_secs(60);

/// The events of a call.
const BATCH: usize = 10;

/// Two agents, each of which writes files of its own.
struct Pair {
    folder: TempDir,
    agents: [Agent; 2],
    listen: [SocketAddr; 2],
}

impl Pair {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listen = [place::free_address()?, place::free_address()?];
        let agent = |n: usize| {
            let output = folder.path().join(format!("output-{n}"));
            let parts = to_file("main", listen[n], &output);
            Agent::new(folder.path(), &format!("agent-{n}"), &parts)
        };
        let mut agents = [agent(0)?, agent(1)?];
        for agent in &mut agents {
            agent.start()?;
        }
        for agent in &mut agents {
            agent.ready().await?;
        }
        Ok(Self {
            folder,
            agents,
            listen,
        })
    }

    async fn client(&self, flume: &Flume, more: &[(&str, &str)]) -> Result<SdkClient> {
        let mut properties = vec![
            ("hosts", "a b".to_owned()),
            ("hosts.a", self.listen[0].to_string()),
            ("hosts.b", self.listen[1].to_string()),
        ];
        properties.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        SdkClient::start(flume, self.folder.path(), "client", &properties).await
    }

    fn output(&self, n: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("output-{n}"))
    }

    /// How many events lie in the files of an agent.
    fn count(&self, n: usize) -> Result<usize> {
        Ok(read_json(&self.output(n))?.len())
    }

    /// Stops what runs, and checks the books of both.
    async fn stop(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            if agent.pid().is_some() {
                assert!(agent.stop().await?.success(), "{}", agent.tail());
            }
            let audit = agent.audit().await?;
            assert!(audit.holds, "{audit:#?}");
        }
        Ok(())
    }

    /// What came of the events in both together, after they stopped. Order is each agent's own.
    fn compared(&self, events: &[Record]) -> Result<Compared> {
        let files = [read_json(&self.output(0))?, read_json(&self.output(1))?];
        let late = |arrived| Compared::of(events, arrived).out_of_order;
        let out_of_order = files.iter().map(|file| late(file)).sum();
        Ok(Compared {
            out_of_order,
            ..Compared::of(events, &files.concat())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failover_client_stays_with_one_levada_until_it_is_killed() -> Result<()> {
    failover(Version::V1_11).await?;
    if peers::whole_matrix() {
        failover(Version::V1_9).await?;
    }
    Ok(())
}

async fn failover(version: Version) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let mut pair = Pair::start().await?;
    let more = [("client.type", "default_failover"), ("max-attempts", "2")];
    let mut client = pair.client(&flume, &more).await?;
    let events = corpus(30 * BATCH);
    let mut calls = events.chunks(BATCH);
    send(&mut client, calls.by_ref().take(10)).await?;
    arrived(&pair.output(0), 10 * BATCH, WITHIN).await?;
    assert_eq!(pair.count(1)?, 0, "the second was not needed yet");

    pair.agents[0].kill().await?;
    send(&mut client, calls.by_ref().take(10)).await?;
    arrived(&pair.output(1), 10 * BATCH, WITHIN).await?;

    pair.agents[0].start()?;
    pair.agents[0].ready().await?;
    pair.agents[1].kill().await?;
    send(&mut client, calls).await?;
    client.stop().await?;
    arrived(&pair.output(0), 20 * BATCH, WITHIN).await?;
    // What was acknowledged before the kill may not be in a file yet.
    pair.agents[1].start()?;
    pair.agents[1].ready().await?;
    pair.agents[1]
        .metric_until("levada_channel_events", "", WITHIN, |events| events == 0.0)
        .await?;
    pair.stop().await?;
    let compared = pair.compared(&events)?;
    let path = format!("failover client {version} -> two Levadas");
    println!("{path}: {compared:?}");
    Row::new("failover client", &path, ("plain", BATCH), &compared)
        .remark("each killed once between calls")
        .save()?;
    // No call was in flight at a kill.
    assert!(compared.is_same(), "{compared:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_balancing_client_shares_out_and_goes_on_with_what_is_left() -> Result<()> {
    load_balancing(Version::V1_9).await?;
    if peers::whole_matrix() {
        load_balancing(Version::V1_11).await?;
    }
    Ok(())
}

async fn load_balancing(version: Version) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let mut pair = Pair::start().await?;
    let more = [
        ("client.type", "default_loadbalance"),
        ("host-selector", "round_robin"),
    ];
    let mut client = pair.client(&flume, &more).await?;
    let events = corpus(30 * BATCH);
    let mut calls = events.chunks(BATCH);
    send(&mut client, calls.by_ref().take(20)).await?;
    for n in 0..2 {
        let got = arrived(&pair.output(n), 10 * BATCH, WITHIN).await?;
        assert_eq!(got.len(), 10 * BATCH, "half of the calls for each");
    }
    pair.agents[1].kill().await?;
    send(&mut client, calls).await?;
    client.stop().await?;
    arrived(&pair.output(0), 20 * BATCH, WITHIN).await?;
    pair.stop().await?;
    let compared = pair.compared(&events)?;
    let path = format!("load-balancing client {version} -> two Levadas");
    println!("{path}: {compared:?}");
    Row::new("load-balancing client", &path, ("plain", BATCH), &compared)
        .remark("half each, then one is killed")
        .save()?;
    assert!(compared.is_same(), "{compared:?}");
    Ok(())
}

async fn send<'a>(client: &mut SdkClient, calls: impl Iterator<Item = &'a [Record]>) -> Result<()> {
    for call in calls {
        assert_eq!(client.append_batch(call).await?, Answer::Ok);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_client_delivers_a_file_and_hides_a_refusal() -> Result<()> {
    command_line(Version::V1_11).await?;
    if peers::whole_matrix() {
        command_line(Version::V1_9).await?;
    }
    Ok(())
}

async fn command_line(version: Version) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let mut pair = Pair::start().await?;
    let (lines, headers) = (file(&pair, "lines")?, file(&pair, "headers")?);
    let text: Vec<_> = (0..500).map(|n| format!("line {n}: ünïcode ☃")).collect();
    fs::write(&lines, text.join("\n") + "\n")?;
    fs::write(&headers, "site = plant 7\nline=3\n")?;
    let events: Vec<_> = text
        .iter()
        .map(|line| Record::new(&[("site", "plant 7"), ("line", "3")], line.as_str()))
        .collect();
    let ran = run(&flume, &pair, pair.listen[0], &lines, &headers).await?;
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    arrived(&pair.output(0), events.len(), WITHIN).await?;
    // Nobody listens there: it says so, and its exit code does not.
    let refused = run(&flume, &pair, place::free_address()?, &lines, &headers).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("RPC connection error"), "{said}");
    assert_eq!(refused.status.code(), Some(0), "{said}");
    pair.stop().await?;
    let compared = pair.compared(&events)?;
    let path = format!("avro-client {version} -> Levada");
    Row::new("avro-client", &path, ("plain", 5), &compared)
        .remark("refused, it exits with 0")
        .save()?;
    assert!(compared.is_same(), "{compared:?}");
    Ok(())
}

fn file(pair: &Pair, name: &str) -> Result<std::path::PathBuf> {
    Ok(pair.folder.path().join(name))
}

async fn run(
    flume: &Flume,
    pair: &Pair,
    to: SocketAddr,
    lines: &Path,
    headers: &Path,
) -> Result<std::process::Output> {
    avro_client(flume, pair.folder.path(), to, lines, Some(headers)).await
}
