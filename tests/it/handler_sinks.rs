//! Handlers as sinks, through the real binary: what a component says of each event is what becomes
//! of it, what it fails on is set aside alone, and the books balance.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use levada_tests::{agent::Agent, http::Connection, place, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One agent: HTTP in, a durable channel, a handler as its sink.
struct World {
    agent: Agent,
    http: SocketAddr,
    _folder: TempDir,
}

impl World {
    /// `handler` are the lines of the handler, `sink` more lines of the sink.
    fn lay(handler: &str, sink: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let http = place::free_address()?;
        let parts = format!(
            r#"[sources.web]
type = "http"
listen = "{http}"
channels = ["main"]

[channels.main]
type = "durable"
capacity = "64MiB"

[handlers.out]
{handler}

[sinks.out]
type = "handler"
handler = "out"
channel = "main"
{sink}
"#
        );
        Ok(Self {
            agent: Agent::new(folder.path(), "collector", &parts)?,
            http,
            _folder: folder,
        })
    }

    async fn start(mut self) -> Result<Self> {
        self.agent.start()?;
        self.agent.ready().await?;
        Ok(self)
    }

    async fn post(&self, events: &Value) -> Result<()> {
        let json = [("content-type", "application/json")];
        let mut connection = Connection::open(self.http).await?;
        let answer = connection
            .send("POST", "/", &json, events.to_string().into())
            .await?;
        assert_eq!(
            answer.status,
            200,
            "{}\n{}",
            answer.text(),
            self.agent.tail()
        );
        Ok(())
    }

    /// Waits until nothing is queued, stops the agent, and gives the dead letters with the reason
    /// of each. The books balance.
    async fn finish(mut self, accepted: u64) -> Result<Vec<Value>> {
        let done = |n: f64| n >= accepted as f64;
        let within = Duration::from_secs(60);
        wait::until("everything has left the channel", within, || async {
            let delivered = self
                .agent
                .metric("levada_sink_delivered_events_total", "")
                .await;
            let letters = letters(&self.agent).await?.len();
            Ok(delivered
                .is_ok_and(|n| done(n + letters as f64))
                .then_some(()))
        })
        .await
        .with_context(|| self.agent.tail())?;
        let letters = letters(&self.agent).await?;
        let status = self.agent.stop().await?;
        assert!(status.success(), "{status}\n{}", self.agent.tail());
        let audit = self.agent.audit().await?;
        assert!(audit.holds, "{audit:?}");
        let count = |counter| audit.count("channels.main", counter);
        assert_eq!(count("put"), Some(accepted));
        let dead = letters.len() as u64;
        assert_eq!(count("dead-lettered"), Some(dead));
        assert_eq!(count("delivered"), Some(accepted - dead));
        Ok(letters)
    }
}

async fn letters(agent: &Agent) -> Result<Vec<Value>> {
    let output = agent.levada(&["dlq", "ls", "--json"]).await?;
    let letters: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(letters.as_array().context("letters are a list")?.clone())
}

fn component(guest: &str) -> Result<String> {
    Ok(format!(
        "component = {:?}",
        place::guest(guest)?.display().to_string()
    ))
}

fn reason(letters: &[Value], body: &str) -> String {
    let own = |letter: &&Value| letter["body"] == body;
    let letter = letters.iter().find(own).unwrap_or(&Value::Null);
    letter["reason"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_sink_says_what_becomes_of_each_event() -> Result<()> {
    let sink = "max-attempts = 1";
    let world = World::lay(&component("typed-sink")?, sink)?.start().await?;
    let body = |body: &str| json!({ "headers": { "say": "hello" }, "body": body });
    let bodies = ["one", "reject", "id", "header", "two", "retry", "three"];
    let events: Vec<_> = bodies.iter().map(|text| body(text)).collect();
    world.post(&json!(events)).await?;
    let letters = world.finish(7).await?;
    assert_eq!(letters.len(), 4, "{letters:?}");
    assert_eq!(reason(&letters, "reject"), "asked to");
    assert_eq!(reason(&letters, "header"), "hello");
    assert_eq!(reason(&letters, "retry"), "not delivered in 2 attempts");
    let id = letters.iter().find(|letter| letter["body"] == "id");
    let id = id.context("the letter of `id`")?;
    assert_eq!(id["reason"], id["origin"], "the id that the guest saw");
    for letter in &letters {
        assert_eq!(
            (&letter["part"], &letter["flow"]),
            (&json!("sinks.out"), &json!("channels.main"))
        );
    }
    let digest = id["handler"].as_str().unwrap_or_default();
    assert!(digest.starts_with("sha256:"), "{id}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_answer_breaks_the_contract_delivers_the_neighbours() -> Result<()> {
    let world = World::lay(&component("typed-sink")?, "")?.start().await?;
    let bodies = ["one", "two", "one too few", "three"];
    let events: Vec<_> = bodies
        .iter()
        .map(|body| json!({ "headers": {}, "body": body }))
        .collect();
    world.post(&json!(events)).await?;
    let letters = world.finish(4).await?;
    let why = "broken contract at event 0: 0 outcomes for 1 events";
    assert_eq!(reason(&letters, "one too few"), why);
    assert_eq!(letters.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_used_as_what_it_is() -> Result<()> {
    let refused = |agent: Agent, words: &'static [&'static str]| async move {
        for verb in ["check", "run"] {
            let output = agent.levada(&[verb]).await?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
            for word in words {
                assert!(said.contains(word), "{verb}: {word} is not in: {said}");
            }
        }
        anyhow::Ok(())
    };
    // An interceptor is no sink.
    let world = World::lay(&component("noop")?, "")?;
    refused(
        world.agent,
        &["sinks.out.handler", "`handlers.out` is no sink"],
    )
    .await?;
    // A sink is no interceptor.
    let folder = tempfile::tempdir()?;
    let parts = format!(
        r#"[sources.web]
type = "http"
listen = "{}"
interceptors = ["out"]
channels = ["main"]

[channels.main]
type = "durable"

[handlers.out]
{}

[sinks.nowhere]
type = "null"
channel = "main"
"#,
        place::free_address()?,
        component("typed-sink")?
    );
    let agent = Agent::new(folder.path(), "wrong", &parts)?;
    refused(
        agent,
        &[
            "sources.web.interceptors",
            "`handlers.out` is no interceptor",
        ],
    )
    .await?;
    // A handler that is not there.
    let folder = tempfile::tempdir()?;
    let agent = Agent::new(
        folder.path(),
        "none",
        &parts.replace("type = \"null\"", "type = \"handler\"\nhandler = \"ouch\""),
    )?;
    refused(
        agent,
        &["sinks.nowhere.handler", "there is no handler `ouch`"],
    )
    .await
}
