//! Dead letters: their cap holds in both ways of being full, and they go back where they came from.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use levada_tests::{agent::Agent, avro, http::Connection, place, wait};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(30);

/// An agent whose Avro source sends every event above 1 KiB to the dead letters, of which there is
/// room for three.
struct Full {
    agent: Agent,
    avro: SocketAddr,
    _folder: TempDir,
}

impl Full {
    async fn start(on_full: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let avro = place::free_address()?;
        let parts = format!(
            r#"dead-letters = {{ capacity = "7KiB", on-full = "{on_full}" }}

[sources.rpc]
type = "avro"
listen = "{avro}"
max-event = "1KiB"
put-timeout = "500ms"
channels = ["main"]

[channels.main]
type = "durable"
capacity = "16MiB"

[sinks.out]
type = "null"
channel = "main"
"#
        );
        let mut agent = Agent::new(folder.path(), "full", &parts)?;
        agent.start()?;
        agent.ready().await?;
        Ok(Self {
            agent,
            avro,
            _folder: folder,
        })
    }

    /// Sends one event that is too large; whether it was acknowledged.
    async fn send(&self, n: usize) -> Result<bool> {
        let event = avro::event(&[("n", &n.to_string())], &[b'x'; 2048]);
        let met = avro::send(self.avro, &avro::append_batch(7, &[event])).await?;
        Ok(avro::is_ok(&met))
    }
}

async fn letters(agent: &Agent) -> Result<Vec<u64>> {
    let output = agent.levada(&["dlq", "ls", "--json"]).await?;
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    let id = |letter: &Value| letter["id"].as_u64().context("a letter without id");
    listed
        .as_array()
        .context("no list")?
        .iter()
        .map(id)
        .collect()
}

/// Waits until so many events are delivered, stops, and checks the books.
async fn stop_and_check(agent: &mut Agent, delivered: u64) -> Result<()> {
    let running = &*agent;
    wait::until("all is delivered", WITHIN, || async move {
        let audit = running.audit().await?;
        let count = audit.count("channels.main", "delivered").unwrap_or(0);
        Ok((count == delivered).then_some(()))
    })
    .await?;
    assert!(agent.stop().await?.success(), "{}", agent.tail());
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_dead_letters_are_full_the_flow_waits() -> Result<()> {
    let mut full = Full::start("block").await?;
    for n in 0..3 {
        assert!(full.send(n).await?, "there is room");
    }
    assert!(!full.send(3).await?, "full: the peer is to try again");
    let kept = letters(&full.agent).await?;
    assert_eq!(kept.len(), 3);
    // Whoever replays an event has seen it: the limit of the source does not hold it up again.
    let id = kept[0].to_string();
    let output = full.agent.levada(&["dlq", "replay", &id]).await?;
    assert!(output.status.success(), "{output:?}");
    assert!(full.send(3).await?, "there is room again");
    assert_eq!(letters(&full.agent).await?.len(), 3);
    let output = full.agent.levada(&["dlq", "replay", &id]).await?;
    assert_eq!(output.status.code(), Some(1), "it is gone: {output:?}");
    stop_and_check(&mut full.agent, 1).await?;
    let audit = full.agent.audit().await?;
    assert_eq!(audit.count("sources.rpc", "replayed"), Some(1));
    assert_eq!(audit.count("channels.main", "delivered"), Some(1));
    assert_eq!(audit.count("sources.rpc", "dead-lettered"), Some(4));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_dead_letters_are_full_the_oldest_go_and_are_counted() -> Result<()> {
    let mut full = Full::start("drop-oldest").await?;
    for n in 0..10 {
        assert!(full.send(n).await?, "nobody waits");
    }
    let kept = letters(&full.agent).await?;
    assert_eq!(kept.len(), 3);
    assert!(kept.is_sorted());
    let bytes = full.agent.metric("levada_dead_letter_bytes", "").await?;
    assert!(bytes <= 7168.0, "{bytes}");
    stop_and_check(&mut full.agent, 0).await?;
    let output = full.agent.levada(&["audit", "--json"]).await?;
    let audit: Value = serde_json::from_slice(&output.stdout)?;
    let counts = audit["counts"].as_array().context("no counts")?;
    let dropped = counts
        .iter()
        .find(|count| count["part"] == "agent.dead-letters");
    let dropped = dropped.context("nothing was counted as dropped")?;
    assert_eq!(
        (&dropped["amount"], &dropped["reason"]),
        (&7.into(), &"full".into())
    );
    Ok(())
}

fn handled(http: SocketAddr, poison: &str) -> Result<String> {
    Ok(format!(
        r#"[sources.web]
type = "http"
listen = "{http}"
interceptors = ["guest"]
channels = ["main"]

[handlers.guest]
component = {:?}
config = {{ mode = "panic", poison = "{poison}" }}

[channels.main]
type = "durable"
capacity = "16MiB"

[sinks.out]
type = "null"
channel = "main"
"#,
        place::guest("hostile")?.display().to_string()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_replayed_at_the_handler_that_rejected_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let http = place::free_address()?;
    let mut agent = Agent::new(folder.path(), "replay", &handled(http, "bad")?)?;
    agent.start()?;
    agent.ready().await?;
    let mut connection = Connection::open(http).await?;
    let text = ("content-type", "text/plain");
    let answer = connection
        .send("POST", "/", &[text], "bad luck".into())
        .await?;
    assert_eq!(answer.status, 200);
    let first = letters(&agent).await?;
    // The handler is as it was: the event comes back under another number.
    let output = agent
        .levada(&["dlq", "replay", &first[0].to_string()])
        .await?;
    assert!(output.status.success(), "{output:?}");
    let second = letters(&agent).await?;
    assert_eq!(second.len(), 1);
    assert!(second[0] > first[0]);
    // With a handler that knows what to do it goes on.
    agent.configure(&handled(http, "worse")?)?;
    let output = agent.levada(&["reload"]).await?;
    assert!(output.status.success(), "{output:?}");
    let output = agent
        .levada(&["dlq", "replay", &second[0].to_string()])
        .await?;
    assert!(output.status.success(), "{output:?}");
    assert!(letters(&agent).await?.is_empty());
    stop_and_check(&mut agent, 1).await?;
    let audit = agent.audit().await?;
    assert_eq!(audit.count("sources.web", "replayed"), Some(2));
    Ok(())
}
