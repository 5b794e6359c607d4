//! Stopping an agent (D7.4, F83): in order and in time, with those who hold it up named; at once
//! when asked twice; and never without saying what a memory channel lost.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use levada_tests::{agent::Agent, wait};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A generator in front of a channel, and a sink to a peer that takes connections and never
/// answers.
struct Stuck {
    agent: Agent,
    _peer: TaskSet,
    _folder: TempDir,
}

impl Stuck {
    async fn start(channel: &str, deadline: &str) -> Result<Self> {
        let (peer, to) = silent_peer().await?;
        let folder = tempfile::tempdir()?;
        let parts = format!(
            r#"shutdown-deadline = "{deadline}"

[sources.gen]
type = "seq"
channels = ["main"]

[channels.main]
type = "{channel}"
capacity = "64MiB"
events = 5000

[sinks.up]
type = "avro"
channel = "main"
to = "{to}"
"#
        );
        let mut agent = Agent::new(folder.path(), "stuck", &parts)?;
        agent.start()?;
        agent.ready().await?;
        let within = Duration::from_secs(30);
        // Under load: the source waits for room, the sink for its peer.
        for metric in [
            "levada_channel_waiting_puts",
            "levada_channel_leased_events",
        ] {
            agent
                .metric_until(metric, "channels.main", within, |value| value > 0.0)
                .await?;
        }
        Ok(Self {
            agent,
            _peer: peer,
            _folder: folder,
        })
    }

    /// Waits until the log has a line with all these words.
    async fn logs(&self, words: &[&str]) -> Result<String> {
        let what = format!("a line with {words:?} in the log");
        let within = Duration::from_secs(30);
        wait::until(&what, within, || async { Ok(self.line(words)) })
            .await
            .with_context(|| self.agent.tail())
    }

    fn line(&self, words: &[&str]) -> Option<String> {
        let logged = self.agent.logged();
        let mut lines = logged.lines();
        let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned)
    }

    /// Nothing that was accepted is missing, and the books balance.
    async fn queue_is_intact(&self) -> Result<()> {
        let audit = self.agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
        let queued = audit.rows.iter().find(|row| row.part == "channels.main");
        let queued = queued.and_then(|row| row.queued);
        assert_eq!(queued, audit.count("sources.gen", "accepted"));
        assert!(queued > Some(0), "{audit:#?}");
        Ok(())
    }
}

async fn silent_peer() -> Result<(TaskSet, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = listener.local_addr()?;
    let mut tasks = TaskSet::new();
    tasks.spawn("silent peer", async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    Ok((tasks, to))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_named_and_cut_off_at_the_deadline() -> Result<()> {
    let mut stuck = Stuck::start("durable", "6s").await?;
    let status = stuck.agent.stop().await?;
    assert_eq!(status.code(), Some(0), "{}", stuck.agent.tail());
    let laggards = stuck.logs(&["still draining", "sinks.up"]).await?;
    assert!(laggards.contains("the other side"), "{laggards}");
    stuck.logs(&["cut off", "parts=\"sinks.up\""]).await?;
    println!("{}", stuck.logs(&["drained took_ms="]).await?);
    stuck.queue_is_intact().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once_and_loses_nothing() -> Result<()> {
    let mut stuck = Stuck::start("durable", "1h").await?;
    stuck.agent.signal(Signal::TERM)?;
    stuck.logs(&["SIGTERM", "a second signal stops"]).await?;
    assert_eq!(stuck.agent.ended()?, None, "the peer holds it up");
    stuck.agent.signal(Signal::INT)?;
    let status = stuck.agent.wait_end(Duration::from_secs(30)).await?;
    assert_eq!(status.code(), Some(0), "{}", stuck.agent.tail());
    stuck.logs(&["stopping at once", "SIGINT"]).await?;
    stuck.queue_is_intact().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_memory_channel_loses_is_counted_and_logged() -> Result<()> {
    let mut stuck = Stuck::start("memory", "1s").await?;
    let status = stuck.agent.stop().await?;
    assert_eq!(status.code(), Some(3), "{}", stuck.agent.tail());
    // What the source had accepted when it was stopped, all of it: the peer took nothing.
    let audit = stuck.agent.audit().await?;
    let accepted = audit.count("sources.gen", "accepted").unwrap_or(0);
    assert!(accepted > 0, "{audit:#?}");
    let events = format!("events={accepted}");
    stuck
        .logs(&[
            "events of a memory channel are lost",
            "channel=main",
            &events,
        ])
        .await?;
    stuck.logs(&["stopped with loss", &events]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_stops_within_a_second() -> Result<()> {
    let mut gateway = crate::gateway::Gateway::start("").await?;
    // A client that keeps its connection and says nothing.
    let _idle = levada_tests::http::Connection::open(gateway.http).await?;
    let _silent = tokio::net::TcpStream::connect(gateway.avro).await?;
    gateway.goes_on().await?;
    gateway.events(2).await?;
    let logged = gateway.agent.logged();
    let took = logged
        .lines()
        .find_map(|line| line.split_once("drained took_ms="));
    let took: u64 = took.context("no word of the end")?.1.trim().parse()?;
    println!("an idle agent stopped in {took} ms");
    assert!(took <= 1000, "{took} ms\n{logged}");
    assert!(!logged.contains("cut off"), "{logged}");
    Ok(())
}
