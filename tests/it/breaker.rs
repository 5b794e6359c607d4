//! A handler that fails all the time is not asked any more (D3.7): events wait with their senders,
//! the health is red, and one batch now and then probes. Bad data alone stops nothing.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{
    agent::Agent,
    http::{self, Answer, Connection},
    place, wait,
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// An agent with a handler that panics on every batch with `bad` in it, called for each post.
struct Guarded {
    agent: Agent,
    http: std::net::SocketAddr,
    _folder: TempDir,
}

impl Guarded {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let http = place::free_address()?;
        let parts = format!(
            r#"[sources.web]
type = "http"
listen = "{http}"
interceptors = ["guest"]
channels = ["main"]

[handlers.guest]
component = {:?}
config = {{ mode = "panic", poison = "bad" }}

[channels.main]
type = "durable"
capacity = "16MiB"

[sinks.out]
type = "null"
channel = "main"
"#,
            place::guest("hostile")?.display().to_string()
        );
        let mut agent = Agent::new(folder.path(), "guarded", &parts)?;
        agent.start()?;
        agent.ready().await?;
        Ok(Self {
            agent,
            http,
            _folder: folder,
        })
    }

    async fn post(&self, body: &str) -> Result<Answer> {
        let mut connection = Connection::open(self.http).await?;
        connection
            .send(
                "POST",
                "/",
                &[("content-type", "text/plain")],
                body.to_owned().into(),
            )
            .await
    }

    async fn health(&self) -> Result<(u16, String)> {
        let answer = http::get(self.agent.admin, "/healthz").await?;
        Ok((answer.status, answer.text()))
    }

    async fn is_open(&self) -> Result<bool> {
        let open = self.agent.metric("levada_handler_breaker_open", "").await?;
        Ok(open == 1.0)
    }

    /// Posts until it is taken; how often it was refused before.
    async fn post_until_taken(&self, body: &str) -> Result<u32> {
        let refused = std::cell::Cell::new(0);
        let count = &refused;
        wait::until("a post is taken", WITHIN, || async move {
            let answer = self.post(body).await?;
            if answer.status == 200 {
                return Ok(Some(()));
            }
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            count.set(count.get() + 1);
            Ok(None)
        })
        .await?;
        Ok(refused.get())
    }

    /// What was taken is delivered or among the dead letters.
    async fn balance(mut self, taken: u64, dead: u64) -> Result<()> {
        let delivered =
            |audit: &levada_tests::agent::Audit| audit.count("channels.main", "delivered");
        wait::until("all is delivered", WITHIN, || async {
            Ok((delivered(&self.agent.audit().await?) == Some(taken - dead)).then_some(()))
        })
        .await?;
        assert!(self.agent.stop().await?.success());
        let audit = self.agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
        let count = |counter| audit.count("sources.web", counter);
        assert_eq!(
            (count("accepted"), count("dead-lettered")),
            (Some(taken), Some(dead))
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_handler_holds_events_back_until_a_probe_is_handled() -> Result<()> {
    let guarded = Guarded::start().await?;
    for n in 0..3 {
        assert!(!guarded.is_open().await?);
        assert_eq!(guarded.post(&format!("bad {n}")).await?.status, 200);
    }
    assert!(guarded.is_open().await?);
    // No event is lost to it: the next one is refused, and stays with its sender.
    let refused = guarded.post("held back").await?;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        refused
            .text()
            .contains("the breaker is open: 3 batches in a row"),
        "{}",
        refused.text()
    );
    let (status, text) = guarded.health().await?;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("sources.web is failed"), "{text}");
    // A probe that fails as well goes to the dead letters, and the wait begins anew.
    guarded.post_until_taken("bad probe").await?;
    assert!(guarded.is_open().await?);
    let refused = guarded.post_until_taken("held back").await?;
    println!("refused {refused} times before the probe");
    assert!(!guarded.is_open().await?);
    assert_eq!(guarded.health().await?.0, 200);
    let logged = guarded.agent.logged();
    for line in ["the breaker opens", "the breaker closes"] {
        assert_eq!(logged.matches(line).count(), 1, "{line}\n{logged}");
    }
    guarded.balance(5, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_poison_events_among_good_ones_stop_nothing() -> Result<()> {
    let guarded = Guarded::start().await?;
    for round in 0..60 {
        let events: Vec<_> = (0..10)
            .map(|n| match n {
                3 | 7 => serde_json::json!({ "headers": {}, "body": format!("bad {round} {n}") }),
                _ => serde_json::json!({ "headers": {}, "body": format!("good {round} {n}") }),
            })
            .collect();
        let body = serde_json::Value::from(events).to_string();
        let mut connection = Connection::open(guarded.http).await?;
        let json = ("content-type", "application/json");
        let answer = connection.send("POST", "/", &[json], body.into()).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(!guarded.is_open().await?);
    assert_eq!(guarded.health().await?.0, 200);
    guarded.balance(600, 120).await
}
